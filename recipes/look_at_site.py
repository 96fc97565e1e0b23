"""Opens every built page in headless Chromium as a phone shows it, in the dark: no fault in the console, no request to the web,
nothing wider than the window, and a name for all that can be pressed.

Usage: python recipes/look_at_site.py [FOLDER]

FOLDER is build/docs if none is given. Without Chromium nothing is looked at, and it says so. Exit code 1 with one line for
each fault.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from check_site import NOT_LINKED, SITE
from chromium import CHROMIUM, Browser, Page

WIDTH = 390
"""Of the narrowest window that pages are made for, in CSS pixels."""
ROLES = {"button", "checkbox", "combobox", "Iframe", "image", "link", "radio", "searchbox", "slider", "textbox"}
WIDER_THAN_THE_WINDOW = """(() => {
  const width = document.documentElement.clientWidth;
  if (document.documentElement.scrollWidth <= width + 1) return "";
  const isShown = (one) => {
    const box = one.getBoundingClientRect();
    return box.width > 0 && box.right > width + 1;
  };
  const isCut = (one) => one && (getComputedStyle(one).overflowX !== "visible" || isCut(one.parentElement));
  const wide = [...document.querySelectorAll("body *")].find((one) => isShown(one) && !isCut(one.parentElement));
  return wide ? wide.outerHTML.slice(0, 120) : "the page";
})()"""
IS_DARK = """(() => {
  const colour = getComputedStyle(document.body).backgroundColor.match(/[\\d.]+/g).map(Number);
  return colour[3] === 0 || colour[0] + colour[1] + colour[2] < 300;
})()"""


def faults_of_page(page: Page) -> Iterator[str]:
    """Yields a line for each fault of an open page."""
    yield from (f"the console says: {message}" for message in page.messages)
    for address in page.requests:
        if not address.startswith(("file:", "data:", "blob:")):
            yield f"{address} is loaded from the web"
    if wide := page.evaluate(WIDER_THAN_THE_WINDOW):
        yield f"wider than {WIDTH} px: {wide}"
    if not page.evaluate(IS_DARK):
        yield "light for a reader who wants it dark"
    nodes: list[dict[str, Any]] = page.call("Accessibility.getFullAXTree")["nodes"]
    for node in nodes:
        role = node.get("role", {}).get("value")
        if not node.get("ignored") and role in ROLES and not node.get("name", {}).get("value"):
            yield f"a {role} without a name for screen readers"


def faults_of_pages(folder: Path) -> Iterator[str]:
    """Yields a line for each fault of the pages of a folder."""
    with Browser() as browser:
        for path in sorted(folder.glob("*.html")):
            if path.name not in NOT_LINKED:
                page = browser.open(path.resolve().as_uri(), width=WIDTH, height=844, dark=True)
                yield from (f"{path.name}: {fault}" for fault in dict.fromkeys(faults_of_page(page)))
                page.close()


def main(folder: Path) -> int:
    """Prints the faults of a site; returns the exit code."""
    if CHROMIUM is None:
        print("no Chromium: the pages were not looked at")
        return 0
    faults = list(faults_of_pages(folder))
    print("\n".join(faults) if faults else f"looked at each page at {WIDTH} px, in the dark")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]) if len(sys.argv) > 1 else SITE))
