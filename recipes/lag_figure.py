"""Draws docs/figures/lag.svg: how old the context of one byte is, without scratchpads and with them.

The shipped model reads a real sentence at both thresholds; what is drawn is what it did.

Usage: python recipes/lag_figure.py
"""

import math
from pathlib import Path

import patchpad
from patchpad.files import write_atomically
from patchpad.inspection.inspection import Inspection
from patchpad.pages.palette import palette_variables
from patchpad.pages.svg import escape_text

SENTENCE = "It is a truth universally acknow"
BYTE = 26
"""The byte that is looked at: the "a" of "acknow"."""
TARGET = Path(__file__).parent.parent / "docs" / "figures" / "lag.svg"
CELL, LEFT, ROW = 24, 24, 152
WIDTH, HEIGHT = 2 * LEFT + CELL * len(SENTENCE), 2 * ROW - 32
CSS = f"""\
.lag{{--paper:#fff;--ink:#1c2024;--muted:#5a636d;--line:#c9ced4;{palette_variables()}}}
@media (prefers-color-scheme:dark){{.lag{{--paper:#16181b;--ink:#e8eaed;--muted:#a3abb4;--line:#4a525a;\
{palette_variables(dark=True)}}}}}
.lag text{{font:14px/1 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif;fill:var(--muted)}}
.lag .title{{font-size:15px;font-weight:600;fill:var(--ink)}}
.lag .byte{{font:17px/1 ui-monospace,Menlo,Consolas,"DejaVu Sans Mono",monospace;fill:var(--ink);text-anchor:middle}}
.lag .paper{{fill:var(--paper)}}
.lag .cell{{fill:none;stroke:var(--line)}}
.lag .chosen{{fill:none;stroke:var(--ink);stroke-width:2.5}}
.lag .commit{{fill:rgb(var(--commit-rgb)/.22)}}
.lag .scratchpad{{fill:rgb(var(--scratchpad-rgb)/.25)}}
.lag .commit-line{{stroke:var(--commit);stroke-width:3;fill:none}}
.lag .scratchpad-line{{stroke:var(--scratchpad);stroke-width:3;fill:none}}
.lag .arrow{{stroke:var(--ink);stroke-width:1.5;fill:none}}
.lag .head{{fill:var(--ink)}}
.lag .age{{fill:var(--ink);font-weight:600;text-anchor:middle}}
"""


def lag_figure(without: Inspection, with_scratchpads: Inspection) -> str:
    """Draws the same text twice.

    Args:
        without: read with the threshold at infinity.
        with_scratchpads: read with one at which a scratchpad fires at `BYTE`.
    """
    title = "How old is the context from which the marked byte's successor is predicted?"
    body = [*_row(without, 0), *_row(with_scratchpads, ROW)]
    return (
        f'<svg class="lag" xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" '
        f'viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-labelledby="lag-title">\n'
        f'<title id="lag-title">{title}</title>\n<style>\n{CSS}</style>\n'
        f'<path class="paper" d="M0,0h{WIDTH}v{HEIGHT}H0z"/>\n' + "\n".join(body) + "\n</svg>\n"
    )


def _x(byte: int) -> int:
    return LEFT + byte * CELL


def _row(inspection: Inspection, y: int) -> list[str]:
    lag = int(inspection.patch_lag[BYTE])
    fires = bool(inspection.scratchpad[BYTE])
    newest, top = BYTE - lag, y + 34
    commit = max(byte for byte in range(BYTE) if inspection.patch_end[byte])
    size = inspection.config.patchifier.target_patch_size
    says = "With a scratchpad at this byte" if fires else f"Patches of {size} bytes, without scratchpads"
    parts = [f'<text class="title" x="{LEFT}" y="{y + 20}">{says}</text>']
    parts += _covered("commit", commit - size + 1, commit, top, "the trunk has read this patch")
    if fires:
        parts += _covered("scratchpad", commit + 1, BYTE, top, "a scratchpad: the trunk reads the open patch so far")
    for byte, letter in enumerate(inspection.text.decode()):
        parts.append(f'<path class="cell" d="M{_x(byte)},{top}h{CELL}v28h-{CELL}z"/>')
        shown = escape_text("␣" if letter == " " else letter)
        parts.append(f'<text class="byte" x="{_x(byte) + CELL / 2}" y="{top + 20}">{shown}</text>')
    parts.append(f'<path class="chosen" d="M{_x(BYTE)},{top}h{CELL}v28h-{CELL}z"/>')
    return parts + _age(newest, lag, top + 66)


def _covered(kind: str, first: int, last: int, top: int, says: str) -> list[str]:
    """Shades bytes that a slot of the trunk has read, and says so below."""
    left, right = _x(first), _x(last + 1)
    return [
        f'<path class="{kind}" d="M{left},{top}H{right}v28H{left}z"/>',
        f'<path class="{kind}-line" d="M{left + 2},{top + 33}H{right - 2}"/>',
        f'<text x="{left}" y="{top + 52}">{says}</text>',
    ]


def _age(newest: int, lag: int, y: int) -> list[str]:
    """Draws how far the byte is from the last one that the trunk has read."""
    at, source = _x(BYTE) + CELL // 2, _x(newest) + CELL // 2
    below = y + 32 if lag else y + 8
    age = f'<text class="age" x="{(at + source) / 2}" y="{below}">its context is {lag} bytes old</text>'
    if lag == 0:
        return [age]
    return [
        f'<path class="arrow" d="M{at},{y - 36}V{y + 14}H{source}V{y + 2}"/>',
        f'<path class="head" d="M{source - 5},{y + 6}l5,-9l5,9z"/>',
        age,
    ]


def main() -> None:
    """Reads the sentence twice and draws it."""
    model = patchpad.load()
    without = patchpad.inspect(model, SENTENCE, scratchpad_threshold_nats=math.inf)
    write_atomically(TARGET, lag_figure(without, patchpad.inspect(model, SENTENCE)))


if __name__ == "__main__":
    main()
