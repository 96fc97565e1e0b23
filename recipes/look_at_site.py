"""Opens every built page in headless Chromium as a phone shows it in the dark.

Nothing may be in the console, come from the web or be wider than the window, and what can be pressed must have a name.

Usage: python recipes/look_at_site.py [FOLDER]

FOLDER is build/docs if none is given. Without Chromium nothing is looked at, and it says so. With a fault it ends with
exit code 1 and one line for each.
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
        page = browser.open("about:blank", width=WIDTH, height=844, dark=True)  # one tab: each costs a process
        for path in sorted(folder.glob("*.html")):
            if path.name not in NOT_LINKED:
                page.go(path.resolve().as_uri())
                yield from (f"{path.name}: {fault}" for fault in dict.fromkeys(faults_of_page(page)))


def main(folder: Path) -> None:
    """Looks at the pages of a site.

    Raises:
        SystemExit: they have faults.
    """
    faults = list(faults_of_pages(folder)) if CHROMIUM else []
    if faults:
        raise SystemExit("\n".join(faults))
    sys.stdout.write(f"every page: fits {WIDTH} px\n" if CHROMIUM else "no Chromium: the pages were not looked at\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else SITE)
