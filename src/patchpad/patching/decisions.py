"""`Decisions`: what decides patches and scratchpads, as one object that is passed along."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import SupportsFloat

import torch
from jaxtyping import Float
from torch import Tensor

from patchpad.errors import InputError
from patchpad.patching.documents import ByteFacts, Documents
from patchpad.patching.layout import PatchLayout, SlotRoom
from patchpad.patching.patchifiers import Patchifier, bytes_since_end
from patchpad.patching.triggers import Trigger
from patchpad.shapes import ByteMask

ThresholdLike = SupportsFloat | Sequence[float] | None
"""What callers may give as a threshold: None for the stored one, numbers of any kind, lists, arrays and tensors."""


@dataclass(frozen=True, kw_only=True)
class Decisions:
    """What decides patches and scratchpads: the patchifier, the trigger and their thresholds.

    `LanguageModel.decisions` makes one from a checked threshold.
    """

    patchifier: Patchifier
    trigger: Trigger
    scratchpad_threshold: Float[Tensor, "..."]
    """Score above which a scratchpad fires, in fp32: [] for all, [batch] or [batch, byte]; +inf never fires."""
    patch_threshold: Float[Tensor, ""]
    """Score above which a patch ends, for patchifiers that compare one; others ignore it."""

    def patch_ends(self, facts: ByteFacts, documents: Documents) -> ByteMask:
        """Returns the patch ends of whole rows, forced ends included."""
        return self.patchifier.patch_ends(facts, documents, self.patch_threshold)

    def step_ends(self, facts: ByteFacts, open_bytes: Tensor) -> Tensor:
        """Returns whether the newest byte of each row closes its patch; see `Patchifier.step_ends`."""
        return self.patchifier.step_ends(facts, open_bytes, self.patch_threshold)

    @staticmethod
    def may_fire(facts: ByteFacts, patch_end: Tensor) -> Tensor:
        """Returns where a scratchpad has something to read; same shape as the facts.

        At a patch end nothing is open, as the patch holds the byte. Tokens end before the byte at which they are
        committed, so a scratchpad may fire there. It needs an open text that is one token: this the trunk knows.

        Args:
            facts: what is known at each position.
            patch_end: where patches end.
        """
        return ~patch_end if facts.tokens is None else facts.tokens.open_token >= 0

    def scratchpads(self, facts: ByteFacts, open_bytes: Tensor, may_fire: Tensor) -> Tensor:
        """Returns where scratchpads fire: above the threshold, where they may; same shape as the facts.

        Args:
            facts: what is known at each position, [batch, byte] or, in a step, [batch].
            open_bytes: bytes of the open patch up to and including n, the separator not counted.
            may_fire: as the method of this name returns it, less what the caller leaves out.
        """
        scores = self.trigger.scores(facts, open_bytes)
        threshold = self.scratchpad_threshold
        threshold = threshold.reshape(threshold.shape + (1,) * (scores.dim() - threshold.dim()))
        return (scores > threshold) & may_fire

    def layout(
        self,
        facts: ByteFacts,
        documents: Documents,
        room: SlotRoom | None = None,
        trunk_window: int | None = None,
    ) -> PatchLayout:
        """Decides patch ends and scratchpads, each from positions <= n, and lays the slots of whole rows out.

        Args:
            facts: what is known at each position.
            documents: of the batch.
            room: places for slots; None to count them, see `PatchLayout.build`.
            trunk_window: newest commits of its document that a slot sees; None for all.
        """
        patch_end, tokens = self.patch_ends(facts, documents), facts.tokens
        open_bytes = bytes_since_end(patch_end, documents) if tokens is None else tokens.open_bytes
        may_fire = self.may_fire(facts, patch_end) & ~documents.is_padding
        return PatchLayout.build(
            documents,
            patch_end.long() if tokens is None else tokens.num_commits,
            self.scratchpads(facts, open_bytes, may_fire),
            may_fire=may_fire,
            uncovered_bytes=None if tokens is None else tokens.open_bytes,
            room=room,
            longest_slot=None if room is None else self.patchifier.longest_patch + 1,
            trunk_window=trunk_window,
        )


def threshold_values(
    threshold: SupportsFloat | Sequence[float], *, several: str = "one for each row"
) -> Float[Tensor, "..."]:
    """Returns what a caller gave as a threshold, in fp64.

    Args:
        threshold: numbers of any kind.
        several: what else than a number is allowed, for the message.

    Raises:
        InputError: not numbers.
    """
    try:
        return torch.as_tensor(
            threshold, dtype=torch.float64, device=threshold.device if isinstance(threshold, Tensor) else "cpu"
        )
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        found = f"scratchpad_threshold_nats is {threshold!r}"
        raise InputError(f"{found}; allowed: None, a number of nats, inf or -inf, or {several}") from error


def checked_threshold(
    threshold: SupportsFloat | Sequence[float], batch: int, length: int | None
) -> Float[Tensor, "..."]:
    """Returns a threshold that a caller gave, in fp32: [], [batch] or [batch, byte].

    Args:
        threshold: numbers of any kind.
        batch: rows of the batch.
        length: positions of a row; None in a step, where a threshold per position has no place.

    Raises:
        InputError: not numbers, nan, or a shape that does not fit the rows.
    """
    values = threshold_values(threshold)
    if values.isnan().any():
        raise InputError("scratchpad_threshold_nats is nan; allowed: a number of nats, inf or -inf")
    shapes = [(), (batch,)] + ([(batch, length)] if length is not None else [])
    if tuple(values.shape) not in shapes:
        allowed = ", ".join(str(list(shape)) for shape in shapes)
        raise InputError(f"scratchpad_threshold_nats has the shape {list(values.shape)}; allowed: {allowed}")
    return values.float()


__all__ = ["Decisions", "ThresholdLike", "checked_threshold", "threshold_values"]
