"""FlexAttention on the pretended device: one kernel each way, which computes only the blocks that the mask lists."""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import AuxOutput

from pretended_cuda.record import bytes_of, has_values
from pretended_cuda.tensor import CudaTensor, Device, one_kernel

BLOCK = 128

Parts = list[tuple[slice, Tensor, Tensor]]
"""For each block of queries: its place, the keys of the listed blocks, and the mask, [batch, 1, query, key]."""


def replacing(plain: Callable[..., Any]) -> Callable[..., Any]:
    """Returns what stands in the place of `flex_attention`; tensors of the CPU still get that."""

    def flex_attention(
        query: Tensor,
        key: Tensor,
        value: Tensor,
        score_mod: Any = None,
        block_mask: Any = None,
        scale: float | None = None,
        enable_gqa: bool = False,
        *args: Any,
        return_aux: Any = None,
        **kwargs: Any,
    ) -> Any:
        if not isinstance(query, CudaTensor):
            options = {"enable_gqa": enable_gqa, "return_aux": return_aux, **kwargs}
            return plain(query, key, value, score_mod, block_mask, scale, *args, **options)
        assert score_mod is None
        assert block_mask is not None
        assert query.dtype == key.dtype == value.dtype, (query.dtype, key.dtype, value.dtype)
        assert query.shape[2] % BLOCK == key.shape[2] % BLOCK == 0, (query.shape, key.shape)
        assert key.device == value.device == block_mask.kv_indices.device == query.device
        parts, num_blocks = _listed(block_mask, query, key)
        flops = 4 * num_blocks * BLOCK**2 * query.shape[1] * query.shape[3]
        scale = query.shape[-1] ** -0.5 if scale is None else scale
        mixed, log_sum = _Flex.apply(query, key, value, parts, scale, flops)
        return (mixed, AuxOutput(lse=log_sum)) if return_aux is not None else mixed

    return flex_attention


class _Flex(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, parts: Parts | None, scale: float, flops: int
    ) -> tuple[Tensor, Tensor]:
        attend = functools.partial(_attend, parts=parts, scale=scale)
        moved = bytes_of(query, query, key, value)
        mixed, log_sum = one_kernel("flex_attention", attend, query, key, value, moved=moved, flops=flops)
        ctx.save_for_backward(query, key, value, mixed, log_sum)
        ctx.attend, ctx.flops = attend, flops
        return mixed, log_sum

    @staticmethod
    def backward(ctx: Any, *of_outputs: Tensor) -> tuple[Any, ...]:  # pyrefly: ignore
        def gradients(query: Tensor, key: Tensor, value: Tensor, *of_outputs: Tensor) -> tuple[Tensor, ...]:
            with torch.inference_mode(False), torch.enable_grad():
                inputs = [part.detach().requires_grad_() for part in (query, key, value)]
                # The gradient of an output that nothing used has values, even where the others have shapes alone.
                alike = [part.to(query.device) for part in of_outputs]
                return torch.autograd.grad(ctx.attend(*inputs), inputs, alike, materialize_grads=True)

        query, key, value, *_ = ctx.saved_tensors
        counts = {"moved": 2 * bytes_of(query, query, key, value), "flops": ctx.flops * 5 // 2}
        made = one_kernel("flex_attention_backward", gradients, query, key, value, *of_outputs, **counts)
        return (*made, None, None, None)


def _attend(query: Tensor, key: Tensor, value: Tensor, parts: Parts | None, scale: float) -> tuple[Tensor, Tensor]:
    """Returns the mixed values, 0 where nothing is seen, and the log of the sum of the weights, -inf there."""
    if parts is None:  # shapes alone
        touched = query + key.mean() + value.mean()
        return touched, touched[..., 0].float()
    key, value = (part.repeat_interleave(query.shape[1] // part.shape[1], dim=1) for part in (key, value))
    mixed, log_sums = [], []
    for place, keys, mask in parts:
        scores = (query[:, :, place].float() @ key[:, :, keys].float().transpose(-1, -2)) * scale
        scores = scores.masked_fill(~mask, -torch.inf)
        sees_any = mask.any(-1, keepdim=True)
        log_sum = torch.logsumexp(torch.where(sees_any, scores, 0.0), dim=-1, keepdim=True)
        weights = torch.where(sees_any, (scores - log_sum).exp(), 0.0)
        mixed.append(weights @ value[:, :, keys].float())
        log_sums.append(torch.where(sees_any, log_sum, -torch.inf)[..., 0])
    return torch.cat(mixed, dim=2).to(value.dtype), torch.cat(log_sums, dim=2)


def _listed(block_mask: Any, query: Tensor, key: Tensor) -> tuple[Parts | None, int]:
    """Returns what each block of queries sees, and how many blocks are listed.

    Blocks listed in part see what the mask's function says, those listed in full see all, and others nothing.
    """
    lists = [(block_mask.kv_num_blocks, block_mask.kv_indices)]
    if block_mask.full_kv_num_blocks is not None:
        lists.append((block_mask.full_kv_num_blocks, block_mask.full_kv_indices))
    if not all(has_values(counts.host) for counts, _ in lists):
        return None, 0
    listed = [_is_listed(counts.host, blocks.host, key.shape[2] // BLOCK) for counts, blocks in lists]
    num_blocks = sum(int(counts.host.sum()) for counts, _ in lists)
    if not has_values(query.host):
        return None, num_blocks
    in_part, in_full = listed if len(listed) == 2 else (listed[0], torch.zeros_like(listed[0]))
    rows = torch.arange(query.shape[0])[:, None, None, None]
    parts: Parts = []
    with Device.record.unseen():
        for number in range(query.shape[2] // BLOCK):
            place = slice(number * BLOCK, (number + 1) * BLOCK)
            used = (in_part | in_full)[:, 0, number].any(0).nonzero()[:, 0]
            keys = (used[:, None] * BLOCK + torch.arange(BLOCK)).flatten()
            queries = torch.arange(place.start, place.stop)[:, None]
            sees = block_mask.mask_mod(*(CudaTensor(index) for index in (rows, rows * 0, queries, keys))).host
            seen = (in_part[:, 0, number, used][:, None, None, :, None] & sees.unflatten(-1, (-1, BLOCK))).flatten(-2)
            seen = seen | in_full[:, 0, number, used].repeat_interleave(BLOCK, -1)[:, None, None]
            parts.append((place, keys, seen))
    return parts, num_blocks


def _is_listed(counts: Tensor, blocks: Tensor, num_blocks: int) -> Tensor:
    """Returns [batch, 1, query block, key block]."""
    is_used = torch.arange(blocks.shape[-1]) < counts[..., None]
    hits = (blocks[..., None] == torch.arange(num_blocks)) & is_used[..., None]
    return hits.any(-2)
