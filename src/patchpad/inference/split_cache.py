"""Trunk caches of rows of unlike lengths: rows of like length lie together, so that none is padded to the longest.

A `TrunkCache` has as many places for every row. Where a batch has one long row, that would be its cache many times
over, and every step would read all of it. So on a CPU such a batch has several of them, its *parts*.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from patchpad.inference.buckets import buckets
from patchpad.inference.cache import GROWTH, Layers, TrunkCache, capacity_for

MOST_PADDED_SHARE = 0.5
"""Places of a part that pad its rows, as a share of those that these need."""
GROWTH_SHARE = 1 / 8
"""Share by which a part grows at least, since that copies it."""
MOST_VACANT_SHARE = 0.25
"""Share of a part's places for rows that may belong to none."""


class Home(NamedTuple):
    """Where the cache of a row lies."""

    cache: TrunkCache
    place: int
    """Of the row in it."""


@dataclass
class SplitTrunkCache:
    """A trunk's cache in several parts; see `TrunkCache`, whose methods it has as far as a CPU needs them.

    A part grows when a slot needs it; no other state minds, since the part has the same entries then.
    """

    parts: list[TrunkCache]
    rows: list[tuple[int | None, ...]]
    """The batch's row at each place of each part, ascending; None where there is none any more."""
    batch: int
    """Rows of the batch; some may be in no part, because they have left."""

    def __post_init__(self) -> None:
        home = [(-1, -1)] * self.batch
        for number, rows in enumerate(self.rows):
            for place, row in enumerate(rows):
                if row is not None:
                    home[row] = (number, place)
        self.home = torch.tensor(home, device="cpu")
        """Part and place of each row; -1 where it is in none."""

    @property
    def keys(self) -> Layers:
        """Keys of all parts, part by part."""
        return [keys for part in self.parts for keys in part.keys]

    @property
    def values(self) -> Layers:
        """Values of all parts, part by part."""
        return [values for part in self.parts for values in part.values]

    @property
    def capacity(self) -> int:
        """Places of the longest part."""
        return max(part.capacity for part in self.parts)

    def with_room(self, num_patches: int) -> "SplitTrunkCache":
        """Returns itself: parts grow by `make_room`."""
        return self

    def make_room(self, number: int, num_places: int) -> TrunkCache:
        """Returns a part, in which every row has so many places and one more.

        Args:
            number: of the part.
            num_places: most entries of a row.
        """
        part = self.parts[number]
        if num_places >= part.capacity:
            self.parts[number] = part.with_room(max(num_places, int(part.capacity * (1 + GROWTH_SHARE))))
        return self.parts[number]

    def map(self, change: Callable[[Tensor], Tensor]) -> "SplitTrunkCache":
        """Returns a cache of what `change` makes of keys and values; it may change places, but not rows."""
        return SplitTrunkCache([part.map(change) for part in self.parts], self.rows, self.batch)

    def clone(self) -> "SplitTrunkCache":
        """Returns an independent copy."""
        return self.map(torch.clone)

    def select(self, rows: Int[Tensor, " row"]) -> "TrunkCache | SplitTrunkCache":
        """Returns a copy with the given rows."""
        homes = homes_of(self)
        return grouped({new: homes[old] for new, old in enumerate(rows.tolist())}, len(rows), copies=True)


AnyTrunkCache = TrunkCache | SplitTrunkCache


def homes_of(cache: AnyTrunkCache) -> dict[int, Home]:
    """Returns where each row of a cache lies, by the row; those that have left may be missing."""
    if isinstance(cache, TrunkCache):
        return {row: Home(cache, row) for row in range(len(cache.keys[0]))}
    homes = enumerate(cache.home.tolist())
    return {row: Home(cache.parts[part], place) for row, (part, place) in homes if part >= 0}


def grouped(
    homes: Mapping[int, Home], batch: int, needs: Mapping[int, int] | None = None, *, copies: bool = False
) -> AnyTrunkCache:
    """Returns a cache of rows that lie anywhere: rows of like length are put together.

    Args:
        homes: where each row lies, by its number in the batch; those that have left may be missing.
        batch: rows of the batch.
        needs: places that each of them needs; None where rows may have filled all that they have.
        copies: of everything; else, what already lies together stays as it is.
    """
    rows = sorted(homes)
    if needs is None:
        needs = {row: home.cache.capacity for row, home in homes.items()}
    found = buckets([needs[row] for row in rows], most_padding=MOST_PADDED_SHARE, free_each=GROWTH)
    parts, rows_of_parts = [], []
    for bucket in found:
        own = {rows[number]: homes[rows[number]] for number in bucket}
        part, rows_of_part = _part(own, max(needs[row] for row in own), copies=copies)
        parts.append(part)
        rows_of_parts.append(rows_of_part)
    if len(parts) == 1 and rows_of_parts[0] == tuple(range(batch)):
        return parts[0]
    return SplitTrunkCache(parts, rows_of_parts, batch)


def _part(own: Mapping[int, Home], capacity: int, *, copies: bool) -> tuple[TrunkCache, tuple[int | None, ...]]:
    """Returns a part with the given rows, and the row at each of its places."""
    homes = list(own.values())
    first, size = homes[0].cache, len(homes[0].cache.keys[0])
    places = [home.place for home in homes]
    lies_together = (
        not copies
        and all(home.cache is first for home in homes)
        and places == sorted(places)
        and first.capacity >= capacity
        and size - len(homes) <= MOST_VACANT_SHARE * size
    )
    if lies_together:
        row_at = dict(zip(places, own, strict=True))
        return first, tuple(row_at.get(place) for place in range(size))
    sources: dict[int, list[int]] = {}
    for number, home in enumerate(homes):
        sources.setdefault(id(home.cache), []).append(number)
    by_source = list(sources.values())
    keys, values = (
        [_gathered(homes, by_source, side, layer, capacity) for layer in range(len(first.keys))]
        for side in ("keys", "values")
    )
    return TrunkCache(keys, values), tuple(own)


def _gathered(
    homes: Sequence[Home], by_source: Sequence[Sequence[int]], side: str, layer: int, capacity: int
) -> Float[Tensor, "row kv_head place head_dim"]:
    """Returns a layer's keys or values of rows, copied together."""
    like = getattr(homes[0].cache, side)[layer]
    found = like.new_empty(len(homes), like.shape[1], capacity, like.shape[3])
    for numbers in by_source:
        source = getattr(homes[numbers[0]].cache, side)[layer]
        count = min(capacity, source.shape[2])
        target, places = _slice_or_index(numbers), _slice_or_index([homes[number].place for number in numbers])
        found[target, :, :count] = source[places, :, :count]
        found[target, :, count:] = 0.0  # what a mask hides must be finite
    return found


def _slice_or_index(numbers: Sequence[int]) -> slice | Int[Tensor, " number"]:
    """Returns numbers as an index; those that follow one another as a slice, which copies several times as fast."""
    if list(numbers) == list(range(numbers[0], numbers[0] + len(numbers))):
        return slice(numbers[0], numbers[0] + len(numbers))
    return torch.tensor(list(numbers), device="cpu")


def may_split(cache: AnyTrunkCache) -> bool:
    """Whether a cache may be put into parts: on a CPU. Elsewhere, a step should be as few kernels as can be."""
    return isinstance(cache, SplitTrunkCache) or cache.keys[0].device.type == "cpu"


def joined(caches: Sequence[AnyTrunkCache], *, splits: bool = True, copies: bool = True) -> AnyTrunkCache:
    """Returns one cache with the rows of all, in order.

    Args:
        caches: of the same model.
        splits: put rows of unlike lengths into parts, where that may be.
        copies: of everything; else parts may share memory with the caches given, which nobody goes on with.
    """
    plain = [cache for cache in caches if isinstance(cache, TrunkCache)]
    if len(plain) == len(caches) and not (splits and may_split(plain[0])):
        return TrunkCache.join(plain)
    homes: dict[int, Home] = {}
    batch = 0
    for cache in caches:
        homes |= {batch + row: home for row, home in homes_of(cache).items()}
        batch += cache.batch if isinstance(cache, SplitTrunkCache) else len(cache.keys[0])
    return grouped(homes, batch, copies=copies)


def with_rows_at(cache: AnyTrunkCache, places: Sequence[int], other: AnyTrunkCache) -> AnyTrunkCache:
    """Returns a cache with other rows at some places.

    Where a place lies in a part that a row fits, the row is written there; other parts stay as they are.

    Args:
        cache: nobody goes on with its rows at these places.
        places: of rows of the batch.
        other: has a row for each, and nobody goes on with it.
    """
    homes, new_homes = homes_of(cache), homes_of(other)
    batch = cache.batch if isinstance(cache, SplitTrunkCache) else len(homes)
    has_moved = False
    for number, row in enumerate(places):
        old, new = homes.get(row), new_homes[number]
        if old is not None and _fits(old.cache.capacity, new.cache.capacity):
            _write_row(old, new)
        else:
            homes[row], has_moved = new, True
    return grouped(homes, batch) if has_moved else cache


def _fits(capacity: int, needed: int) -> bool:
    """Whether a row of one part may lie in another one without too much padding."""
    return needed <= capacity <= max(needed + GROWTH, (1 + MOST_PADDED_SHARE) * needed)


def _write_row(target: Home, new: Home) -> None:
    for own, parts in ((target.cache.keys, new.cache.keys), (target.cache.values, new.cache.values)):
        for layer, part in zip(own, parts, strict=True):
            layer[target.place, :, : part.shape[2]] = part[new.place].to(layer.dtype)
            layer[target.place, :, part.shape[2] :] = 0.0  # what a mask hides must be finite all the same


def fitted(cache: AnyTrunkCache, num_patches: Sequence[int | None]) -> AnyTrunkCache:
    """Returns a cache in which each row has room for one more slot; rows of unlike lengths are put into parts.

    Args:
        cache: stays as it is where all have room.
        num_patches: entries of each row; None for those that have left.
    """
    if isinstance(cache, TrunkCache):
        most = max(count for count in num_patches if count is not None)
        if most < cache.capacity:
            return cache
        if not may_split(cache):
            return cache.with_room(most)
    known = {row: count for row, count in enumerate(num_patches) if count is not None}
    homes = homes_of(cache)
    if all(count < homes[row].cache.capacity for row, count in known.items()):
        return cache
    fewest = min(known.values())
    return grouped(homes, len(num_patches), {row: capacity_for(known.get(row, fewest)) for row in homes})


def without_rows(cache: AnyTrunkCache, places: Iterable[int]) -> AnyTrunkCache:
    """Returns a cache that need not hold the rows at the given places; parts without any others are dropped."""
    if isinstance(cache, TrunkCache):
        return cache
    left = set(places)
    rows = [tuple(None if row in left else row for row in own) for own in cache.rows]
    kept = [number for number, own in enumerate(rows) if any(row is not None for row in own)]
    if len(kept) == len(rows) or not kept:
        return cache
    return SplitTrunkCache([cache.parts[number] for number in kept], [rows[number] for number in kept], cache.batch)


__all__ = [
    "AnyTrunkCache",
    "SplitTrunkCache",
    "fitted",
    "grouped",
    "homes_of",
    "joined",
    "with_rows_at",
    "without_rows",
]
