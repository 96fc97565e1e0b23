"""The one dtype policy: parameters in fp32, compute in bf16 on CUDA and in fp32 elsewhere."""

import contextlib
from contextlib import AbstractContextManager

import torch


def autocast(device: torch.device) -> AbstractContextManager[object]:
    """Returns the context in which a model computes on `device`."""
    if device.type == "cuda":
        return torch.autocast("cuda", dtype=torch.bfloat16)
    return contextlib.nullcontext()
