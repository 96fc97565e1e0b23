"""What plots are made of, as SVG text: colours, style, markers, text, and the element around them.

The first six colours are those of Okabe and Ito, told apart by every common kind of colour vision, and each series has
its own marker too. They are CSS variables with a light and a dark value, so a plot follows the reader's
`prefers-color-scheme`.
"""

import html
from collections.abc import Sequence

from patchpad.pages.numbers import Number

FONT_SIZE = 13
CHARACTER_WIDTH = 0.52 * FONT_SIZE  # a mean over system fonts; only used to reserve room
MARKER_RADIUS = 4.0
STANDALONE_PADDING = 14  # a page brings its own

_LIGHT = (
    "--plot-paper:#fff;--plot-ink:#1c2024;--plot-muted:#5a636d;--plot-grid:#e6e8eb;--plot-axis:#a8b0b8;"
    "--plot-1:#0072b2;--plot-2:#d55e00;--plot-3:#009e73;--plot-4:#cc79a7;--plot-5:#e69f00;--plot-6:#56b4e9;"
    "--plot-7:#7a4fbf;--plot-8:#7d6608"
)
_DARK = (
    "--plot-paper:#16181b;--plot-ink:#e8eaed;--plot-muted:#a3abb4;--plot-grid:#2b2f34;--plot-axis:#5d666f;"
    "--plot-1:#56b4e9;--plot-2:#e69f00;--plot-3:#009e73;--plot-4:#cc79a7;--plot-5:#f0e442;--plot-6:#d55e00;"
    "--plot-7:#b79cf2;--plot-8:#c8b560"
)
NUM_COLOURS = 8

_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(9), *range(11, 32), *range(0x7F, 0xA0), 0xFFFE, 0xFFFF)}

PLOT_CSS = f"""\
.plot{{{_LIGHT}}}
@media (prefers-color-scheme:dark){{.plot{{{_DARK}}}}}
.plot text{{font:{FONT_SIZE}px/1 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",sans-serif;\
fill:var(--plot-muted);font-variant-numeric:tabular-nums}}
.plot .plot-title{{fill:var(--plot-ink);font-weight:600;font-size:{FONT_SIZE + 1}px}}
.plot .plot-point-label{{fill:var(--plot-ink);font-size:{FONT_SIZE - 1}px}}
.plot .plot-halo{{paint-order:stroke;stroke:var(--plot-paper);stroke-width:4px;stroke-linejoin:round}}
.plot .plot-grid{{stroke:var(--plot-grid);stroke-width:1}}
.plot .plot-axis{{stroke:var(--plot-axis);stroke-width:1}}
.plot .plot-reference{{stroke:var(--plot-muted);stroke-width:1.2;stroke-dasharray:2 4}}
.plot .plot-line{{fill:none;stroke-width:2;stroke-linejoin:round;stroke-linecap:round}}
.plot .plot-marker{{stroke:var(--plot-paper);stroke-width:1.2}}
.plot .plot-paper{{fill:var(--plot-paper)}}
"""
"""The style of every plot. A page that holds inline plots includes it once; a standalone file brings it along."""


def svg_element(
    body: Sequence[str],
    names: tuple[str, str],
    element_id: str,
    size: tuple[int, int],
    padding: int,
    standalone: bool,
) -> str:
    """Returns the `<svg>` element around a plot's elements; `names` are its title and description."""
    width, height = size[0] + 2 * padding, size[1] + 2 * padding
    attributes, background = f'viewBox="{-padding} {-padding} {width} {height}"', ""
    if standalone:
        attributes += f' xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}"'
        paper = f'<path class="plot-paper" d="M{-padding},{-padding}h{width}v{height}H{-padding}z"/>'
        background = f"<style>\n{PLOT_CSS}</style>\n{paper}\n"
    return (
        f'<svg class="plot" {attributes} role="img" id="{element_id}" '
        f'aria-labelledby="{element_id}-title" aria-describedby="{element_id}-desc">\n'
        f'<title id="{element_id}-title">{escape_text(names[0])}</title>\n'
        f'<desc id="{element_id}-desc">{escape_text(names[1])}</desc>\n' + background + "\n".join(body) + "\n</svg>"
    )


def light_colours() -> dict[str, str]:
    """Returns variable -> colour on light paper."""
    pairs = (pair.partition(":") for pair in _LIGHT.split(";"))
    return {name: colour for name, _, colour in pairs}


def colour_of(look: int) -> str:
    """Returns the CSS colour of a series."""
    return f"var(--plot-{look % NUM_COLOURS + 1})"


def marker_element(x: Number, y: Number, shape: int, colour: str, tip: str = "", *, hollow: bool = False) -> str:
    """Returns a point's marker, its centre at (x, y); `shape` is the number of a series, `tip` its tooltip if any."""
    r = MARKER_RADIUS
    paths = (
        f"M{x - r:.1f},{y:.1f}a{r},{r} 0 1 0 {2 * r},0a{r},{r} 0 1 0 {-2 * r},0z",
        f"M{x:.1f},{y - 1.5 * r:.1f}l{1.5 * r},{1.5 * r}l{-1.5 * r},{1.5 * r}l{-1.5 * r},{-1.5 * r}z",
        f"M{x - r:.1f},{y - r:.1f}h{2 * r}v{2 * r}h{-2 * r}z",
        f"M{x:.1f},{y - 1.3 * r:.1f}l{1.3 * r},{2.3 * r}h{-2.6 * r}z",
        f"M{x:.1f},{y + 1.3 * r:.1f}l{1.3 * r},{-2.3 * r}h{-2.6 * r}z",
    )
    content = f"<title>{escape_text(tip)}</title>" if tip else ""
    style = f"fill:var(--plot-paper);stroke:{colour};stroke-width:2" if hollow else f"fill:{colour}"
    return f'<path class="plot-marker" style="{style}" d="{paths[shape % len(paths)]}">{content}</path>'


def text_element(x: Number, y: Number, text: str, *, anchor: str = "start", css: str = "") -> str:
    """Returns a `<text>` element; `y` is its baseline."""
    css = f' class="{css}"' if css else ""
    anchor = "" if anchor == "start" else f' text-anchor="{anchor}"'
    return f'<text x="{x:.1f}" y="{y:.1f}"{anchor}{css}>{escape_text(text)}</text>'


def escape_text(text: str) -> str:
    """Returns text for HTML or SVG, quotes included; what a document cannot hold shows as an escape.

    Those are control characters other than tab and newline, and lone surrogates.
    """
    return html.escape(text.encode("utf-8", "backslashreplace").decode("utf-8").translate(_CONTROLS))
