"""Patchifiers and triggers that are one of two, as a tensor on the device says.

Training decides in one way while the entropy head is fresh and in another afterwards. Which of them holds is known on
the device alone, and a compiled pass must not depend on it: so both are computed, and one is taken.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from patchpad.patching.documents import ByteFacts
from patchpad.patching.patchifiers import Patchifier
from patchpad.patching.triggers import Trigger


class BlendedPatchifier(Patchifier):
    """The first of two patchifiers where `is_first` is true, else the second."""

    def __init__(self, is_first: Bool[Tensor, ""], first: Patchifier, second: Patchifier) -> None:
        self.is_first = is_first
        self.first = first
        self.second = second
        self.longest_patch = max(first.longest_patch, second.longest_patch)

    @property
    def forced_after(self) -> Int[Tensor, ""]:
        """Bytes after which an open patch is closed by force."""
        return torch.where(self.is_first, self.first.forced_after, self.second.forced_after)

    def natural_ends(self, facts: ByteFacts, threshold: Float[Tensor, ""]) -> Tensor:
        """Returns where the rule of the one that holds closes a patch."""
        first, second = (rule.natural_ends(facts, threshold) for rule in (self.first, self.second))
        return torch.where(self.is_first, first, second)


class BlendedTrigger(Trigger):
    """The first of two triggers where `is_first` is true, else the second; their thresholds differ."""

    def __init__(self, is_first: Bool[Tensor, ""], first: Trigger, second: Trigger) -> None:
        self.is_first = is_first
        self.first = first
        self.second = second

    def scores(self, facts: ByteFacts, open_bytes: Tensor) -> Tensor:
        """Returns the scores of the one that holds."""
        first, second = (trigger.scores(facts, open_bytes) for trigger in (self.first, self.second))
        return torch.where(self.is_first, first, second)


__all__ = ["BlendedPatchifier", "BlendedTrigger"]
