"""Attention with one signature, `attend(layer, query, key, value)`, and a back end per way of seeing.

Here are the reference back ends of the full pass. `patchpad.model.flex_attention` has those for CUDA, which
`patchpad.model.back_ends` chooses; those that read a cache are in `patchpad.inference.cache`.
"""

from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from patchpad.model.visibility import Window, visible_commits
from patchpad.patching.layout import TRUNK_BLOCK, PatchLayout

Heads = Float[Tensor, "*where head head_dim"]


@runtime_checkable
class Attend(Protocol):
    """Mixes the values that each position of layer `layer` may see; all tensors are [*where, head, head_dim].

    Keys and values may have fewer heads than queries in the trunk: each then serves a group of consecutive heads.
    """

    def __call__(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Returns the mixed values, in the query's shape."""
        ...


class KeepsKeysAndValues:
    """Remembers each layer's keys and values when asked to, for a prefill."""

    def __init__(self, keep: bool) -> None:
        self.keep = keep
        self.kept: list[tuple[Tensor, Tensor]] = []

    def remember(self, key: Tensor, value: Tensor) -> None:
        """Appends a layer's keys and values; layers call in order."""
        if self.keep:
            self.kept.append((key, value))


class WindowAttention(KeepsKeysAndValues):
    """Sliding-window attention of a local layer over [batch, byte], computed in blocks."""

    def __init__(self, window: Window, *, keep: bool = False) -> None:
        super().__init__(keep)
        self.window = window

    def __call__(
        self,
        layer: int,
        query: Float[Tensor, "batch byte head head_dim"],
        key: Float[Tensor, "batch byte head head_dim"],
        value: Float[Tensor, "batch byte head head_dim"],
    ) -> Float[Tensor, "batch byte head head_dim"]:
        """Attends to the bytes of the window; cost is bytes x (block + window)."""
        self.remember(key, value)
        batch, length, heads, head_dim = query.shape
        block, reach = self.window.block, self.window.window_bytes - 1
        num_blocks = -(-length // block)
        spare = num_blocks * block - length
        blocks = F.pad(query, (0, 0, 0, 0, 0, spare)).view(batch * num_blocks, block, heads, head_dim).transpose(1, 2)
        spans = F.pad(torch.stack((key, value)), (0, 0, 0, 0, reach, spare)).unfold(2, block + reach, block)
        spans = spans.reshape(2, batch * num_blocks, heads, head_dim, block + reach).transpose(-1, -2)
        mixed = F.scaled_dot_product_attention(blocks, spans[0], spans[1], attn_mask=self.window.bias.to(query.dtype))
        return mixed.transpose(1, 2).reshape(batch, num_blocks * block, heads, head_dim)[:, :length]


class SlotAttention(KeepsKeysAndValues):
    """Trunk attention over packed slots: each slot sees earlier commits of its document, and itself.

    Cost is slots x commits: the slot itself is one more column of the softmax, and no slot sees another's scratchpad.
    """

    def __init__(self, layout: PatchLayout, *, keep: bool = False) -> None:
        super().__init__(keep)
        self.layout = layout
        self.masks = [visible_commits(layout, index) for index in range(len(layout.rows.block_commits))]

    def __call__(
        self,
        layer: int,
        query: Float[Tensor, "slot head head_dim"],
        key: Float[Tensor, "slot kv_head head_dim"],
        value: Float[Tensor, "slot kv_head head_dim"],
    ) -> Float[Tensor, "slot head head_dim"]:
        """Attends block by block of slots; nothing of size slots x slots is built."""
        self.remember(key, value)
        if self.layout.room.slots == 0:
            return query
        rows = self.layout.rows
        scale = query.shape[-1] ** -0.5
        key, value = (repeat_heads(part, query.shape[1]) for part in (key, value))
        own = (query * key).sum(-1, keepdim=True) * scale
        padded_query, padded_own = (part[rows.slots].transpose(1, 2) for part in (query * scale, own))
        commit_key, commit_value = (part[rows.commits].transpose(1, 2) for part in (key, value))
        mixed, own_weights = [], []
        for index, (low, high) in enumerate(rows.block_commits):
            block = slice(index * TRUNK_BLOCK, (index + 1) * TRUNK_BLOCK)
            scores = padded_query[:, :, block] @ commit_key[:, :, low:high].transpose(-1, -2)
            scores = scores.masked_fill(~self.masks[index][:, None], -torch.inf)
            weights = torch.cat((scores, padded_own[:, :, block]), dim=-1).float().softmax(dim=-1).to(value.dtype)
            mixed.append(weights[..., :-1] @ commit_value[:, :, low:high])
            own_weights.append(weights[..., -1:])
        packed, own_weight = (
            torch.cat(parts, dim=2).transpose(1, 2).flatten(0, 1)[rows.place] for parts in (mixed, own_weights)
        )
        return packed + own_weight * value


def repeat_heads(part: Float[Tensor, "slot kv_head head_dim"], heads: int) -> Float[Tensor, "slot head head_dim"]:
    """Returns keys or values for each of `heads` query heads."""
    groups = heads // part.shape[1]
    return part if groups == 1 else part.repeat_interleave(groups, dim=1)
