"""Attention of many new ids of each row at once: to what the caches hold, and to each other.

Like the caches' own back ends (`patchpad.inference.cache`), but for a span in the place of one id.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from patchpad.inference.cache import LocalCache, TrunkCache
from patchpad.inference.span import Span
from patchpad.inference.transfers import on_device
from patchpad.model.visibility import LARGEST_BLOCK, SMALLEST_BLOCK

BLOCK_STEP = 8
"""Queries of a block of a window are a multiple of it."""
QUERY_BLOCK = 256
"""Slots of a row whose trunk attention is computed at once, at most."""
MOST_SCORES = 1 << 20
"""Pairs of queries and places, of one head, that are held at once: 4 MiB in fp32."""


def in_order(
    ring: Float[Tensor, "batch place ..."], position: Int[Tensor, " batch"]
) -> Float[Tensor, "batch place ..."]:
    """Returns a ring whose newest entry is that of `position` from the oldest to the newest."""
    places = ring.shape[1]
    index = (position[:, None] + 1 + torch.arange(places, device=ring.device)) % places
    return ring[torch.arange(len(ring), device=ring.device)[:, None], index]


def ring_after(
    span: Span,
    ordered: Float[Tensor, "batch place ..."],
    packed: Float[Tensor, "new ..."],
    position: Int[Tensor, " batch"],
) -> Float[Tensor, "batch place ..."]:
    """Returns rings after a span.

    Args:
        span: new ids.
        ordered: the rings before, each from its oldest entry to its newest.
        packed: what there is for the new ids.
        position: of each row's newest id before them.
    """
    places, device = ordered.shape[1], ordered.device
    age = ((position + span.lengths)[:, None] - torch.arange(places, device=device)) % places
    rows = torch.arange(len(ordered), device=device)[:, None].expand_as(age)
    return span.after(ordered, packed)[span.place_after(rows, span.lengths[:, None] - 1 - age, places)]


class SpanWindowAttention:
    """Sliding-window attention of a span: packed ids see the ring of their row and the new ids before them.

    Queries are taken in blocks of a row each, so that rows of different lengths cost what they have.

    Args:
        cache: rings of the rows; nothing is written into them.
        span: new ids.
        position: of each row's newest id before them.
        start: first place that each new id may see, counted from its row's first new one, so below 0 in the ring.
    """

    def __init__(
        self, cache: LocalCache, span: Span, position: Int[Tensor, " batch"], start: Int[Tensor, " new"]
    ) -> None:
        self.span, self.position = span, position
        self.keys, self.values = ([in_order(ring, position) for ring in part] for part in (cache.keys, cache.values))
        self.kept: list[tuple[Tensor, Tensor]] = []
        places, device = cache.keys[0].shape[1], start.device
        block = min(_block_size(places), -(-span.width // BLOCK_STEP) * BLOCK_STEP)
        firsts = [(row, first) for row, size in enumerate(span.sizes) for first in range(0, size, block)]
        rows, first = on_device(firsts, device, torch.int64).T[:, :, None]
        columns = first + torch.arange(block, device=device)
        seen_columns = first + torch.arange(1 - places, block, device=device)
        self.queries = (span.begins[rows] + columns).clamp_max(len(span.ids) - 1)
        self.seen = span.place_after(rows.expand_as(seen_columns), seen_columns, places)
        lowest = torch.maximum(columns - places + 1, start[self.queries])
        visible = (seen_columns[:, None] <= columns[..., None]) & (seen_columns[:, None] >= lowest[..., None])
        self.bias = torch.where(visible, 0.0, -torch.inf).to(cache.keys[0].dtype)[:, None]
        num_blocks = -(-span.lengths // block)
        self.at = ((num_blocks.cumsum(0) - num_blocks)[span.rows] + span.columns // block, span.columns % block)

    def __call__(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Attends; all are packed, [new, head, head_dim]."""
        self.kept.append((key, value))
        keys, values = (
            self.span.after(rings[layer], part)[self.seen].transpose(1, 2)
            for rings, part in ((self.keys, key), (self.values, value))
        )
        mixed = F.scaled_dot_product_attention(query[self.queries].transpose(1, 2), keys, values, attn_mask=self.bias)
        return mixed.transpose(1, 2)[self.at]

    def cache_after(self, span: Span) -> LocalCache:
        """Returns rings that hold the new ids too, once all layers have attended.

        Args:
            span: this one, or as `Span.cut` returns it.
        """
        return LocalCache(
            *(
                [
                    ring_after(span, ordered, new[part], self.position)
                    for ordered, new in zip(rings, self.kept, strict=True)
                ]
                for part, rings in enumerate((self.keys, self.values))
            )
        )


def _block_size(window: int) -> int:
    """Queries of a block, about as many as a window has."""
    return min(max(1 << (window - 1).bit_length(), SMALLEST_BLOCK), LARGEST_BLOCK)


class TrunkSpanAttention:
    """Trunk attention of new slots of each row: a slot sees the row's commits before it, and itself.

    Commits are stored in the cache behind the row's patches; scratchpads never are. Queries are taken in blocks, and on
    a CPU nothing is held for each pair of a query and a place that it sees, so what is held at once does not grow with
    the cache.

    Args:
        cache: has room for the new commits.
        rows: row of each slot, ascending; within a row in the order of the bytes.
        place: commits of the row before each slot.
        is_commit: which slots are stored; None for all.
        num_places: one more than the largest place of a commit.
        window: newest commits that a slot sees; None for all.
    """

    def __init__(
        self,
        cache: TrunkCache,
        rows: Int[Tensor, " slot"],
        place: Int[Tensor, " slot"],
        is_commit: Bool[Tensor, " slot"] | None,
        num_places: int,
        window: int | None = None,
    ) -> None:
        self.cache, self.num_places, self.window = cache, num_places, window
        self.stored = slice(None) if is_commit is None else is_commit.nonzero()[:, 0]
        self.stored_at = (rows[self.stored], slice(None), place[self.stored])
        self.all_are_stored = is_commit is None
        counts = torch.bincount(rows, minlength=len(cache.keys[0]))
        self.width = int(counts.max())
        self.at = (rows, torch.arange(len(rows), device=rows.device) - (counts.cumsum(0) - counts)[rows])
        self.place = self._padded(place)
        self.is_fused = place.device.type == "cpu"
        share = MOST_SCORES // max(1, len(self.place) * num_places)
        self.block = QUERY_BLOCK if self.is_fused else max(BLOCK_STEP, min(QUERY_BLOCK, share))
        self.seen = self._seen_ranges() if self.is_fused else []

    def _seen_ranges(self) -> list[list[tuple[int, int, bool]]]:
        """Returns the ranges of places that the queries of each block see, and whether some of them do not see all."""
        found = []
        is_slot = self._padded(torch.ones_like(self.at[0], dtype=torch.bool))
        begin = self._first_seen()
        for first in range(0, self.width, self.block):
            block = slice(first, first + self.block)
            places, begins = self.place[:, block][is_slot[:, block]], begin[:, block][is_slot[:, block]]
            ends = torch.stack((begins.min(), begins.max(), places.min(), places.max())).tolist()
            step = max(BLOCK_STEP, MOST_SCORES // is_slot[:, block].numel())
            low, all_from, all_to, high = ends
            if all_from >= all_to:
                parts = [(low, high, True)]
            else:
                parts = [(low, all_from, True), (all_from, all_to, False), (all_to, high, True)]
            found.append(
                [
                    (one, min(one + step, last) if is_masked else last, is_masked)
                    for begins_at, last, is_masked in parts
                    for one in range(begins_at, last, step if is_masked else max(1, last - begins_at))
                ]
            )
        return found

    def _first_seen(self) -> Int[Tensor, "batch slot"]:
        """Returns the first place that each slot sees."""
        return torch.zeros_like(self.place) if self.window is None else (self.place - self.window).clamp_min(0)

    def __call__(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Stores keys and values of commits, then attends; all are [slot, head, head_dim]."""
        keys, values = self.cache.keys[layer], self.cache.values[layer]
        keys[self.stored_at], values[self.stored_at] = (
            key[self.stored].to(keys.dtype),
            value[self.stored].to(keys.dtype),
        )
        keys, values = keys[:, :, : self.num_places], values[:, :, : self.num_places]
        attend = self._to_stored if self.all_are_stored else self._to_stored_and_itself
        attend = self._fused if self.is_fused else attend
        padded = [self._padded(part).transpose(1, 2) for part in (query, key, value)]
        mixed = [
            attend(keys, values, slice(first, first + self.block), *padded)
            for first in range(0, self.width, self.block)
        ]
        return torch.cat(mixed, dim=2).transpose(1, 2)[self.at]

    def _fused(
        self, keys: Tensor, values: Tensor, block: slice, query: Tensor, own_key: Tensor, own_value: Tensor
    ) -> Float[Tensor, "batch head block head_dim"]:
        """Attends by the fused kernel of CPUs to one range of earlier commits after the other, and to the slot itself.

        Ranges are merged through the logs of the sums of their exponentiated scores. Where a query sees nothing of a
        range, that sum vanishes beside the score of the slot itself.
        """
        scale = query.shape[-1] ** -0.5
        groups = query[:, :, block].unflatten(1, (keys.shape[1], -1))  # [batch, kv_head, group, block, head_dim]
        own = (groups * own_key[:, :, None, block]).sum(-1).to(torch.promote_types(groups.dtype, torch.float32)) * scale
        mixed, log_sum = own_value[:, :, None, block].to(own.dtype).expand(groups.shape), own
        for low, high, is_masked in self.seen[block.start // self.block]:
            bias = None
            if is_masked:
                hidden = ~self._visible(block, low, high)
                bias = torch.zeros(hidden.shape, dtype=groups.dtype, device=own.device)
                bias.masked_fill_(hidden, torch.finfo(groups.dtype).min / 2)  # finite, so that no sum is 0
                bias = bias.repeat(1, groups.shape[2], 1)[:, None]
            more, more_sum = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
                groups.flatten(2, 3), keys[:, :, low:high], values[:, :, low:high], attn_mask=bias, scale=scale
            )
            more, more_sum = more.view(groups.shape), more_sum.view(own.shape)
            total = torch.logaddexp(log_sum, more_sum)
            mixed = (log_sum - total).exp()[..., None] * mixed + (more_sum - total).exp()[..., None] * more
            log_sum = total
        return mixed.to(own_value.dtype).flatten(1, 2)

    def _to_stored(
        self, keys: Tensor, values: Tensor, block: slice, query: Tensor, own_key: Tensor, own_value: Tensor
    ) -> Float[Tensor, "batch head block head_dim"]:
        """Attends where each slot itself is in the cache."""
        visible = self._visible(block, 0, self.num_places, and_itself=True)
        groups = query[:, :, block].unflatten(1, (keys.shape[1], -1)).flatten(2, 3)
        visible = visible.repeat(1, groups.shape[2] // visible.shape[1], 1)
        mixed = F.scaled_dot_product_attention(groups, keys, values, attn_mask=visible[:, None])
        return mixed.unflatten(2, (-1, self.place[:, block].shape[1])).flatten(1, 2)

    def _to_stored_and_itself(
        self, keys: Tensor, values: Tensor, block: slice, query: Tensor, own_key: Tensor, own_value: Tensor
    ) -> Float[Tensor, "batch head block head_dim"]:
        """Attends to earlier commits in the cache, and to the slot itself as one more column of the softmax."""
        visible = self._visible(block, 0, self.num_places)
        kv_heads, scale = keys.shape[1], query.shape[-1] ** -0.5
        groups = (query[:, :, block] * scale).unflatten(1, (kv_heads, -1))  # [batch, kv_head, group, block, head_dim]
        own = (groups * own_key[:, :, None, block]).sum(-1, keepdim=True)
        scores = (groups.flatten(2, 3) @ keys.transpose(-1, -2)).view(*groups.shape[:-1], self.num_places)
        scores = scores.masked_fill(~visible[:, None, None], -torch.inf)
        weights = torch.cat((scores, own), dim=-1).float().softmax(dim=-1).to(values.dtype)
        mixed = (weights[..., :-1].flatten(2, 3) @ values).view_as(groups)
        return (mixed + weights[..., -1:] * own_value[:, :, None, block]).flatten(1, 2)

    def _visible(
        self, block: slice, low: int, high: int, *, and_itself: bool = False
    ) -> Bool[Tensor, "batch block_slot place"]:
        """Returns which places of a range the slots of a block see."""
        places, own = torch.arange(low, high, device=self.place.device), self.place[:, block, None]
        visible = places <= own if and_itself else places < own
        return visible if self.window is None else visible & (places >= own - self.window)

    def _padded(self, packed: Tensor) -> Tensor:
        padded = packed.new_zeros(len(self.cache.keys[0]), self.width, *packed.shape[1:])
        padded[self.at] = packed
        return padded


def span_windows(caches: list[LocalCache], span: Span, position: Int[Tensor, " batch"]) -> list[SpanWindowAttention]:
    """Returns the attention of local parts, one for each cache; `position` is that of each row's newest id before."""
    start = (-1 - position)[span.rows]
    return [SpanWindowAttention(cache, span, position, start) for cache in caches]


__all__ = ["SpanWindowAttention", "TrunkSpanAttention", "in_order", "ring_after", "span_windows"]
