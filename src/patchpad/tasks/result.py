"""What a task gave at one threshold, as results keep it: metrics, compute, and a value for each example."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from patchpad.errors import DataError
from patchpad.files import json_float
from patchpad.tasks.compute import Compute

RESULT_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A number that a task gives."""

    value: float
    standard_error: float | None = None
    """Of the mean over examples. None if the metric is not a mean, or for a single example."""
    chance: float | None = None
    """The value of guessing. None if guessing gives nothing."""

    def to_dict(self) -> dict[str, Any]:
        """Returns the values by name."""
        return {"value": self.value, "standard_error": self.standard_error, "chance": self.chance}

    @staticmethod
    def mean_of(values: Sequence[float], *, chance: float | None = None) -> "Metric":
        """Returns the mean of the examples' values, with the standard error of a sample: s / sqrt(n), s over n - 1.

        Args:
            values: one for each example, at least one.
            chance: see the field.
        """
        count = len(values)
        mean = math.fsum(values) / count
        if count == 1:
            return Metric(value=mean, chance=chance)
        spread = math.fsum((value - mean) ** 2 for value in values) / (count - 1)
        return Metric(value=mean, standard_error=math.sqrt(spread / count), chance=chance)

    @staticmethod
    def ratio_of(amounts: Sequence[float], units: Sequence[int | float]) -> "Metric":
        """Returns the sum of amounts over the sum of units, as bits per byte are, with its standard error.

        The error is that of a ratio of two means to first order: of the amounts less the ratio times the units.

        Args:
            amounts: one for each example, at least one.
            units: likewise; their sum is above 0.
        """
        ratio = math.fsum(amounts) / math.fsum(units)
        rests = [amount - ratio * unit for amount, unit in zip(amounts, units, strict=True)]
        error = Metric.mean_of(rests).standard_error
        return Metric(value=ratio, standard_error=None if error is None else error * len(units) / math.fsum(units))


@dataclass(frozen=True, kw_only=True)
class TaskResult:
    """What a task gave at one threshold."""

    task: str
    """Its name in the suite, which names its files too."""
    kind: str
    num_examples: int
    metrics: Mapping[str, Metric]
    main_metric: str
    """One of `metrics`: the one for tables and plots."""
    higher_is_better: bool = True
    """Of the main metric."""
    compute: Compute
    num_cut_examples: int = 0
    """Examples of which the model could not see everything."""
    num_cut_bytes: int = 0
    """Bytes at the left that did not fit the model's context, over all requests."""
    examples: Sequence[Mapping[str, Any]]
    """One for each example: `id`, and its value of each metric under the metric's name; `compare` pairs them."""
    details: Mapping[str, Any] = field(default_factory=dict)
    """What only this kind has, such as a table by subject."""

    def __post_init__(self) -> None:
        if self.main_metric not in self.metrics:
            raise ValueError(f"main_metric is {self.main_metric}; allowed: {', '.join(self.metrics)}")

    @property
    def main(self) -> Metric:
        """The main metric."""
        return self.metrics[self.main_metric]

    def values_of(self, metric: str) -> dict[str, float]:
        """Returns id -> value of a metric, for the examples that have one."""
        return _values(self.examples, metric)

    def to_dict(self, *, with_examples: bool = True) -> dict[str, Any]:
        """Returns plain values, ready for `files.strict_json`.

        Args:
            with_examples: False leaves out what each example gave.
        """
        values = {
            "task": self.task,
            "kind": self.kind,
            "num_examples": self.num_examples,
            "metrics": {name: metric.to_dict() for name, metric in self.metrics.items()},
            "main_metric": self.main_metric,
            "higher_is_better": self.higher_is_better,
            "compute": self.compute.to_dict(),
            "num_cut_examples": self.num_cut_examples,
            "num_cut_bytes": self.num_cut_bytes,
            "details": dict(self.details),
        }
        return {**values, "examples": [dict(example) for example in self.examples]} if with_examples else values

    @staticmethod
    def from_dict(values: Mapping[str, Any], source: str = "the result") -> "TaskResult":
        """Returns what `to_dict` was made of.

        Args:
            values: of a JSON file.
            source: named in errors.

        Raises:
            DataError: a key is missing, or a value of another type.
        """
        try:
            metrics = {
                name: Metric(
                    value=json_float(metric["value"]),
                    standard_error=_number_or_none(metric["standard_error"]),
                    chance=_number_or_none(metric["chance"]),
                )
                for name, metric in values["metrics"].items()
            }
            examples = values.get("examples", [])
            for name in metrics:  # reads the value of each example
                _values(examples, name)
            compute = {
                name: json_float(value) if isinstance(value, str) else value
                for name, value in values["compute"].items()
            }
            return TaskResult(
                task=values["task"],
                kind=values["kind"],
                num_examples=values["num_examples"],
                metrics=metrics,
                main_metric=values["main_metric"],
                higher_is_better=values["higher_is_better"],
                compute=Compute.from_dict(compute),
                num_cut_examples=values["num_cut_examples"],
                num_cut_bytes=values["num_cut_bytes"],
                examples=examples,
                details=values["details"],
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DataError(
                f"{source} is not the result of a task: {type(error).__name__} {error}",
                hint="Give a file or folder that `patchpad evaluate --suite` wrote.",
            ) from error


def _values(examples: Sequence[Mapping[str, Any]], metric: str) -> dict[str, float]:
    found: dict[str, float] = {}
    for example in examples:
        if example["id"] in found:
            raise ValueError(f"two examples have the id {example['id']}")
        if metric in example:
            found[example["id"]] = json_float(example[metric])
    return found


def _number_or_none(value: Any) -> float | None:
    return None if value is None else json_float(value)
