"""Line and scatter plots as SVG text: inline in a page, or a file of their own. Standard library only."""

import itertools
from collections.abc import Sequence
from typing import Any

from patchpad.pages.numbers import compact_number
from patchpad.pages.plot_data import LinePlot, Series
from patchpad.pages.plot_layout import LEGEND_GAP, Layout, legend_room
from patchpad.pages.plot_parts import Frame, Shown, Text, described, reference_texts, upright_texts, x_numbers
from patchpad.pages.point_labels import Placed
from patchpad.pages.svg import (
    STANDALONE_PADDING,
    colour_of,
    escape_text,
    marker_element,
    svg_element,
    text_element,
)

__all__ = ["LinePlot", "Series", "legend_lines", "line_plot", "line_plot_svg"]

FAINT = 0.3
"""Opacity of faint lines."""
MARK_ROOM = 8.0
"""Between an arrow and the marks that it joins."""


def line_plot(
    series: Sequence[Series],
    *,
    element_id: str = "plot",
    standalone: bool = False,
    states_frame: bool = False,
    **options: Any,
) -> str:
    """Returns a plot as one `<svg>` element; `options` are those of `LinePlot`, the rest is that of `line_plot_svg`."""
    plot = LinePlot(series=series, **options)
    return line_plot_svg(plot, element_id=element_id, standalone=standalone, states_frame=states_frame)


def line_plot_svg(
    plot: LinePlot, *, element_id: str = "plot", standalone: bool = False, states_frame: bool = False
) -> str:
    """Returns a plot as one `<svg>` element.

    Args:
        plot: what to draw.
        element_id: unique within the page.
        standalone: a file of its own, with namespace, style and background.
        states_frame: say in `data-x` and `data-y` which values lie where (low, high, start and end, in user units), so
            that a script can add to a plot with linear axes.
    """
    padding = STANDALONE_PADDING if standalone else 0
    layout = Layout.of(plot, padding)
    frame, shown = layout.frame, layout.shown
    body = [
        *(_text(one, css="plot-title") for one in layout.titles),
        *(element for entry in layout.legend for element in _legend_entry(*entry)),
        *_marks_key(layout),
        *([_text(layout.y_name)] if plot.y_label else []),
        *_grid(layout),
        _text(layout.x_name),
        *_references(layout),
        *(element for one in shown for element in _grouped(one, _line_elements(one, frame))),
        *(element for one in shown for element in _grouped(one, _bar_elements(one, frame))),
        *(element for one in shown for element in _grouped(one, _marker_elements(one, frame, plot))),
        *(element for one, label in layout.labels for element in _grouped(one, _label_elements(one, label))),
        *(_text(note) for note in layout.notes),
    ]
    if not any(one.points for one in shown):
        middle = (frame.x.start + frame.x.end) / 2, (frame.y.end + frame.y.start) / 2
        body.append(text_element(*middle, "no points to show", anchor="middle"))
    description = plot.description or described(shown, plot.x_label, plot.y_label)
    names = (plot.title, " ".join(part for part in (description, *(note.text for note in layout.notes)) if part))
    drawn = svg_element(body, names, escape_text(element_id), layout.size, padding, standalone)
    return drawn.replace("<svg ", f"<svg {_frame_attributes(frame)} ", 1) if states_frame else drawn


def legend_lines(labels: Sequence[str], width: int) -> int:
    """Returns how many lines the legend of a standalone plot takes, so that a long one does not squeeze the plot."""
    lines, x = 1, 2.0
    for label in labels:
        room = legend_room(label)
        if x > 2 and x + room > width - 2 * STANDALONE_PADDING:
            lines, x = lines + 1, 2.0
        x += room + LEGEND_GAP
    return lines


def _frame_attributes(frame: Frame) -> str:
    axes = (("x", frame.x), ("y", frame.y))
    return " ".join(f'data-{name}="{a.low:g} {a.high:g} {a.start:g} {a.end:g}"' for name, a in axes)


def _text(one: Text, css: str = "") -> str:
    return text_element(one.x, one.y, one.text, anchor=one.anchor, css=css)


def _grouped(one: Shown, elements: Sequence[str]) -> list[str]:
    """Puts a series' elements into a group that a script can find."""
    if not one.series.group or not elements:
        return list(elements)
    return [f'<g data-group="{escape_text(one.series.group)}">{"".join(elements)}</g>']


def _line_elements(one: Shown, frame: Frame) -> list[str]:
    if not one.has_line:
        return []
    if one.series.arrow:
        return _arrow(one, frame)
    dash = ' stroke-dasharray="6 5"' if one.series.dashed else ""
    pale = f";opacity:{FAINT}" if one.series.faint else ""
    style = f"stroke:{colour_of(one.look)}{pale}"
    return [
        f'<polyline class="plot-line" style="{style}"{dash} '
        f'points="{" ".join("{:.1f},{:.1f}".format(*frame.at(point)) for point in piece)}"/>'
        for piece in one.pieces
        if len(piece) > 1
    ]


def _arrow(one: Shown, frame: Frame) -> list[str]:
    """Returns an arrow from mark to mark; marks that are too close have none."""
    elements = []
    for start, end in itertools.pairwise(frame.at(point) for point in one.points):
        ends = arrow_ends(start, end)
        if ends:
            (x0, y0), (x1, y1) = ends
            length = ((x1 - x0) ** 2 + (y1 - y0) ** 2) ** 0.5
            dx, dy = (x1 - x0) / length, (y1 - y0) / length
            head = f"M{x1 - 7 * dx + 4 * dy:.1f},{y1 - 7 * dy - 4 * dx:.1f}L{x1:.1f},{y1:.1f}"
            head += f"L{x1 - 7 * dx - 4 * dy:.1f},{y1 - 7 * dy + 4 * dx:.1f}"
            path = f"M{x0:.1f},{y0:.1f}L{x1:.1f},{y1:.1f}{head}"
            elements.append(f'<path class="plot-line" style="stroke:{colour_of(one.look)}" d="{path}"/>')
    return elements


def arrow_ends(start: tuple[float, float], end: tuple[float, float]) -> tuple[tuple[float, float], ...] | None:
    """Returns where an arrow between two marks begins and ends; None where they are too close for one."""
    dx, dy = end[0] - start[0], end[1] - start[1]
    length = (dx**2 + dy**2) ** 0.5
    if length < 2 * MARK_ROOM + 4:
        return None
    share = MARK_ROOM / length
    return (start[0] + dx * share, start[1] + dy * share), (end[0] - dx * share, end[1] - dy * share)


def _bar_elements(one: Shown, frame: Frame) -> list[str]:
    elements = []
    ends = [frame.at(end) for end in one.bar_ends]
    for (x, low), (_, high) in zip(ends[::2], ends[1::2], strict=True):
        path = f"M{x - 6:.1f},{low:.1f}h12M{x:.1f},{low:.1f}V{high:.1f}M{x - 6:.1f},{high:.1f}h12"
        style = f"stroke:{colour_of(one.look)};stroke-width:1.5"
        elements.append(f'<path class="plot-line plot-bar" style="{style}" d="{path}"/>')
    return elements


def _marker_elements(one: Shown, frame: Frame, plot: LinePlot) -> list[str]:
    if not one.has_markers:
        return []
    elements = []
    for point, label, reach in zip(one.points, one.labels, one.deviations, strict=True):
        name = one.series.label or one.series.group
        across = f"{plot.x_label}: {compact_number(point[0], digits=4)}"
        height = f"{plot.y_label}: {compact_number(point[1], digits=4)}"
        if plot.row_names:
            name, height = plot.row_names[round(point[1])], ""
        elif reach:
            height += f" ± {compact_number(reach, digits=2)}"
        tip = ", ".join(part for part in (f"{name} {label}".strip(), across, height) if part)
        elements.append(marker_element(*frame.at(point), one.look, colour_of(one.look), tip, hollow=one.series.hollow))
    return elements


def _label_elements(one: Shown, label: Placed) -> list[str]:
    elements = []
    if label.leader:
        (x0, y0), (x1, y1) = label.leader
        style = f"stroke:{colour_of(one.look)};stroke-width:1"
        elements.append(f'<path class="plot-line" style="{style}" d="M{x0:.1f},{y0:.1f}L{x1:.1f},{y1:.1f}"/>')
    x, anchor = label.start
    css = "plot-point-label plot-halo"
    return [*elements, text_element(x, label.box[3] - 3, label.text, anchor=anchor, css=css)]


def _legend_entry(one: Shown, x: float, y: float) -> list[str]:
    middle = y - 4.5
    elements = []
    if one.has_line:
        dash = ' stroke-dasharray="6 5"' if one.series.dashed else ""
        style = f"stroke:{colour_of(one.look)}"
        elements.append(f'<path class="plot-line" style="{style}"{dash} d="M{x:.1f},{middle:.1f}h22"/>')
    if one.has_markers:
        colour = colour_of(one.look)
        elements.append(marker_element(x + 11, middle, one.look, colour, hollow=one.series.hollow))
    return [*elements, text_element(x + 29, y, one.series.label)]


def _marks_key(layout: Layout) -> list[str]:
    """Says what open and filled marks mean."""
    elements = []
    for words, hollow in layout.key:
        elements.append(marker_element(words.x - 10, words.y - 4.5, 0, "var(--plot-muted)", hollow=hollow))
        elements.append(_text(words))
    return elements


def _grid(layout: Layout) -> list[str]:
    frame, elements = layout.frame, []
    left, right, bottom, top = frame.x.start, frame.x.end, frame.y.start, frame.y.end
    for tick, text in layout.y_ticks:
        y = frame.y.at(tick)
        elements.append(f'<path class="plot-grid" d="M{left:.1f},{y:.1f}H{right:.1f}"/>')
        elements.append(text_element(left - 8, y + 4.5, text, anchor="end"))
    numbers = {one.x: one for one in x_numbers(layout.frame, layout.x_ticks)}
    for tick, _ in layout.x_ticks:
        x = frame.x.at(tick)
        elements.append(f'<path class="plot-grid" d="M{x:.1f},{top:.1f}V{bottom:.1f}"/>')
        if x in numbers:
            elements.append(_text(numbers[x]))
    elements.append(f'<path class="plot-axis" d="M{left:.1f},{bottom:.1f}H{right:.1f}"/>')
    return elements


def _references(layout: Layout) -> list[str]:
    frame, lines, texts = layout.frame, [], []
    for y, text in reference_texts(layout.plot, layout.frame):
        lines.append(f'<path class="plot-reference" d="M{frame.x.start:.1f},{y:.1f}H{frame.x.end:.1f}"/>')
        texts.append(_text(text, css="plot-halo"))
    for x, text in upright_texts(layout.plot, layout.frame):
        lines.append(f'<path class="plot-reference" d="M{x:.1f},{frame.y.start:.1f}V{frame.y.end:.1f}"/>')
        texts.append(_text(text, css="plot-halo"))
    return lines + texts
