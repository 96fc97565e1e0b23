"""A text as columns of a terminal, one for each byte, whatever the bytes are."""

import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass

from patchpad.pages.marked_text import Unit, visible_units

DOTTED_CIRCLE = "\u25cc"
NEWLINE = "↵"  # more fonts have it than U+240A


@dataclass(frozen=True)
class Glyphs:
    """The marks of the view, each one column wide."""

    commit: str
    scratchpad: str
    both: str
    """Commits and a scratchpad at one byte, which only `tokens` patches have."""
    separator: str
    filler: str
    """Columns of a character's further bytes."""
    escape: str
    """A byte that is shown by its hexadecimal digits below."""
    entropy: str
    """From none to most."""
    shows_controls: bool
    """Whether ASCII control characters have pictures of their own."""


UNICODE_GLYPHS = Glyphs("●", "○", "◉", "»", "·", "×", "▁▂▃▄▅▆▇█", True)  # noqa: RUF001
ASCII_GLYPHS = Glyphs("|", "o", "@", ">", ".", "?", "0123456789", False)


def glyphs_for(encoding: str) -> Glyphs:
    """Returns the marks that an output's encoding can hold."""
    wanted = UNICODE_GLYPHS
    marks = "".join(value for value in vars(wanted).values() if isinstance(value, str))
    return wanted if _encodes(marks + DOTTED_CIRCLE + NEWLINE + "␀␡", encoding) else ASCII_GLYPHS


@dataclass(frozen=True)
class Column:
    """What stands in the column of one byte, or of a separator."""

    byte: int | None
    """Index in the text; None for the separator of a window."""
    glyph: str
    """One column wide; a wide character takes two columns, and the second one's glyph is empty."""
    is_escape: bool = False
    """Whether the byte is named by its hexadecimal digits below."""


def text_columns(
    text: bytes, first_bytes: list[int], glyphs: Glyphs, encoding: str
) -> Iterator[tuple[list[Column], bool]]:
    """Yields groups of columns that belong on one row, and whether the row ends after them.

    Args:
        text: any bytes.
        first_bytes: where windows start; each one's separator gets a column and a row of its own begins there.
        glyphs: the marks.
        encoding: of the output; a character that it cannot hold is shown byte by byte.
    """
    starts = set(first_bytes)
    for unit in visible_units(text):
        inside = [byte for byte in range(unit.start + 1, unit.stop) if byte in starts]
        columns = _unit_columns(text, unit, glyphs, encoding, is_cut=bool(inside))
        for cut in [*inside, unit.stop]:
            group = [column for column in columns if column.byte is not None and column.byte < cut]
            columns = columns[len(group) :]
            if group[0].byte in starts:
                group.insert(0, Column(None, glyphs.separator))
            yield group, unit.breaks_line or cut in starts


def _unit_columns(text: bytes, unit: Unit, glyphs: Glyphs, encoding: str, *, is_cut: bool) -> list[Column]:
    places = range(unit.start, unit.stop)
    glyph = _control_picture(text[unit.start]) if unit.is_escape and glyphs.shows_controls else ""
    if glyph:
        return [Column(unit.start, glyph)]
    if not unit.is_escape and not is_cut:
        is_mark = unicodedata.category(unit.text).startswith("M")  # it would move onto the column before
        glyph = DOTTED_CIRCLE + unit.text if is_mark else unit.text
        width = 2 if unicodedata.east_asian_width(unit.text) in "WF" and not is_mark else 1
        if width <= len(places) and _encodes(glyph, encoding):
            shown = [glyph] + [""] * (width - 1) + [glyphs.filler] * (len(places) - width)
            return [Column(place, one) for place, one in zip(places, shown, strict=True)]
    return [Column(place, glyphs.escape, is_escape=True) for place in places]


def _control_picture(value: int) -> str:
    if value == 0x0A:
        return NEWLINE
    return chr(0x2400 + value) if value < 0x20 else "\u2421" if value == 0x7F else ""


def _encodes(text: str, encoding: str) -> bool:
    try:
        text.encode(encoding)
    except (UnicodeEncodeError, LookupError):
        return False
    return True
