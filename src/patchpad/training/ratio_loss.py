"""H-Net's ratio loss over all passes of an optimizer step."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from patchpad.config import SEPARATOR
from patchpad.model.hnet import BOUNDARY_PROBABILITY, ratio_loss
from patchpad.model.language_model import LanguageModel
from patchpad.model.outputs import ByteLMOutput
from patchpad.model.precision import autocast
from patchpad.training.parallel import Parallel


@dataclass(frozen=True, kw_only=True)
class StepRatioLoss:
    """The loss N/(N-1) ((N-1) F G + (1-F)(1-G)) of a step, pass by pass; F and G are over the bytes of all passes.

    F, the share of boundaries, has no gradient. Once it is known, the loss is linear in the probabilities, so that each
    pass adds its part. What differs from step to step is on the device: a compiled pass may take the loss as an input.
    """

    target_patch_size: int
    num_bytes: Int[Tensor, ""]
    """Bytes of the step."""
    boundary_share: Float[Tensor, ""] | None
    """F; None where the step has one pass, which gives it."""

    @staticmethod
    def of_step(
        model: LanguageModel,
        byte_ids: Sequence[Int[Tensor, "_ _"]],
        num_bytes: int,
        parallel: Parallel | None = None,
    ) -> "StepRatioLoss | None":
        """Returns the loss of a step; None unless the patchifier is `hnet`. Nothing is read from the device.

        Where the step has several passes, or several ranks share one, their share of boundaries comes from passes of
        the encoder alone.

        Args:
            model: being trained.
            byte_ids: [batch, byte] of each pass of this rank, on the model's device.
            num_bytes: bytes among these ids, and those of the other ranks.
            parallel: this rank and the others; None for one process.
        """
        if model.config.patchifier.kind != "hnet":
            return None
        share = None
        parallel = parallel or Parallel(model.device)
        if len(byte_ids) > 1 or parallel.num_ranks > 1:
            with torch.no_grad(), autocast(model.device):
                found = [model.boundary_probabilities(ids) for ids in byte_ids]
            starts = [
                ((p > BOUNDARY_PROBABILITY) & (ids < SEPARATOR)).sum() for p, ids in zip(found, byte_ids, strict=True)
            ]
            share = parallel.sum(torch.stack(starts).sum()) / max(1, num_bytes)
        return StepRatioLoss(
            target_patch_size=model.config.patchifier.target_patch_size,
            num_bytes=torch.full((), num_bytes, device=model.device),
            boundary_share=share,
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
