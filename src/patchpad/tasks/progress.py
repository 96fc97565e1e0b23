"""How far a suite is: a bar on a terminal, log lines elsewhere."""

import logging
import time
from types import TracebackType
from typing import Any

from patchpad.training.progress import duration, shows_bar

logger = logging.getLogger(__name__)

SECONDS_BETWEEN_LINES = 30.0


class SuiteProgress:
    """Counts examples by the bytes of their rows, so that the time left does not depend on which tasks come first.

    Args:
        total_bytes: of all that is to be done in this call.
    """

    def __init__(self, total_bytes: int) -> None:
        self.total_bytes = max(1, total_bytes)
        self.done_bytes = 0.0
        self.began = time.monotonic()
        self.name, self.num_examples, self.num_done, self.bytes_per_example = "", 0, 0, 0.0

    def __enter__(self) -> "SuiteProgress":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def begin(self, name: str, num_examples: int, num_bytes: int) -> None:
        """Takes note of a task at a threshold that is begun.

        Args:
            name: of the task, with its threshold where there are several.
            num_examples: of it, at least one.
            num_bytes: of its rows.
        """
        self.name, self.num_examples, self.num_done = name, num_examples, 0
        self.bytes_per_example = num_bytes / num_examples
        self.show()

    def advance(self, num_examples: int) -> None:
        """Takes note of further examples that are done."""
        self.num_done += num_examples
        self.done_bytes += num_examples * self.bytes_per_example
        self.show()

    def finish(self, line: str) -> None:
        """Takes note of the result of the task that was begun.

        Args:
            line: what it gave, in words.
        """
        logger.info("%s", line)

    def seconds_left(self) -> float | None:
        """Returns the time until all is done, at the speed so far; None before there is one."""
        if not self.done_bytes:
            return None
        return (time.monotonic() - self.began) * max(0.0, self.total_bytes / self.done_bytes - 1)

    def show(self) -> None:
        """Shows what has changed."""
        raise NotImplementedError


class LogSuiteProgress(SuiteProgress):
    """A line now and then."""

    def __init__(self, total_bytes: int) -> None:
        super().__init__(total_bytes)
        self.last = time.monotonic()

    def show(self) -> None:
        """Logs a line where the last one is old enough."""
        now = time.monotonic()
        if now - self.last < SECONDS_BETWEEN_LINES:
            return
        self.last = now
        left = self.seconds_left()
        words = f"  {duration(left)} left for all" if left else ""
        logger.info("%s: %s of %s examples%s", self.name, f"{self.num_done:,}", f"{self.num_examples:,}", words)


class BarSuiteProgress(SuiteProgress):
    """A bar on stderr for all tasks, named after the one that is run."""

    def __init__(self, total_bytes: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        super().__init__(total_bytes)
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f} %"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"),
            console=Console(stderr=True),
            transient=True,
        )
        self.task = self.bar.add_task("", total=self.total_bytes, left="")

    def __enter__(self) -> "BarSuiteProgress":
        self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.stop()

    def show(self) -> None:
        """Moves the bar."""
        left = self.seconds_left()
        self.bar.update(
            self.task,
            completed=self.done_bytes,
            description=f"{self.name} {self.num_done:,}/{self.num_examples:,}",
            left=f"{duration(left)} left" if left else "",
        )

    def finish(self, line: str) -> None:
        """Prints the result above the bar."""
        self.bar.console.print(line, highlight=False, markup=False)


def suite_progress_for_stderr(total_bytes: int) -> SuiteProgress:
    """Returns a bar where stderr is a terminal and log lines are wanted, else log lines; a context manager."""
    return BarSuiteProgress(total_bytes) if shows_bar() else LogSuiteProgress(total_bytes)


def bytes_of(values: Any) -> int:
    """Returns about how many bytes a row holds, for the time left."""
    if isinstance(values, dict):
        return sum(map(bytes_of, values.values()))
    if isinstance(values, list):
        return sum(map(bytes_of, values))
    return len(values) if isinstance(values, str | bytes) else 1
