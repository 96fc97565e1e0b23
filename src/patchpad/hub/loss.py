"""The loss of training, as patchpad's own trainer computes it for one pass, with labels of transformers."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from patchpad.config import IGNORED_TARGET, TrainConfig
from patchpad.model.hnet import ratio_loss
from patchpad.model.language_model import LanguageModel
from patchpad.model.outputs import Predicted, squared_log_normalizers
from patchpad.patching import Decisions


class LossAndLogits(NamedTuple):
    """What a pass with labels gives."""

    loss: Float[Tensor, ""]
    logits: Float[Tensor, "batch width vocab"]


def training_loss(
    model: LanguageModel,
    byte_ids: Int[Tensor, "batch width"],
    targets: Int[Tensor, "batch width"],
    decisions: Decisions,
    weights: TrainConfig,
    num_targets: Tensor | int | None = None,
) -> LossAndLogits:
    """Runs a pass: mean nats of the targets, and the auxiliary losses with the weights that the run was trained with.

    In training mode it equals the loss of a step of `patchpad train` that has this one pass, for the same decisions.

    Args:
        model: in either mode; losses have gradients. In eval mode the source teaches nothing, and its part is left out.
        byte_ids: rows as the model reads them.
        targets: what each column predicts; `IGNORED_TARGET` where nothing is.
        decisions: of patches and scratchpads.
        weights: of the auxiliary losses.
        num_targets: what the sums are divided by, where the batch is a part of a step; None for its own targets.
    """
    predicted = model.predict_targets(byte_ids, targets, decisions)
    own = (targets != IGNORED_TARGET).sum()
    divisor = (own if num_targets is None else torch.as_tensor(num_targets, device=own.device)).clamp(min=1)
    loss = predicted.nats.sum() / divisor
    if weights.z_loss_weight:
        squares = squared_log_normalizers(predicted.logits, predicted.targets)
        loss = loss + weights.z_loss_weight * squares.sum() / divisor
    if predicted.entropy_head_nats is not None:
        loss = loss + weights.entropy_head_weight * predicted.entropy_head_nats.sum() / divisor
    if predicted.source_nats is not None:
        loss = loss + weights.distillation_weight * predicted.source_nats.sum() / divisor
    if model.config.patchifier.kind == "hnet":
        # Of a step with several passes, each adds its share of the targets; of a step with one, all of it.
        loss = loss + weights.ratio_loss_weight * own / divisor * _ratio_loss(model, predicted, targets)
    return LossAndLogits(loss, predicted.logits)


def _ratio_loss(model: LanguageModel, predicted: Predicted, targets: Int[Tensor, "batch width"]) -> Float[Tensor, ""]:
    """Returns H-Net's ratio loss over the bytes that something is predicted at or after.

    Rows of transformers hold one id more than ours: the last target, from which nothing is predicted.
    """
    output = predicted.output
    assert output is not None
    assert output.boundary_probability is not None
    positions = torch.arange(targets.shape[1], device=targets.device)
    last = torch.where(targets == IGNORED_TARGET, -1, positions).amax(dim=1, keepdim=True)
    is_byte = output.layout.documents.is_byte & (positions <= last)
    return ratio_loss(output.boundary_probability, is_byte, model.config.patchifier.target_patch_size)
