"""Trunk attention where a cache may be in parts: a back end for each part that has some of the rows."""

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from patchpad.inference.cache import TrunkCacheAttention
from patchpad.inference.span_attention import TrunkSpanAttention
from patchpad.inference.split_cache import AnyTrunkCache, SplitTrunkCache


def trunk_attention(
    cache: AnyTrunkCache, rows: Int[Tensor, " row"], num_places: Int[Tensor, " row"], window: int | None = None
) -> "TrunkCacheAttention | SplitTrunkAttention":
    """Returns the back end for one new slot in some rows; see `TrunkCacheAttention`."""
    if isinstance(cache, SplitTrunkCache):
        return SplitTrunkAttention(cache, rows, num_places, window)
    return TrunkCacheAttention(cache, rows, num_places, window)


class SplitTrunkAttention:
    """`TrunkCacheAttention` in each part that has some of the rows."""

    def __init__(
        self,
        cache: SplitTrunkCache,
        rows: Int[Tensor, " row"],
        num_places: Int[Tensor, " row"],
        window: int | None = None,
    ) -> None:
        self.parts: list[tuple[Tensor, TrunkCacheAttention]] = []
        part_of, place_of = cache.home[rows].unbind(1)
        for number in range(len(cache.parts)):
            own = (part_of == number).nonzero()[:, 0]
            if len(own) > 0:
                part = cache.make_room(number, int(num_places[own].max()))
                self.parts.append((own, TrunkCacheAttention(part, place_of[own], num_places[own], window)))

    def __call__(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Stores each slot's key and value, then attends; all are [row, head, head_dim]."""
        mixed = torch.empty_like(query)
        for own, attend in self.parts:
            mixed[own] = attend(layer, query[own], key[own], value[own]).to(mixed.dtype)
        return mixed


def trunk_span_attention(
    cache: AnyTrunkCache,
    rows: Int[Tensor, " slot"],
    place: Int[Tensor, " slot"],
    is_commit: Bool[Tensor, " slot"] | None,
    num_places: int,
    window: int | None = None,
) -> "TrunkSpanAttention | SplitSpanAttention":
    """Returns the back end for new slots of each row; see `TrunkSpanAttention`."""
    if isinstance(cache, SplitTrunkCache):
        return SplitSpanAttention(cache, rows, place, is_commit, window)
    return TrunkSpanAttention(cache, rows, place, is_commit, num_places, window)


class SplitSpanAttention:
    """`TrunkSpanAttention` in each part that has some of the slots."""

    def __init__(
        self,
        cache: SplitTrunkCache,
        rows: Int[Tensor, " slot"],
        place: Int[Tensor, " slot"],
        is_commit: Bool[Tensor, " slot"] | None,
        window: int | None = None,
    ) -> None:
        self.parts: list[tuple[Tensor, TrunkSpanAttention]] = []
        part_of, place_of = cache.home[rows].unbind(1)
        for number in range(len(cache.parts)):
            own = (part_of == number).nonzero()[:, 0]
            if len(own) > 0:
                most = int(place[own].max())
                part = cache.make_room(number, most)
                stored = None if is_commit is None else is_commit[own]
                self.parts.append((own, TrunkSpanAttention(part, place_of[own], place[own], stored, most + 1, window)))

    def __call__(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Stores keys and values of commits, then attends; all are [slot, head, head_dim]."""
        mixed = torch.empty_like(query)
        for own, attend in self.parts:
            mixed[own] = attend(layer, query[own], key[own], value[own]).to(mixed.dtype)
        return mixed


__all__ = ["SplitSpanAttention", "SplitTrunkAttention", "trunk_attention", "trunk_span_attention"]
