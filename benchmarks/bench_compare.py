"""Comparing measured speeds: with what is on record, or of two versions in pairs. Nothing is timed here."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Literal

from measuring import markdown_table
from rows import digits

LEAST_BOUND = 0.05
"""A figure that has changed by less counts as unchanged, however little its runs vary."""
OTHER_MACHINE_BOUND = 0.3
"""The same beside a record of another machine or torch, where a yardstick says less."""
ERRORS = 4.0
"""A change counts where it is larger than so many standard errors."""
MAD_TO_DEVIATION = 1.4826
MEDIAN_TO_MEAN = math.sqrt(math.pi / 2)
"""The standard error of a median over that of a mean, for values that are spread normally."""

Word = Literal["slower", "faster", "as before", "not on record"]


@dataclass(frozen=True)
class Speed:
    """A speed by several runs."""

    value: float
    """Median."""
    error: float
    """Standard error of that, as a share of it."""

    @staticmethod
    def of(values: Sequence[float]) -> "Speed":
        """Returns the median of runs; its error is found from the median deviation, so that one bad run says little.

        Raises:
            ValueError: fewer than 3 runs, or one that is not above 0.
        """
        if len(values) < 3 or not all(value > 0 for value in values):
            raise ValueError(f"runs are {list(values)}; allowed: at least 3, all above 0")
        middle = median(values)
        deviation = MAD_TO_DEVIATION * median(abs(value - middle) for value in values)
        return Speed(middle, MEDIAN_TO_MEAN * deviation / math.sqrt(len(values)) / middle)


@dataclass(frozen=True)
class Verdict:
    """What has become of a figure."""

    change: float | None
    """New over old, less 1; None without an old one."""
    bound: float
    """Share by which a figure may change and count as unchanged."""

    @property
    def word(self) -> Word:
        """The verdict in words."""
        if self.change is None:
            return "not on record"
        if self.change < -self.bound:
            return "slower"
        return "faster" if self.change > self.bound else "as before"


def against_record(new: Speed, old: Speed | None, *, is_same_machine: bool) -> Verdict:
    """Returns the verdict on a speed beside that on record; both are ratios to the same yardstick."""
    least = LEAST_BOUND if is_same_machine else OTHER_MACHINE_BOUND
    if old is None:
        return Verdict(None, least)
    return Verdict(new.value / old.value - 1, max(least, ERRORS * math.hypot(new.error, old.error)))


def in_pairs(new: Sequence[float], old: Sequence[float]) -> Verdict:
    """Returns the verdict on two versions.

    Args:
        new: speed of each run.
        old: that of the run made beside it.
    """
    ratio = Speed.of([one / other for one, other in zip(new, old, strict=True)])
    return Verdict(ratio.value - 1, max(LEAST_BOUND, ERRORS * ratio.error))


def recorded_speed(record: dict[str, Any] | None, name: str) -> Speed | None:
    """Returns the ratio to the yardstick that a record has for a figure."""
    figure = None if record is None else record["figures"].get(name)
    return None if figure is None else Speed.of(figure["over_yardstick"])


def same_machine(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two provenances name the same hardware, torch and threads."""
    return all(one[key] == other[key] for key in ("hardware", "torch", "threads"))


def table(names: Sequence[str], columns: Sequence[str], cells: Sequence[Sequence[str]], verdicts: list[Verdict]) -> str:
    """Returns a Markdown table.

    Args:
        names: of the figures.
        columns: what stands between name and verdict.
        cells: of each figure.
        verdicts: on each.
    """
    lines = []
    for name, own, verdict in zip(names, cells, verdicts, strict=True):
        change = "" if verdict.change is None else f"{verdict.change:+.1%}"
        lines.append([name, *own, change, f"{verdict.bound:.1%}", verdict.word])
    return markdown_table(["figure", *columns, "change", "noise up to", ""], lines)


def rate_cell(values: Sequence[float]) -> str:
    """Returns a median rate for a table."""
    return digits(median(values))


__all__ = ["Speed", "Verdict", "against_record", "in_pairs", "rate_cell", "recorded_speed", "same_machine", "table"]
