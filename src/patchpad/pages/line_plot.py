"""Line and scatter plots as SVG text: inline in a page, or a file of their own. Standard library only."""

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from patchpad.pages.numbers import Number, compact_number
from patchpad.pages.point_labels import Box, label_elements
from patchpad.pages.svg import (
    CHARACTER_WIDTH,
    STANDALONE_PADDING,
    colour_of,
    escape_text,
    marker_element,
    svg_element,
    text_element,
)
from patchpad.pages.ticks import nice_log_ticks, nice_ticks, tick_texts

FAINT = 0.3
"""Opacity of faint lines."""
LEGEND_GAP = 12


@dataclass(frozen=True)
class Series:
    """Points that belong together, in the order in which their line visits them."""

    label: str
    """Its name in the legend."""
    points: Sequence[tuple[Number, Number]]
    """(x, y) pairs; those that are not finite (or not positive on a log axis) are left out of the plot."""
    point_labels: Sequence[str] | None = None
    """A short text for each point; one that would cover another is left to the point's tooltip."""
    dashed: bool = False
    """Whether the line is dashed."""
    marker: bool = True
    """Whether each point has a marker; a lone point always has one."""
    line: bool = True
    """Whether a line joins the points; False makes a scatter plot."""
    deviations: Sequence[Number | None] | None = None
    """For each point how far a vertical bar reaches above and below it; None: it has none."""
    faint: bool = False
    """Whether the line is a pale one, behind one that matters."""
    look: int | None = None
    """Number of its colour and marker, so that it keeps them from plot to plot; None: its place in the list."""

    def __post_init__(self) -> None:
        for each, what in ((self.point_labels, "point labels"), (self.deviations, "deviations")):
            if each is not None and len(each) != len(self.points):
                raise ValueError(f"Series {self.label!r} has {len(self.points)} points but {len(each)} {what}")


def line_plot(
    series: Sequence[Series],
    *,
    title: str,
    x_label: str,
    y_label: str,
    log_x: bool = False,
    width: int = 640,
    height: int = 360,
    reference_lines: Mapping[str, Number] | None = None,
    description: str = "",
    element_id: str = "plot",
    standalone: bool = False,
    states_frame: bool = False,
) -> str:
    """Returns a plot as one `<svg>` element.

    Args:
        series: what to draw; the first six have colours of their own.
        title: drawn above the plot, and its accessible name.
        x_label: name and unit of the horizontal axis.
        y_label: name and unit of the vertical axis.
        log_x: a logarithmic horizontal axis.
        width: in user units; inside a page the plot scales with its column.
        height: in user units.
        reference_lines: y values drawn as labelled dotted lines across the plot, always inside its range.
        description: what the plot shows, for readers who do not see it; by default the ranges of its series.
        element_id: unique within the page.
        standalone: a file of its own, with namespace, style and background.
        states_frame: say in `data-x` and `data-y` which values lie where (low, high, start and end, in user units), so
            that a script can add to a plot with linear axes.
    """
    references = {label: float(y) for label, y in (reference_lines or {}).items() if _drawable(y)}
    padding = STANDALONE_PADDING if standalone else 0
    width, height = width - 2 * padding, height - 2 * padding
    shown = [_Shown.of(one, index, log_x) for index, one in enumerate(series)]
    xs = [x for one in shown for x, _ in one.points]
    ys = [y for one in shown for _, y in [*one.points, *one.bar_ends]] + list(references.values())
    y_ticks = nice_ticks(ys)
    x_ticks = nice_log_ticks(xs) if log_x else nice_ticks(xs)
    y_texts, x_texts = tick_texts(y_ticks), tick_texts(x_ticks, even=not log_x)

    heading, top = _heading(shown, title, y_label, width)
    left = 14.0 + CHARACTER_WIDTH * max(len(text) for text in y_texts)
    right = width - max(14.0, CHARACTER_WIDTH * len(x_texts[-1]) / 2 + 4)
    frame = _Frame(
        x=_Axis(x_ticks[0], x_ticks[-1], left, right, log_x),
        y=_Axis(y_ticks[0], y_ticks[-1], height - 46.0, top, False),
    )
    body = [
        *heading,
        *_grid(frame, list(zip(x_ticks, x_texts, strict=True)), list(zip(y_ticks, y_texts, strict=True))),
        text_element((left + right) / 2, height - 10, x_label, anchor="middle"),
        *_references(frame, references),
        *(element for one in shown for element in one.line_elements(frame)),
        *(element for one in shown for element in one.bar_elements(frame)),
        *(element for one in shown for element in one.marker_elements(frame, x_label, y_label)),
        *label_elements([one.labelled(frame) for one in shown], frame.label_room),
    ]
    if not xs:
        body.append(text_element((left + right) / 2, (top + height - 46) / 2, "no points to show", anchor="middle"))
    names = (title, description or _describe(shown, x_label, y_label))
    plot = svg_element(body, names, escape_text(element_id), (width, height), padding, standalone)
    return plot.replace("<svg ", f"<svg {frame.attributes()} ", 1) if states_frame else plot


@dataclass(frozen=True)
class _Axis:
    """Maps data values in [low, high] to user units in [start, end]."""

    low: float
    high: float
    start: float
    end: float
    log: bool

    def at(self, value: Number) -> float:
        low, high, value = (math.log10(v) if self.log else v for v in (self.low, self.high, value))
        return self.start + (value - low) / (high - low) * (self.end - self.start)


@dataclass(frozen=True)
class _Frame:
    x: _Axis
    y: _Axis

    def at(self, point: tuple[Number, Number]) -> tuple[float, float]:
        return self.x.at(point[0]), self.y.at(point[1])

    @property
    def label_room(self) -> Box:
        """Where labels of points may lie: a little beyond the plot area's sides."""
        return self.x.start - 4, 0.0, self.x.end + 12, self.y.start + 2

    def attributes(self) -> str:
        axes = (("x", self.x), ("y", self.y))
        return " ".join(f'data-{name}="{a.low:g} {a.high:g} {a.start:g} {a.end:g}"' for name, a in axes)


@dataclass(frozen=True)
class _Shown:
    """The drawable part of a series."""

    series: Series
    colour: str
    shape: int
    points: list[tuple[Number, Number]]
    labels: list[str]
    deviations: list[Number]

    @classmethod
    def of(cls, series: Series, index: int, log_x: bool) -> "_Shown":
        labels = series.point_labels or [""] * len(series.points)
        deviations = series.deviations or [None] * len(series.points)
        kept = [
            (point, label, deviation if deviation is not None and _drawable(deviation) else 0.0)
            for point, label, deviation in zip(series.points, labels, deviations, strict=True)
            if _drawable(point[0]) and _drawable(point[1]) and (not log_x or point[0] > 1e-150)
        ]
        look = index if series.look is None else series.look
        points, texts, reaches = [one[0] for one in kept], [one[1] for one in kept], [one[2] for one in kept]
        return cls(series, colour_of(look), look, points, texts, reaches)

    @property
    def has_markers(self) -> bool:
        return self.series.marker or not self.series.line or len(self.points) == 1

    @property
    def bar_ends(self) -> list[tuple[Number, Number]]:
        """Lower and upper end of each bar."""
        bars = [(x, y, reach) for (x, y), reach in zip(self.points, self.deviations, strict=True) if reach]
        return [end for x, y, reach in bars for end in ((x, y - reach), (x, y + reach))]

    def labelled(self, frame: _Frame) -> list[tuple[float, float, str]]:
        """Its points in user units, each with its label."""
        return [(*frame.at(point), label) for point, label in zip(self.points, self.labels, strict=True)]

    def bar_elements(self, frame: _Frame) -> list[str]:
        elements = []
        ends = [frame.at(end) for end in self.bar_ends]
        for (x, low), (_, high) in zip(ends[::2], ends[1::2], strict=True):
            path = f"M{x - 6:.1f},{low:.1f}h12M{x:.1f},{low:.1f}V{high:.1f}M{x - 6:.1f},{high:.1f}h12"
            style = f"stroke:{self.colour};stroke-width:1.5"
            elements.append(f'<path class="plot-line plot-bar" style="{style}" d="{path}"/>')
        return elements

    def line_elements(self, frame: _Frame) -> list[str]:
        if len(self.points) < 2 or not self.series.line:
            return []
        path = " ".join("{:.1f},{:.1f}".format(*frame.at(point)) for point in self.points)
        dash = ' stroke-dasharray="6 5"' if self.series.dashed else ""
        pale = f";opacity:{FAINT}" if self.series.faint else ""
        return [f'<polyline class="plot-line" style="stroke:{self.colour}{pale}"{dash} points="{path}"/>']

    def marker_elements(self, frame: _Frame, x_label: str, y_label: str) -> list[str]:
        if not self.has_markers:
            return []
        elements = []
        for point, label, reach in zip(self.points, self.labels, self.deviations, strict=True):
            tip = ", ".join(
                [
                    *([f"{self.series.label} {label}".strip()] if label or self.series.label else []),
                    f"{x_label}: {compact_number(point[0], digits=4)}",
                    f"{y_label}: {compact_number(point[1], digits=4)}"
                    + (f" ± {compact_number(reach, digits=2)}" if reach else ""),
                ]
            )
            elements.append(marker_element(*frame.at(point), self.shape, self.colour, tip))
        return elements


def _drawable(value: Number) -> bool:
    return abs(value) < 1e150  # False for infinities and NaN; the bound keeps every tick finite


def _heading(shown: Sequence[_Shown], title: str, y_label: str, width: int) -> tuple[list[str], float]:
    """Returns title, legend and the vertical axis's name, and where the plot area may begin."""
    elements, y = [], 4.0
    for line in textwrap.wrap(title, max(10, int((width - 8) / (CHARACTER_WIDTH * 1.12)))):
        y += 18
        elements.append(text_element(2, y - 4, line, css="plot-title"))
    named = [one for one in shown if one.series.label and one.points]
    if len(named) > 1:
        x, y = 2.0, y + 22
        for one in named:
            room = _legend_room(one.series.label)
            if x > 2 and x + room > width:
                x, y = 2.0, y + 20
            elements += _legend_entry(one, x, y)
            x += room + LEGEND_GAP
    y += 26
    elements.append(text_element(2, y - 2, y_label))
    return elements, y + 17


def _legend_room(label: str) -> float:
    return 34 + CHARACTER_WIDTH * len(label)


def legend_lines(labels: Sequence[str], width: int) -> int:
    """Returns how many lines the legend of a standalone plot takes, so that a long one does not squeeze the plot."""
    lines, x = 1, 2.0
    for label in labels:
        room = _legend_room(label)
        if x > 2 and x + room > width - 2 * STANDALONE_PADDING:
            lines, x = lines + 1, 2.0
        x += room + LEGEND_GAP
    return lines


def _legend_entry(one: _Shown, x: float, y: float) -> list[str]:
    middle = y - 4.5
    elements = []
    if one.series.line and len(one.points) > 1:
        dash = ' stroke-dasharray="6 5"' if one.series.dashed else ""
        elements.append(
            f'<path class="plot-line" style="stroke:{one.colour}"{dash} d="M{x:.1f},{middle:.1f}h22"/>',
        )
    if one.has_markers:
        elements.append(marker_element(x + 11, middle, one.shape, one.colour))
    return [*elements, text_element(x + 29, y, one.series.label)]


def _grid(frame: _Frame, x_ticks: Sequence[tuple[float, str]], y_ticks: Sequence[tuple[float, str]]) -> list[str]:
    left, right, bottom, top = frame.x.start, frame.x.end, frame.y.start, frame.y.end
    elements = []
    for tick, text in y_ticks:
        y = frame.y.at(tick)
        elements.append(f'<path class="plot-grid" d="M{left:.1f},{y:.1f}H{right:.1f}"/>')
        elements.append(text_element(left - 8, y + 4.5, text, anchor="end"))
    room, last_end = 10.0, -math.inf
    for tick, text in x_ticks:
        x = frame.x.at(tick)
        elements.append(f'<path class="plot-grid" d="M{x:.1f},{top:.1f}V{bottom:.1f}"/>')
        half = CHARACTER_WIDTH * len(text) / 2
        if x - half > last_end:  # labels of crowded log ticks would run into each other
            elements.append(text_element(x, bottom + 18, text, anchor="middle"))
            last_end = x + half + room
    elements.append(f'<path class="plot-axis" d="M{left:.1f},{bottom:.1f}H{right:.1f}"/>')
    return elements


def _references(frame: _Frame, references: Mapping[str, float]) -> list[str]:
    lines, texts = [], []
    last, shift = -math.inf, 0.0
    for label, value in sorted(references.items(), key=lambda item: -item[1]):
        y = frame.y.at(value)
        number = f"{value:#.4g}" if 0.01 <= abs(value) < 1000 else compact_number(value, digits=4)
        crowded = y - last < 17  # its text goes below, further left for each line that came as close before it
        shift = shift + CHARACTER_WIDTH * 16 if crowded and shift else 1.0 if crowded else 0.0
        lines.append(f'<path class="plot-reference" d="M{frame.x.start:.1f},{y:.1f}H{frame.x.end:.1f}"/>')
        x, baseline = frame.x.end - 4 - shift, y + 15 if crowded else y - 5
        texts.append(text_element(x, baseline, f"{label} {number}", anchor="end", css="plot-halo"))
        last = y
    return lines + texts


def _describe(shown: Sequence[_Shown], x_label: str, y_label: str) -> str:
    parts = []
    for one in shown:
        if one.points:
            (x0, x1), (y0, y1) = ((min(values), max(values)) for values in zip(*one.points, strict=True))
            spans = [
                f"{label} from {compact_number(low, digits=4)} to {compact_number(high, digits=4)}"
                for label, low, high in ((x_label, x0, x1), (y_label, y0, y1))
            ]
            count = "1 point" if len(one.points) == 1 else f"{len(one.points)} points"
            parts.append(f"{one.series.label or 'series'}: {count}, {spans[0]}, {spans[1]}.")
    return " ".join(parts) or "No points."
