"""The one dtype policy: parameters in fp32, compute in bf16 on CUDA and in fp32 elsewhere."""

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import nn


def autocast(device: torch.device) -> AbstractContextManager[object]:
    """Returns the context in which a model computes on `device`."""
    if device.type == "cuda":
        return torch.autocast("cuda", dtype=torch.bfloat16)
    return contextlib.nullcontext()


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
