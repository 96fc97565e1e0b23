"""What a study shows while it runs: one live table on a terminal, plain lines elsewhere."""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal

from patchpad.study.definition import ArmRun
from patchpad.study.results import point_at, seconds_per_byte
from patchpad.training.progress import duration, shows_bar

logger = logging.getLogger(__name__)

State = Literal["waiting", "training", "measuring", "done", "failed", "elsewhere"]
SECONDS_BETWEEN_LINES = 30.0
SECONDS_BETWEEN_TABLES = 1.0


@dataclass
class Row:
    """An arm and seed of the table."""

    run: ArmRun
    state: State = "waiting"
    bytes_seen: int = 0
    bits_per_byte: float | None = None
    seconds_per_byte: float | None = None
    """Of its training, as far as it is known."""
    began: float = 0.0
    """When training began in this process."""
    began_at_bytes: int = 0

    @property
    def bytes_left(self) -> int:
        """Bytes still to be trained on."""
        return max(0, self.run.bytes_seen - self.bytes_seen) if self.state in ("waiting", "training") else 0

    def see(self, bytes_seen: int) -> None:
        """Takes note of training progress."""
        now = time.monotonic()
        if self.state != "training":
            self.state, self.began, self.began_at_bytes = "training", now, bytes_seen
        elif bytes_seen > self.began_at_bytes:
            self.seconds_per_byte = (now - self.began) / (bytes_seen - self.began_at_bytes)
        self.bytes_seen = bytes_seen


class StudyProgress:
    """Keeps the table; subclasses show it."""

    def __init__(self, runs: Sequence[ArmRun]) -> None:
        self.rows = {run.name: Row(run) for run in runs}
        self.measuring_seconds: list[float] = []

    def __enter__(self) -> "StudyProgress":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def trained(self, name: str, metrics: dict[str, Any]) -> None:
        """Takes note of a training step; `metrics` has the keys of `metrics.jsonl`."""
        row = self.rows[name]
        was = row.state
        row.see(int(metrics["bytes_seen"]))
        row.bits_per_byte = metrics["train/bpb"]
        self.show(row, is_new=was != row.state)

    def became(self, name: str, state: State) -> None:
        """Takes note of a new state."""
        row = self.rows[name]
        row.state = state
        if state == "measuring":
            row.bytes_seen = row.run.bytes_seen
        self.show(row, is_new=True)

    def finished(self, name: str, result: dict[str, Any]) -> None:
        """Takes note of a run that is done, from its result."""
        row, point = self.rows[name], point_at(result)
        row.state, row.bytes_seen = "done", row.run.bytes_seen
        row.bits_per_byte = None if point is None else point["bits_per_byte"]
        row.seconds_per_byte = seconds_per_byte(result)
        self.show(row, is_new=True)

    def seconds_left(self, row: Row) -> float | None:
        """Returns the time until a run is trained; None while nothing is known about speeds."""
        speed = self._speed(row)
        return None if speed is None else row.bytes_left * speed

    def all_seconds_left(self) -> float | None:
        """Returns the time until all is trained and measured."""
        times = [self.seconds_left(row) for row in self.rows.values() if row.bytes_left]
        known = [value for value in times if value is not None]
        if len(known) < len(times):
            return None
        measuring = sum(row.state in ("waiting", "training", "measuring") for row in self.rows.values())
        each = sum(self.measuring_seconds) / len(self.measuring_seconds) if self.measuring_seconds else 0.0
        return sum(known) + measuring * each

    def _speed(self, row: Row) -> float | None:
        """Its own speed, else that of its arm from another seed, else the mean of all that is known."""
        if row.seconds_per_byte is not None:
            return row.seconds_per_byte
        known = [other for other in self.rows.values() if other.seconds_per_byte is not None]
        same = [other for other in known if other.run.arm.name == row.run.arm.name] or known
        speeds = [other.seconds_per_byte for other in same if other.seconds_per_byte is not None]
        return sum(speeds) / len(speeds) if speeds else None

    def cells(self, row: Row) -> tuple[str, ...]:
        """Returns the texts of a row: arm, seed, state, bytes, bits per byte, time left."""
        left = self.seconds_left(row) if row.bytes_left else None
        return (
            row.run.arm.name + (" (exploratory)" if row.run.arm.exploratory else ""),
            str(row.run.seed),
            row.state,
            f"{row.bytes_seen / 1e6:.2f} of {row.run.bytes_seen / 1e6:.2f} MB",
            "" if row.bits_per_byte is None else f"{row.bits_per_byte:.4f}",
            "" if left is None else duration(left),
        )

    def show(self, row: Row, *, is_new: bool) -> None:
        """Shows what changed; `is_new`: the row's state."""
        raise NotImplementedError


class LogStudyProgress(StudyProgress):
    """A line at each new state, and now and then while training."""

    def __init__(self, runs: Sequence[ArmRun]) -> None:
        super().__init__(runs)
        self.last = time.monotonic()

    def show(self, row: Row, *, is_new: bool) -> None:
        """Logs the row."""
        now = time.monotonic()
        if not is_new and now - self.last < SECONDS_BETWEEN_LINES:
            return
        self.last = now
        arm, seed, state, seen, bits, left = self.cells(row)
        whole = self.all_seconds_left()
        parts = [f"{arm} seed {seed}: {state}", seen, bits and f"{bits} bits/byte", left and f"{left} left"]
        parts.append("" if not whole else f"{duration(whole)} for all")
        logger.info("%s", "  ".join(part for part in parts if part))


class TableStudyProgress(StudyProgress):
    """A live table on stderr."""

    def __init__(self, runs: Sequence[ArmRun]) -> None:
        from rich.console import Console
        from rich.live import Live

        super().__init__(runs)
        self.console = Console(stderr=True)
        self.live = Live(console=self.console, auto_refresh=False)
        self.last = 0.0

    def __enter__(self) -> "TableStudyProgress":
        self.live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.live.update(self.table(), refresh=True)
        self.live.stop()

    def show(self, row: Row, *, is_new: bool) -> None:
        """Draws the table anew, at most once a second while nothing but numbers change."""
        now = time.monotonic()
        if is_new or now - self.last >= SECONDS_BETWEEN_TABLES:
            self.last = now
            self.live.update(self.table(), refresh=True)

    def table(self) -> Any:
        """Returns the table; of a study longer than the screen, the part around the run that is at work."""
        from rich.table import Table

        rows = list(self.rows.values())
        room = max(3, self.console.height - 4)
        at_work = next((i for i, row in enumerate(rows) if row.state in ("training", "measuring")), 0)
        first = max(0, min(at_work - room // 2, len(rows) - room))
        whole, done = self.all_seconds_left(), sum(row.state == "done" for row in rows)
        left = f", {duration(whole)} left" if whole else ""
        table = Table(box=None, pad_edge=False, header_style="bold", caption=f"{done} of {len(rows)} done{left}")
        for heading, justify in (("arm", "left"), ("seed", "right"), ("state", "left")):
            table.add_column(heading, justify=justify, no_wrap=True)
        for heading in ("bytes", "bits per byte", "time left"):
            table.add_column(heading, justify="right", no_wrap=True)
        for row in rows[first : first + room]:
            style = {"training": "bold", "measuring": "bold", "failed": "red", "waiting": "dim"}.get(row.state, "")
            table.add_row(*self.cells(row), style=style)
        return table


def study_progress_for_stderr(runs: Sequence[ArmRun]) -> StudyProgress:
    """Returns a table where stderr is a terminal and log lines are wanted, else log lines; a context manager."""
    return TableStudyProgress(runs) if shows_bar() else LogStudyProgress(runs)
