"""Operations that are one kernel on CUDA, and that a torch without CUDA would take apart."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import flex_attention as flex

from pretended_cuda import flex_kernel
from pretended_cuda.record import bytes_of
from pretended_cuda.tensor import CudaTensor, Device, one_kernel

TORCHS_SILU = F.silu


class _RmsNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, states: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        ctx.save_for_backward(states, weight)
        ctx.epsilon = epsilon

        def norm(states: Tensor, weight: Tensor) -> Tensor:
            return states * torch.rsqrt(states.square().mean(-1, keepdim=True) + epsilon) * weight

        return one_kernel("fused_rms_norm", norm, states, weight, moved=2 * bytes_of(states))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:  # pyrefly: ignore
        def gradients(gradient: Tensor, states: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
            inverse = torch.rsqrt(states.square().mean(-1, keepdim=True) + ctx.epsilon)
            normed, weighted = states * inverse, gradient * weight
            of_states = inverse * (weighted - normed * (weighted * normed).mean(-1, keepdim=True))
            return of_states, (gradient * normed).flatten(0, -2).sum(0)

        moved = 5 * bytes_of(gradient)
        return *one_kernel("fused_rms_norm_backward", gradients, gradient, *ctx.saved_tensors, moved=moved), None


class _Silu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, states: Tensor) -> Tensor:
        ctx.save_for_backward(states)
        return one_kernel("silu", TORCHS_SILU, states, moved=2 * bytes_of(states))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        def of_states(gradient: Tensor, states: Tensor) -> Tensor:
            share = torch.sigmoid(states)
            return gradient * share * (1 + states * (1 - share))

        return one_kernel("silu_backward", of_states, gradient, *ctx.saved_tensors, moved=3 * bytes_of(gradient))


def _scaled_dot_product_attention(plain: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def scaled_dot_product_attention(
        query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, *args: Any, **kwargs: Any
    ) -> Tensor:
        if not isinstance(query, CudaTensor):
            return plain(query, key, value, attn_mask, *args, **kwargs)
        if torch.is_autocast_enabled("cuda"):
            half = torch.get_autocast_dtype("cuda")
            query, key, value = (part.to(half) for part in (query, key, value))
            if attn_mask is not None and attn_mask.is_floating_point():
                attn_mask = attn_mask.to(half)
        assert query.dtype == key.dtype == value.dtype, (query.dtype, key.dtype, value.dtype)
        assert attn_mask is None or attn_mask.dtype in (torch.bool, query.dtype), attn_mask.dtype
        is_fused = all(part.stride(-1) == 1 for part in (query, key, value))
        if not is_fused:
            Device.record.odd("SDPA takes its many small kernels: a last stride is not 1")
        flops = 4 * query[..., 0].numel() * key.shape[-2] * query.shape[-1]
        moved = bytes_of(query, query, key, value)
        name = "sdpa" if is_fused else "sdpa_math"
        if torch.is_grad_enabled() and any(part.requires_grad for part in (query, key, value)):
            with Device.record.one_kernel(name, moved, flops):
                return plain(query, key, value, attn_mask, *args, **kwargs)

        def attend(query: Tensor, key: Tensor, value: Tensor, *mask: Tensor) -> Tensor:
            floats = [part.float() for part in (query, key, value)]
            biases = [part if part.dtype == torch.bool else part.float() for part in mask] or [None]
            return plain(*floats, *biases, *args, **kwargs).to(value.dtype)

        masks = [] if attn_mask is None else [attn_mask]
        return one_kernel(name, attend, query, key, value, *masks, moved=moved, flops=flops)

    return scaled_dot_product_attention


def _rms_norm(plain: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def rms_norm(
        input: Tensor, normalized_shape: list[int], weight: Tensor | None = None, eps: float | None = None
    ) -> Tensor:
        if not isinstance(input, CudaTensor) or weight is None:
            return plain(input, normalized_shape, weight, eps)
        if torch.is_autocast_enabled("cuda"):  # in the list of those that are computed in fp32
            input, weight = input.float(), weight.float()
        if weight.dtype != input.dtype:
            return plain(input, normalized_shape, weight, eps)
        return _RmsNorm.apply(input, weight, eps if eps is not None else torch.finfo(input.dtype).eps)

    return rms_norm


def _silu(plain: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def silu(input: Tensor, inplace: bool = False) -> Tensor:
        return _Silu.apply(input) if isinstance(input, CudaTensor) else plain(input, inplace)

    return silu


def install() -> None:
    """Puts these in the place of torch's own; tensors of the CPU still get those."""
    F.rms_norm = _rms_norm(F.rms_norm)
    F.silu = _silu(F.silu)
    F.scaled_dot_product_attention = _scaled_dot_product_attention(F.scaled_dot_product_attention)
    flex.flex_attention = flex_kernel.replacing(flex.flex_attention)
