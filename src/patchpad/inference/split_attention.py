"""Trunk attention where a cache may be in parts: a back end for each part that has some of the slots."""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from patchpad.inference.cache import TrunkCache, TrunkCacheAttention
from patchpad.inference.span_attention import TrunkSpanAttention
from patchpad.inference.split_cache import AnyTrunkCache, SplitTrunkCache

PartAttention = TrunkCacheAttention | TrunkSpanAttention


def trunk_attention(
    cache: AnyTrunkCache, rows: Int[Tensor, " row"], num_places: Int[Tensor, " row"], window: int | None = None
) -> "TrunkCacheAttention | SplitAttention":
    """Returns the back end for one new slot in some rows; see `TrunkCacheAttention`."""
    if not isinstance(cache, SplitTrunkCache):
        return TrunkCacheAttention(cache, rows, num_places, window)

    def of_part(part: TrunkCache, place_of: Tensor, own: Tensor) -> TrunkCacheAttention:
        return TrunkCacheAttention(part, place_of, num_places[own], window)

    return SplitAttention(cache, rows, num_places, of_part)


def trunk_span_attention(
    cache: AnyTrunkCache,
    rows: Int[Tensor, " slot"],
    place: Int[Tensor, " slot"],
    is_commit: Bool[Tensor, " slot"] | None,
    num_places: int,
    window: int | None = None,
) -> "TrunkSpanAttention | SplitAttention":
    """Returns the back end for new slots of each row; see `TrunkSpanAttention`."""
    if not isinstance(cache, SplitTrunkCache):
        return TrunkSpanAttention(cache, rows, place, is_commit, num_places, window)

    def of_part(part: TrunkCache, place_of: Tensor, own: Tensor) -> TrunkSpanAttention:
        stored = None if is_commit is None else is_commit[own]
        return TrunkSpanAttention(part, place_of, place[own], stored, int(place[own].max()) + 1, window)

    return SplitAttention(cache, rows, place, of_part)


class SplitAttention:
    """One back end in each part that has some of the slots.

    Args:
        cache: in parts; each gets room for its slots.
        rows: of the slots.
        place: entries of the row before each slot.
        of_part: makes the back end of a part, from the part, the row of each of its slots in it, and their numbers.
    """

    def __init__(
        self,
        cache: SplitTrunkCache,
        rows: Int[Tensor, " slot"],
        place: Int[Tensor, " slot"],
        of_part: Callable[[TrunkCache, Tensor, Tensor], PartAttention],
    ) -> None:
        self.parts: list[tuple[Tensor, PartAttention]] = []
        part_of, place_of = cache.home[rows].unbind(1)
        for number in range(len(cache.parts)):
            own = (part_of == number).nonzero()[:, 0]
            if len(own) > 0:
                part = cache.make_room(number, int(place[own].max()))
                self.parts.append((own, of_part(part, place_of[own], own)))

    def __call__(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Stores keys and values as the parts' back ends do, then attends; all are [slot, head, head_dim]."""
        mixed = torch.empty_like(query)
        for own, attend in self.parts:
            mixed[own] = attend(layer, query[own], key[own], value[own]).to(mixed.dtype)
        return mixed


__all__ = ["SplitAttention", "trunk_attention", "trunk_span_attention"]
