"""An inspection as rows of text: the bytes, and below each one its slot, entropy and patch lag; plain if need be."""

import math
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from patchpad.inspection.columns import Column, Glyphs, glyphs_for, text_columns
from patchpad.inspection.inspection import NOT_READ, Inspection
from patchpad.pages.numbers import compact_number
from patchpad.pages.palette import PALETTE

Styled = list[tuple[str, str]]
"""A line as pieces of text, each with a style of rich."""

LEFT_TO_RIGHT, POP_DIRECTION = "\u202d", "\u202c"
MIN_COLUMNS = 16
SHADES = ("", "#a39b8b", "#b09a6c", "#bd994a", "#cb9a26", "#e69f00", "#de7f00", "#d55e00")
"""Backgrounds under black letters that stand out on dark and on light terminals alike; none where entropy is low."""
COMMIT = "#2b8ccb"
"""Between the palette's two colours of a commit, for dark and light terminals alike."""
LAG_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True)
class _View:
    inspection: Inspection
    glyphs: Glyphs
    full_nats: float
    """Entropy of the highest block."""
    gutter: int

    def level(self, nats: float, steps: int) -> int:
        """Returns 0..steps-1; -1 where there is no entropy."""
        if math.isnan(nats):
            return -1
        return min(steps - 1, int(steps * nats / self.full_nats))

    def entropy(self, column: Column, window: int) -> float:
        entropies, starts = self.inspection.entropy_nats, self.inspection.windows.entropy_nats
        if entropies is None or starts is None:
            return math.nan
        return float(starts[window] if column.byte is None else entropies[column.byte])


def full_shade_nats(inspection: Inspection) -> float:
    """Returns the entropy of the deepest shade: the highest of the text, rounded up to half a nat."""
    if inspection.entropy_nats is None or inspection.windows.entropy_nats is None:
        return 0.5
    values = np.concatenate([inspection.entropy_nats, inspection.windows.entropy_nats])
    return max(0.5, math.ceil(2 * float(np.nanmax(values))) / 2)


def inspection_lines(
    inspection: Inspection, *, width: int = 80, encoding: str = "utf-8", keeps_direction: bool = False
) -> Iterator[Styled]:
    """Yields the view line by line; it is readable without its styles.

    Args:
        inspection: what to show.
        width: columns of the output, at least about 30.
        encoding: of the output. ASCII marks are used where it cannot hold the others.
        keeps_direction: put marks around rows with right-to-left letters that stop a terminal from reordering them;
            a file is better without.
    """
    glyphs = glyphs_for(encoding)
    gutter = max(7, len(f"{inspection.num_bytes:,}"))
    view = _View(inspection, glyphs, full_shade_nats(inspection), gutter)
    yield from _legend(view)
    first_bytes = inspection.windows.first_byte.tolist()
    window = -1
    for row in _rows(inspection.text, first_bytes, glyphs, encoding, max(MIN_COLUMNS, width - gutter - 1)):
        window += row[0].byte is None
        yield []
        yield from _block(view, row, window, keeps_direction)


def summary_lines(inspection: Inspection, name: str = "the text") -> list[str]:
    """Returns the totals, one line each."""
    one = inspection
    windows = f" in {len(one.windows)} windows of up to {one.config.context_bytes:,}" if len(one.windows) > 1 else ""
    size = f" ({one.mean_patch_size:.2f} bytes each)" if one.mean_patch_size else ""
    rows = [
        ("threshold", threshold_text(one)),
        ("patches", f"{one.num_patches:,}{size}"),
        ("scratchpads", f"{one.num_scratchpads:,} ({one.point.scratchpads_per_byte:.4f} per byte)"),
        ("trunk calls", f"{one.trunk_calls:,} ({one.point.trunk_calls_per_byte:.4f} per byte)"),
        ("bits per byte", f"{one.bits_per_byte:.4f} (8 = no model)"),
        ("patch lag", f"{one.mean_patch_lag:.2f} bytes on average"),
        (
            "trunk KV",
            f"{size_text(one.trunk_cache_bytes)}: {one.trunk_cache_entries:,} entries of "
            f"{one.trunk_cache_bytes_per_entry:,} bytes"
            + (", at most, in each window" if len(one.windows) > 1 else ""),
        ),
    ]
    return [f"{name}: {one.num_bytes:,} bytes{windows}", *(f"{label:<15}{value}" for label, value in rows)]


def threshold_text(inspection: Inspection) -> str:
    """Returns the threshold in words."""
    if not inspection.has_threshold_in_nats:
        return f"none: the trigger `{inspection.config.trigger.kind}` has none in nats"
    value = inspection.scratchpad_threshold_nats
    stored = " (stored)" if value == inspection.stored_threshold_nats else ""
    meaning = "" if math.isfinite(value) else ", no scratchpads" if value > 0 else ", the trunk at every byte"
    return f"{value:.4g} nats{stored}{meaning}"


def size_text(num_bytes: int) -> str:
    """Returns an amount of memory in three digits, such as 295 kB."""
    text = compact_number(num_bytes)
    return f"{text[:-1]} {text[-1]}B" if text[-1].isalpha() else f"{text} B"


def _rows(text: bytes, first_bytes: list[int], glyphs: Glyphs, encoding: str, width: int) -> Iterator[list[Column]]:
    """Fills rows; a character is not torn, and newlines and windows end a row."""
    row: list[Column] = []
    for group, ends_row in text_columns(text, first_bytes, glyphs, encoding):
        if row and len(row) + len(group) > width:
            yield row
            row = []
        row += group
        if ends_row:
            yield row
            row = []
    if row:
        yield row


def _block(view: _View, row: list[Column], window: int, keeps_direction: bool) -> Iterator[Styled]:
    """Yields the lines of one row of bytes."""
    one, glyphs = view.inspection, view.glyphs
    entropies = [view.entropy(column, window) for column in row]
    first = next(column.byte for column in row if column.byte is not None)
    text = [
        (column.glyph, _shade(view.level(nats, len(SHADES)), column))
        for column, nats in zip(row, entropies, strict=True)
    ]
    if keeps_direction and any(_is_right_to_left(column.glyph) for column in row):
        text = [(LEFT_TO_RIGHT, ""), *text, (POP_DIRECTION, "")]
    yield _line(view, f"{first:,}", text)
    for shift in (4, 0) if any(column.is_escape for column in row) else ():
        digits = [f"{one.text[c.byte] >> shift & 15:X}" if c.is_escape and c.byte is not None else " " for c in row]
        yield _line(view, "hex" if shift else "", [(digit, "dim") for digit in digits])
    yield _line(view, "slots", [_slot(view, column, window) for column in row])
    if one.entropy_nats is not None:
        levels = [view.level(nats, len(glyphs.entropy)) for nats in entropies]
        yield _line(view, "entropy", [(" " if n < 0 else glyphs.entropy[n], "#c58000") for n in levels])
    yield _line(view, "lag", [(_lag(one, column), "dim") for column in row])


def _line(view: _View, label: str, pieces: Styled) -> Styled:
    merged: Styled = [(f"{label:>{view.gutter}} ", "dim")]
    for text, style in pieces:
        if merged[-1][1] == style and len(merged) > 1:
            merged[-1] = (merged[-1][0] + text, style)
        else:
            merged.append((text, style))
    merged[-1] = (merged[-1][0].rstrip(" "), merged[-1][1]) if not merged[-1][1].startswith("black") else merged[-1]
    return merged


def _shade(level: int, column: Column) -> str:
    if column.byte is None:
        return "dim" if level <= 0 else f"black on {SHADES[level]}"
    return f"black on {SHADES[level]}" if level > 0 else ""


def _slot(view: _View, column: Column, window: int) -> tuple[str, str]:
    one, glyphs = view.inspection, view.glyphs
    place = column.byte
    commits = one.config.patchifier.commits_tokens if place is None else one.patch_end[place]
    if one.windows.scratchpad[window] if place is None else one.scratchpad[place]:
        return glyphs.both if commits else glyphs.scratchpad, f"bold {PALETTE['scratchpad'].light}"
    return (glyphs.commit, f"bold {COMMIT}") if commits else (" ", "")


def _lag(one: Inspection, column: Column) -> str:
    if column.byte is None:
        return "0"
    if one.slot_byte[column.byte] == NOT_READ:
        return " "
    lag = int(one.patch_lag[column.byte])
    return LAG_DIGITS[lag] if lag < len(LAG_DIGITS) else "+"


def _is_right_to_left(glyph: str) -> bool:
    return any(unicodedata.bidirectional(character) in ("R", "AL", "AN") for character in glyph)


def _legend(view: _View) -> Iterator[Styled]:
    """Yields what the marks mean; each is explained once."""
    glyphs = view.glyphs
    low, high = glyphs.entropy[0], glyphs.entropy[-1]
    commits_tokens = view.inspection.config.patchifier.commits_tokens
    ends = "tokens end before this byte" if commits_tokens else "ends a patch"
    lines = [
        f"One column per byte; {glyphs.filler} is a further byte of the character before it",
        *(["↵ is a newline, ␉ a tab; ␀ and the like are control characters"] if glyphs.shows_controls else []),
        f"{glyphs.escape} is a byte that cannot be shown as text, its hexadecimal value below it",
        f"{glyphs.separator} is where a window starts: what follows knows nothing of what came before",
        f"slots    {glyphs.commit} commit: {ends}, cached   {glyphs.scratchpad} scratchpad: transient",
        *([f"         {glyphs.both} both"] if commits_tokens else []),
        *(
            [f"entropy  of the byte that follows, {low} 0 to {high} {view.full_nats:g} nats; blank: byte not read"]
            if view.inspection.entropy_nats is not None
            else []
        ),
        "lag      bytes since the newest slot that the byte reads; a-z: 10-35, +: more",
    ]
    for line in lines:
        yield [(line, "dim")]
