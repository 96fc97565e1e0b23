"""Bytes as HTML that shows every one of them: plain, or with entropies, scratchpads and patch ends marked.

Standard library only.
"""

import html
from collections.abc import Sequence
from dataclasses import dataclass

NUM_SHADES = 10

MARKED_TEXT_CSS = """\
.bytes{font:.9375rem/1.7 ui-monospace,"SF Mono",SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace;
white-space:break-spaces;overflow-wrap:anywhere;tab-size:4;margin:0}
.bytes .prompt{font-weight:700}
.bytes .escape{font-weight:400}
.marked{line-height:2.1}
.marked i,.legend i{font-style:normal;padding:.2em 0;
background:rgb(var(--shade,var(--entropy-rgb))/calc(var(--e,0)*var(--depth)));
print-color-adjust:exact;-webkit-print-color-adjust:exact}
.marked .pad,.legend .pad{border-bottom:.2em solid var(--scratchpad)}
.marked .end,.legend .end{border-right:.125em solid var(--commit);margin-right:.0625em}
""" + "".join(f".e{level}{{--e:{level}}}\n" for level in range(1, NUM_SHADES + 1))
"""The style of the marks. The page defines the palette and --depth, which is how much a shade covers; --shade, if any,
replaces entropy's colour."""


@dataclass(frozen=True)
class Unit:
    """Bytes shown as one thing: a character, or a byte that is not part of one."""

    start: int
    stop: int
    text: str
    is_escape: bool = False
    breaks_line: bool = False


def visible_units(data: bytes) -> list[Unit]:
    r"""Splits bytes into characters; what cannot be seen becomes ``\n`` or, for each byte, ``\xNN``.

    Plain ASCII, since the fonts of many readers have no sign for a newline and show an empty box.
    """
    units, start = [], 0
    while start < len(data):
        stop, character = _character_at(data, start)
        if character == "\n":
            units.append(Unit(start, stop, "\\n", is_escape=True, breaks_line=True))
        elif character and character.isprintable():
            units.append(Unit(start, stop, character))
        else:  # invalid UTF-8, control characters, and marks that would silently reorder or hide text
            escape = "".join(f"\\x{byte:02X}" for byte in data[start:stop])
            units.append(Unit(start, stop, escape, is_escape=True))
        start = stop
    return units


def plain_html(data: bytes) -> str:
    """Returns the bytes as HTML for a ``white-space: break-spaces`` element."""
    return "".join(_escaped(unit) + ("\n" if unit.breaks_line else "") for unit in visible_units(data))


def marked_html(
    data: bytes,
    *,
    num_prompt_bytes: int,
    entropy_nats: Sequence[int | float],
    scratchpads: Sequence[bool],
    patch_ends: Sequence[bool],
    full_shade_nats: int | float,
) -> str:
    """Returns the bytes as HTML with a background that deepens with entropy, and marks at scratchpads and patch ends.

    A character of several bytes has the highest entropy of its bytes and the marks of all of them.

    Args:
        data: prompt and what follows it.
        num_prompt_bytes: how many bytes of `data` are the prompt.
        entropy_nats: for each byte, the entropy of the next byte once this one is read.
        scratchpads: for each byte, whether a scratchpad was issued there.
        patch_ends: for each byte, whether it closes its patch.
        full_shade_nats: the entropy at which the shading is deepest.
    """
    elements = []
    for unit in visible_units(data):
        entropy = max(entropy_nats[unit.start : unit.stop])
        share = entropy / full_shade_nats if full_shade_nats > 0 else 0.0
        level = round(NUM_SHADES * min(1.0, max(0.0, share)))
        pad, end = any(scratchpads[unit.start : unit.stop]), any(patch_ends[unit.start : unit.stop])
        classes = [
            *([f"e{level}"] if level else []),
            *(["pad"] if pad else []),
            *(["end"] if end else []),
            *(["prompt"] if unit.start < num_prompt_bytes else []),
        ]
        tip = f"{entropy:.2f} nats" + (", scratchpad" if pad else "") + (", patch end" if end else "")
        css = f' class="{" ".join(classes)}"' if classes else ""
        elements.append(f'<i{css} title="{tip}">{_escaped(unit)}</i>' + ("\n" if unit.breaks_line else ""))
    return "".join(elements)


def _character_at(data: bytes, start: int) -> tuple[int, str]:
    """Returns where the character at `start` stops and the character, or one byte and "" when it is not UTF-8."""
    lead = data[start]
    length = 1 if lead < 0x80 else 2 if lead < 0xE0 else 3 if lead < 0xF0 else 4
    try:
        return start + length, data[start : start + length].decode("utf-8")
    except UnicodeDecodeError:
        return start + 1, ""


def _escaped(unit: Unit) -> str:
    text = html.escape(unit.text)
    return f'<span class="escape">{text}</span>' if unit.is_escape else text
