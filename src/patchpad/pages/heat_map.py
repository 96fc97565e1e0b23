"""A table of shaded cells as SVG text: many rows side by side in blocks, few columns. Standard library only."""

import math
import textwrap
from collections.abc import Sequence

from patchpad.pages.numbers import Number, compact_number
from patchpad.pages.svg import CHARACTER_WIDTH, STANDALONE_PADDING, escape_text, svg_element, text_element

CELL_WIDTH, CELL_HEIGHT, CELL_GAP = 30.0, 17.0, 1.0
TEXT_DROP = CELL_HEIGHT - 4.5
BLOCK_GAP, FEWEST_ROWS = 30.0, 12
LEGEND_STEPS = 5
DEEPEST = 0.6
"""Opacity of the colour at the top of the scale; text stays readable on it, on light and on dark paper."""


def heat_map(
    rows: Sequence[str],
    columns: Sequence[str],
    values: Sequence[Sequence[Number | None]],
    *,
    texts: Sequence[Sequence[str]],
    highest: float,
    title: str,
    scale_label: str,
    width: int = 900,
    element_id: str = "heat",
    standalone: bool = False,
) -> str:
    """Returns shaded cells as one `<svg>` element; the height follows from the number of rows.

    One colour, from paper at 0 to its deepest shade. Rows go down in blocks, as many beside each other as have room.

    Args:
        rows: names down the side.
        columns: names of the columns; those in the blocks are letters, spelled out above them.
        values: [row][column], at least 0; None leaves a cell empty.
        texts: [row][column], a few characters in each cell.
        highest: the value of the deepest shade; what lies above it has that shade too.
        title: drawn above, and the plot's accessible name.
        scale_label: name and unit of the values, beside the scale.
        width: in user units.
        element_id: unique within the page.
        standalone: a file of its own, with namespace, style and background.
    """
    padding = STANDALONE_PADDING if standalone else 0
    width -= 2 * padding
    label_room = 10 + CHARACTER_WIDTH * max((len(name) for name in rows), default=0)
    block_width = label_room + len(columns) * CELL_WIDTH
    most_blocks = max(1, int((width + BLOCK_GAP) // (block_width + BLOCK_GAP)))
    num_blocks = min(most_blocks, max(1, math.ceil(len(rows) / FEWEST_ROWS)))
    block_rows = max(1, math.ceil(len(rows) / num_blocks))
    body, top = _heading(columns, title, scale_label, highest, width)
    for block in range(num_blocks):
        left = block * (block_width + BLOCK_GAP) + label_room
        shown = range(block * block_rows, min(len(rows), (block + 1) * block_rows))
        for column in range(len(columns)):
            middle = left + (column + 0.5) * CELL_WIDTH
            body.append(text_element(middle, top - 6, column_letter(column), anchor="middle"))
        for place, row in enumerate(shown):
            y = top + place * CELL_HEIGHT
            body.append(text_element(left - 8, y + TEXT_DROP, rows[row], anchor="end"))
            for column, name in enumerate(columns):
                value = values[row][column]
                if value is None or not math.isfinite(value):
                    continue
                x = left + column * CELL_WIDTH
                tip = f"{rows[row]}, {name}: {texts[row][column]} ({compact_number(value, digits=3)} {scale_label})"
                body.append(_cell(x, y, min(1.0, value / highest) if highest > 0 else 0.0, tip))
                middle = x + CELL_WIDTH / 2
                content = texts[row][column]
                body.append(text_element(middle, y + TEXT_DROP, content, anchor="middle", css="plot-point-label"))
    height = math.ceil(top + block_rows * CELL_HEIGHT + 8)
    description = f"{len(rows)} rows, {len(columns)} columns: {', '.join(columns)}. Shade: {scale_label}."
    return svg_element(body, (title, description), escape_text(element_id), (width, height), padding, standalone)


def column_letter(column: int) -> str:
    """Returns the letter that stands for a column: A to Z, then AA and so on."""
    letters = ""
    column += 1
    while column:
        column, rest = divmod(column - 1, 26)
        letters = chr(ord("A") + rest) + letters
    return letters


def _cell(x: float, y: float, share: float, tip: str) -> str:
    size = f"h{CELL_WIDTH - CELL_GAP:.1f}v{CELL_HEIGHT - CELL_GAP:.1f}h{CELL_GAP - CELL_WIDTH:.1f}z"
    return (
        f'<path style="fill:var(--plot-1);fill-opacity:{DEEPEST * share:.3f}" d="M{x:.1f},{y:.1f}{size}">'
        f"<title>{escape_text(tip)}</title></path>"
    )


def _heading(
    columns: Sequence[str], title: str, scale_label: str, highest: float, width: Number
) -> tuple[list[str], float]:
    """Returns title, names of the columns and scale, and where the cells may begin."""
    elements, y = [], 4.0
    for line in textwrap.wrap(title, max(10, int((width - 8) / (CHARACTER_WIDTH * 1.12)))):
        y += 18
        elements.append(text_element(2, y - 4, line, css="plot-title"))
    x, y = 2.0, y + 20
    for column, name in enumerate(columns):
        entry = f"{column_letter(column)}  {name}"
        room = CHARACTER_WIDTH * len(entry) + 14
        if x > 2 and x + room > width:
            x, y = 2.0, y + 19
        elements.append(text_element(x, y, entry))
        x += room
    x, y = 2.0, y + 14
    for step in range(1, LEGEND_STEPS + 1):
        share = step / LEGEND_STEPS
        elements.append(_cell(x, y, share, compact_number(highest * share)))
        x += CELL_WIDTH
    scale = f"0 (no shade) to {compact_number(highest)} {scale_label}"
    elements.append(text_element(x + 8, y + TEXT_DROP, scale))
    return elements, y + CELL_HEIGHT + 28
