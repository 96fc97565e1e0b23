"""How much memory tensors take on a CPU."""

from collections.abc import Callable
from typing import Any

from torch.autograd.profiler import profile


def peak_tensor_bytes(run: Callable[[], object]) -> int:
    """Returns the most bytes that torch's allocator had at once on a CPU while a function ran.

    What was allocated before does not count, and what the function leaves does.
    """
    profiler: Any = profile(profile_memory=True)
    with profiler:
        run()
    events = [event for event in profiler.kineto_results.events() if event.name() == "[memory]"]
    now = most = 0
    for _, num_bytes in sorted((event.start_ns(), event.nbytes()) for event in events):
        now += num_bytes
        most = max(most, now)
    return most
