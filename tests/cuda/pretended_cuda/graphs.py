"""CUDA graphs, streams and events of the pretended device."""

import contextlib
import time
from collections.abc import Iterator
from typing import Any

from torch import Tensor

from pretended_cuda.tensor import Device, no_modes


class Graph:
    """Stands for `torch.cuda.CUDAGraph`: notes operations with their very tensors, and runs them again."""

    def __init__(self, keep_graph: bool = False) -> None:
        self.tape: list[tuple[Any, ...]] = []
        self.num_kernels = 0

    def replay(self) -> None:
        """Runs what was captured, on the values that its tensors have now."""
        record = Device.record
        record.kernel("graph replay")
        record.replayed[record.phase] += self.num_kernels
        with no_modes():
            for func, args, kwargs, made, mutates in self.tape:
                again = func(*args, **kwargs)
                if not mutates:
                    _overwrite(made, again)

    def reset(self) -> None:
        """Forgets what was captured."""
        self.tape.clear()

    def pool(self) -> tuple[int, int]:
        """Returns a name of memory, which means nothing here."""
        return (0, 0)


def _overwrite(made: Any, again: Any) -> None:
    """Puts what an operation has made this time where it was put when it was captured."""
    if isinstance(made, Tensor):
        if made.numel() and made.untyped_storage()._cdata != again.untyped_storage()._cdata:
            made.copy_(again)
    elif isinstance(made, list | tuple):
        for before, after in zip(made, again, strict=True):
            _overwrite(before, after)


@contextlib.contextmanager
def graph(cuda_graph: Graph, pool: object = None, stream: object = None, **_: object) -> Iterator[None]:
    """Captures what runs inside: the host may not wait there."""
    record = Device.record
    assert Device.tape is None, "a capture inside of another"
    before, why_before = sum(record.kernels.values()), record.no_waits_in
    Device.tape, record.no_waits_in = cuda_graph.tape, "a CUDA graph cannot be captured"
    try:
        with record.in_phase("capture"):
            yield
    finally:
        Device.tape, record.no_waits_in = None, why_before
    cuda_graph.num_kernels = sum(record.kernels.values()) - before
    record.graphs_captured += 1


class Stream:
    """Stands for `torch.cuda.Stream`; all work is done in the order in which the host asks for it."""

    cuda_stream = 0
    priority = 0

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def wait_stream(self, stream: object) -> None:
        """Waits on the device."""

    def wait_event(self, event: object) -> None:
        """Waits on the device."""

    def record_event(self, event: "Event | None" = None) -> "Event":
        """Marks the end of what the host has asked for."""
        event = event or Event()
        event.record()
        return event

    def synchronize(self) -> None:
        """Lets the host wait."""
        Device.wait("stream")

    def query(self) -> bool:
        """Whether all is done."""
        Device.transfers.finish()
        return True

    def __enter__(self) -> "Stream":
        return self

    def __exit__(self, *_: object) -> None:
        pass


class Event:
    """Stands for `torch.cuda.Event`. Copies that began before it was recorded are finished once it is waited for."""

    def __init__(self, *_: object, **__: object) -> None:
        self.transfers_before = 0
        self.at = 0.0

    def record(self, stream: object = None) -> None:
        """Marks the end of what the host has asked for."""
        self.transfers_before = Device.transfers.num_begun
        self.at = time.perf_counter()

    def synchronize(self) -> None:
        """Lets the host wait until the device has come here."""
        Device.record.wait("event")
        Device.transfers.finish(self.transfers_before)

    def query(self) -> bool:
        """Whether the device has come here."""
        Device.transfers.finish(self.transfers_before)
        return True

    def wait(self, stream: object = None) -> None:
        """Waits on the device."""

    def elapsed_time(self, end: "Event") -> float:
        """Returns milliseconds of the host."""
        return 1000 * (end.at - self.at)
