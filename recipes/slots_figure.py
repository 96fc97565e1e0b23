"""The method in one picture, drawn from what a model really does with a sentence.

Top to bottom: entropies, bytes and patches; the slots that the trunk runs on and what each pools; which slot each byte
reads; and, as a matrix, which slots each slot sees. A file of its own, for light and dark readers.
"""

from dataclasses import dataclass

from patchpad.inspection.inspection import NULL_CONTEXT, SEPARATOR_SLOT, Inspection
from patchpad.pages.palette import palette_variables
from patchpad.pages.svg import escape_text

CELL, LEFT, MATRIX_CELL, LEAST_WIDTH = 17, 148, 15, 880
CSS = (
    f"""\
.slots{{--paper:#fff;--ink:#1c2024;--muted:#5a636d;--line:#c9ced4;{palette_variables()}}}
@media (prefers-color-scheme:dark){{.slots{{--paper:#16181b;--ink:#e8eaed;--muted:#a3abb4;--line:#4a525a;
{palette_variables(dark=True)}}}}}
"""
    + """\
.slots text{font:13px/1 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif;fill:var(--muted)}
.slots .byte{font:14px/1 ui-monospace,Menlo,Consolas,"DejaVu Sans Mono",monospace;fill:var(--ink);text-anchor:middle}
.slots .number{font-size:10px;text-anchor:middle}
.slots .end{text-anchor:end}
.slots .paper{fill:var(--paper)}
.slots .bar{fill:var(--entropy)}
.slots .edge{stroke:var(--line);fill:none}
.slots .commit{fill:var(--commit);stroke:var(--commit)}
.slots .pad{fill:var(--paper);stroke:var(--scratchpad);stroke-width:2}
.slots .pools-commit{stroke:var(--commit);stroke-width:2}
.slots .pools-pad{stroke:var(--scratchpad);stroke-width:2}
.slots .reads-commit{fill:var(--commit);opacity:.85}
.slots .reads-pad{fill:var(--scratchpad);opacity:.85}
.slots .reads-none{fill:var(--line)}
.slots .on-colour{fill:var(--paper);font-size:10px;text-anchor:middle;font-weight:600}
"""
)


@dataclass(frozen=True)
class _Slot:
    byte: int
    """Newest byte that it pools."""
    first: int
    """Oldest byte that it pools; -1 is the separator."""
    patch: int
    is_commit: bool


def slots_figure(inspection: Inspection) -> str:
    """Draws a text of one window, at most about 60 bytes long.

    Args:
        inspection: of that text; unprintable bytes are drawn as a middle dot.
    """
    slots = _slots(inspection)
    num_bytes = inspection.num_bytes
    width = max(LEAST_WIDTH, LEFT + num_bytes * CELL + 24)
    body = [*_bytes(inspection), *_pooling(slots, 128)]
    y = 128 + 13 * len(slots) + 26
    body += _reading(inspection, slots, y)
    y += 62
    matrix, matrix_height = _matrix(slots, y)
    body += matrix
    height = y + matrix_height
    title = "Slots, what they pool and see, and which bytes read them"
    return (
        f'<svg class="slots" xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" role="img" aria-labelledby="slots-title">\n'
        f'<title id="slots-title">{title}</title>\n<style>\n{CSS}</style>\n'
        f'<path class="paper" d="M0,0h{width}v{height}H0z"/>\n' + "\n".join(body) + "\n</svg>\n"
    )


def _slots(inspection: Inspection) -> list[_Slot]:
    slots, first = [], -1
    if bool(inspection.windows.scratchpad[0]):
        slots.append(_Slot(-1, -1, 0, False))
    for byte, (ends, pads) in enumerate(zip(inspection.patch_end, inspection.scratchpad, strict=True)):
        if ends or pads:
            slots.append(_Slot(byte, first, int(inspection.patch_index[byte]), bool(ends)))
        if ends:
            first = byte + 1
    return slots


def _x(byte: int) -> int:
    """Left edge of a byte's column; the separator has a column of its own before the text."""
    return LEFT + byte * CELL


def _bytes(inspection: Inspection) -> list[str]:
    parts = [_label("entropy of the", 22), _label("next byte", 37), _label("bytes", 69), _label("patches", 93)]
    entropies = [0.0] * inspection.num_bytes if inspection.entropy_nats is None else inspection.entropy_nats.tolist()
    top = max(entropies) or 1.0
    text = inspection.text.decode("latin-1")
    parts.append(f'<text class="byte" x="{_x(-1) + CELL / 2}" y="69">»</text>')
    start = 0
    for byte, (letter, entropy) in enumerate(zip(text, entropies, strict=True)):
        bar = 36 * entropy / top
        parts.append(f'<path class="bar" d="M{_x(byte) + 3},{48 - bar:.1f}h{CELL - 6}v{bar:.1f}h-{CELL - 6}z"/>')
        shown = "␣" if letter == " " else letter if letter.isascii() and letter.isprintable() else "·"
        parts.append(f'<text class="byte" x="{_x(byte) + CELL / 2}" y="69">{escape_text(shown)}</text>')
        if inspection.patch_end[byte] or byte == inspection.num_bytes - 1:
            left, right = _x(start) + 2, _x(byte + 1) - 2
            is_closed = bool(inspection.patch_end[byte])
            parts.append(f'<path class="edge" d="M{left},80v6H{right}{"v-6" if is_closed else ""}"/>')
            name = f"patch {int(inspection.patch_index[byte])}" + ("" if is_closed else " (open)")
            parts.append(f'<text x="{(left + right) / 2}" y="100" text-anchor="middle">{name}</text>')
            start = byte + 1
    return parts


def _pooling(slots: list[_Slot], y: int) -> list[str]:
    parts = [_label("slots: what", y + 2), _label("each pools", y + 17)]
    for number, slot in enumerate(slots):
        at, kind = y + 13 * number, "commit" if slot.is_commit else "pad"
        left, right = _x(slot.first) + 3, _x(slot.byte) + CELL / 2
        parts.append(f'<path class="pools-{kind}" d="M{left},{at}H{right}"/>')
        parts.append(f'<circle class="{kind}" cx="{right}" cy="{at}" r="4.5"/>')
        parts.append(f'<text class="number" x="{right + 11}" y="{at + 4}">{number + 1}</text>')
    return parts


def _reading(inspection: Inspection, slots: list[_Slot], y: int) -> list[str]:
    parts = [_label("each byte reads", y + 14), _label("slot", y + 29)]
    number_of = {slot.byte: number for number, slot in enumerate(slots)}
    for byte, source in enumerate(inspection.slot_byte.tolist()):
        key = -1 if source == SEPARATOR_SLOT else source
        number = None if source == NULL_CONTEXT else number_of.get(key)
        kind = "none" if number is None else "commit" if slots[number].is_commit else "pad"
        parts.append(f'<path class="reads-{kind}" d="M{_x(byte) + 1},{y}h{CELL - 2}v20h-{CELL - 2}z"/>')
        name = "∅" if number is None else str(number + 1)
        parts.append(f'<text class="on-colour" x="{_x(byte) + CELL / 2}" y="{y + 14}">{name}</text>')
    parts.append(
        f'<text x="{_x(0)}" y="{y + 38}">At a scratchpad or patch end a byte reads that very slot; '
        "the bytes after it fall behind until the next.</text>"
    )
    return parts


def _matrix(slots: list[_Slot], y: int) -> tuple[list[str], int]:
    """Draws who sees whom; also returns its height."""
    size = MATRIX_CELL
    parts = [_label("each slot sees", y + 30), _label("(row sees column)", y + 45)]
    for number, slot in enumerate(slots):
        kind = "commit" if slot.is_commit else "pad"
        column, row = _x(0) + 24 + size * number, y + 22 + size * number
        parts.append(f'<circle class="{kind}" cx="{column + size / 2}" cy="{y + 12}" r="4"/>')
        parts.append(f'<circle class="{kind}" cx="{_x(0) + 14}" cy="{row + size / 2}" r="4"/>')
        parts.append(f'<text class="number" x="{_x(0)}" y="{row + 11}">{number + 1}</text>')
        for other, seen in enumerate(slots):
            is_seen = other == number or (seen.is_commit and seen.patch < slot.patch)
            css = ("commit" if seen.is_commit else "pad") if is_seen else "none"
            left, top = _x(0) + 24 + size * other + 1, row + 1
            mark = f'<path class="reads-{css}" d="M{left},{top}h{size - 2}v{size - 2}h-{size - 2}z"'
            parts.append(mark + (' opacity="1"/>' if is_seen else ' opacity=".35"/>'))
    right = _x(0) + 24 + size * len(slots) + 26
    lines = [
        ("commit", "commit: ends a patch and stays in the cache"),
        ("pad", "scratchpad: a draft of the open patch, seen by itself alone; nothing of it stays"),
        ("", "Every slot sees the commits of earlier patches, and itself."),
    ]
    for number, (css, text) in enumerate(lines):
        at = y + 40 + 24 * number
        if css:
            parts.append(f'<circle class="{css}" cx="{right}" cy="{at - 4}" r="4.5"/>')
        parts.append(f'<text x="{right + 14}" y="{at}">{text}</text>')
    return parts, 22 + size * len(slots) + 16


def _label(text: str, y: int) -> str:
    return f'<text class="end" x="{LEFT - 26}" y="{y}">{text}</text>'
