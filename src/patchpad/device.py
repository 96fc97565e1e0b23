"""From the name of a device to the device, and what differs between devices."""

import functools
import logging

import torch
from torch import Tensor

from patchpad.errors import ConfigError

logger = logging.getLogger(__name__)

HAS_RUN_ON_A_GPU = False
"""Whether the repository holds a result of a GPU. A test compares it with `benchmarks/results`."""


def select_device(name: str) -> torch.device:
    """Returns the device that `name` means: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`.

    Where `auto` takes CUDA, one warning says that patchpad has not run there yet, as long as that is so.

    Raises:
        ConfigError: an unknown name, or a device that this machine lacks.
    """
    if name == "auto":
        if torch.cuda.is_available():
            if not HAS_RUN_ON_A_GPU:
                _warn_of_first_run()
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda", "mps"):
        raise ConfigError(f"device is {name!r}; allowed: auto, cpu, cuda, cuda:N, mps", hint="Change --device.")
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}[device.type]
    if there and device.type == "cuda" and device.index is not None:
        there = device.index < torch.cuda.device_count()
    if not there:
        raise ConfigError(f"device is {name!r}, but this machine has none", hint="Use --device auto or --device cpu.")
    return device


@functools.cache  # so once per process
def _warn_of_first_run() -> None:
    logger.warning(
        "device auto takes the GPU, but patchpad has never been run on a GPU: only the CPU is tested. "
        "Compare the first losses with those of a few steps on the CPU (device cpu)"
    )


def wide_dtype(device: torch.device) -> torch.dtype:
    """Returns the type for sums and thresholds: fp64, or fp32 on MPS, which has no fp64."""
    return torch.float32 if device.type == "mps" else torch.float64


def moved(tensor: Tensor, device: torch.device) -> Tensor:
    """Returns a tensor of the host on a device; the host does not wait for the copy where the device is CUDA."""
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)
