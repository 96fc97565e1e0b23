"""Signals that stop training between two steps, after its state is saved."""

import math
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

STOPS = ("SIGINT", "SIGTERM", "SIGHUP")
"""Ctrl-C, a request to end, and a terminal that was closed; Windows has no SIGHUP."""


REPEAT_SECONDS = 10.0
"""Time in which a launcher's copy of a signal arrives that a terminal has sent to all processes."""


@contextmanager
def signals_noted(*, is_launched: bool = False) -> Iterator[threading.Event]:
    """Turns the first signal that asks to stop into an event that is looked at between steps.

    A second SIGINT or SIGTERM acts as usual. A second SIGHUP does not: a shell sends its own after the system's. A
    signal that was ignored at the start stays ignored: SIGHUP under `nohup`, SIGINT in a job that a script puts into
    the background. Outside of the main thread no signal is noted.

    Args:
        is_launched: whether a launcher such as `torchrun` has started this process. It passes signals on that a
            terminal has sent already, so for a while a second one means the same.
    """
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return
    previous: dict[int, Any] = {}

    acts_from = -math.inf
    """When a repeated signal acts as usual."""

    def note(number: int, frame: Any) -> None:
        nonlocal acts_from
        if not event.is_set():
            acts_from = time.monotonic() + (REPEAT_SECONDS if is_launched else 0.0)
            event.set()
            if is_launched:
                return
        if time.monotonic() < acts_from or number == getattr(signal, "SIGHUP", None):
            return
        signal.signal(number, previous[number])
        if is_launched:
            signal.raise_signal(number)

    for name in STOPS:
        number = getattr(signal, name, None)
        # None: set by a library outside of Python, which could not be set again
        if number is not None and signal.getsignal(number) not in (signal.SIG_IGN, None):
            previous[number] = signal.signal(number, note)
    try:
        yield event
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
