"""What training shows while it runs: a progress bar on a terminal, log lines elsewhere."""

import logging
import sys
import time
from collections import deque
from contextlib import suppress
from types import TracebackType
from typing import Any, Protocol, runtime_checkable

logger = logging.getLogger(__name__)


@runtime_checkable
class Progress(Protocol):
    """Receives the state of a run after each step."""

    def update(self, step: int, total_steps: int, metrics: dict[str, Any]) -> None:
        """Shows a step; `metrics` has the keys of `metrics.jsonl`."""
        ...


class TimeLeft:
    """Estimates the remaining time of a run from its recent speed, including everything between steps."""

    def __init__(self) -> None:
        self.earlier: deque[tuple[float, int]] = deque(maxlen=6)
        """Times and steps of when this began to look, then of the last few calls of `note`."""

    def note(self, step: int) -> None:
        """Takes note of a step from which on the speed is of interest."""
        self.earlier.append((time.monotonic(), step))

    def seconds(self, step: int, total_steps: int | float) -> float | None:
        """Returns the seconds left after a step; None before there is a speed."""
        if step >= total_steps:
            return 0.0
        if not self.earlier or step <= self.earlier[0][1]:
            return None
        began, first = self.earlier[0]
        return (total_steps - step) * (time.monotonic() - began) / (step - first)


class LogProgress:
    """Logs a line at most every `seconds`, with the time left as the last few lines let expect."""

    def __init__(self, seconds: float = 10.0) -> None:
        self.seconds = seconds
        self.last = time.monotonic()
        self.time_left = TimeLeft()

    def __enter__(self) -> "LogProgress":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def update(self, step: int, total_steps: int, metrics: dict[str, Any]) -> None:
        """Logs the step when the last line is old enough."""
        now = time.monotonic()
        if not self.time_left.earlier:
            self.time_left.note(step)
        if now - self.last >= self.seconds or step == total_steps:
            self.last = now
            seconds = self.time_left.seconds(step, total_steps)
            left = f"  {duration(seconds)} left" if seconds else ""
            logger.info("step %s/%s  %s%s", f"{step:,}", f"{total_steps:,}", describe(metrics), left)
            self.time_left.note(step)


def duration(seconds: float) -> str:
    """Returns hours and minutes, minutes, or seconds."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def describe(metrics: dict[str, Any]) -> str:
    """Returns bytes seen, bits per byte, bytes/s and scratchpad rate in one line."""
    return (
        f"{metrics['bytes_seen'] / 1e6:.2f} MB  {metrics['train/bpb']:.3f} bits/byte  "
        f"{metrics['bytes_per_second'] / 1e3:.1f} kB/s  {metrics['scratchpads_per_byte']:.3f} scratchpads/byte"
    )


class BarProgress:
    """A progress bar on stderr with bytes, bits per byte, bytes/s, scratchpad rate and time left."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as RichProgress

        self.bar = RichProgress(
            TextColumn("training"),
            BarColumn(bar_width=24),
            TextColumn("{task.percentage:>3.0f}%"),
            TextColumn("{task.fields[line]}"),
            TimeRemainingColumn(compact=True),
            console=Console(stderr=True),
        )
        self.task = self.bar.add_task("training", line="", total=None)

    def __enter__(self) -> "BarProgress":
        self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(OSError):  # the terminal was closed
            self.bar.stop()

    def update(self, step: int, total_steps: int, metrics: dict[str, Any]) -> None:
        """Moves the bar."""
        self.bar.update(self.task, completed=step, total=total_steps, line=describe(metrics))


def progress_for_stderr() -> BarProgress | LogProgress:
    """Returns a bar where stderr is a terminal and log lines are wanted, else log lines; a context manager."""
    return BarProgress() if shows_bar() else LogProgress()


def wants_lines() -> bool:
    """Returns whether log lines are wanted: not with `--quiet`."""
    return logging.getLogger("patchpad").level <= logging.INFO


def shows_bar() -> bool:
    """Returns whether a bar may be drawn: stderr is a terminal, and log lines are not turned off (`--quiet`)."""
    return wants_lines() and sys.stderr is not None and sys.stderr.isatty()
