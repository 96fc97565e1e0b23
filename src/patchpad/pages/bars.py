"""Horizontal bars in groups, as SVG text in the style of the other plots. Standard library only."""

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from patchpad.pages.numbers import Number, compact_number
from patchpad.pages.svg import (
    CHARACTER_WIDTH,
    STANDALONE_PADDING,
    colour_of,
    escape_text,
    svg_element,
    text_element,
)
from patchpad.pages.ticks import nice_ticks, tick_texts

BAR_HEIGHT, BAR_GAP, GROUP_GAP = 9.0, 2.0, 12.0


@dataclass(frozen=True)
class Bars:
    """One value for each group; None draws nothing."""

    label: str
    values: Sequence[Number | None]
    look: int = 0
    """Number of the colour."""


def bar_plot(
    groups: Sequence[str],
    series: Sequence[Bars],
    *,
    title: str,
    x_label: str,
    width: int = 640,
    element_id: str = "bars",
    standalone: bool = False,
) -> str:
    """Returns bars of at least 0, grouped, as one `<svg>` element; the height follows from their number.

    Args:
        groups: names down the vertical axis.
        series: for each, a bar in every group.
        title: drawn above the plot, and its accessible name.
        x_label: name and unit of the horizontal axis.
        width: in user units.
        element_id: unique within the page.
        standalone: a file of its own, with namespace, style and background.
    """
    padding = STANDALONE_PADDING if standalone else 0
    width -= 2 * padding
    values = [float(value) for one in series for value in one.values if value is not None and math.isfinite(value)]
    ticks = nice_ticks([0.0, max([*values, 1e-9])])
    left = 14.0 + CHARACTER_WIDTH * max(len(name) for name in groups)
    right = width - 24.0

    def place(value: Number) -> float:
        return left + value / ticks[-1] * (right - left)

    body, top = _heading(series, title, width)
    step = BAR_HEIGHT + BAR_GAP
    bottom = top + len(groups) * (len(series) * step + GROUP_GAP)
    for tick, label in zip(ticks, tick_texts(ticks), strict=True):
        body.append(f'<path class="plot-grid" d="M{place(tick):.1f},{top:.1f}V{bottom:.1f}"/>')
        body.append(text_element(place(tick), bottom + 18, label, anchor="middle"))
    for group, name in enumerate(groups):
        y = top + group * (len(series) * step + GROUP_GAP) + GROUP_GAP / 2
        body.append(text_element(left - 8, y + len(series) * step / 2 + 4, name, anchor="end"))
        for number, one in enumerate(series):
            value = one.values[group]
            if value is not None and math.isfinite(value):
                tip = escape_text(f"{one.label}, {name}: {compact_number(value, digits=4)} {x_label}")
                body.append(
                    f'<path style="fill:{colour_of(one.look)}" d="M{left:.1f},{y + number * step:.1f}'
                    f'H{place(value):.1f}v{BAR_HEIGHT}H{left:.1f}z"><title>{tip}</title></path>'
                )
    body.append(f'<path class="plot-axis" d="M{left:.1f},{top:.1f}V{bottom:.1f}"/>')
    body.append(text_element((left + right) / 2, bottom + 38, x_label, anchor="middle"))
    height = math.ceil(bottom + 46)
    description = " ".join(
        f"{one.label}: "
        + ", ".join(
            f"{name} {compact_number(value, digits=3)}"
            for name, value in zip(groups, one.values, strict=True)
            if value is not None
        )
        + "."
        for one in series
    )
    return svg_element(body, (title, description), escape_text(element_id), (width, height), padding, standalone)


def _heading(series: Sequence[Bars], title: str, width: Number) -> tuple[list[str], float]:
    """Returns title and legend, and where the bars may begin."""
    elements, y = [], 4.0
    for line in textwrap.wrap(title, max(10, int((width - 8) / (CHARACTER_WIDTH * 1.12)))):
        y += 18
        elements.append(text_element(2, y - 4, line, css="plot-title"))
    x, y = 2.0, y + 22
    for one in series:
        room = 26 + CHARACTER_WIDTH * len(one.label)
        if x > 2 and x + room > width:
            x, y = 2.0, y + 20
        elements.append(f'<path style="fill:{colour_of(one.look)}" d="M{x:.1f},{y - 9:.1f}h14v9h-14z"/>')
        elements.append(text_element(x + 20, y, one.label))
        x += room + 12
    return elements, y + 16
