"""Chooses the excerpt that `patchpad inspect` shows, from a held-out book, and writes it into the package.

Usage: python recipes/choose_excerpt.py RUN HELD_OUT_BOOKS MEASURED.json NAME

Of passages all over the book, each beginning with a paragraph, the one is taken whose first 2,000 bytes and whose whole
come closest to all held-out books of MEASURED.json (recipes/measure_shipped_model.py, model NAME there) in bits and in
what scratchpads save (stored threshold against none). RUN `bundled` is the model inside the package.
"""

import json
import lzma
import math
import sys
from pathlib import Path

import numpy as np

import patchpad
from patchpad.data import Corpus
from patchpad.evaluation.bits_per_byte import evaluate
from patchpad.files import write_atomically
from patchpad.model.language_model import LanguageModel

TITLE, AUTHOR, YEAR = "The Moonstone", "Wilkie Collins", 1868
"""Collins died in 1889: the book is in the public domain everywhere."""
EXCERPT_BYTES, SHOWN_BYTES = 20_000, 2_000
NUM_PASSAGES, NUM_BEST = 60, 6
TARGET = Path(__file__).parent.parent / "src" / "patchpad" / "data" / "bundled"


def bits(model: LanguageModel, text: bytes) -> tuple[float, float]:
    """Returns bits per byte without scratchpads, and at the stored threshold."""
    corpus = Corpus((np.frombuffer(text, dtype=np.uint8),), ("passage",))
    thresholds = [math.inf, float(model.scratchpad_threshold_nats)]
    without, stored = evaluate(model, corpus, scratchpad_threshold_nats=thresholds, limit_bytes=0)
    return without.bits_per_byte, stored.bits_per_byte


def saved(without: float, stored: float) -> float:
    """Returns the share of the bits that scratchpads save."""
    return 1 - stored / without


def passages(book: bytes) -> list[int]:
    """Returns places at even distances in the middle of the book, each moved to the next paragraph."""
    places = np.linspace(0.05, 0.9, NUM_PASSAGES) * len(book)
    return [book.index(b"\n\n", int(place)) + 2 for place in places]


def main(run: str, books: str, measured: str, name: str) -> None:
    """Writes excerpt.txt and excerpt.json."""
    model = patchpad.load(None if run == "bundled" else run)
    found = next(row for row in json.loads(Path(measured).read_text())["sets"] if row["set"] == "books")
    points = {point["scratchpad_threshold_nats"]: point["bits_per_byte"] for point in found["models"][name]}
    stored_of_set = found["models"][name][0]["bits_per_byte"]
    saved_of_set = saved(points["inf"], stored_of_set)
    with lzma.open(books, "rt", encoding="utf-8") as lines:
        book = next(
            line["text"].encode()
            for line in map(json.loads, lines)
            if (line["author"], line["title"]) == (AUTHOR, TITLE)
        )

    def distance(values: tuple[float, float]) -> float:
        return abs(saved(*values) - saved_of_set) + 0.1 * abs(values[1] / stored_of_set - 1)

    ranked = sorted(passages(book), key=lambda begin: distance(bits(model, book[begin : begin + SHOWN_BYTES])))
    begin = min(ranked[:NUM_BEST], key=lambda begin: distance(bits(model, book[begin : begin + EXCERPT_BYTES])))
    text = book[begin : begin + EXCERPT_BYTES]
    text = text[: text.rindex(b"\n") + 1]
    facts = {
        "title": TITLE,
        "author": AUTHOR,
        "year": YEAR,
        "begin": begin,
        "shown_bytes": SHOWN_BYTES,
        "shown_saved": round(saved(*bits(model, text[:SHOWN_BYTES])), 4),
        "set_saved": round(saved_of_set, 4),
        "set_bytes": found["bytes"],
    }
    (TARGET / "excerpt.txt").write_bytes(text)
    write_atomically(TARGET / "excerpt.json", json.dumps(facts, indent=1) + "\n")
    sys.stdout.write(json.dumps(facts, indent=1) + "\n" + text[:SHOWN_BYTES].decode(errors="replace") + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
