"""The parts of a plot: its axes, what it shows of each series, and texts. Standard library only.

Lengths are user units, counted from the top left.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from patchpad.pages.numbers import Number, compact_number
from patchpad.pages.plot_data import LinePlot, Series
from patchpad.pages.point_labels import Box, width_of
from patchpad.pages.svg import CHARACTER_WIDTH

Point = tuple[Number, Number]
Spot = tuple[float, float]


@dataclass(frozen=True)
class Axis:
    """Maps data values in [low, high] to user units in [start, end]."""

    low: float
    high: float
    start: float
    end: float
    log: bool

    def at(self, value: Number) -> float:
        """Returns where a value lies."""
        low, high, value = (math.log10(v) if self.log else v for v in (self.low, self.high, value))
        return self.start + (value - low) / (high - low) * (self.end - self.start)


@dataclass(frozen=True)
class Frame:
    """The plot area."""

    x: Axis
    y: Axis

    def at(self, point: Point) -> Spot:
        """Returns where a point lies."""
        return self.x.at(point[0]), self.y.at(point[1])

    @property
    def label_room(self) -> Box:
        """Where labels of points may lie: a little beyond the plot area's sides."""
        return self.x.start - 4, self.y.end - 16, self.x.end + 12, self.y.start + 2


@dataclass(frozen=True, eq=False)
class Shown:
    """The drawable part of a series."""

    series: Series
    look: int
    points: list[Point]
    """Those that have a place in the plot."""
    labels: list[str]
    deviations: list[Number]
    pieces: list[list[Point]]
    """What its line visits; several where it leaves the plot and comes back."""
    beyond: list[tuple[Point, str]]
    """Points above the plot, each with its label."""

    @classmethod
    def of(cls, series: Series, index: int, plot: LinePlot) -> "Shown":
        """Returns the part of a series that a plot shows."""
        labels = series.point_labels or [""] * len(series.points)
        deviations = series.deviations or [None] * len(series.points)
        kept = [
            (point, label, deviation if deviation is not None and drawable(deviation) else 0.0)
            for point, label, deviation in zip(series.points, labels, deviations, strict=True)
            if drawable(point[0]) and drawable(point[1]) and (not plot.log_x or point[0] > 1e-150)
        ]
        look = index if series.look is None else series.look
        highest = math.inf if plot.highest_y is None else plot.highest_y
        inside = [one for one in kept if one[0][1] <= highest]
        return cls(
            series,
            look,
            [one[0] for one in inside],
            [one[1] for one in inside],
            [one[2] for one in inside],
            _pieces([one[0] for one in kept], highest),
            [(one[0], one[1]) for one in kept if one[0][1] > highest],
        )

    @property
    def has_markers(self) -> bool:
        """Whether its points have markers."""
        return not self.series.arrow and (self.series.marker or not self.series.line or len(self.points) == 1)

    @property
    def has_line(self) -> bool:
        """Whether a line joins its points."""
        return self.series.line and any(len(piece) > 1 for piece in self.pieces)

    def reaches(self, x: float) -> bool:
        """Whether it is a named line that goes on to `x`."""
        return self.has_line and bool(self.series.label and self.points) and self.points[-1][0] >= x

    @property
    def bar_ends(self) -> list[Point]:
        """Lower and upper end of each bar."""
        bars = [(x, y, reach) for (x, y), reach in zip(self.points, self.deviations, strict=True) if reach]
        return [end for x, y, reach in bars for end in ((x, y - reach), (x, y + reach))]


@dataclass(frozen=True)
class Text:
    """A text with its baseline; `anchor` is start, middle or end."""

    x: Number
    y: Number
    text: str
    anchor: str = "start"

    @property
    def box(self) -> Box:
        """Where it lies."""
        width = width_of(self.text)
        left = self.x - {"start": 0.0, "middle": width / 2, "end": width}[self.anchor]
        return left, self.y - 10.0, left + width, self.y + 3.0


def drawable(value: Number) -> bool:
    """Returns whether a value can have a place: infinities and NaN cannot; the bound keeps every tick finite."""
    return abs(value) < 1e150


def _pieces(points: Sequence[Point], highest: float) -> list[list[Point]]:
    """Returns the parts of a line up to a height; where it crosses that height, it is cut."""
    pieces: list[list[Point]] = []
    current: list[Point] = []
    for index, (x, y) in enumerate(points):
        if index and (y > highest) != (points[index - 1][1] > highest):
            before = points[index - 1]
            cut = before[0] + (x - before[0]) * (highest - before[1]) / (y - before[1]), highest
            current.append(cut)
            if y > highest:
                pieces.append(current)
                current = []
        if y <= highest:
            current.append((x, y))
    return [*pieces, current] if current else pieces


def upright_texts(plot: LinePlot, frame: Frame) -> list[tuple[float, Text]]:
    """Returns each upright line's place, and its name above it."""
    found, last = [], -math.inf
    for name, value in sorted(plot.upright_lines.items(), key=lambda item: item[1]):
        x = frame.x.at(value)
        half = width_of(name) / 2
        row = 1 if x - half < last + 8 else 0  # a name that would run into the one before it stands above it
        found.append((x, Text(x, frame.y.end - 5 - 15 * row, name, "middle")))
        last = x + half
    return found


def x_numbers(frame: Frame, ticks: Sequence[tuple[float, str]]) -> list[Text]:
    """Returns the numbers of the horizontal axis; those that would run into another are left out."""
    found, last_end = [], -math.inf
    for tick, text in ticks:
        x, half = frame.x.at(tick), CHARACTER_WIDTH * len(text) / 2
        if x - half > last_end:
            found.append(Text(x, frame.y.start + 18, text, "middle"))
            last_end = x + half + 10
    return found


def reference_texts(plot: LinePlot, frame: Frame) -> list[tuple[float, Text]]:
    """Returns each reference line's height, and its name at its right end."""
    found: list[tuple[float, Text]] = []
    last, shift = -math.inf, 0.0
    references = {name: float(y) for name, y in plot.reference_lines.items() if drawable(y)}
    for name, value in sorted(references.items(), key=lambda item: -item[1]):
        y = frame.y.at(value)
        number = f"{value:#.4g}" if 0.01 <= abs(value) < 1000 else compact_number(value, digits=4)
        crowded = y - last < 17  # its text goes below, further left for each line that came as close before it
        shift = shift + CHARACTER_WIDTH * 16 if crowded and shift else 1.0 if crowded else 0.0
        x, baseline = frame.x.end - 4 - shift, y + 15 if crowded else y - 5
        found.append((y, Text(x, baseline, f"{name} {number}", "end")))
        last = y
    return found


def described(shown: Sequence[Shown], x_label: str, y_label: str) -> str:
    """Returns the ranges of the series in words."""
    parts = []
    for one in shown:
        points = [*one.points, *(point for point, _ in one.beyond)]
        if points and not one.series.arrow:
            spans = [
                f"{label} from {compact_number(min(values), digits=4)} to {compact_number(max(values), digits=4)}"
                for label, values in zip((x_label, y_label), zip(*points, strict=True), strict=True)
            ]
            count = "1 point" if len(points) == 1 else f"{len(points)} points"
            parts.append(f"{one.series.label or one.series.group or 'series'}: {count}, {spans[0]}, {spans[1]}.")
    return " ".join(parts) or "No points."
