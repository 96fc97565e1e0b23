"""What the state of every kind of model can do: rows are copied, chosen and joined; a step happens or does not."""

from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from patchpad.device import moved
from patchpad.errors import InputError
from patchpad.inference.cache import TrunkCache, are_all
from patchpad.inference.split_cache import (
    AnyTrunkCache,
    SplitTrunkCache,
    fitted,
    joined,
    may_split,
    with_rows_at,
    without_rows,
)

NOT_CACHES = ("ints", "floats", "most_patches", "trunk_window", "lease")
"""Parts of a state that are not its caches."""


class Counts(NamedTuple):
    """Integers that every kind of model keeps of each row; the first columns of `RowState.ints`."""

    position: Int[Tensor, " row"]
    """n - start(n) of the newest id."""
    newest_id: Int[Tensor, " row"]
    num_patches: Int[Tensor, " row"]
    """Entries of the document in the trunk's cache."""
    trunk_calls: Int[Tensor, " row"]
    """Positions that the trunk computed since the prefill began."""


class Lease:
    """Held by every state whose caches are views of buffers that are lent: as long as one does, no other gets them."""

    def __init__(self, buffers: Any) -> None:
        self.buffers = buffers


@dataclass
class RowState:
    """Everything that the next step of each row needs. A step consumes it: use only the state that it returns.

    Subclasses are dataclasses whose fields are tensors with rows first, caches, integers, or None. Two kinds of parts:

    - `ints` and `floats` are values. Nothing is ever written into them: a step puts others in their place.
    - All others are caches, written in place; but only where the values do not point to. A step writes what it computes
      for position p, or for the trunk's call c, where nothing lies that a step from the same values reads.

    So a step works on a `working_copy`, and happens when the state becomes it. Where an exception breaks it off, the
    state has not changed, and the next step begins from the same values.
    """

    ints: Int[Tensor, "batch column"]
    """First those of `Counts`."""
    floats: Float[Tensor, "batch number"]
    most_patches: int
    """No row has more entries in the trunk's cache; known without asking the device."""
    trunk: AnyTrunkCache
    lease: Lease | None = field(default=None, init=False, repr=False, compare=False)
    """Of the buffers that the caches are views of; see `patchpad.inference.buffers`. Copies have none."""

    @property
    def counts(self) -> Counts:
        """Integers of each row, by name."""
        return Counts(*self.ints[:, : len(Counts._fields)].unbind(1))

    @property
    def position(self) -> Int[Tensor, " batch"]:
        """Position of each row's newest id in its document."""
        return self.counts.position

    @property
    def num_patches(self) -> Int[Tensor, " batch"]:
        """Entries of each row's document in the trunk's cache."""
        return self.counts.num_patches

    @property
    def num_places(self) -> Int[Tensor, " batch"]:
        """Places that these take there: fewer where the trunk has a window, and the oldest entries are dropped."""
        return self.num_patches

    @property
    def drops_patches(self) -> bool:
        """Whether entries are dropped that no slot sees any more."""
        return False

    @property
    def trunk_calls(self) -> Int[Tensor, " batch"]:
        """Positions that the trunk computed for each row since the prefill began."""
        return self.counts.trunk_calls

    def values(self) -> list[Tensor]:
        """Returns what a step replaces and never writes into."""
        return [self.ints, self.floats]

    def cache_tensors(self, *, but_trunk: bool = False) -> list[Tensor]:
        """Returns the tensors that a step writes into.

        Args:
            but_trunk: leave those of the trunk's cache out.
        """
        found: list[Any] = []
        for name, part in vars(self).items():
            if name in NOT_CACHES or (but_trunk and name == "trunk"):
                continue
            for value in [part] if isinstance(part, Tensor) or part is None else (part.keys, part.values):
                found += value if isinstance(value, list) else [value]
        return [value for value in found if isinstance(value, Tensor)]

    def tensors(self) -> list[Tensor]:
        """Returns all tensors of the state, those of its caches included."""
        return self.values() + self.cache_tensors()

    def working_copy(self) -> "RowState":
        """Returns a state for the next step to work on: the same caches, and values of its own."""
        return copy(self)

    def become(self, working: "RowState") -> None:
        """Makes the step of a working copy happen, by one assignment."""
        self.__dict__ = vars(working)

    def has_at_most(self, most_patches: int) -> None:
        """Notes that no row has more patches, and makes room for one more slot: `make_room` need not ask the device."""
        self.most_patches = most_patches
        if most_patches >= self.trunk.capacity:
            self.trunk = self.trunk.with_room(most_patches)

    def has_each(self, num_patches: Sequence[int | None]) -> None:
        """Notes how many patches rows have, and makes room for one more slot in each; see `has_at_most`.

        Args:
            num_patches: of each row; None for those that have left.
        """
        if self.drops_patches:
            return
        self.most_patches = max(count for count in num_patches if count is not None)
        if isinstance(self.trunk, TrunkCache) and self.most_patches < self.trunk.capacity:
            return
        self.trunk = fitted(self.trunk, num_patches)

    def make_room(self) -> None:
        """Sees to it that every row has a place for one more slot. Call it once before each call of the trunk."""
        if self.most_patches >= self.trunk.capacity:
            self.most_patches = int(self.num_places.max())  # an upper bound until now: documents may have ended
            self.trunk = self.trunk.with_room(self.most_patches)
        self.most_patches += 1

    def narrowed(self, more_patches: int) -> "RowState":
        """Returns a view whose trunk cache ends where so many more patches need no place, so that copies are small."""
        view = self.working_copy()
        places = self.most_patches + more_patches + 1
        view.trunk = self.trunk.map(lambda part: part[:, :, :places])
        return view

    @torch.inference_mode()
    def clone(self) -> "RowState":
        """Returns an independent copy, for beams and rollback."""
        return self._map(lambda part: part.clone())

    @torch.inference_mode()
    def select(self, rows: Sequence[int] | Int[Tensor, " row"]) -> "RowState":
        """Returns a copy with the given rows, in the given order; a row may come more than once.

        Args:
            rows: their places.

        Raises:
            InputError: no places of rows; a mask of them is none.
        """
        batch = len(self.position)
        index = integers(rows)
        index = None if index is None else index.cpu()
        if index is None or index.dim() != 1 or bool(((index < 0) | (index >= batch)).any()):
            raise InputError(
                f"rows is {rows!r}; allowed: a list of places from 0 to {batch - 1}",
                hint="Of a mask, mask.nonzero().flatten() gives the places.",
            )
        index = moved(index, self.position.device)
        return self._map(lambda part: part[index] if isinstance(part, Tensor) else part.select(index))

    def without_rows(self, places: Sequence[int]) -> "RowState":
        """Returns a state that need not hold the rows at the given places in its trunk's cache: they have left."""
        trunk = without_rows(self.trunk, places)
        if trunk is self.trunk:
            return self
        working = self.working_copy()
        working.trunk = trunk
        return working

    @classmethod
    @torch.inference_mode()
    def join(cls, states: Sequence["RowState"], *, copies: bool = True) -> "RowState":
        """Returns one state with the rows of all, in order.

        Args:
            states: of the same model.
            copies: of everything; else it may share caches with the states given, which nobody goes on with.
        """
        found: dict[str, Any] = {}
        for name in _names(cls):
            parts = [getattr(state, name) for state in states]
            if isinstance(parts[0], Tensor):
                found[name] = torch.cat(parts)
            elif isinstance(parts[0], int):
                found[name] = max(parts)
            elif name == "trunk":
                found[name] = joined(parts, splits=not states[0].drops_patches, copies=copies)
            else:
                found[name] = None if parts[0] is None else type(parts[0]).join(parts)
        return cls(**found)

    @torch.inference_mode()
    def with_rows_at(self, places: Sequence[int], other: "RowState") -> "RowState":
        """Returns a working copy with other rows at some places. Caches are written into there, and nowhere else.

        Args:
            places: of rows that nobody goes on with.
            other: has a row for each place; of the same model. Nobody goes on with it.
        """
        working = self.working_copy()
        working.most_patches = max(self.most_patches, other.most_patches)
        index = moved(torch.tensor(list(places), device="cpu"), self.ints.device)
        written = [(self.cache_tensors(but_trunk=True), other.cache_tensors(but_trunk=True))]
        if self.drops_patches or not may_split(self.trunk):
            assert not isinstance(self.trunk, SplitTrunkCache)
            working.trunk = self.trunk.widened(other.trunk.capacity)
            written += [(working.trunk.keys, other.trunk.keys), (working.trunk.values, other.trunk.values)]
        else:
            working.trunk = with_rows_at(self.trunk, places, other.trunk)
        for own, new in ((own, new) for parts in written for own, new in zip(*parts, strict=True)):
            if own.shape[1:] == new.shape[1:]:
                own[index] = new.to(own.dtype)
            else:
                own[index, :, : new.shape[2]] = new.to(own.dtype)
                own[index, :, new.shape[2] :] = 0.0  # what a mask hides must be finite all the same
        working.ints = self.ints.index_put((index,), other.ints)
        working.floats = self.floats.index_put((index,), other.floats)
        return working

    def first_rows(self, count: int) -> "RowState":
        """Returns a state whose tensors are views of the first rows, where these lie together."""
        if isinstance(self.trunk, SplitTrunkCache):
            return self.select(range(count))
        return self._map(lambda part: part[:count] if isinstance(part, Tensor) else part.map(lambda one: one[:count]))

    def blank(self, rows: int, capacity: int) -> "RowState":
        """Returns a state of zeros with the same types and sizes, but of other rows and places in the trunk's cache."""

        def zeros(part: Tensor) -> Tensor:
            return part.new_zeros(rows, *part.shape[1:])

        blank = self._map(lambda part: zeros(part) if isinstance(part, Tensor) else part.map(zeros))
        blank.trunk = self.trunk.map(lambda part: part.new_zeros(rows, part.shape[1], capacity, part.shape[3]))
        return blank

    def _map(self, change: Callable[[Any], Any]) -> "RowState":
        values: dict[str, Any] = {}
        for name in _names(type(self)):
            part = getattr(self, name)
            values[name] = part if part is None or isinstance(part, int) else change(part)
        return type(self)(**values)


def _names(kind: type[RowState]) -> list[str]:
    """Returns the names of what a state consists of."""
    return [field.name for field in fields(kind) if field.init]


def put(
    old: Float[Tensor, "batch number"] | Int[Tensor, "batch number"],
    rows: Int[Tensor, " row"],
    new: Float[Tensor, "row number"] | Int[Tensor, "row number"],
) -> Tensor:
    """Returns `old` with `new` in the given rows, ascending; `old` itself stays as it is."""
    return new if are_all(rows, len(old)) else old.index_put((rows,), new)


def integers(values: Any) -> Int[Tensor, "..."] | None:
    """Returns integers of any kind and shape as a tensor; None for anything else, booleans included."""
    try:
        found = torch.as_tensor(values)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        return None
    if found.numel() == 0:
        return found.long()
    return None if found.is_floating_point() or found.is_complex() or found.dtype == torch.bool else found.long()
