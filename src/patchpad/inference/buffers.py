"""Buffers of fixed places for the states that CUDA graphs work on, lent to one generation at a time."""

import weakref
from typing import Any, cast

import torch
from torch import Tensor

from patchpad.inference.cache import GROWTH
from patchpad.inference.patch_state import DecodingState
from patchpad.inference.row_state import NOT_CACHES, Lease
from patchpad.inference.whole_batch import NOT_DUE

MOST_BUFFERS = 4
"""Sets of buffers that are kept for a model; those in use do not count."""


class Buffers:
    """A state of more rows and places than are used, and what its kernels read beside it, all at fixed places.

    Args:
        like: a state with the caches that are needed.
        rows: of the buffers.
        capacity: places of a row in the trunk's cache.
    """

    def __init__(self, like: DecodingState, rows: int, capacity: int) -> None:
        self.rows, self.capacity = rows, capacity
        self.state = cast(DecodingState, like.blank(rows, capacity))
        device = like.ints.device
        self.ids = torch.full((rows,), NOT_DUE, device=device)
        self.threshold = torch.zeros(rows, device=device)
        self.is_due = torch.zeros(rows, dtype=torch.bool, device=device)
        self.graphs: dict[str, Any] = {}
        """What was captured for each kernel."""
        self._newest: dict[str, Tensor] = {}
        """The values that were last handed out, which the buffers hold too."""
        self._lease: weakref.ref[Lease] | None = None
        for tensor in (*self.state.tensors(), self.ids, self.threshold, self.is_due):
            if rows > 1:
                torch._dynamo.maybe_mark_dynamic(tensor, 0)
        for tensor in (*self.state.trunk.keys, *self.state.trunk.values):
            torch._dynamo.maybe_mark_dynamic(tensor, 2)

    @property
    def is_free(self) -> bool:
        """Whether no state uses them."""
        return self._lease is None or self._lease() is None

    def hold(self, state: DecodingState) -> bool:
        """Whether the state's caches are views of these buffers; a trunk's cache that has grown is not."""
        lease = state.lease
        return (
            lease is not None
            and lease.buffers is self
            and state.trunk.keys[0].data_ptr() == self.state.trunk.keys[0].data_ptr()
        )

    def adopt(self, state: DecodingState) -> None:
        """Copies a state's caches in and makes them views of the buffers. What is not used becomes zero.

        Zero, because what a mask hides must be finite all the same.
        """
        count = len(state.ints)
        views = self.state.first_rows(count)
        for buffer, part in zip(self.state.cache_tensors(), state.cache_tensors(), strict=True):
            buffer[count:].zero_()
            if buffer.shape[1:] == part.shape[1:]:
                buffer[:count].copy_(part)
            else:
                buffer[:count, :, : part.shape[2]].copy_(part)
                buffer[:count, :, part.shape[2] :].zero_()
        for value in self.state.values():
            value.zero_()
        self._newest.clear()
        for name, view in vars(views).items():
            if name not in NOT_CACHES:
                setattr(state, name, view)
        state.lease = Lease(self)
        self._lease = weakref.ref(state.lease)

    def load_values(self, state: DecodingState) -> None:
        """Copies a state's values in, unless they are those that were last handed out."""
        for name in ("ints", "floats"):
            value = getattr(state, name)
            if value is not self._newest.get(name):
                getattr(self.state, name)[: len(value)].copy_(value)

    def hand_out(self, name: str, count: int) -> Tensor:
        """Returns a copy of the values of the first rows.

        Args:
            name: `ints` or `floats`.
            count: of the rows.
        """
        self._newest[name] = getattr(self.state, name)[:count].clone()
        return self._newest[name]


class BufferPool:
    """The buffers of a model: those that a generation has left serve the next one of about its size."""

    def __init__(self) -> None:
        self.sets: list[Buffers] = []
        """The one used last comes last."""

    def buffers_of(self, state: DecodingState) -> Buffers:
        """Returns the buffers that hold a state's caches; where none do, free or new ones adopt them."""
        if state.lease is not None and state.lease.buffers.hold(state):
            return state.lease.buffers
        rows, capacity = rounded_rows(len(state.ints)), rounded_capacity(state.trunk.capacity)
        found = next((one for one in self.sets if one.is_free and (one.rows, one.capacity) == (rows, capacity)), None)
        if found is None:
            try:
                found = Buffers(state, rows, capacity)
            except torch.OutOfMemoryError:
                self.sets = [one for one in self.sets if not one.is_free]
                found = Buffers(state, rows, capacity)
        found.adopt(state)
        free = [one for one in self.sets if one.is_free and one is not found]
        dropped = free[: max(0, len(free) - MOST_BUFFERS + 1)]
        self.sets = [one for one in self.sets if one is not found and one not in dropped] + [found]
        return found


def rounded_rows(rows: int) -> int:
    """Returns the next power of two."""
    return 1 << (rows - 1).bit_length()


def rounded_capacity(capacity: int) -> int:
    """Returns the next number of places that buffers have: a power of two, or one and a half of it, times `GROWTH`."""
    blocks = -(-capacity // GROWTH)
    power = 1 << (blocks - 1).bit_length()
    return GROWTH * (power * 3 // 4 if power >= 4 and blocks <= power * 3 // 4 else power)


__all__ = ["BufferPool", "Buffers", "rounded_capacity", "rounded_rows"]
