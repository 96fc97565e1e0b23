"""Where an engine stands: the rows of its batch, those that wait, and what the last step brought."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from patchpad.inference.row_state import RowState
from patchpad.inference.rows import NewBytes, Progress, Row

MOST_FREE_SHARE = 0.25
"""Share of a batch's places that may be free."""


class DraftCounts(NamedTuple):
    """What has become of drafts; see `patchpad.inference.drafting`."""

    num_drafts: int = 0
    """Drafts of single rows."""
    num_drafted: int = 0
    """Their ids, the first of each included, which is not a guess."""
    num_kept: int = 0
    """Those of them that stayed."""
    trunk_calls: int = 0
    """Slots that the trunk computed for drafts, those of ids that did not stay included."""

    def plus(self, *more: int) -> "DraftCounts":
        """Returns the sums."""
        return DraftCounts(*(one + other for one, other in zip(self, more, strict=True)))


@dataclass(frozen=True, kw_only=True)
class Reading:
    """A prompt of which a part was read."""

    row: Row
    threshold: float
    """At which it is read."""
    state: RowState
    """Of one row."""
    ids: Sequence[int]
    """What the prompt has behind the state that its reading began with."""
    num_read: int = 0
    """How many of them were read."""
    num_patches: int = 0
    """Entries that these made in the trunk's cache, at most."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Where an engine stands. A step makes another one and changes nothing that this one reads."""

    number: int = 0
    """Of the steps that have been made."""
    num_submitted: int = 0
    num_trunk_batches: int = 0
    """Calls of the trunk in steps and for drafts, whatever their number of rows."""
    drafts: DraftCounts = DraftCounts()
    pending: tuple[Row, ...] = ()
    """Rows that have not joined yet."""
    rows: tuple[Row, ...] = ()
    """Rows of the batch, in the order of `state`; those at places that are free have left."""
    free: tuple[int, ...] = ()
    """Places whose rows have left, ascending; others may take them."""
    state: RowState | None = None
    ready: tuple[int, ...] = ()
    """Places of rows that have logits, ascending."""
    logits: Tensor | None = None
    """[ready, vocab]."""
    waiting: tuple[int, ...] = ()
    """Places of rows that need the trunk, ascending."""
    progress: tuple[tuple[Row, Progress], ...] = ()
    """How far the last step brought its rows."""
    released: tuple[NewBytes, ...] = ()
    """What the last step has released."""
    reading: Reading | None = None
    """The row whose long prompt is being read, piece by piece; it is not among `rows` yet."""

    @property
    def running(self) -> list[Row]:
        """Rows that have not left."""
        return [self.rows[place] for place in self.places]

    @property
    def places(self) -> list[int]:
        """Places of these."""
        free = set(self.free)
        return [place for place in range(len(self.rows)) if place not in free]

    @property
    def num_running(self) -> int:
        """How many these are."""
        return len(self.rows) - len(self.free)

    def with_rows(self, rows: Sequence[Row], state: RowState, logits: Float[Tensor, "row vocab"]) -> "Batch":
        """Returns a batch with further rows, which have logits. They take free places first, which copies only them."""
        if self.state is None:
            return replace(self, rows=tuple(rows), state=state, ready=tuple(range(len(rows))), logits=logits)
        taken, left = self.free[: len(rows)], self.free[len(rows) :]
        count = len(taken)
        joined = self.state.with_rows_at(taken, state.first_rows(count)) if taken else self.state
        if count < len(rows):
            others = state.select(list(range(count, len(rows)))) if taken else state
            joined = type(state).join([joined, others], copies=False)
        all_rows = list(self.rows) + list(rows[count:])
        for place, row in zip(taken, rows, strict=False):
            all_rows[place] = row
        places = [*taken, *range(len(self.rows), len(all_rows))]
        return replace(self, rows=tuple(all_rows), free=left, state=joined)._with_ready(places, logits)

    def with_none_waiting(self, state: RowState, logits: Float[Tensor, "row vocab"]) -> "Batch":
        """Returns a batch in which the rows that waited for the trunk have logits, in their order."""
        return replace(self, state=state, waiting=())._with_ready(self.waiting, logits)

    def _with_ready(self, places: Sequence[int], logits: Float[Tensor, "row vocab"]) -> "Batch":
        """Returns a batch in which further rows have logits."""
        ready = [*self.ready, *places]
        all_logits = logits if self.logits is None else torch.cat([self.logits, logits])
        if ready != sorted(ready):
            order = sorted(range(len(ready)), key=ready.__getitem__)
            ready, all_logits = sorted(ready), all_logits[order]
        return replace(self, ready=tuple(ready), logits=all_logits)

    def without(self, places: Sequence[int]) -> "Batch":
        """Returns a batch that rows have left. Their places are free; where many are, the others are copied together.

        Args:
            places: of the rows that leave.
        """
        free = sorted({*self.free, *places})
        if len(free) > MOST_FREE_SHARE * len(self.rows):
            return self.keep([place for place in range(len(self.rows)) if place not in free])
        kept = [number for number, place in enumerate(self.ready) if place not in free]
        return replace(
            self,
            free=tuple(free),
            state=None if self.state is None else self.state.without_rows(free),
            ready=tuple(self.ready[number] for number in kept),
            logits=self.logits[kept] if self.logits is not None and kept else None,
            waiting=tuple(place for place in self.waiting if place not in free),
        )

    def keep(self, places: Sequence[int]) -> "Batch":
        """Returns a batch of the rows at the given places, in that order; logits of the others are dropped."""
        assert self.state is not None
        new_place = {old: new for new, old in enumerate(places)}
        kept = [number for number, place in enumerate(self.ready) if place in new_place]
        return replace(
            self,
            rows=tuple(self.rows[place] for place in places),
            free=(),
            state=self.state.select(list(places)) if places else None,
            ready=tuple(new_place[self.ready[number]] for number in kept),
            logits=self.logits[kept] if self.logits is not None and kept else None,
            waiting=tuple(new_place[place] for place in self.waiting if place in new_place),
        )


__all__ = ["Batch", "DraftCounts", "Reading"]
