"""How far the reading of a text is: a bar on a terminal, log lines elsewhere."""

import logging
import time
from contextlib import suppress
from types import TracebackType
from typing import Any

logger = logging.getLogger(__name__)

SECONDS_BETWEEN_LINES = 10.0


class ReadingProgress:
    """Is told how many bytes have been read; a context manager.

    Args:
        shows_bar: whether to draw a bar on stderr; else a line is logged now and then.
    """

    def __init__(self, *, shows_bar: bool) -> None:
        self.began = self.last = time.monotonic()
        self.bar: Any = None
        if shows_bar:
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

            self.bar = Progress(
                TextColumn("reading"),
                BarColumn(bar_width=24),
                TextColumn("{task.percentage:>3.0f}%"),
                TimeRemainingColumn(compact=True),
                console=Console(stderr=True),
                transient=True,
            )
            self.task = self.bar.add_task("reading", total=None)

    def __enter__(self) -> "ReadingProgress":
        if self.bar is not None:
            self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.bar is not None:
            with suppress(OSError):  # the terminal was closed
                self.bar.stop()

    def __call__(self, done: int, total: int) -> None:
        """Shows how far it is: bytes that have been read, and of how many."""
        if self.bar is not None:
            self.bar.update(self.task, completed=done, total=total)
            return
        now = time.monotonic()
        if now - self.last >= SECONDS_BETWEEN_LINES and done < total:
            from patchpad.training.progress import duration

            self.last = now
            left = (now - self.began) * (total - done) / done
            logger.info("%.0f %% is read, %s left", 100 * done / total, duration(left))
