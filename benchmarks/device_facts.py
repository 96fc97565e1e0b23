"""What a GPU tells of a piece of work: memory, waits of the host for it, kernels and how long they ran."""

import contextlib
import gc
import logging
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import machine
import torch
from torch.profiler import ProfilerActivity, profile, supported_activities

SYNC_WARNING = "synchronizing CUDA operation"
"""In the warning that torch gives for each wait, when it is asked to."""
TOP_KERNELS = 12
"""Kernels that a profile names; the others are summed up."""


def release() -> None:
    """Gives back the GPU's memory of what was measured before."""
    if torch.cuda.is_available():
        gc.collect()
        torch.cuda.empty_cache()


def forget_peak(device: str) -> None:
    """Lets `peak_bytes` count from now on."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    else:
        machine.forget_peak()


def peak_bytes(device: str) -> int:
    """Returns the most memory of the device that tensors have had; on a CPU, that of the process."""
    return torch.cuda.max_memory_allocated() if device == "cuda" else machine.peak_resident_bytes()


@contextlib.contextmanager
def warnings_of_patchpad() -> Iterator[list[str]]:
    """Yields a list that takes up what patchpad warns of inside: above all of what it goes on without."""
    found: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: found.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("patchpad")
    logger.addHandler(handler)
    try:
        yield found
    finally:
        logger.removeHandler(handler)


def num_syncs(task: Callable[[], object]) -> int | None:
    """Runs a task; returns how often the host waited for the device, None where torch cannot tell.

    Copies into memory that is not pinned count too, and reads of events do not.
    """
    if not hasattr(torch._C, "_cuda_set_sync_debug_mode"):  # a torch without CUDA
        task()
        return None
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            task()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return sum(SYNC_WARNING in str(warning.message) for warning in found)


def kernels_of(task: Callable[[], object]) -> dict[str, Any] | None:
    """Runs a task; returns its kernels, their seconds, and the longest ones. None where torch has no CUDA profiler."""
    if ProfilerActivity.CUDA not in supported_activities():
        return None
    with profile(activities=[ProfilerActivity.CUDA]) as profiled:
        task()
        torch.cuda.synchronize()
    counts: Counter[str] = Counter()
    seconds: Counter[str] = Counter()
    for event in profiled.events() or ():
        if event.device_type == torch.autograd.DeviceType.CUDA:
            counts[event.name] += 1
            seconds[event.name] += event.self_device_time_total / 1e6
    top = [[name[:120], counts[name], took] for name, took in seconds.most_common(TOP_KERNELS)]
    return {"kernels": sum(counts.values()), "seconds": sum(seconds.values()), "top": top}


def graphs_compiled() -> int:
    """Returns how many graphs torch has compiled in this process; a number that grows in a timed run spoils it."""
    return int(torch._dynamo.utils.counters["stats"]["unique_graphs"])
