"""Signals that stop training between two steps, after its state is saved."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

STOPS = ("SIGINT", "SIGTERM", "SIGHUP")
"""Ctrl-C, a request to end, and a terminal that was closed; Windows has no SIGHUP."""


@contextmanager
def signals_noted() -> Iterator[threading.Event]:
    """Turns the first signal that asks to stop into an event that is looked at between steps.

    A second SIGINT or SIGTERM acts as usual. A second SIGHUP does not: a shell sends its own after the system's. A
    signal that was ignored at the start stays ignored: SIGHUP under `nohup`, SIGINT in a job that a script puts into
    the background. Outside of the main thread no signal is noted.
    """
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return
    previous: dict[int, Any] = {}

    def note(number: int, frame: Any) -> None:
        event.set()
        if number != getattr(signal, "SIGHUP", None):
            signal.signal(number, previous[number])

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
