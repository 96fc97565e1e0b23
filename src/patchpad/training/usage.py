"""What a run uses of its machine: arithmetic, as FLOPs per second and MFU, and memory. No device is waited for."""

import os
import sys
from typing import Any

import torch

from patchpad.config import Config
from patchpad.cost import cost
from patchpad.cost.peak_flops import peak_flops_per_second


def usage(config: Config, line: dict[str, Any], device: torch.device, num_devices: int = 1) -> dict[str, Any]:
    """Returns what a line of metrics says of arithmetic and memory.

    Args:
        config: of the run.
        line: the other metrics, with the rates and the speed of all devices together.
        device: of this process.
        num_devices: that train together, all of one kind.
    """
    flops = training_flops_per_byte(config, line["patches_per_byte"], line["scratchpads_per_byte"])
    per_second = None if flops is None else flops * line["bytes_per_second"]
    peak = peak_flops_per_second(torch.cuda.get_device_name(device)) if device.type == "cuda" else None
    found = {
        "flops_per_second": per_second,
        "mfu": None if per_second is None or peak is None else per_second / (peak * num_devices),
        "host_memory_bytes": host_memory_bytes(),
    }
    if device.type == "cuda":
        found["device_memory_bytes"] = torch.cuda.max_memory_allocated(device)
    return found


def training_flops_per_byte(config: Config, patches_per_byte: float, scratchpads_per_byte: float) -> float | None:
    """Returns the FLOPs of a training step over its bytes: three times the forward pass at measured rates.

    What activation checkpointing computes again is not counted. None for a text of which no patch was complete.
    """
    if patches_per_byte <= 0:
        return None
    return cost(
        config.model,
        context_bytes=config.model.context_bytes,
        patches_per_byte=patches_per_byte,
        scratchpads_per_byte=scratchpads_per_byte,
        positions_per_byte=max(1.0, patches_per_byte + scratchpads_per_byte),
    ).training_flops_per_byte


def host_memory_bytes() -> int | None:
    """Returns what this process has in RAM: now on Linux, at most so far on macOS, None elsewhere."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        pass
    if sys.platform == "darwin":
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return None
