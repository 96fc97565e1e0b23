"""An inspection as one self-contained HTML page: nothing to download, a threshold slider, every byte to point at."""

import base64
import hashlib
import html
import math
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from patchpad.files import strict_json, write_atomically
from patchpad.inspection.columns import DOTTED_CIRCLE, NEWLINE
from patchpad.inspection.inspection import NOT_READ, Inspection
from patchpad.inspection.terminal import full_shade_nats, size_text
from patchpad.pages.interactive_style import INTERACTIVE_CSS
from patchpad.pages.line_plot import Series, line_plot
from patchpad.pages.marked_text import NUM_SHADES, Unit, visible_units
from patchpad.pages.page_style import PAGE_CSS
from patchpad.pages.svg import escape_text

FOLDER = Path(__file__).parent
PATCH_END, SEPARATOR, UNREAD = 1, 2, 4
"""Bits of a cell's flags, as `page.js` reads them."""
PLOT_WIDTH, PLOT_HEIGHT = 400, 290


@dataclass(frozen=True)
class Cells:
    """Bytes and separators in the order in which the page shows them, one separator before each window."""

    byte: np.ndarray
    """Index in the text, -1 for a separator."""
    flags: np.ndarray
    score: np.ndarray
    entropy_nats: np.ndarray
    """NaN where there is none, as in `nats`."""
    nats: np.ndarray
    scratchpad: np.ndarray

    @staticmethod
    def of(inspection: Inspection) -> "Cells":
        """Puts the separators among the bytes."""
        one, starts = inspection, inspection.windows
        before = starts.first_byte
        at_bytes = np.full(one.num_bytes, math.nan, dtype=np.float32)
        at_starts = np.full(len(starts), math.nan, dtype=np.float32)
        unread = (one.slot_byte == NOT_READ) * UNREAD
        return Cells(
            byte=np.insert(np.arange(one.num_bytes), before, -1),
            flags=np.insert((one.patch_end * PATCH_END + unread).astype(np.uint8), before, SEPARATOR),
            score=np.insert(one.score, before, starts.score),
            entropy_nats=np.insert(
                at_bytes if one.entropy_nats is None else one.entropy_nats,
                before,
                at_starts if starts.entropy_nats is None else starts.entropy_nats,
            ),
            nats=np.insert(one.nats, before, at_starts),
            scratchpad=np.insert(one.scratchpad, before, starts.scratchpad),
        )


def write_page(path: Path, inspection: Inspection, *, name: str, model_name: str = "", note: str = "") -> None:
    """Writes the page to a temporary name, then renames it.

    Args:
        path: the page.
        inspection: what to show; with a grid if bits per byte should follow the slider.
        name: of the text, the page's heading.
        model_name: where the model comes from.
        note: what the reader should know of the text, such as that it is the start of a longer one.

    Raises:
        OSError: the file cannot be written; a page that was there before is intact.
    """
    write_atomically(path, render_page(inspection, name=name, model_name=model_name, note=note))


def render_page(inspection: Inspection, *, name: str, model_name: str = "", note: str = "") -> str:
    """Returns the page as HTML; `write_page` says what the arguments are."""
    cells = Cells.of(inspection)
    script = (FOLDER / "page.js").read_text(encoding="utf-8")
    style = (FOLDER / "page.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<title>{escape_text(name)} · patchpad inspect</title>
<style>
{PAGE_CSS}{INTERACTIVE_CSS}{style}</style>
</head>
<body>
<main>
<header>
<h1>{escape_text(name)}</h1>
<p class="lead">What a byte-level model does with each of {inspection.num_bytes:,} bytes: how unsure it is of the next
one, where patches end, and where scratchpads refresh what the bytes are predicted from.</p>
<p class="note">{escape_text(_about(inspection, model_name, note))}</p>
</header>
{_dial(inspection)}
<section class="overview" aria-label="Totals">
{_tiles(inspection)}
{_curve(inspection)}
</section>
<section aria-labelledby="bytes-heading">
<h2 id="bytes-heading">The bytes</h2>
{_legend(inspection)}
{_shade_choice(inspection)}
<p class="note" id="keys">Point at a byte, or move with the arrow keys: the slot that it reads, and all that this slot
pools, turn blue. <kbd>Enter</kbd> goes to that slot. Bytes count from 0.</p>
<div class="bytes marked panel" id="bytes" dir="ltr" tabindex="0" role="application" aria-describedby="keys readout"
 aria-label="The bytes of the text">{_text_html(inspection, cells)}</div>
</section>
<div class="readout" id="readout" role="status"><span class="note">Point at a byte, or move to the text and press an
arrow key.</span></div>
</main>
<p class="unseen" id="announce" aria-live="polite"></p>
<script type="application/json" id="data">{_data_json(inspection, cells)}</script>
<script>{script}</script>
</body>
</html>
"""


def _about(inspection: Inspection, model_name: str, note: str) -> str:
    config = inspection.config
    patchifier = config.patchifier
    size = f"of {patchifier.target_patch_size} bytes"
    if patchifier.kind == "spacebyte":
        size = "at word ends"
    elif patchifier.plugged is not None and not patchifier.threshold_in_nats:
        size = f"of at most {patchifier.longest_patch} bytes"
    parts = [
        note[:1].upper() + note[1:],
        f"Model {model_name}" if model_name else "",
        f"{patchifier.kind} patches {size}",
        f"{config.trigger.kind} trigger",
        f"{len(inspection.windows):,} windows of up to {config.context_bytes:,} bytes"
        if len(inspection.windows) > 1
        else f"a context of {config.context_bytes:,} bytes",
    ]
    return " · ".join(part for part in parts if part)


def _dial(inspection: Inspection) -> str:
    if not inspection.has_threshold_in_nats:
        kind = inspection.config.trigger.kind
        return (
            f'<p class="panel">This model’s scratchpads do not follow a threshold in nats: its trigger is '  # noqa: RUF001
            f"<code>{kind}</code>. So there is no slider here, and the marks stay as they are.</p>"
        )
    return """<form class="dial" id="dial">
<div class="dial-row">
<label for="slider">Scratchpad threshold</label>
<span class="value"><input type="text" id="number" size="9" inputmode="text" autocomplete="off" spellcheck="false"
 aria-label="Threshold in nats, inf or -inf"> nats</span>
<span class="presets"><button type="button" id="none">∞ none</button><button type="button" id="stored">stored
</button><button type="button" id="every">−∞ every byte</button></span>
</div>
<input type="range" id="slider">
<p class="dial-ends" aria-hidden="true"><span>−∞, trunk at every byte</span><span id="status"></span>
<span>no scratchpads, ∞</span></p>
</form>"""  # noqa: RUF001


def _tiles(inspection: Inspection) -> str:
    one = inspection
    each = f"{one.mean_patch_size:.1f} bytes each on average" if one.mean_patch_size else "the text is shorter than one"
    tiles = [
        ("Scratchpads", "pads", f"{one.num_scratchpads:,}", f"{one.point.scratchpads_per_byte:.4f} per byte"),
        ("Patches", "patches", f"{one.num_patches:,}", each),
        (
            "Trunk calls per byte",
            "calls",
            f"{one.point.trunk_calls_per_byte:.4f}",
            f"{one.trunk_calls:,} in all: patches and scratchpads",
        ),
        (
            "Trunk cache",
            "cache",
            size_text(one.trunk_cache_bytes),
            f"{one.num_patches:,} entries of {one.trunk_cache_bytes_per_entry:,} bytes, whatever the threshold",
        ),
        ("Bits per byte", "bpb", f"{one.bits_per_byte:.4f}", "of this text"),
        ("Mean patch lag", "lag", f"{one.mean_patch_lag:.2f}", f"bytes, {int(one.patch_lag.max())} at most"),
    ]
    rows = "".join(
        f'<div><dt>{label}</dt><dd class="figure" id="{key}">{figure}</dd>'
        f'<dd class="detail" id="{key}-detail">{detail}</dd></div>\n'
        for label, key, figure, detail in tiles
    )
    return f'<dl class="tiles">\n{rows}</dl>'


def _curve(inspection: Inspection) -> str:
    if not inspection.grid:
        return ""
    points = sorted({(point.trunk_calls_per_byte, point.bits_per_byte) for point in inspection.grid})
    plot = line_plot(
        [Series("", points)],
        title="Bits per byte against trunk calls per byte",
        x_label="trunk calls per byte",
        y_label="bits per byte",
        width=PLOT_WIDTH,
        height=PLOT_HEIGHT,
        element_id="curve",
        states_frame=True,
    )
    return f"<figure>{plot}</figure>"


def _legend(inspection: Inspection) -> str:
    shades = "".join(f'<i class="e{level}"> </i>' for level in (1, 3, 5, 7, 9))
    rows = [
        (shades, '<span id="shade-text"></span>'),
        ('<i class="pad">a</i>', "A bar below a byte is a scratchpad: the trunk ran there, and kept nothing."),
        ('<i class="end">a</i>', "A line after a byte ends a patch: the trunk ran there, and one cache entry stays."),
        (
            '<span class="u u3"><b>字</b><i></i><i></i><i></i></span>',
            "A character of several bytes has a cell for each.",
        ),
        (
            '<i class="x">1F</i><i class="x">' + NEWLINE + "</i>",
            "A byte that is not a printable character, by its hexadecimal value; and a newline.",
        ),
        (
            '<i class="sep">»</i>',
            "The separator, where a window starts: what follows knows nothing of what came before.",
        ),
    ]
    items = "".join(
        f'<li><span class="key" aria-hidden="true">{key}</span><span>{text}</span></li>\n' for key, text in rows
    )
    return f'<ul class="legend">\n{items}</ul>'


def _shade_choice(inspection: Inspection) -> str:
    choices = [("nats", "what each byte cost"), ("lag", "patch lag")]
    if inspection.entropy_nats is not None:
        choices.insert(0, ("entropy", "entropy of the next byte"))
    radios = "".join(
        f'<label><input type="radio" name="shade" value="{value}"{" checked" if place == 0 else ""}>{label}</label>'
        for place, (value, label) in enumerate(choices)
    )
    return f'<fieldset class="shade"><legend>Shade by</legend>{radios}</fieldset>'


def _text_html(inspection: Inspection, cells: Cells) -> str:
    """Returns one `<i>` for each cell, in order; lines and windows are blocks of their own."""
    full = full_shade_nats(inspection)
    levels = np.rint(NUM_SHADES * np.clip(np.nan_to_num(cells.entropy_nats) / full, 0, 1)).astype(int).tolist()
    place_of_byte = np.flatnonzero(cells.byte >= 0).tolist()
    pads, flags = cells.scratchpad.tolist(), cells.flags.tolist()

    def cell(place: int, content: str, css: str = "") -> str:
        shade, pad, end = levels[place], pads[place], flags[place] & PATCH_END
        names = " ".join(filter(None, (css, f"e{shade}" if shade else "", "pad" if pad else "", "end" if end else "")))
        return f"<i{_class(names)}>{content}</i>"

    starts = {byte: window for window, byte in enumerate(inspection.windows.first_byte.tolist())}
    parts: list[str] = []
    line_is_open = False
    for unit in visible_units(inspection.text):
        places = [place_of_byte[byte] for byte in range(unit.start, unit.stop)]
        is_cut = any(byte in starts for byte in range(unit.start + 1, unit.stop))
        shown = _escaped_bytes(inspection.text, unit) if unit.is_escape or is_cut else None
        pieces = [cell(place, text, "x") for place, text in zip(places, shown, strict=True)] if shown else None
        for offset in range(unit.stop - unit.start if pieces else 1):
            window = starts.get(unit.start + offset)
            if window is not None:
                label = f' data-window="window {window + 1}, from byte {unit.start + offset:,}"' if window else ""
                parts.append(("</div>" if line_is_open else "") + f"<div{label}>{cell(places[offset] - 1, '»', 'sep')}")
                line_is_open = True
            elif not line_is_open:
                parts.append("<div>")
                line_is_open = True
            parts.append(pieces[offset] if pieces else _character(unit, places, cell))
        if unit.breaks_line:
            parts.append("</div>")
            line_is_open = False
    return "".join(parts) + ("</div>" if line_is_open else "")


def _class(names: str) -> str:
    return "" if not names else f' class="{names}"' if " " in names else f" class={names}"


def _character(unit: Unit, places: list[int], cell: Any) -> str:
    is_mark = unicodedata.category(unit.text).startswith("M")
    text = html.escape(DOTTED_CIRCLE + unit.text if is_mark else unit.text)
    if len(places) == 1:
        return cell(places[0], text)
    return f'<span class="u u{len(places)}"><b>{text}</b>{"".join(cell(place, "") for place in places)}</span>'


def _escaped_bytes(text: bytes, unit: Unit) -> list[str]:
    return [NEWLINE] if unit.breaks_line else [f"{byte:02X}" for byte in text[unit.start : unit.stop]]


def _data_json(inspection: Inspection, cells: Cells) -> str:
    """Returns what the script needs; floats are exact, as little-endian float32."""
    grid = inspection.grid or (inspection.point,)
    values = {
        "threshold": inspection.scratchpad_threshold_nats,
        "stored": inspection.stored_threshold_nats,
        "numBytes": inspection.num_bytes,
        "fullNats": full_shade_nats(inspection),
        "score": _base64(cells.score, "<f4"),
        "entropy": None if inspection.entropy_nats is None else _base64(cells.entropy_nats, "<f4"),
        "nats": _base64(cells.nats, "<f4"),
        "flags": _base64(cells.flags, "u1"),
        "value": _base64(np.frombuffer(inspection.text, dtype=np.uint8), "u1"),
        "grid": [
            {"calls": round(point.trunk_calls_per_byte * inspection.num_bytes), "bpb": point.bits_per_byte}
            for point in grid
        ],
    }
    return strict_json(values)  # numbers and base64 alone, so nothing in it can end the element


def _base64(values: np.ndarray, dtype: str) -> str:
    return base64.b64encode(values.astype(dtype).tobytes()).decode("ascii")
