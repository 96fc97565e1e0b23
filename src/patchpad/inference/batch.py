"""Where an engine stands: the rows of its batch, those that wait, and what the last step brought."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from patchpad.inference.row_state import RowState
from patchpad.inference.rows import NewBytes, Progress, Row


@dataclass(frozen=True, kw_only=True)
class Reading:
    """A prompt of which a part was read."""

    row: Row
    threshold: float
    """At which it is read."""
    state: RowState
    """Of one row."""
    left: bytes
    """The rest of the prompt."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Where an engine stands. A step makes another one and changes nothing that this one reads."""

    number: int = 0
    """Of the steps that have been made."""
    num_submitted: int = 0
    num_trunk_batches: int = 0
    """Calls of the trunk in steps, whatever their number of rows."""
    pending: tuple[Row, ...] = ()
    """Rows that have not joined yet."""
    rows: tuple[Row, ...] = ()
    """Rows of the batch, in the order of `state`."""
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

    def with_rows(self, rows: Sequence[Row], state: RowState, logits: Float[Tensor, "row vocab"]) -> "Batch":
        """Returns a batch with further rows, which have logits."""
        return replace(
            self,
            rows=(*self.rows, *rows),
            state=state if self.state is None else type(state).join([self.state, state]),
            ready=(*self.ready, *range(len(self.rows), len(self.rows) + len(rows))),
            logits=logits if self.logits is None else torch.cat([self.logits, logits]),
        )

    def keep(self, places: Sequence[int]) -> "Batch":
        """Returns a batch of the rows at the given places, in that order; logits of the others are dropped."""
        assert self.state is not None
        new_place = {old: new for new, old in enumerate(places)}
        kept = [number for number, place in enumerate(self.ready) if place in new_place]
        return replace(
            self,
            rows=tuple(self.rows[place] for place in places),
            state=self.state.select(list(places)) if places else None,
            ready=tuple(new_place[self.ready[number]] for number in kept),
            logits=self.logits[kept] if self.logits is not None and kept else None,
            waiting=tuple(new_place[place] for place in self.waiting if place in new_place),
        )


__all__ = ["Batch", "Reading"]
