"""Writes docs/figures/playground.png and playground-dark.png: the page of `patchpad serve` with the shipped model.

Usage: python recipes/playground_figure.py
It needs Chromium and the extra `serve`. The page is used as it opens: two settings, with its own prompt and
seed, side by side; then a click on the byte before the texts part.
"""

import asyncio
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from chromium import CONTROL, Browser, Page

import patchpad
from patchpad.serving.scheduler import Scheduler
from patchpad.serving.server import Server, address_of, open_socket
from patchpad.serving.settings import Settings

FIGURE = Path(__file__).resolve().parent.parent / "docs" / "figures" / "playground.png"
HOST = "127.0.0.1"
WIDTH, HEIGHT = 1000, 1180


@contextmanager
def served() -> Iterator[str]:
    """Serves the shipped model on a free port, and gives the address."""
    scheduler = Scheduler(patchpad.load())
    server = Server(scheduler, Settings(model_id="patchpad-bundled"))
    with open_socket(HOST, 0) as opened:
        thread = threading.Thread(target=lambda: asyncio.run(server.serve([opened])))
        thread.start()
        try:
            yield address_of(opened, HOST)
        finally:
            server.stop()
            thread.join()


def compare_settings(page: Page) -> None:
    """Writes two texts side by side, and shows what follows the byte before they part."""
    page.wait_for("document.getElementById('about').textContent.startsWith('Model')")
    page.click("#compare")
    page.press("Enter", CONTROL)
    page.wait_for("document.getElementById('status').textContent.startsWith('Done')")
    byte = page.evaluate("Number(/byte (\\d+)/.exec(document.getElementById('difference').textContent)[1])")
    page.click(f"#text-b i[data-i='{byte}']")
    page.wait_for("document.querySelectorAll('.bar-list li').length >= 16")
    page.evaluate("document.querySelector('.actions').scrollIntoView()")


def main() -> None:
    """Photographs the page, and puts the pictures in their places."""
    with served() as address, Browser() as browser, tempfile.TemporaryDirectory(dir=FIGURE.parent) as folder:
        page = browser.open(f"{address}/", width=WIDTH, height=HEIGHT, reduced_motion=True)
        compare_settings(page)
        page.screenshot_both(Path(folder) / FIGURE.name, whole=False)
        for picture in Path(folder).glob("*.png"):
            picture.replace(FIGURE.with_name(picture.name))


if __name__ == "__main__":
    main()
