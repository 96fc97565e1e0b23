"""`PassScores`: what a pass leaves for the thresholds, as tensors whose shapes do not depend on what was decided."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from patchpad.device import wide_dtype
from patchpad.model.language_model import LanguageModel
from patchpad.model.outputs import ByteLMOutput
from patchpad.patching.patchifiers import ScoringPatchifier
from patchpad.shapes import ByteFloats
from patchpad.training.parallel import Parallel


@dataclass(frozen=True, kw_only=True)
class PassScores:
    """What a training pass leaves for the thresholds. A compiled pass may return it."""

    entropy_sum: Float[Tensor, ""]
    """Entropies in nats at all positions, padding left out; in fp64, or fp32 on MPS."""
    entropy_count: Int[Tensor, ""]
    """How many these are."""
    num_commits: Int[Tensor, ""]
    eligible: ByteFloats | None
    """The trigger's scores, -inf where no scratchpad may fire; None for triggers without nats."""
    patch_ends: ByteFloats | None
    """The patchifier's scores, -inf off bytes; None unless its score is in nats."""

    @staticmethod
    def of(model: LanguageModel, output: ByteLMOutput) -> "PassScores | None":
        """Collects the scores of a pass; None for a model without an entropy head. Nothing is read from the device."""
        layout, entropies = output.layout, output.entropy_nats
        if entropies is None:
            return None
        entropies, documents = entropies.detach(), layout.documents
        eligible = patch_ends = None
        if model.takes_threshold_in_nats:
            scores = model.trigger_scores(output).detach()
            eligible = torch.where(layout.may_fire, scores, -math.inf)
        if model.config.cuts_by_entropy:
            assert isinstance(model.patchifier, ScoringPatchifier)
            scores = model.patchifier.scores(output.facts).detach()
            patch_ends = torch.where(documents.is_byte, scores, -math.inf)
        return PassScores(
            entropy_sum=torch.where(documents.is_padding, 0, entropies).sum(dtype=wide_dtype(entropies.device)),
            entropy_count=(~documents.is_padding).sum(),
            num_commits=layout.num_commits,
            eligible=eligible,
            patch_ends=patch_ends,
        )

    def of_all_ranks(self, parallel: Parallel, counts: Float[Tensor, "3"], most_rows: int) -> "PassScores":
        """Returns the scores of a whole batch whose rows several ranks share.

        Args:
            parallel: this rank and the others.
            counts: `entropy_sum`, `entropy_count` and `num_commits`, summed over the ranks.
            most_rows: that a rank has.
        """
        entropy_sum, entropy_count, num_commits = counts
        return PassScores(
            entropy_sum=entropy_sum,
            entropy_count=entropy_count.long(),
            num_commits=num_commits.long(),
            eligible=_gathered(self.eligible, parallel, most_rows),
            patch_ends=_gathered(self.patch_ends, parallel, most_rows),
        )


def _gathered(scores: ByteFloats | None, parallel: Parallel, most_rows: int) -> ByteFloats | None:
    """Returns the rows of all ranks, -inf in those that fill up the share of a rank."""
    if scores is None:
        return None
    return parallel.gather(F.pad(scores, (0, 0, 0, most_rows - len(scores)), value=-math.inf))
