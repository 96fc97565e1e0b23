"""Arms over their seeds: means, spreads, and differences per equal seed. Torch-free."""

import itertools
import statistics
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from patchpad.pages.numbers import Number, compact_number
from patchpad.study.families import family_numbers, family_of
from patchpad.study.results import Results, point_at

SAME_BYTES = 0.02
"""Share by which the bytes seen of arms may differ that are compared: rows of a batch are not all full."""


@dataclass(frozen=True)
class Spread:
    """A mean, and the standard deviation of a sample where there are two values or more."""

    mean: float
    deviation: float | None
    values: tuple[float, ...]

    @staticmethod
    def of(values: Sequence[float]) -> "Spread":
        """Returns the spread of at least one value."""
        deviation = statistics.stdev(values) if len(values) > 1 else None
        return Spread(statistics.fmean(values), deviation, tuple(values))


def difference(bits: Mapping[int, float], base: Mapping[int, float]) -> tuple[Spread, float] | None:
    """Returns the differences of two values over the seeds that both have, and the mean of `base` over them, if any."""
    shared = sorted(bits.keys() & base.keys())
    if not shared:
        return None
    return Spread.of([bits[seed] - base[seed] for seed in shared]), statistics.fmean(base[seed] for seed in shared)


@dataclass(frozen=True, eq=False)
class Arm:
    """All results of an arm."""

    name: str
    text: str
    tier: int
    exploratory: bool
    look: int
    """Number of its family, and so of its colour in every plot of the study."""
    results: tuple[dict[str, Any], ...]

    @property
    def first(self) -> dict[str, Any]:
        """Any one of the results, for what seeds share."""
        return self.results[0]

    @property
    def seeds(self) -> set[int]:
        """Seeds of its results."""
        return {result["seed"] for result in self.results}

    def of_seeds(self, seeds: Container[int]) -> "Arm":
        """Returns the arm with the results of these seeds alone."""
        return replace(self, results=tuple(result for result in self.results if result["seed"] in seeds))

    @property
    def family(self) -> str:
        """How it cuts text, in words."""
        return family_of(self.first)

    @property
    def has_scratchpads(self) -> bool:
        """Whether it makes scratchpads at its stored threshold."""
        rate = self.at("scratchpads_per_byte")
        return rate is not None and rate.mean > 0

    @property
    def label(self) -> str:
        """Its name, marked where it is a hint and no claim."""
        return f"{self.name} (exploratory)" if self.exploratory else self.name

    def spread(self, value: Callable[[dict[str, Any]], Number | None]) -> Spread | None:
        """Returns a value over the seeds; None where a result does not have it."""
        values = [value(result) for result in self.results]
        known = [float(one) for one in values if one is not None]
        return Spread.of(known) if known and len(known) == len(values) else None

    def at(self, key: str, at: str = "stored") -> Spread | None:
        """Returns a field of the point at `never`, a rate, `stored` or `always`, over the seeds."""
        return self.spread(lambda result: (point_at(result, at) or {}).get(key))

    def points(self) -> list[str]:
        """Returns where all seeds have been measured, from the fewest trunk calls to the most."""
        common = set.intersection(*({point["at"] for point in one["measured"]["points"]} for one in self.results))
        calls = {at: self.at("trunk_calls_per_byte", at) for at in common}
        return sorted(common, key=lambda at: (calls[at].mean if calls[at] else 0.0, at))  # pyrefly: ignore

    def less(self, other: "Arm", at: str = "stored", other_at: str = "stored") -> tuple[Spread, float] | None:
        """Returns bits per byte less those of another arm, or of another point of this one, per equal seed.

        Args:
            other: the arm to take away.
            at: this arm's point.
            other_at: the other's point.

        Returns:
            The differences over the seeds that both have, and the other's mean over them; None where there are none.
        """
        return difference(self.by_seed("bits_per_byte", at), other.by_seed("bits_per_byte", other_at))

    def by_seed(self, key: str, at: str = "stored") -> dict[int, float]:
        """Returns seed -> a field of a point; seeds that lack the point are left out."""
        points = {result["seed"]: point_at(result, at) for result in self.results}
        return {seed: point[key] for seed, point in points.items() if point is not None}

    def bits_at_flops(self, flops: Mapping[int, float]) -> dict[int, float]:
        """Returns seed -> bits per byte at so many FLOPs per byte, on the straight line between the points around them.

        Args:
            flops: seed -> FLOPs per byte; seeds that have no points on both sides are left out.
        """
        found = {}
        for result in self.results:
            x = flops.get(result["seed"])
            points = sorted((point["flops_per_byte"], point["bits_per_byte"]) for point in result["measured"]["points"])
            for (x0, y0), (x1, y1) in itertools.pairwise(points):
                if x is not None and x0 <= x <= x1 and x0 < x1:
                    found[result["seed"]] = y0 + (y1 - y0) * (x - x0) / (x1 - x0)
        return found

    def by_position(self, part: str) -> list[tuple[int, float]]:
        """Returns (position in the patch, bits per byte); `part` is `without_scratchpads` or `stored`."""
        return self._weighted(part, "bits_per_byte_by_position", "position")

    def by_letter(self) -> list[tuple[int, float]]:
        """Returns (place in the word, bits per byte) at the stored threshold."""
        return self._weighted("stored", "bits_per_byte_by_letter", "letter")

    def _weighted(self, part: str, table: str, key: str) -> list[tuple[int, float]]:
        sums: dict[int, list[float]] = {}
        for result in self.results:
            for row in (result["measured"][part] or {}).get(table, ()):
                entry = sums.setdefault(row[key], [0.0, 0.0])
                entry[0] += row["bits_per_byte"] * row["num_bytes"]
                entry[1] += row["num_bytes"]
        return [(place, total / count) for place, (total, count) in sorted(sums.items())]

    def class_rates(self) -> dict[str, float]:
        """Returns scratchpads per byte of each class of bytes, at the stored threshold."""
        sums: dict[str, list[int]] = {}
        for result in self.results:
            for row in (result["measured"]["stored"] or {}).get("scratchpads_by_class", ()):
                entry = sums.setdefault(row["class"], [0, 0])
                entry[0] += row["num_scratchpads"]
                entry[1] += row["num_bytes"]
        return {name: fired / count for name, (fired, count) in sums.items()}


def of_shared_seeds(arm: Arm, other: Arm) -> tuple[Arm, Arm]:
    """Returns two arms with the results of the seeds that both have."""
    return arm.of_seeds(other.seeds), other.of_seeds(arm.seeds)


@dataclass(frozen=True)
class Comparison:
    """The arms on one text that saw the same number of bytes: others do not belong in one table or plot."""

    text: str
    bytes_seen: int
    slug: str
    """Begins the names of its files; no other comparison has it."""
    references: tuple[str, ...]
    """Names of the arms that others are compared with; they may have no result yet."""
    arms: tuple[Arm, ...]

    @property
    def claimed(self) -> tuple[Arm, ...]:
        """Arms that make claims; all arms where none does."""
        return tuple(arm for arm in self.arms if not arm.exploratory) or self.arms

    def differences(self, reference: Arm) -> list[tuple[Arm, Spread, float]]:
        """Compares arms with a reference, for each seed that both have.

        Returns:
            Each arm, its bits per byte less those of the reference, and the reference's mean over the shared seeds.
        """
        found = []
        for arm in self.arms:
            less = arm.less(reference) if arm is not reference else None
            if less is not None:
                found.append((arm, *less))
        return found


def summarize(results: Results) -> list[Comparison]:
    """Returns the arms that have results: text by text, and on each text those with the most bytes first."""
    runs = {
        arm["name"]: tuple(run for run in results.runs if run["arm"] == arm["name"]) for arm in results.study["arms"]
    }
    looks = family_numbers(runs[name][0] for name in runs if runs[name])
    arms = [
        Arm(arm["name"], arm["text"], arm["tier"], arm["exploratory"], looks[family_of(made[0])], made)
        for arm in results.study["arms"]
        if (made := runs[arm["name"]])
    ]
    found = []
    for text, references in results.study["references"].items():
        groups: dict[int, list[Arm]] = {}
        left = [arm for arm in arms if arm.text == text]
        while left:
            most = max(_bytes_seen(arm) for arm in left)
            groups[most] = [arm for arm in left if _bytes_seen(arm) > most * (1 - SAME_BYTES)]
            left = [arm for arm in left if arm not in groups[most]]
        for (most, same), number in zip(groups.items(), _different_numbers(list(groups)), strict=True):
            found.append(Comparison(text, most, f"{text}-{number}", tuple(references), tuple(same)))
    return found


def _different_numbers(values: Sequence[int]) -> list[str]:
    """Returns short words for different numbers, all with as many digits as tell them apart; at least two."""
    digits = 2
    while len(set(words := [compact_number(value, digits=digits) for value in values])) < len(values):
        digits += 1
    return words


def _bytes_seen(arm: Arm) -> int:
    return max(result["training"]["bytes_seen"] for result in arm.results)
