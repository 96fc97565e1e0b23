"""H-Net's ratio loss over all passes of an optimizer step."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from patchpad.config import SEPARATOR
from patchpad.data import Batch
from patchpad.model.hnet import BOUNDARY_PROBABILITY, ratio_loss
from patchpad.model.language_model import LanguageModel
from patchpad.model.outputs import ByteLMOutput
from patchpad.model.precision import autocast


@dataclass(frozen=True, kw_only=True)
class StepRatioLoss:
    """The loss N/(N-1) ((N-1) F G + (1-F)(1-G)) of a step, pass by pass; F and G are over the bytes of all passes.

    F, the share of boundaries, has no gradient. Once it is known, the loss is linear in the probabilities, so that each
    pass adds its part.
    """

    target_patch_size: int
    num_bytes: int
    """Bytes of the step."""
    boundary_share: Float[Tensor, ""] | None
    """F; None where the step has one pass, which gives it."""

    @staticmethod
    def of_step(model: LanguageModel, batches: Sequence[Batch]) -> "StepRatioLoss | None":
        """Returns the loss of a step; None unless the patchifier is `hnet`.

        Where the step has several passes, their share of boundaries comes from passes of the encoder alone.
        """
        if model.config.patchifier.kind != "hnet":
            return None
        is_byte = [batch.byte_ids < SEPARATOR for batch in batches]
        num_bytes, share = int(sum(mask.sum() for mask in is_byte)), None
        if len(batches) > 1:
            with torch.no_grad(), autocast(model.device):
                found = [model.boundary_probabilities(batch.byte_ids) for batch in batches]
            boundaries = sum((p > BOUNDARY_PROBABILITY)[mask].sum() for p, mask in zip(found, is_byte, strict=True))
            share = torch.as_tensor(boundaries) / max(1, num_bytes)
        return StepRatioLoss(
            target_patch_size=model.config.patchifier.target_patch_size, num_bytes=num_bytes, boundary_share=share
        )

    def of_pass(self, output: ByteLMOutput) -> Float[Tensor, ""]:
        """Returns what a pass adds to the loss."""
        assert output.boundary_probability is not None
        return ratio_loss(
            output.boundary_probability,
            output.layout.documents.is_byte,
            self.target_patch_size,
            num_bytes=self.num_bytes,
            boundary_share=self.boundary_share,
        )
