"""Where the parts of a plot lie, whatever draws it. Standard library only.

Lengths are user units, counted from the top left.
"""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from patchpad.pages.numbers import Number, compact_number
from patchpad.pages.plot_data import LinePlot
from patchpad.pages.plot_parts import Axis, Frame, Shown, Text, drawable, upright_texts
from patchpad.pages.point_labels import END_GAP, Placed, Wish, end_labels, place_labels, width_of
from patchpad.pages.svg import CHARACTER_WIDTH
from patchpad.pages.ticks import nice_log_ticks, nice_ticks, tick_texts

LEGEND_GAP = 12
KEY_GAP = 20
WIDE_FONT = 1.15
"""How much wider than expected a reader's font may be."""
FOOT = 46.0
"""Below the plot area: numbers and the name of the horizontal axis."""
NOTE_STEP = 17.0
NEAR_END = 0.12
"""A line that ends within this share of the plot's right side is named there, and another one at its last point."""


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
    key: list[tuple[Text, bool]]
    """What open and filled marks mean: a text, and whether its mark, which stands before it, is open."""
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
        above = [text for _, text in upright_texts(plot, frame)]
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
            labels=_labels(plot, [one for one in shown if one not in listed], shown, ends, frame, above),
            notes=[Text(2, bottom + 36 + NOTE_STEP * (number + 1), line) for number, line in enumerate(notes)],
        )


def _near_end(low: float, high: float, plot: LinePlot) -> float:
    """Returns from where on a line ends at the right side of its plot."""
    return high * (low / high) ** NEAR_END if plot.log_x else high - (high - low) * NEAR_END


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
        return [(float(tick), compact_number(tick, digits=4)) for tick in plot.x_ticks]
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
    return ticks[0], ticks[-1] if plot.highest_y is None else max(ticks[-1], float(plot.highest_y))


def _heading(
    plot: LinePlot, listed: Sequence[Shown], width: int
) -> tuple[list[Text], list[tuple[Shown, float, float]], list[tuple[Text, bool]], float]:
    """Returns titles, legend, the key of the marks, and where the plot area's name may stand."""
    titles, legend, y = [], [], 4.0
    key: list[tuple[Text, bool]] = []
    for line in textwrap.wrap(plot.title, max(10, int((width - 8) / (CHARACTER_WIDTH * WIDE_FONT * 1.12)))):
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
    for number, words in enumerate(plot.marks_key or ()):
        beside = 18 + KEY_GAP + width_of(key[0][0].text) if number else 2.0
        on = number and beside + 16 + WIDE_FONT * width_of(words) < width
        y += 0 if on else 20 if number else 22
        key.append((Text((beside if on else 2.0) + 16, y, words), number == 0))
    return titles, legend, key, y + (26 if plot.y_label else 8)


def legend_room(label: str) -> float:
    """Returns the width of an entry of a legend."""
    return 34 + CHARACTER_WIDTH * len(label)


def _labels(
    plot: LinePlot,
    named: Sequence[Shown],
    shown: Sequence[Shown],
    ends: Sequence[Shown],
    frame: Frame,
    above: Sequence[Text],
) -> list[tuple[Shown, Placed]]:
    """Returns the labels of points, and of lines where series are named directly, that have found a place."""
    direct = plot.direct_labels
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
    placed = place_labels(
        [wish for _, wish in wishes],
        marks,
        lines,
        frame.label_room,
        [*(one.box for one in column), *(text.box for text in above)],
    )
    found = [(one, place) for (one, _), place in zip(wishes, placed, strict=True) if place is not None]
    return [*zip(ends, column, strict=True), *found]


def _texts(one: Shown, *, direct: bool) -> Sequence[str]:
    """Returns the text beside each point; points are named at the first one, and a line at its last one."""
    if not direct or one.series.arrow or not one.points:
        return one.labels
    named, texts = -1 if one.has_line else 0, [*one.labels]
    texts[named] = " ".join(part for part in (one.series.label, texts[named]) if part)
    return texts
