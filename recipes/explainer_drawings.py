"""Drawings of the explainer: strips of bytes with their slots and lags, who sees whom, and the figure's first state."""

import html
from dataclasses import dataclass

import numpy as np
from explainer_texts import ReadText, Slots

from patchpad.pages.svg import escape_text

CELL, SLOT_ROW, LAG_UNIT, MATRIX_CELL = 18, 13, 4, 17
FULL_NATS = 4.0
"""Entropy at which the shade of a byte is deepest."""
NUM_SHADES = 10


def glyph(byte: int) -> str:
    """Returns what stands for a byte: itself, or a sign for a space or a newline."""
    return {0x20: "␣", 0x0A: "↵"}.get(byte) or chr(byte)


def strip(text: bytes, slots: Slots, patch_size: int, *, title: str) -> str:
    """Draws bytes, the slots with what each pools, and the lag of each byte.

    Args:
        text: printable ASCII.
        slots: of that text.
        patch_size: bytes per patch.
        title: what it shows, for readers who do not see it.
    """
    num_bytes = len(text)
    rows = _slot_rows(slots)
    lag_top = 66 + SLOT_ROW * (max(rows.values()) + 1) + 12
    deepest = int(slots.lag.max())
    width, height = num_bytes * CELL + 2, lag_top + 16 + LAG_UNIT * deepest + 8
    body = []
    for n, byte in enumerate(text, start=1):
        body.append(f'<text class="byte" x="{_middle(n)}" y="16">{escape_text(glyph(byte))}</text>')
        if patch_size > 1 and (slots.patch_end[n] or n == num_bytes):
            first = (n - 1) // patch_size * patch_size + 1
            body.append(f'<path class="edge" d="M{_left(first) + 2},24v5H{_left(n + 1) - 2}v-5"/>')
    body.append('<text y="50">slots of the trunk</text>')
    for n, row in rows.items():
        kind = "commit" if slots.patch_end[n] else "pad"
        y, first = 66 + SLOT_ROW * row, (n - 1) // patch_size * patch_size + 1
        if first < n:
            body.append(f'<path class="pools-{kind}" d="M{_left(first) + 3},{y}H{_middle(n)}"/>')
        body.append(f'<circle class="{kind}" cx="{_middle(n)}" cy="{y}" r="4.5"/>')
    body.append(f'<text y="{lag_top}">patch lag</text>')
    for n in range(1, num_bytes + 1):
        lag = int(slots.lag[n])
        if lag:
            bar = f"M{_left(n) + 3},{lag_top + 8}h{CELL - 6}v{LAG_UNIT * lag}h-{CELL - 6}z"
            body.append(f'<path class="lag-bar" d="{bar}"/>')
        text_y = lag_top + 20 + LAG_UNIT * lag
        body.append(f'<text class="number" x="{_middle(n)}" y="{text_y}">{lag}</text>')
    return (
        f'<svg class="drawing" viewBox="0 0 {width} {height + 8}" role="img" aria-label="{escape_text(title)}" '
        f'style="max-width:{1.25 * width:.0f}px">\n' + "\n".join(body) + "\n</svg>"
    )


def _left(n: int) -> int:
    """Left edge of the column of byte n, which counts from 1."""
    return (n - 1) * CELL + 1


def _middle(n: int) -> int:
    return _left(n) + CELL // 2


def _slot_rows(slots: Slots) -> dict[int, int]:
    """Returns the row of each slot: slots of one patch lie under each other, the commit last."""
    rows, row = {}, 0
    for n in range(1, len(slots.slot)):
        if slots.patch_end[n] or slots.scratchpad[n]:
            rows[n] = row
            row = 0 if slots.patch_end[n] else row + 1
    return rows


def sight(slots: Slots) -> str:
    """Draws which slots each slot sees, as a table of squares: a row sees a column."""
    places = [n for n in range(1, len(slots.slot)) if slots.patch_end[n] or slots.scratchpad[n]]
    patch = np.cumsum(slots.patch_end) - slots.patch_end
    size, parts = MATRIX_CELL, []
    for row, here in enumerate(places):
        kind = "commit" if slots.patch_end[here] else "pad"
        at = 24 + size * row + size / 2
        parts.append(f'<circle class="{kind}" cx="{at}" cy="12" r="4.5"/>')
        parts.append(f'<circle class="{kind}" cx="12" cy="{at}" r="4.5"/>')
        for column, there in enumerate(places):
            is_seen = here == there or (slots.patch_end[there] and patch[there] < patch[here])
            css = ("commit" if slots.patch_end[there] else "pad") if is_seen else "none"
            x, y = 25 + size * column, 25 + size * row
            parts.append(f'<path class="sees-{css}" d="M{x},{y}h{size - 2}v{size - 2}h-{size - 2}z"/>')
    side = 24 + size * len(places) + 2
    label = "Which slots each slot sees: the commits of earlier patches, and itself"
    return (
        f'<svg class="drawing sight" viewBox="0 0 {side} {side}" role="img" aria-label="{label}" '
        f'style="max-width:{side * 1.2:.0f}px">\n' + "\n".join(parts) + "\n</svg>"
    )


@dataclass(frozen=True)
class Totals:
    """What the tiles under the figure say, as texts."""

    calls: str
    calls_detail: str
    cache: str
    cache_detail: str
    lag: str
    lag_detail: str
    bits: str
    bits_detail: str

    @staticmethod
    def of(text: ReadText, slots: Slots, patch_size: int, entry_bytes: int) -> "Totals":
        """Counts a state of the figure; the script's `totals` says the same."""
        patches, pads, num_bytes = slots.num_patches, slots.num_scratchpads, len(text.text)
        bits = float(text.bits(patch_size, pads).mean())
        without = float(text.bits(patch_size, 0).mean())
        change, calls = 100 * (bits / without - 1), patches + pads
        return Totals(
            calls=str(calls),
            calls_detail=f"{patches} at patch ends, {pads} for scratchpads; {calls / num_bytes:.2f} per byte",
            cache=str(patches),
            cache_detail=f"{patches * entry_bytes // 1024:,} kB, one entry for each finished patch",
            lag=f"{slots.mean_lag:.2f}",
            lag_detail=f"bytes, {int(slots.lag.max())} at most",
            bits=f"{bits:.3f}",
            bits_detail="without scratchpads"
            if not pads
            else f"{'−' if change < 0 else '+'}{abs(change):.1f} % against no scratchpads",  # noqa: RUF001
        )


def columns(text: ReadText, slots: Slots, patch_size: int) -> str:
    """Returns the figure's columns, one for the separator and one for each byte."""
    bits = np.concatenate([[0.0], text.bits(patch_size, slots.num_scratchpads)])
    parts = []
    for n, byte in enumerate([None, *text.text]):
        shade = round(NUM_SHADES * min(1.0, float(text.entropy_nats[n]) / FULL_NATS))
        marks = ["sep"] if byte is None else []
        marks += [name for name, is_here in (("end", slots.patch_end[n]), ("pad", slots.scratchpad[n])) if is_here]
        css = " ".join(["col", *marks, *([f"e{shade}"] if shade else [])])
        shown = "»" if byte is None else html.escape(glyph(byte))
        lag = int(slots.lag[n])
        parts.append(
            f'<span class="{css}" style="--bits:{bits[n]:.3f};--behind:{lag}"><i class="cost"></i><b>{shown}</b>'
            f'<i class="slot"></i><i class="lag">{lag}</i></span>'
        )
        if byte == 0x0A:
            parts.append('<span class="break"></span>')
    return "".join(parts)
