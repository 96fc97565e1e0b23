"""Where the parts of a plot lie, whatever draws it. Standard library only.

Lengths are user units, counted from the top left.
"""

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from patchpad.pages.numbers import Number, compact_number
from patchpad.pages.plot_data import LinePlot, Series
from patchpad.pages.point_labels import END_GAP, Box, Placed, Wish, end_labels, place_labels, width_of
from patchpad.pages.svg import CHARACTER_WIDTH
from patchpad.pages.ticks import nice_log_ticks, nice_ticks, tick_texts

LEGEND_GAP = 12
FOOT = 46.0
"""Below the plot area: numbers and the name of the horizontal axis."""
NOTE_STEP = 17.0
NEAR_END = 0.12
"""A line that ends within this share of the plot's right side is named there, and another one at its last point."""
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


@dataclass(frozen=True)
class Layout:
    """A plot's parts and their places."""

    plot: LinePlot
    size: tuple[int, int]
    frame: Frame
    shown: list[Shown]
    titles: list[Text]
    legend: list[tuple[Shown, float, float]]
    """Entries: a series, and where its name's baseline begins."""
    key: float | None
    """Baseline of the line that says what open and filled marks mean."""
    y_name: Text
    x_name: Text
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    labels: list[tuple[Shown, Placed]]
    notes: list[Text]

    @staticmethod
    def of(plot: LinePlot, padding: int) -> "Layout":
        """Lays out a plot inside a margin of `padding`; names that find no place at their marks are in a legend."""
        shown = [Shown.of(one, index, plot) for index, one in enumerate(plot.series)]
        named = [one for one in shown if one.series.label and one.points]
        listed = [] if plot.direct_labels or len(named) < 2 else named
        layout = Layout._of(plot, shown, listed, padding)
        placed = {id(one) for one, _ in layout.labels}
        homeless = [one for one in named if id(one) not in placed] if plot.direct_labels else []
        return Layout._of(plot, shown, homeless, padding) if homeless else layout

    @staticmethod
    def _of(plot: LinePlot, shown: list[Shown], listed: Sequence[Shown], padding: int) -> "Layout":
        """Lays out a plot, `listed` being the series of its legend."""
        size = plot.width - 2 * padding, plot.height - 2 * padding
        titles, legend, key, top = _heading(plot, listed, size[0])
        notes = textwrap.wrap(_left_out(plot, shown), max(10, int(size[0] / CHARACTER_WIDTH)))
        x_ticks, y_ticks = _x_ticks(plot, shown), _y_ticks(plot, shown)
        bottom = size[1] - FOOT - NOTE_STEP * len(notes)
        x_low, x_high = _ends(plot.x_ends, [tick for tick, _ in x_ticks])
        ends = [
            one
            for one in shown
            if one not in listed and plot.direct_labels and one.reaches(_near_end(x_low, x_high, plot))
        ]
        left = 14.0 + CHARACTER_WIDTH * max(len(text) for _, text in y_ticks)
        right = size[0] - max(
            14.0,
            CHARACTER_WIDTH * len(x_ticks[-1][1]) / 2 + 4,
            *(END_GAP + 6 + width_of(one.series.label) for one in ends),
        )
        y_low, y_high = _y_ends(plot, [tick for tick, _ in y_ticks])
        frame = Frame(Axis(x_low, x_high, left, right, plot.log_x), Axis(y_low, y_high, bottom, top + 17, False))
        return Layout(
            plot=plot,
            size=size,
            frame=frame,
            shown=shown,
            titles=titles,
            legend=legend,
            key=key,
            y_name=Text(2, top - 2, plot.y_label),
            x_name=Text((left + right) / 2, bottom + 36, plot.x_label, "middle"),
            x_ticks=x_ticks,
            y_ticks=y_ticks,
            labels=_labels([one for one in shown if one not in listed], shown, ends, frame, direct=plot.direct_labels),
            notes=[Text(2, bottom + 36 + NOTE_STEP * (number + 1), line) for number, line in enumerate(notes)],
        )


def _near_end(low: float, high: float, plot: LinePlot) -> float:
    """Returns from where on a line ends at the right side of its plot."""
    return high * (low / high) ** NEAR_END if plot.log_x else high - (high - low) * NEAR_END


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


def _left_out(plot: LinePlot, shown: Sequence[Shown]) -> str:
    """Says which points lie above the plot."""
    if plot.highest_y is None:
        return ""
    words = [
        f"{' '.join(part for part in (one.series.label or one.series.group, label) if part)} "
        f"{point[1]:.4f} at {compact_number(point[0], digits=2)}"
        for one in shown
        for point, label in one.beyond
    ]
    return f"Above this range and not shown: {', '.join(words)}." if words else ""


def _x_ticks(plot: LinePlot, shown: Sequence[Shown]) -> list[tuple[float, str]]:
    if plot.x_ticks is not None:
        return [(tick, compact_number(tick, digits=4)) for tick in plot.x_ticks]
    values = [x for one in shown for piece in one.pieces for x, _ in piece]
    values += [x for x in plot.upright_lines.values() if drawable(x)]
    low, high = plot.x_ends
    values = [*values, *(end for end in (low, high) if end is not None)]
    ticks = nice_log_ticks(values) if plot.log_x else nice_ticks(values)
    kept = [
        tick for tick in ticks if (low is None or tick >= low * (1 - 1e-9)) and (high is None or tick <= high + 1e-9)
    ]
    if plot.log_x and len(kept) < 3 and low and high and high / low < 10:
        kept = [tick for tick in nice_ticks([low, high]) if low <= tick <= high]
    kept = kept if len(kept) > 1 else ticks
    return list(zip(kept, tick_texts(kept, even=not plot.log_x), strict=True))


def _y_ticks(plot: LinePlot, shown: Sequence[Shown]) -> list[tuple[float, str]]:
    if plot.row_names:
        return [(float(row), name) for row, name in enumerate(plot.row_names)]
    ys = [y for one in shown for _, y in [*one.points, *one.bar_ends]]
    ys += [float(y) for y in plot.reference_lines.values() if drawable(y)]
    ticks = nice_ticks(ys)
    return list(zip(ticks, tick_texts(ticks), strict=True))


def _ends(ends: tuple[Number | None, Number | None], ticks: Sequence[float]) -> tuple[float, float]:
    return (
        float(ends[0]) if ends[0] is not None else ticks[0],
        float(ends[1]) if ends[1] is not None else ticks[-1],
    )


def _y_ends(plot: LinePlot, ticks: Sequence[float]) -> tuple[float, float]:
    """Returns the values at the bottom and at the top; rows go down."""
    if plot.row_names:
        return len(plot.row_names) - 0.5, -0.5
    return ticks[0], max(ticks[-1], plot.highest_y) if plot.highest_y is not None else ticks[-1]


def _heading(
    plot: LinePlot, listed: Sequence[Shown], width: int
) -> tuple[list[Text], list[tuple[Shown, float, float]], float | None, float]:
    """Returns titles, legend, the key of the marks, and where the plot area's name may stand."""
    titles, legend, key, y = [], [], None, 4.0
    for line in textwrap.wrap(plot.title, max(10, int((width - 8) / (CHARACTER_WIDTH * 1.12)))):
        y += 18
        titles.append(Text(2, y - 4, line))
    if listed:
        x, y = 2.0, y + 22
        for one in listed:
            room = legend_room(one.series.label)
            if x > 2 and x + room > width:
                x, y = 2.0, y + 20
            legend.append((one, x, y))
            x += room + LEGEND_GAP
    if plot.marks_key:
        y += 22
        key = y
    return titles, legend, key, y + (26 if plot.y_label else 8)


def legend_room(label: str) -> float:
    """Returns the width of an entry of a legend."""
    return 34 + CHARACTER_WIDTH * len(label)


def _labels(
    named: Sequence[Shown], shown: Sequence[Shown], ends: Sequence[Shown], frame: Frame, *, direct: bool
) -> list[tuple[Shown, Placed]]:
    """Returns the labels of points, and of lines where series are named directly, that have found a place."""
    wishes = [
        (one, Wish(text, frame.at(point)))
        for one in (named if direct else shown)
        for point, text in zip(one.points, _texts(one, direct=direct and one not in ends), strict=True)
        if text
    ]
    if not wishes and not ends:
        return []
    marks = [frame.at(point) for one in shown for point in one.points if one.has_markers]
    marks += [wish.mark for _, wish in wishes if wish.mark not in marks]
    lines = [[frame.at(point) for point in piece] for one in shown if one.has_line for piece in one.pieces]
    column = end_labels(
        [Wish(one.series.label, frame.at(one.points[-1])) for one in ends],
        frame.x.end + END_GAP,
        frame.y.end,
        frame.y.start,
    )
    placed = place_labels([wish for _, wish in wishes], marks, lines, frame.label_room, [one.box for one in column])
    found = [(one, place) for (one, _), place in zip(wishes, placed, strict=True) if place is not None]
    return [*zip(ends, column, strict=True), *found]


def _texts(one: Shown, *, direct: bool) -> Sequence[str]:
    """Returns the text beside each point; points are named at the first one, and a line at its last one."""
    if not direct or one.series.arrow or not one.points:
        return one.labels
    named, texts = -1 if one.has_line else 0, [*one.labels]
    texts[named] = " ".join(part for part in (one.series.label, texts[named]) if part)
    return texts


def upright_texts(layout: Layout) -> list[tuple[float, Text]]:
    """Returns each upright line's place, and its name above it."""
    found, last = [], -math.inf
    for name, value in sorted(layout.plot.upright_lines.items(), key=lambda item: item[1]):
        x = layout.frame.x.at(value)
        half = width_of(name) / 2
        row = 1 if x - half < last + 8 else 0  # a name that would run into the one before it stands above it
        found.append((x, Text(x, layout.frame.y.end - 5 - 15 * row, name, "middle")))
        last = x + half
    return found


def x_numbers(layout: Layout) -> list[Text]:
    """Returns the numbers of the horizontal axis; those that would run into another are left out."""
    found, last_end = [], -math.inf
    for tick, text in layout.x_ticks:
        x, half = layout.frame.x.at(tick), CHARACTER_WIDTH * len(text) / 2
        if x - half > last_end:
            found.append(Text(x, layout.frame.y.start + 18, text, "middle"))
            last_end = x + half + 10
    return found


def reference_texts(layout: Layout) -> list[tuple[float, Text]]:
    """Returns each reference line's height, and its name at its right end."""
    found: list[tuple[float, Text]] = []
    last, shift = -math.inf, 0.0
    references = {name: float(y) for name, y in layout.plot.reference_lines.items() if drawable(y)}
    for name, value in sorted(references.items(), key=lambda item: -item[1]):
        y = layout.frame.y.at(value)
        number = f"{value:#.4g}" if 0.01 <= abs(value) < 1000 else compact_number(value, digits=4)
        crowded = y - last < 17  # its text goes below, further left for each line that came as close before it
        shift = shift + CHARACTER_WIDTH * 16 if crowded and shift else 1.0 if crowded else 0.0
        x, baseline = layout.frame.x.end - 4 - shift, y + 15 if crowded else y - 5
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
