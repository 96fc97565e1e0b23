"""The one dtype policy: parameters in fp32, compute in fp32, except under autocast, which CUDA takes.

There, linear layers and attention compute in bf16. These stay in fp32: parameters, the residual streams of all stacks,
norms, LM heads, the router of `hnet`, entropies, losses, and all that patches and scratchpads are decided from.
"""

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn


def autocast(device: torch.device) -> AbstractContextManager[object]:
    """Returns the context in which a model computes on `device`."""
    if device.type == "cuda":
        return torch.autocast("cuda", dtype=torch.bfloat16)
    return contextlib.nullcontext()


def residual_stream(states: Float[Tensor, "*where dim"]) -> Float[Tensor, "*where dim"]:
    """Returns what enters a stack in the type in which its blocks add up: fp32 under autocast, else as it is."""
    return states.float() if torch.is_autocast_enabled(states.device.type) else states


def in_product_type(states: Float[Tensor, "*where dim"]) -> Float[Tensor, "*where dim"]:
    """Returns states in the type in which they are multiplied: that of autocast where it is on, else as they are.

    It says where the cast happens: before a gather, which then moves half as much.
    """
    kind = states.device.type
    return states.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else states


@contextlib.contextmanager
def plain_defaults() -> Iterator[None]:
    """Makes tensors in fp32, on the CPU and fit for training, whatever the caller's defaults are.

    A model is built in it, so that its weights do not depend on `torch.set_default_dtype`, on a default device, or on
    `torch.inference_mode`.
    """
    dtype = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        with torch.device("cpu"), torch.inference_mode(False):
            yield
    finally:
        torch.set_default_dtype(dtype)


@contextlib.contextmanager
def trainable() -> Iterator[None]:
    """Allows gradients, whatever the caller's modes are: `torch.no_grad` and `torch.inference_mode` end in it."""
    with torch.inference_mode(False), torch.enable_grad():
        yield


class PreciseBuffers(nn.Module):
    """A module whose own buffers stay in fp32 or better when the module is cast, as by `.bfloat16()` or `.half()`.

    Positions and thresholds in bf16 would be wrong by up to 1 part in 256.
    """

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> "PreciseBuffers":
        before = dict(self.named_buffers(recurse=False))
        super()._apply(fn, recurse)
        for name, buffer in before.items():
            moved = getattr(self, name)
            if moved.dtype != buffer.dtype:
                setattr(self, name, buffer.to(moved.device, torch.promote_types(moved.dtype, torch.float32)))
        return self
