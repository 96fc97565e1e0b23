"""Caches of the stepping model: commits only for the trunk, rings of the window for the local layers.

Each cache also is the attention back end that reads it (`patchpad.model.attention.Attend`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

Layers = list[Tensor]
"""Keys or values, one tensor per layer, rows first: compiled code writes into these in place, but not into a stack."""
GROWTH = 64
"""Places by which a trunk cache grows."""
ALIGNMENT = 8
"""Features of a head, and places of a cache, come in multiples of this where attention is one kernel on CUDA."""
PRODUCT_ROWS = 16
"""From so many rows on, attention of one query per row takes half the time as two batched products."""
GATHER_SHARE = 1 / 3
"""The trunk attends for all rows of a batch where more than this share of them needs it; else for copies of those."""
WINDOW_SHARE = 3 / 4
"""The same for local layers: their windows are short, and so are copied quickly."""


def attend_one(
    query: Float[Tensor, "row head head_dim"],
    keys: Float[Tensor, "row kv_head place head_dim"],
    values: Float[Tensor, "row kv_head place head_dim"],
    bias: Float[Tensor, "row 1 1 place"],
) -> Float[Tensor, "row head head_dim"]:
    """Attention of one query per row to that row's places; a key head serves a group of query heads.

    Args:
        query: one per row.
        keys: of each row's places.
        values: of each row's places.
        bias: 0 where a place is visible, -inf elsewhere.
    """
    groups = query.unflatten(1, (keys.shape[1], -1))
    if torch.compiler.is_compiling() and query.is_cuda and keys.shape[2] % ALIGNMENT == keys.shape[3] % ALIGNMENT == 0:
        # What `scaled_dot_product_attention` takes there too. Named here, it stays one kernel whatever device compiles.
        seen = bias.expand(*groups.shape[:3], -1)
        return torch.ops.aten._scaled_dot_product_efficient_attention(groups, keys, values, seen, False)[0].flatten(
            1, 2
        )
    if len(query) >= PRODUCT_ROWS and _takes_products(keys):
        return _attend_by_products(groups, keys, values, bias).flatten(1, 2)
    return F.scaled_dot_product_attention(groups, keys, values, attn_mask=bias).flatten(1, 2)


def _takes_products(keys: Float[Tensor, "row kv_head place head_dim"]) -> bool:
    """Whether products are faster: in fp32 on a CPU where a head's keys lie together; compiled code never asks."""
    is_plain = keys.device.type == "cpu" and not torch.compiler.is_compiling()
    return is_plain and keys.dtype == torch.float32 and keys.stride(1) > keys.stride(2)


def _attend_by_products(
    groups: Float[Tensor, "row kv_head group head_dim"],
    keys: Float[Tensor, "row kv_head place head_dim"],
    values: Float[Tensor, "row kv_head place head_dim"],
    bias: Float[Tensor, "row 1 1 place"],
) -> Float[Tensor, "row kv_head group head_dim"]:
    """The same as `F.scaled_dot_product_attention`, whose kernel for CPUs is made for many queries."""
    scores = torch.matmul(groups * groups.shape[-1] ** -0.5, keys.transpose(-1, -2)).add_(bias)
    return torch.matmul(scores.softmax(-1), values)


def bias_of(is_visible: Bool[Tensor, "row 1 1 place"], dtype: torch.dtype) -> Float[Tensor, "row 1 1 place"]:
    """Returns what `attend_one` adds to the scores: the logarithm of the mask, 0 or -inf."""
    bias = is_visible.log()
    return bias if bias.dtype == dtype else bias.to(dtype)


def are_all(rows: Int[Tensor, " row"], batch: int) -> bool:
    """Whether rows are all of a batch. Code compiled for a CPU must not ask: it serves any number of rows.

    On CUDA compiled rows are always all of a batch, see `patchpad.inference.whole_batch`.
    """
    if torch.compiler.is_compiling() and not rows.is_cuda:
        return torch.fx.experimental.symbolic_shapes.statically_known_true(len(rows) == batch)
    return len(rows) == batch


class RowsAttention:
    """Attention of one query in each of some rows of a batch, given in ascending order.

    All rows attend together, or only those that are wanted, whose caches then have to be gathered. Compiled code never
    gathers, so that one version of it serves any number of rows.

    Args:
        rows: ascending.
        batch: rows of the batch.
        share: of the rows of the batch, above which all attend.
    """

    def __init__(self, rows: Int[Tensor, " row"], batch: int, share: float) -> None:
        self.rows = rows
        self.batch = batch
        self.are_all = are_all(rows, batch)
        self.takes_all = torch.compiler.is_compiling() or len(rows) > share * batch

    def attend(self, query: Tensor, keys: Tensor, values: Tensor, bias: Tensor) -> Tensor:
        """Attends for the rows.

        Args:
            query: [row, head, head_dim].
            keys: of the whole batch, [batch, kv_head, place, head_dim].
            values: of the same shape.
            bias: that `spread` has returned.
        """
        if not self.takes_all:
            return attend_one(query, keys.index_select(0, self.rows), values.index_select(0, self.rows), bias)
        mixed = attend_one(self.spread(query), keys, values, bias)
        return mixed if self.are_all else mixed[self.rows]

    def spread(self, part: Tensor) -> Tensor:
        """Returns a tensor with an entry for every row of the batch, where all rows are attended for."""
        if not self.takes_all or self.are_all:
            return part
        return part.new_zeros(self.batch, *part.shape[1:]).index_copy_(0, self.rows, part)


def clone_layers(layers: Layers) -> Layers:
    """Returns independent copies."""
    return [part.clone() for part in layers]


def select_rows(layers: Layers, rows: Int[Tensor, " row"]) -> Layers:
    """Returns copies of the given rows."""
    return [part.index_select(0, rows) for part in layers]


def join_layers(parts: Sequence[Layers]) -> Layers:
    """Returns the rows of all parts, layer by layer."""
    return [torch.cat(same_layer) for same_layer in zip(*parts, strict=True)]


@dataclass
class LocalCache:
    """Keys and values of each row's last `window` bytes, by layer; the byte at position p lies at p % window."""

    keys: list[Float[Tensor, "batch window head head_dim"]]
    values: list[Float[Tensor, "batch window head head_dim"]]

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
        return LocalCache(*([ring_of(pair[part], last_position, window) for pair in kept] for part in (0, 1)))

    @property
    def window(self) -> int:
        """Places of a row."""
        return self.keys[0].shape[1]

    def at(
        self, rows: Int[Tensor, " row"], position: Int[Tensor, " row"], alike: "RingAttention | None" = None
    ) -> "RingAttention":
        """Returns the back end for one byte in each of `rows`, at `position`; it stores keys and values as it goes.

        Args:
            rows: ascending.
            position: of their bytes.
            alike: back end for the same bytes in another cache. One for a window of the same size finds nothing anew.
        """
        return RingAttention(self, rows, position, alike)

    @staticmethod
    def join(caches: Sequence["LocalCache"]) -> "LocalCache":
        """Returns one cache with the rows of all."""
        return LocalCache(
            join_layers([cache.keys for cache in caches]), join_layers([cache.values for cache in caches])
        )

    def map(self, change: Callable[[Tensor], Tensor]) -> "LocalCache":
        """Returns a cache of what `change` makes of each layer's keys and values."""
        return LocalCache(*([change(layer) for layer in part] for part in (self.keys, self.values)))

    def clone(self) -> "LocalCache":
        """Returns an independent copy."""
        return LocalCache(*(clone_layers(part) for part in (self.keys, self.values)))

    def select(self, rows: Int[Tensor, " row"]) -> "LocalCache":
        """Returns a copy with the given rows."""
        return LocalCache(*(select_rows(part, rows) for part in (self.keys, self.values)))


def ring_of(
    values: Float[Tensor, "batch byte ..."], last_position: Int[Tensor, " batch"], size: int
) -> Float[Tensor, "batch place ..."]:
    """Returns the last values of each row as a ring: that of position p lies at p % size."""
    places = torch.arange(size, device=values.device)
    age = (last_position[:, None] - places) % size
    position = (last_position[:, None] - age).clamp_min(0)
    return values[torch.arange(len(values), device=values.device)[:, None], position]


class RingAttention(RowsAttention):
    """Sliding-window attention of one new byte in each of some rows; see `LocalCache.at`."""

    def __init__(
        self,
        cache: LocalCache,
        rows: Int[Tensor, " row"],
        position: Int[Tensor, " row"],
        alike: "RingAttention | None" = None,
    ) -> None:
        super().__init__(rows, len(cache.keys[0]), WINDOW_SHARE)
        self.cache = cache
        window = cache.window
        if alike is not None and alike.cache.window == window:
            self.index, self.bias = alike.index, alike.bias
        else:
            self.index = (rows, position % window)
            # A ring is filled place by place, so that only the places behind a document's first bytes are empty.
            is_visible = torch.arange(window, device=rows.device) <= position.view(-1, 1, 1, 1)
            self.bias = self.spread(bias_of(is_visible, cache.keys[0].dtype))

    def __call__(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Stores the byte's key and value, then attends to the window; all are [row, head, head_dim]."""
        keys, values = self.cache.keys[layer], self.cache.values[layer]
        keys.index_put_(self.index, key)
        values.index_put_(self.index, value)
        return self.attend(query, keys.transpose(1, 2), values.transpose(1, 2), self.bias)


@dataclass
class TrunkCache:
    """Keys and values of committed patches; scratchpads never enter it.

    The place after a row's last patch is where the slot that is being computed stands. A commit keeps it, by counting
    it as a patch; what a scratchpad leaves there is never read, and the next slot overwrites it. How many patches a row
    has is up to its state.
    """

    keys: list[Float[Tensor, "batch kv_head place head_dim"]]
    """A head's keys lie together, as they are read: once for each new slot."""
    values: list[Float[Tensor, "batch kv_head place head_dim"]]

    @staticmethod
    def from_prefill(
        kept: list[tuple[Tensor, Tensor]], padded_commits: Int[Tensor, "batch row_commit"]
    ) -> "TrunkCache":
        """Takes the commits from a full pass, whose slots are packed: keys and values are [slot, head, head_dim]."""
        batch, places = padded_commits.shape
        spare = capacity_for(places) - places
        keys, values = (
            [F.pad(pair[part][padded_commits].transpose(1, 2), (0, 0, 0, spare)) for pair in kept]
            if places
            else [pair[part].new_zeros(batch, pair[part].shape[1], spare, pair[part].shape[2]) for pair in kept]
            for part in (0, 1)
        )
        return TrunkCache(keys, values)

    @staticmethod
    def of_positions(kept: list[tuple[Tensor, Tensor]]) -> "TrunkCache":
        """The same from a pass in which every position is a slot: [batch, position, head, head_dim]."""
        batch, width = kept[0][0].shape[:2]
        places = torch.arange(batch * width, device=kept[0][0].device).view(batch, width)
        return TrunkCache.from_prefill([(key.flatten(0, 1), value.flatten(0, 1)) for key, value in kept], places)

    @property
    def capacity(self) -> int:
        """Places of a row."""
        return self.keys[0].shape[2]

    def with_room(self, num_patches: int) -> "TrunkCache":
        """Returns a cache with the same entries that holds so many patches and one more slot in every row."""
        return self.widened(capacity_for(num_patches))

    def widened(self, capacity: int) -> "TrunkCache":
        """Returns a cache with the same entries and at least so many places in every row."""
        return TrunkCache(*(_with_capacity(part, capacity) for part in (self.keys, self.values)))

    def without_first(self, num_dropped: Int[Tensor, " batch"], kept: int, capacity: int) -> "TrunkCache":
        """Returns a cache without the first entries of each row; the others move to its first places.

        Args:
            num_dropped: entries of each row that are left out.
            kept: entries that a row has left, at most.
            capacity: places of a row, at least `kept`.
        """
        places = num_dropped[:, None] + torch.arange(min(kept, self.capacity), device=num_dropped.device)
        places = places.clamp_max(self.capacity - 1)[:, None, :, None]

        def moved(part: Tensor) -> Tensor:
            found = part.gather(2, places.expand(-1, part.shape[1], -1, part.shape[3]))
            return F.pad(found, (0, 0, 0, capacity - found.shape[2]))

        return self.map(moved)

    def map(self, change: Callable[[Tensor], Tensor]) -> "TrunkCache":
        """Returns a cache of what `change` makes of each layer's keys and values."""
        return TrunkCache(*([change(layer) for layer in part] for part in (self.keys, self.values)))

    def clone(self) -> "TrunkCache":
        """Returns an independent copy."""
        return TrunkCache(*(clone_layers(part) for part in (self.keys, self.values)))

    def select(self, rows: Int[Tensor, " row"]) -> "TrunkCache":
        """Returns a copy with the given rows."""
        return TrunkCache(*(select_rows(part, rows) for part in (self.keys, self.values)))

    @staticmethod
    def join(caches: Sequence["TrunkCache"]) -> "TrunkCache":
        """Returns one cache with the rows of all, as long as the longest."""
        capacity = max(cache.capacity for cache in caches)
        keys, values = (
            join_layers([_with_capacity(layers, capacity) for layers in parts])
            for parts in ([cache.keys for cache in caches], [cache.values for cache in caches])
        )
        return TrunkCache(keys, values)


def _with_capacity(layers: Layers, capacity: int) -> Layers:
    """Returns keys or values with at least so many places."""
    spare = capacity - layers[0].shape[2]
    return [F.pad(part, (0, 0, 0, spare)) for part in layers] if spare > 0 else layers


def capacity_for(num_patches: int) -> int:
    """Places of a cache that holds so many patches and the slot that is being computed, in whole blocks."""
    return -(-(num_patches + 1) // GROWTH) * GROWTH


class TrunkCacheAttention(RowsAttention):
    """Trunk attention of one new slot in some rows, in ascending order.

    It sees earlier commits of its document, and itself. Keys and values of the slot are stored behind the row's
    entries.

    Args:
        cache: with room for one more slot.
        rows: of the slots.
        num_places: entries of each row, which lie before its slot.
        window: newest ones of them that it sees; None for all.
    """

    def __init__(
        self,
        cache: TrunkCache,
        rows: Int[Tensor, " row"],
        num_places: Int[Tensor, " row"],
        window: int | None = None,
    ) -> None:
        super().__init__(rows, len(cache.keys[0]), GATHER_SHARE)
        self.cache = cache
        self.index = (rows, num_places)
        place, newest = torch.arange(cache.capacity, device=rows.device), num_places.view(-1, 1, 1, 1)
        is_visible = place <= newest
        if window is not None:
            is_visible = is_visible & (place >= newest - window)
        self.bias = self.spread(bias_of(is_visible, cache.keys[0].dtype))

    def __call__(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Stores the slot's key and value, then attends; all are [row, head, head_dim]."""
        keys, values = self.cache.keys[layer], self.cache.values[layer]
        keys.transpose(1, 2).index_put_(self.index, key)
        values.transpose(1, 2).index_put_(self.index, value)
        return self.attend(query, keys, values, self.bias)
