"""The playground's page in a browser, as tests use it. Importable from the tests beside it."""

import json
from typing import Any

from chromium import CONTROL, Page

import patchpad
from patchpad.model.language_model import LanguageModel
from patchpad.serving.playground.marks import marks

PROMPT = "It was é"
NUM_PROMPT = len(PROMPT.encode())
SEED = 5
NUM_BYTES = 60

CELLS = """
Array.from(document.querySelectorAll("#text-LANE i[data-i]"), (one) => [
  one.classList.contains("end"), one.classList.contains("pad"),
  one.classList.contains("prompt") || one.parentElement.classList.contains("prompt"),
])
"""
BARS = """
Array.from(document.querySelectorAll("#probe-bars .bar-list"), (list) => Array.from(list.children, (row) => [
  row.querySelector(".glyph").textContent, parseFloat(row.querySelector(".percent").textContent),
  row.classList.contains("follows"), row.querySelector(".bar i").getBoundingClientRect().width,
]))
"""
HAS_ENDED = "/^(Done|Stopped)/.test(document.getElementById('status').textContent) || !errorBox.hidden"


class Playground:
    """A page that is open, and what a user does with it."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.evaluate, self.click, self.press = page.evaluate, page.click, page.press
        self.wait_for = page.wait_for
        page.evaluate("window.errorBox = document.getElementById('error'); 0")
        page.wait_for("document.getElementById('about').textContent.startsWith('Model') || !errorBox.hidden")

    def put(self, **fields: Any) -> None:
        """Writes into fields, as if a user had."""
        for name, value in fields.items():
            field = f"document.getElementById({name.replace('_', '-')!r})"
            happened = "new Event('input', { bubbles: true })"
            self.evaluate(f"{field}.value = {json.dumps(str(value))}; {field}.dispatchEvent({happened})")

    def generate(self, **fields: Any) -> None:
        """Generates with the keyboard, and waits for the end."""
        self.put(**{"prompt": PROMPT, "seed": SEED, "most_bytes": NUM_BYTES, **fields})
        self.evaluate("document.getElementById('status').textContent = ''")
        self.press("Enter", CONTROL)
        self.wait_for(HAS_ENDED)

    def choose(self, preset: str, lane: str = "a") -> None:
        """Presses one of a dial's buttons."""
        self.evaluate(
            f"document.getElementById('compute-{lane}').closest('.dial').querySelector('[data-preset={preset}]').click()"
        )

    def text(self, selector: str) -> str:
        """Returns the text of the first element that a selector finds."""
        return self.evaluate(f"document.querySelector({selector!r}).textContent")

    def tile(self, name: str, lane: str = "a") -> str:
        """Returns what the meter of a lane shows."""
        return self.text(f"article:has(#text-{lane}) [data-tile={name}]")

    def sent(self, path: str) -> list[dict[str, Any]]:
        """Returns the bodies that were posted to a path."""
        return [json.loads(body) for url, body in self.page.posted if url.endswith(path)]

    def marks(self, lane: str = "a") -> tuple[list[bool], list[bool]]:
        """Returns where patch ends and scratchpads are shown, the separator first."""
        cells = self.evaluate(CELLS.replace("LANE", lane))
        return [cell[0] for cell in cells], [cell[1] for cell in cells]

    def prompt_cells(self) -> list[bool]:
        """Returns which cells are the prompt's."""
        return [cell[2] for cell in self.evaluate(CELLS.replace("LANE", "a"))]

    def select(self, byte: int, lane: str = "a") -> None:
        """Clicks on a byte, and waits for what follows it."""
        self.click(f"#text-{lane} i[data-i='{byte + 1}']")
        self.wait_for(f"document.getElementById('probe-title').textContent.includes('byte {byte} ')")
        self.settle()

    def settle(self) -> None:
        """Waits until the panel below shows what it was asked for."""
        self.wait_for("!document.getElementById('probe').hidden && !document.getElementById('probe').ariaBusy")

    def bars(self) -> list[list[tuple[str, float, bool, float]]]:
        """Returns the rows of each list: glyph, percent, whether the byte follows in the text, width of the bar."""
        return self.evaluate(BARS)

    def num_cells(self) -> int:
        """Returns the cells of the first text."""
        return self.evaluate("document.querySelectorAll('#text-a i[data-i]').length")


def completed(model: LanguageModel, **options: Any) -> patchpad.Completion:
    """Returns what the server should write for the prompt."""
    return patchpad.complete(model, PROMPT, **{"max_new_bytes": NUM_BYTES, "seed": SEED, **options})


def expected_marks(model: LanguageModel, data: bytes, threshold: float | None) -> tuple[list[bool], list[bool]]:
    """Returns patch ends and scratchpads of a text whose last byte nothing has read, the separator first."""
    found = marks(model, data, scratchpad_threshold_nats=threshold)
    return [*found["ends_patch"][:-1], False], [*found["has_scratchpad"][:-1], False]
