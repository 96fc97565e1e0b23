"""Caches of the stepping model: commits only for the trunk, rings of the window for the local layers.

Each cache also is the attention back end that reads it (`patchpad.model.attention.Attend`).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from patchpad.inference.scratchpad_cache import ScratchpadCache

GROWTH = 64
"""Patches by which a trunk cache grows."""


def attend_one(
    query: Float[Tensor, "row head head_dim"],
    keys: Float[Tensor, "row place kv_head head_dim"],
    values: Float[Tensor, "row place kv_head head_dim"],
    is_visible: Bool[Tensor, "row place"],
) -> Float[Tensor, "row head head_dim"]:
    """Attention of one query per row to that row's visible places; a key head serves a group of query heads."""
    groups = query.unflatten(1, (keys.shape[2], -1))
    scores = (keys[:, :, :, None] * groups[:, None]).sum(-1) * query.shape[-1] ** -0.5
    weights = scores.masked_fill(~is_visible[..., None, None], -torch.inf).float().softmax(dim=1).to(values.dtype)
    return (weights[..., None] * values[:, :, :, None]).sum(1).flatten(1, 2)


@dataclass
class LocalCache:
    """Keys and values of each row's last `window` bytes, by layer; the byte at position p lies at p % window."""

    keys: Float[Tensor, "layer batch window head head_dim"]
    values: Float[Tensor, "layer batch window head head_dim"]

    @staticmethod
    def from_prefill(
        kept: list[tuple[Tensor, Tensor]], last_position: Int[Tensor, " batch"], window: int
    ) -> "LocalCache":
        """Takes the end of each row from a full pass.

        Args:
            kept: keys and values of each layer, each [batch, byte, head, head_dim].
            last_position: position of each row's newest byte.
            window: bytes that a layer sees.
        """
        age = _ages(last_position, window)
        position = (last_position[:, None] - age).clamp_min(0)
        rows = torch.arange(len(last_position), device=last_position.device)[:, None]
        keys, values = (torch.stack([pair[part][rows, position] for pair in kept]) for part in (0, 1))
        return LocalCache(keys, values)

    def at(self, rows: Int[Tensor, " row"], position: Int[Tensor, " row"]) -> "RingAttention":
        """Returns the back end for one byte in each of `rows`, at `position`; it stores keys and values as it goes."""
        return RingAttention(self, rows, position)

    @staticmethod
    def join(caches: Sequence["LocalCache"]) -> "LocalCache":
        """Returns one cache with the rows of all."""
        return LocalCache(
            torch.cat([cache.keys for cache in caches], dim=1), torch.cat([cache.values for cache in caches], dim=1)
        )

    def clone(self) -> "LocalCache":
        """Returns an independent copy."""
        return LocalCache(self.keys.clone(), self.values.clone())

    def select(self, rows: Int[Tensor, " row"]) -> "LocalCache":
        """Returns a copy with the given rows."""
        return LocalCache(self.keys[:, rows], self.values[:, rows])


def _ages(position: Int[Tensor, " batch"], window: int) -> Int[Tensor, "batch window"]:
    """How many bytes before `position` the byte at each place of the ring lies; more than `position`: none there."""
    places = torch.arange(window, device=position.device)
    return (position[:, None] - places) % window


class RingAttention:
    """Sliding-window attention of one new byte in each of some rows, given in ascending order."""

    def __init__(self, cache: LocalCache, rows: Int[Tensor, " row"], position: Int[Tensor, " row"]) -> None:
        window = cache.keys.shape[2]
        self.cache = cache
        self.rows = rows
        self.takes_all = len(rows) == cache.keys.shape[1]
        self.place = position % window
        self.is_visible = _ages(position, window) <= position[:, None]

    def __call__(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Stores the byte's key and value, then attends to the window; all are [row, head, head_dim]."""
        keys, values = self.cache.keys[layer], self.cache.values[layer]
        keys[self.rows, self.place] = key
        values[self.rows, self.place] = value
        if not self.takes_all:
            keys, values = keys[self.rows], values[self.rows]
        return attend_one(query, keys, values, self.is_visible)


@dataclass
class TrunkCache:
    """Keys and values of committed patches; scratchpads never enter it."""

    keys: Float[Tensor, "layer batch place kv_head head_dim"]
    values: Float[Tensor, "layer batch place kv_head head_dim"]
    num_patches: Int[Tensor, " batch"]
    """Patches committed in each row's document."""

    @staticmethod
    def from_prefill(
        kept: list[tuple[Tensor, Tensor]],
        padded_commits: Int[Tensor, "batch row_commit"],
        num_patches: Int[Tensor, " batch"],
    ) -> "TrunkCache":
        """Takes the commits from a full pass, whose slots are packed: keys and values are [slot, head, head_dim]."""
        places = padded_commits.shape[1]
        capacity = -(-(places + 1) // GROWTH) * GROWTH
        shape = (len(kept), len(num_patches), capacity, *kept[0][0].shape[1:])
        keys, values = kept[0][0].new_zeros(shape), kept[0][0].new_zeros(shape)
        if places:
            for layer, (key, value) in enumerate(kept):
                keys[layer, :, :places] = key[padded_commits]
                values[layer, :, :places] = value[padded_commits]
        return TrunkCache(keys, values, num_patches)

    def commit(
        self, rows: Int[Tensor, " row"], kept: list[tuple[Tensor, Tensor]], is_commit: Bool[Tensor, " row"]
    ) -> None:
        """Appends the keys and values of those of `rows` that ended a patch."""
        committed = rows[is_commit]
        if len(committed) == 0:
            return
        place = self.num_patches[committed]
        if int(place.max()) >= self.keys.shape[2]:
            self.keys, self.values = (F.pad(part, (0, 0, 0, 0, 0, GROWTH)) for part in (self.keys, self.values))
        for layer, (key, value) in enumerate(kept):
            self.keys[layer, committed, place] = key[is_commit]
            self.values[layer, committed, place] = value[is_commit]
        self.num_patches[committed] += 1

    def clone(self) -> "TrunkCache":
        """Returns an independent copy."""
        return TrunkCache(self.keys.clone(), self.values.clone(), self.num_patches.clone())

    def select(self, rows: Int[Tensor, " row"]) -> "TrunkCache":
        """Returns a copy with the given rows."""
        return TrunkCache(self.keys[:, rows], self.values[:, rows], self.num_patches[rows])

    @staticmethod
    def join(caches: Sequence["TrunkCache"]) -> "TrunkCache":
        """Returns one cache with the rows of all, as long as the longest."""
        capacity = max(cache.keys.shape[2] for cache in caches)
        keys, values = (
            torch.cat([F.pad(part, (0, 0, 0, 0, 0, capacity - part.shape[2])) for part in parts], dim=1)
            for parts in ([cache.keys for cache in caches], [cache.values for cache in caches])
        )
        return TrunkCache(keys, values, torch.cat([cache.num_patches for cache in caches]))


class TrunkCacheAttention:
    """Trunk attention of one new slot in some rows, in ascending order.

    It sees earlier commits of its document, and itself; as a scratchpad also those of its open patch, if any are kept.
    """

    def __init__(
        self,
        cache: TrunkCache,
        rows: Int[Tensor, " row"],
        is_commit: Bool[Tensor, " row"],
        scratchpads: ScratchpadCache | None = None,
    ) -> None:
        self.rows = rows
        self.takes_all = len(rows) == cache.keys.shape[1]
        self.parts: list[tuple[TrunkCache | ScratchpadCache, int]] = []
        visible = []
        num_seen: list[tuple[TrunkCache | ScratchpadCache, Tensor]] = [(cache, cache.num_patches[rows])]
        if scratchpads is not None:
            num_seen.append((scratchpads, torch.where(is_commit, 0, scratchpads.num_scratchpads[rows])))
        for part, lengths in num_seen:
            longest = int(lengths.max())
            self.parts.append((part, longest))
            visible.append(torch.arange(longest, device=rows.device) < lengths[:, None])
        # The slot itself stands in the last place.
        self.is_visible = torch.cat((*visible, torch.ones_like(rows, dtype=torch.bool)[:, None]), dim=1)
        self.kept: list[tuple[Tensor, Tensor]] = []

    def __call__(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Attends to the caches and the slot itself; all are [row, head, head_dim]."""
        self.kept.append((key, value))
        seen_keys, seen_values = [], []
        for part, longest in self.parts:
            keys, values = part.keys[layer, :, :longest], part.values[layer, :, :longest]
            seen_keys.append(keys if self.takes_all else keys[self.rows])
            seen_values.append(values if self.takes_all else values[self.rows])
        return attend_one(
            query,
            torch.cat((*seen_keys, key[:, None]), dim=1),
            torch.cat((*seen_values, value[:, None]), dim=1),
            self.is_visible,
        )
