"""Results of suites side by side: quality with its compute, and paired differences to the first of them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from patchpad.errors import ConfigError, DataError, near_matches
from patchpad.tasks.bootstrap import Difference, paired_difference
from patchpad.tasks.ranks import LanguageRanks, ranks_by_task
from patchpad.tasks.result import Metric, TaskResult

PER_BYTE = "bits_per_byte"
"""Metrics whose names begin so are totals over bytes: examples weigh as much as their `num_bytes`."""
COSTS = ("bits", "bytes", "trunk_calls", "scratchpads")
"""Metrics with one of these in their names are better where they are lower."""
ROUNDING = 1e-6
"""How far a metric may lie from the mean of its examples and still count as this mean."""


@dataclass(frozen=True, kw_only=True)
class Column:
    """One model at one threshold."""

    label: str
    run: int
    """Number of the result that it comes from; columns of one run are points of one curve."""
    run_label: str
    results: Mapping[str, TaskResult]
    """By name of the task."""
    facts: Mapping[str, str]
    """What the result says of itself, for the page."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """What a column gave at a task."""

    result: TaskResult
    metric: Metric
    difference: Difference | None
    """From the first column; None in this column itself, and where no example is in both."""

    def to_dict(self) -> dict[str, Any]:
        """Returns one cell of `patchpad compare --json`."""
        return {
            **self.metric.to_dict(),
            "num_examples": self.result.num_examples,
            "num_cut_examples": self.result.num_cut_examples,
            "compute": self.result.compute.to_dict(),
            "difference": self.difference and self.difference.to_dict(),
        }


@dataclass(frozen=True, kw_only=True)
class TaskRow:
    """A task, with a cell for each column."""

    task: str
    metric: str
    higher_is_better: bool
    cells: Sequence[Cell | None]
    """None where a result lacks the task."""

    @property
    def chance(self) -> float | None:
        """What guessing gives, if that is the same number for all."""
        found = {cell.metric.chance for cell in self.cells if cell is not None}
        return found.pop() if len(found) == 1 else None

    def to_dict(self) -> dict[str, Any]:
        """Returns one task of `patchpad compare --json`."""
        return {
            "task": self.task,
            "metric": self.metric,
            "higher_is_better": self.higher_is_better,
            "results": [cell and cell.to_dict() for cell in self.cells],
        }


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Tasks down, results across; the first column is the reference."""

    columns: Sequence[Column]
    rows: Sequence[TaskRow]

    @property
    def num_differences(self) -> int:
        """How many differences stand in the table."""
        return sum(cell is not None and cell.difference is not None for row in self.rows for cell in row.cells)

    @cached_property
    def ranks(self) -> dict[str, LanguageRanks]:
        """How the columns rank in each language, by the names of the tasks of languages that several columns have."""
        return ranks_by_task({column.label: list(column.results.values()) for column in self.columns})

    def to_dict(self) -> dict[str, Any]:
        """Returns the JSON of `patchpad compare`."""
        return {
            "reference": self.columns[0].label,
            "columns": [{"label": one.label, "result": one.run_label, **one.facts} for one in self.columns],
            "tasks": [row.to_dict() for row in self.rows],
            "language_ranks": {task: ranks.to_dict() for task, ranks in self.ranks.items()},
        }


def compare_columns(columns: Sequence[Column], *, metric: str | None = None, seed: int = 0) -> Comparison:
    """Puts results side by side, in the order of the first one's tasks.

    Args:
        columns: the first is the reference.
        metric: to show instead of each task's main metric, where a task has it; None: the main ones.
        seed: of the draws, at least 0.

    Raises:
        ConfigError: no task has the metric, or a negative seed.
        DataError: the first result shares no task with another one.
    """
    if seed < 0:
        raise ConfigError(f"the seed is {seed}; allowed: an integer of at least 0", hint="Change --seed.")
    names = dict.fromkeys(name for column in columns for name in column.results)
    if metric is not None:
        known = {known for column in columns for result in column.results.values() for known in result.metrics}
        if metric not in known:
            raise ConfigError(f"no task of these results has the metric {metric!r}", hint=near_matches(metric, known))
    for column in columns[1:]:
        if not column.results.keys() & columns[0].results.keys():
            raise DataError(
                f"{columns[0].label} and {column.label} have no task in common: {', '.join(columns[0].results)}; and "
                f"{', '.join(column.results)}",
                hint="Compare results of one suite.",
            )
    return Comparison(columns=columns, rows=[_row(name, columns, metric, seed) for name in names])


def _row(task: str, columns: Sequence[Column], metric: str | None, seed: int) -> TaskRow:
    results = [column.results.get(task) for column in columns]
    first = next(result for result in results if result is not None)
    chosen = metric if metric in first.metrics else first.main_metric
    is_main = chosen == first.main_metric
    return TaskRow(
        task=task,
        metric=chosen,
        higher_is_better=first.higher_is_better if is_main else not any(cost in chosen for cost in COSTS),
        cells=[
            None
            if result is None or chosen not in result.metrics
            else Cell(
                result=result,
                metric=result.metrics[chosen],
                difference=None if number == 0 else difference_of(result, results[0], chosen, seed=seed),
            )
            for number, result in enumerate(results)
        ],
    )


def difference_of(result: TaskResult, reference: TaskResult | None, metric: str, *, seed: int = 0) -> Difference | None:
    """Returns how much a result lies above a reference, over the examples that both have; None where there are none.

    Args:
        result: of a task.
        reference: of the same task.
        metric: one that both have per example.
        seed: of the draws.
    """
    if reference is None:
        return None
    ours, theirs = result.values_of(metric), reference.values_of(metric)
    shared = [example for example in ours if example in theirs]
    if not shared:
        return None
    weights = _weights(result, metric)
    return paired_difference(
        [ours[example] for example in shared],
        [theirs[example] for example in shared],
        weights=None if weights is None else [weights[example] for example in shared],
        seed=seed,
    )


def _weights(result: TaskResult, metric: str) -> dict[str, int | float] | None:
    """Returns how much each example weighs; None: all alike."""
    if not metric.startswith(PER_BYTE) or not all("num_bytes" in example for example in result.examples):
        return None
    return {example["id"]: example["num_bytes"] for example in result.examples}


def is_mean_of_examples(result: TaskResult, metric: str) -> bool:
    """Returns whether a metric is the mean that differences are taken of; else the page says that they differ."""
    values, weights = result.values_of(metric), _weights(result, metric)
    if not values:
        return False
    shares = {example: 1.0 if weights is None else weights[example] for example in values}
    mean = math.fsum(values[example] * shares[example] for example in values) / math.fsum(shares.values())
    return math.isclose(mean, result.metrics[metric].value, rel_tol=ROUNDING, abs_tol=ROUNDING)
