"""Fused attention of the trunk on a CPU: its kernel never holds the weights of slots x commits.

A slot sees earlier commits, which the kernel serves, and itself, which is merged through the log-sum-exp: with s the
score of the slot itself and L the log of the sum of the commits' exponentiated scores, the softmax over both has the
log-sum-exp log(exp L + exp s). The backward pass of the kernel (Dao et al. 2022) needs no more than the outputs and the
log-sum-exp of the whole softmax, so it is given the merged ones.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from patchpad.model.attention import KeepsKeysAndValues, repeat_heads
from patchpad.model.visibility import visible_commits
from patchpad.patching.layout import TRUNK_BLOCK, PatchLayout, RowSlots

MOST_KEPT = 1 << 24
"""Elements of all blocks' biases up to which they are kept: 128 MiB in fp32."""


class FusedSlotAttention(KeepsKeysAndValues):
    """Trunk attention over packed slots; see `SlotAttention`."""

    def __init__(self, layout: PatchLayout, *, keep: bool = False) -> None:
        super().__init__(keep)
        self.layout = layout
        self.biases: Biases | None = None

    def __call__(
        self,
        layer: int,
        query: Float[Tensor, "slot head head_dim"],
        key: Float[Tensor, "slot kv_head head_dim"],
        value: Float[Tensor, "slot kv_head head_dim"],
    ) -> Float[Tensor, "slot head head_dim"]:
        """Attends block by block of slots."""
        self.remember(key, value)
        if self.layout.room.slots == 0:
            return query
        if self.biases is None:
            self.biases = Biases(self.layout, query.dtype)
        key, value = (repeat_heads(part, query.shape[1]) for part in (key, value))
        return _FusedSlots.apply(query, key, value, self.layout, self.biases)  # pyrefly: ignore


class Biases:
    """What is added to the scores of each block of slots.

    They grow with the square of the text, so only small ones are kept for the next layer and the backward pass; others
    are made anew at each use.
    """

    def __init__(self, layout: PatchLayout, dtype: torch.dtype) -> None:
        self.layout, self.dtype = layout, dtype
        rows = layout.rows
        elements = rows.slots.shape[0] * TRUNK_BLOCK * sum(high - low for low, high in rows.block_commits)
        self.kept: dict[int, tuple[Tensor, Tensor]] | None = {} if elements <= MOST_KEPT else None

    def of_block(self, block: int) -> tuple[Tensor, Tensor]:
        """Returns the biases of a block: in the backward pass, and in the forward pass.

        Where a slot sees no commit, the forward pass shows it all of them, so that nothing is divided by a sum of 0;
        what comes of that is not used.
        """
        if self.kept is not None and block in self.kept:
            return self.kept[block]
        visible = visible_commits(self.layout, block)[:, None]
        bias = torch.zeros(visible.shape, dtype=self.dtype, device=visible.device).masked_fill_(~visible, -torch.inf)
        found = bias, torch.where(visible.any(dim=-1, keepdim=True), bias, 0.0)
        if self.kept is not None:
            self.kept[block] = found
        return found


class _FusedSlots(torch.autograd.Function):
    """Attention to commits by the fused kernel, the slot itself merged; all are [slot, head, head_dim]."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, layout: PatchLayout, biases: Biases) -> Tensor:
        rows, scale = layout.rows, query.shape[-1] ** -0.5
        queries, keys, values = _blocks(rows, query), *(_by_row(rows.commits, part) for part in (key, value))
        outputs, log_sums = [], []
        for index, (part, (low, high)) in enumerate(zip(queries, rows.block_commits, strict=True)):
            if low == high:
                outputs.append(torch.zeros_like(part))
                log_sums.append(part.new_full(part.shape[:3], -torch.inf))
                continue
            output, log_sum = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
                part, keys[:, :, low:high], values[:, :, low:high], attn_mask=biases.of_block(index)[1], scale=scale
            )
            outputs.append(output)
            log_sums.append(log_sum.to(part.dtype))
        mixed, log_sum = (
            torch.cat(parts, dim=2).transpose(1, 2).flatten(0, 1)[rows.place]
            for parts in (outputs, [part[..., None] for part in log_sums])
        )
        sees_any = (rows.visible_from < rows.visible_to).flatten()[rows.place]
        log_sum = torch.where(sees_any[:, None], log_sum[..., 0], -torch.inf)
        own = (query * key).sum(-1) * scale
        total = torch.logaddexp(log_sum, own)
        mixed = (log_sum - total).exp()[..., None] * mixed + (own - total).exp()[..., None] * value
        ctx.save_for_backward(query, key, value, mixed, own, total)
        ctx.layout, ctx.biases = layout, biases
        return mixed

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Any) -> Any:  # pyrefly: ignore[bad-override]
        (gradient,) = grad_outputs
        query, key, value, mixed, own, total = ctx.saved_tensors
        rows: RowSlots = ctx.layout.rows
        scale = query.shape[-1] ** -0.5
        share = (own - total).exp()[..., None]
        slope = share * ((gradient * (value - mixed)).sum(-1, keepdim=True)) * scale
        to_query, to_key, to_value = slope * key, slope * query, share * gradient

        keys, values = (_by_row(rows.commits, part) for part in (key, value))
        queries, gradients, outputs = (_blocks(rows, part) for part in (query, gradient, mixed))
        sums = _blocks(rows, total[..., None])
        key_slopes, value_slopes = torch.zeros_like(keys), torch.zeros_like(values)
        query_slopes = []
        for index, (low, high) in enumerate(rows.block_commits):
            if low == high:
                query_slopes.append(torch.zeros_like(queries[index]))
                continue
            seen = slice(low, high)
            found = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
                gradients[index],
                queries[index],
                keys[:, :, seen],
                values[:, :, seen],
                outputs[index],
                sums[index][..., 0].to(torch.promote_types(query.dtype, torch.float32)),
                0.0,
                False,
                attn_mask=ctx.biases.of_block(index)[0],
                scale=scale,
            )
            query_slopes.append(found[0])
            key_slopes[:, :, seen] += found[1]
            value_slopes[:, :, seen] += found[2]
        to_query += torch.cat(query_slopes, dim=2).transpose(1, 2).flatten(0, 1)[rows.place]
        commits = rows.commits.flatten()  # unused places repeat slot 0 and have slopes of 0
        to_key.index_add_(0, commits, key_slopes.transpose(1, 2).flatten(0, 1))
        to_value.index_add_(0, commits, value_slopes.transpose(1, 2).flatten(0, 1))
        return to_query, to_key, to_value, None, None


def _by_row(places: Tensor, part: Tensor) -> Tensor:
    """Returns packed slots as [batch, head, place, head_dim]."""
    return part[places].transpose(1, 2)


def _blocks(rows: RowSlots, part: Tensor) -> tuple[Tensor, ...]:
    """Returns packed slots as [batch, head, place, head_dim], a block at a time."""
    return _by_row(rows.slots, part).split(TRUNK_BLOCK, dim=2)
