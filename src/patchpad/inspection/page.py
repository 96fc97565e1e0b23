"""An inspection as one self-contained HTML page: nothing to download, a threshold slider, every byte to point at."""

import base64
import hashlib
from pathlib import Path

from patchpad.files import strict_json, write_atomically
from patchpad.inspection.columns import NEWLINE
from patchpad.inspection.inspection import Inspection
from patchpad.inspection.page_data import page_data
from patchpad.inspection.terminal import size_text
from patchpad.pages.interactive_style import INTERACTIVE_CSS
from patchpad.pages.line_plot import Series, line_plot
from patchpad.pages.page_style import PAGE_CSS
from patchpad.pages.svg import escape_text

FOLDER = Path(__file__).parent / "web"
SCRIPTS = ("data.js", "slots.js", "text.js", "reading.js", "page.js")
"""Parts of the page's script, in order: each uses what stands before it."""
PLOT_WIDTH, PLOT_HEIGHT = 400, 290


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
    numbers, arrays = page_data(inspection)
    script = _script()
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
one, where patches end, where scratchpads refresh what the bytes are predicted from, and what that saves.</p>
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
<p class="note" id="keys">Point at a byte, or move with the arrow keys: a frame shows what the slot that it reads pools,
and dots the bytes that have come since. The right arrow goes to the next byte, in right-to-left text too;
<kbd>Enter</kbd> to the slot that is read, <kbd>Page Down</kbd> to the next window. Bytes count from 0.</p>
<div class="bytes panel" id="bytes" data-shade="gain" tabindex="0" role="application" aria-describedby="keys"
 aria-label="The bytes of the text"><noscript><p>The text is drawn by a script.</p></noscript><div id="lines"></div>
<div id="over" aria-hidden="true"></div></div>
</section>
<section class="readout" id="readout" aria-label="The byte in view"><span class="note">Point at a byte, or move to the
text and press an arrow key.</span></section>
</main>
<p class="unseen" id="announce" aria-live="polite"></p>
<script type="application/json" id="data">{strict_json(numbers)}</script>
<script type="text/plain" id="arrays">{arrays}</script>
<script>{script}</script>
</body>
</html>
"""


def _script() -> str:
    """Returns the page's script; all its names are its own."""
    parts = ((FOLDER / name).read_text(encoding="utf-8") for name in SCRIPTS)
    return '"use strict";\n(async () => {\n' + "".join(parts) + "})();\n"


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
<input type="range" id="slider" list="measured">
<datalist id="measured"></datalist>
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
            f"{one.trunk_cache_entries:,} entries of {one.trunk_cache_bytes_per_entry:,} bytes, whatever the threshold"
            + ("; of one window, all start empty" if len(one.windows) > 1 else ""),
        ),
        ("Bits per byte", "bpb", f"{one.bits_per_byte:.4f}", "8 = no model; of this text"),
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
        x_ends=(0, max(1, points[-1][0])),  # a separator can be one call more than there are bytes
        width=PLOT_WIDTH,
        height=PLOT_HEIGHT,
        element_id="curve",
        states_frame=True,
    )
    return f"<figure>{plot}</figure>"


def _legend(inspection: Inspection) -> str:
    lost = "".join(f'<i class="lost e{level}"> </i>' for level in (9, 6, 3))
    deeper = "".join(f'<i class="e{level}"> </i>' for level in (3, 6, 9))
    ends = "tokens end before it" if inspection.config.patchifier.commits_tokens else "it ends a patch"
    rows = [
        (f'<span id="shade-key">{lost}<i> </i>{deeper}</span>', '<span id="shade-text"></span>'),
        ('<i class="pad">a</i>', "A bar below a byte is a scratchpad: the trunk ran there, and kept nothing."),
        ('<i class="end">a</i>', f"A line after a byte: {ends}. The trunk ran there, and one cache entry stays."),
        ("é", "A character of several bytes is marked part by part; its bytes are named when it is chosen."),
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
    choices = [("cost", "what each byte cost"), ("lag", "patch lag")]
    if inspection.entropy_nats is not None:
        choices.insert(0, ("entropy", "entropy of the next byte"))
    if inspection.along is not None and len(inspection.along.points) > 1:
        choices.insert(0, ("gain", "gain: bits saved by scratchpads"))
    radios = "".join(
        f'<label><input type="radio" name="shade" value="{value}"{" checked" if place == 0 else ""}>{label}</label>'
        for place, (value, label) in enumerate(choices)
    )
    return f'<fieldset class="shade"><legend>Shade by</legend>{radios}</fieldset>'
