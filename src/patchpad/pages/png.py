"""Plots as PNG, by `vl-convert-python`, the library of the extra `plot`.

It was chosen because its wheels need no package of the system: they bring their own fonts, so text is drawn in a bare
container too. CairoSVG needs libcairo, and bindings of resvg alone need fonts. PDF is drawn by matplotlib.
"""

import re

from patchpad.errors import MissingExtraError
from patchpad.pages.svg import light_colours

PIXELS_PER_UNIT = 2.0


def require_png() -> None:
    """Requires the library, before any work is done.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        import vl_convert  # noqa: F401
    except ImportError as error:
        raise MissingExtraError(
            "a PNG needs the library `vl-convert-python`, which is not installed; SVG needs none",
            hint='Install it with: pip install "patchpad[plot]"; or write a file that ends in .svg',
        ) from error


def png_of(plot: str) -> bytes:
    """Returns a standalone plot as PNG in its light colours, two pixels to a unit.

    Raises:
        MissingExtraError: the library is not installed.
    """
    require_png()
    import vl_convert

    return vl_convert.svg_to_png(flat(plot), scale=PIXELS_PER_UNIT)


def flat(plot: str) -> str:
    """Returns a standalone plot in its light colours, without what the library does not know.

    Those are variables, media queries and the shorthand `font`.
    """
    plot = re.sub(r"@media [^{]*\{[^{}]*\{[^{}]*\}\}", "", plot)
    plot = re.sub(r"var\((--plot-[a-z0-9]+)\)", lambda found: light_colours()[found[1]], plot)
    return re.sub(r"\bfont:([0-9]+px)/1 ", r"font-size:\1;font-family:", plot)
