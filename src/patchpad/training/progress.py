"""What training shows while it runs: a progress bar on a terminal, log lines elsewhere."""

import logging
import sys
import time
from types import TracebackType
from typing import Any, Protocol, runtime_checkable

logger = logging.getLogger(__name__)


@runtime_checkable
class Progress(Protocol):
    """Receives the state of a run after each step."""

    def update(self, step: int, total_steps: int, metrics: dict[str, Any]) -> None:
        """Shows a step; `metrics` has the keys of `metrics.jsonl`."""
        ...


class LogProgress:
    """Logs a line at most every `seconds`."""

    def __init__(self, seconds: float = 10.0) -> None:
        self.seconds = seconds
        self.last = time.monotonic()

    def __enter__(self) -> "LogProgress":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def update(self, step: int, total_steps: int, metrics: dict[str, Any]) -> None:
        """Logs the step when the last line is old enough."""
        now = time.monotonic()
        if now - self.last >= self.seconds or step == total_steps:
            self.last = now
            logger.info("step %d/%d  %s", step, total_steps, describe(metrics))


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
        self.bar.stop()

    def update(self, step: int, total_steps: int, metrics: dict[str, Any]) -> None:
        """Moves the bar."""
        self.bar.update(self.task, completed=step, total=total_steps, line=describe(metrics))


def progress_for_stderr() -> BarProgress | LogProgress:
    """Returns a bar where stderr is a terminal, log lines elsewhere; a context manager."""
    return BarProgress() if sys.stderr.isatty() else LogProgress()
