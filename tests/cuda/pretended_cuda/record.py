"""What a program asks of the pretended device: kernels, bytes moved, FLOPs, memory, and waits of the host."""

import contextlib
import sys
import threading
import weakref
from collections import Counter
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

PACKAGES = ("/src/patchpad/", "/benchmarks/")
"""Parts of the paths of files whose lines are named; the rest is torch, or a test."""

OTHER_THREADS: set[int] = set()
"""Threads that the program has started and that are running; those of the backward pass are none of them."""


class WaitInGraphError(RuntimeError):
    """The host waits for the device inside of a CUDA graph's capture, or inside of compiled code."""


class Record:
    """Counts of what has run since the record was made, by phase.

    A wait is whatever makes the host stand still until the device has caught up: reading a value, a copy that is not
    `non_blocking` or not to or from pinned memory, a shape that follows from values, an event.

    Args:
        measures: count bytes, FLOPs and memory too, which takes a third of the time.
    """

    def __init__(self, *, measures: bool = True) -> None:
        self.measures = measures
        self.waits: Counter[tuple[str, str, str]] = Counter()
        """By phase, line of the package, and reason."""
        self.kernels: Counter[tuple[str, str]] = Counter()
        """Operations that start a kernel, by phase and name. What is replayed from a graph is in `replayed`."""
        self.kernel_lines: Counter[tuple[str, str]] = Counter()
        """The same by phase and line of the package; only if `notes_lines`."""
        self.replayed: Counter[str] = Counter()
        """Kernels inside of replayed graphs, by phase."""
        self.bytes_moved: Counter[tuple[str, str]] = Counter()
        """Read and written, by phase and name, if nothing stays in the cache from one kernel to the next."""
        self.flops: Counter[tuple[str, str]] = Counter()
        self.graphs_captured = 0
        self.compiled: Counter[str] = Counter()
        """Calls of functions that a real device would have compiled, by name."""
        self.oddities: Counter[tuple[str, str]] = Counter()
        """What CUDA accepts but is better avoided, by line of the package."""
        self.notes_lines = False
        self.live_bytes = 0
        self.peak_bytes = 0
        self.no_waits_in: str | None = None
        """Where the host may not wait at present: a capture, or compiled code."""
        self._phase = "rest"
        self._muted = 0
        self._storages: set[int] = set()

    @property
    def phase(self) -> str:
        """What is counted now; work of threads that the program has started is a phase of its own."""
        return "other threads" if OTHER_THREADS and threading.get_ident() in OTHER_THREADS else self._phase

    @contextlib.contextmanager
    def in_phase(self, name: str) -> Iterator[None]:
        """Counts what runs inside under a name."""
        before, self._phase = self._phase, name
        try:
            yield
        finally:
            self._phase = before

    def begin_phase(self, name: str) -> None:
        """Counts what comes next under a name."""
        self._phase = name

    def num_waits(self, phase: str) -> int:
        """Returns how often the host has waited."""
        return sum(count for (of, *_), count in self.waits.items() if of == phase)

    def num_kernels(self, phase: str) -> int:
        """Returns how many kernels the host has started; a graph is one."""
        return sum(count for (of, _), count in self.kernels.items() if of == phase)

    def num_bytes_moved(self, phase: str) -> int:
        """Returns the bytes read and written."""
        return sum(count for (of, _), count in self.bytes_moved.items() if of == phase)

    def num_flops(self, phase: str) -> int:
        """Returns the FLOPs of matrix products and attention."""
        return sum(count for (of, _), count in self.flops.items() if of == phase)

    def describe_waits(self, phase: str) -> str:
        """Returns one line for each place at which the host has waited."""
        found = [(count, where, why) for (of, where, why), count in self.waits.items() if of == phase]
        return "\n".join(f"{count} x {where}: {why}" for count, where, why in sorted(found, reverse=True))

    def wait(self, why: str) -> None:
        """Notes that the host waits.

        Raises:
            WaitInGraphError: it may not.
        """
        if self._muted:
            return
        where = line_of_package()
        if self.no_waits_in:
            raise WaitInGraphError(f"{self.no_waits_in}: the host waits at {where} ({why})")
        self.waits[self.phase, where, why] += 1

    def odd(self, what: str) -> None:
        """Notes what is better avoided."""
        if not self._muted:
            self.oddities[line_of_package(), what] += 1

    def kernel(self, name: str, moved: int = 0, flops: int = 0) -> None:
        """Notes a kernel, the bytes that it moves, and its FLOPs."""
        if self._muted:
            return
        key = self.phase, name
        self.kernels[key] += 1
        if self.measures:
            self.bytes_moved[key] += moved
            self.flops[key] += flops
        if self.notes_lines:
            self.kernel_lines[key[0], line_of_package()] += 1

    @contextlib.contextmanager
    def one_kernel(self, name: str, moved: int = 0, flops: int = 0) -> Iterator[None]:
        """Counts all that runs inside as one kernel, as a fused one on a real device would be."""
        self.kernel(name, moved, flops)
        with self.unseen():
            yield

    @contextlib.contextmanager
    def unseen(self) -> Iterator[None]:
        """Counts nothing of what runs inside."""
        self._muted += 1
        try:
            yield
        finally:
            self._muted -= 1

    def hold(self, host: Tensor) -> None:
        """Counts a tensor's memory until it is freed."""
        if not self.measures:
            return
        storage = host.untyped_storage()
        key = storage._cdata
        if key in self._storages:
            return
        size = storage.nbytes()
        self._storages.add(key)
        self.live_bytes += size
        self.peak_bytes = max(self.peak_bytes, self.live_bytes)
        weakref.finalize(storage, self._freed, key, size).atexit = False

    def _freed(self, key: int, size: int) -> None:
        self._storages.discard(key)
        self.live_bytes -= size


def line_of_package() -> str:
    """Returns the innermost line of the package, or of its benchmarks, that is running."""
    frame: Any = sys._getframe(1)
    while frame is not None:
        path = frame.f_code.co_filename
        for package in PACKAGES:
            if package in path:
                return f"{path.rpartition(package)[2]}:{frame.f_lineno}"
        frame = frame.f_back
    return "backward"


def bytes_of(*tensors: Tensor) -> int:
    """Returns the bytes of all elements."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def size_of(tensor: Tensor) -> int:
    """Returns the bytes that a kernel reads of a tensor: an expanded one is read once."""
    return min(tensor.numel() * tensor.element_size(), tensor.untyped_storage().nbytes())


def has_values(tensor: Tensor) -> bool:
    """Whether the tensor behind a pretended one has values, or only a shape."""
    return tensor.device.type != "meta"


def device_of(value: Any) -> torch.device | None:
    """Returns the device that an argument names."""
    return torch.device(value) if isinstance(value, str) else value
