"""Writes docs/figures/inspect.png and inspect-dark.png: the page of `patchpad inspect` with the shipped model.

Usage: python recipes/inspect_figure.py
It needs Chromium. The byte in view is one that reads a scratchpad and lags behind it.
"""

import tempfile
from pathlib import Path

import numpy as np
from chromium import Browser

import patchpad
from patchpad.inspection.page import write_page

FIGURE = Path(__file__).resolve().parent.parent / "docs" / "figures" / "inspect.png"
WORDS = "It was the best of times, it was the worst of times."
WIDTH, HEIGHT, LAG = 1100, 1000, 2


def main() -> None:
    """Photographs the page, and puts the pictures in their places."""
    inspection = patchpad.inspect(patchpad.load(), WORDS, with_grid=True)
    kinds = np.array(inspection.slot_kinds()) == "scratchpad"
    chosen = int(np.flatnonzero(kinds & (inspection.patch_lag == LAG))[0])
    with Browser() as browser, tempfile.TemporaryDirectory(dir=FIGURE.parent) as folder:
        path = Path(folder) / "page.html"
        write_page(path, inspection, name="words", model_name="shipped with patchpad")
        page = browser.open(path.as_uri(), width=WIDTH, height=HEIGHT)
        page.wait_for("document.documentElement.dataset.ready || null")
        page.evaluate("document.getElementById('bytes').focus()")
        for key in ["Home", *["ArrowRight"] * (1 + chosen)]:
            page.press(key)
        # The whole page at once, so that nothing sticks to the edges of the window.
        stuck = "document.querySelectorAll('.dial, .readout')"
        page.evaluate(f"{stuck}.forEach((one) => {{ one.style.position = 'static'; }})")
        page.evaluate("dispatchEvent(new Event('resize')); document.activeElement.blur()")
        page.screenshot_both(Path(folder) / FIGURE.name)
        for picture in Path(folder).glob("*.png"):
            picture.replace(FIGURE.with_name(picture.name))


if __name__ == "__main__":
    main()
