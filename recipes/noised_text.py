"""Puts noise into a text, so that a model that is trained on some of it stays right where people mistype.

Usage: python recipes/noised_text.py TEXT.jsonl.xz OUT.jsonl.xz [--bytes N] [--seed N]

The documents are cut into pieces of about 4 kB at ends of words, and pieces are taken at even distances until there are
--bytes. Each has one kind of noise, in turn, at a rate drawn between a tenth of the kind's usual rate and all of it.
"""

import argparse
import json
import lzma
import random
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from patchpad.files import write_atomically
from patchpad.tasks.noise import KINDS, noisy

PIECE_CHARACTERS = 4096
NOISES = ("typo", "case", "repeat", "drop", "swap", "homoglyph")


def pieces(path: Path) -> Iterator[str]:
    """Yields the pieces of all documents of a file, in order."""
    with lzma.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            text, begin = json.loads(line)["text"], 0
            while begin < len(text):
                end = text.find(" ", begin + PIECE_CHARACTERS)
                end = len(text) if end < 0 else end
                yield text[begin:end]
                begin = end


def noised(text: str, number: int, seed: int) -> str:
    """Returns a piece with its noise."""
    kind = NOISES[number % len(NOISES)]
    rate = KINDS[kind].default_rate * random.Random(f"{seed}/{number}").uniform(0.1, 1.0)
    return noisy(text, kind, rate, seed, f"noised text/{number}").decode()


def main(words: Sequence[str]) -> None:
    """Writes the text."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--bytes", type=int, default=4_000_000)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args(words)
    texts = list(pieces(given.text))
    step = max(1, len(texts) * PIECE_CHARACTERS // given.bytes)
    documents = [noised(text, number, given.seed) for number, text in enumerate(texts[::step])]
    data = "".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in documents).encode()
    write_atomically(given.out, lzma.compress(data))
    num_bytes = sum(len(text.encode()) for text in documents)
    sys.stdout.write(f"{given.out}: {len(documents)} pieces, {num_bytes:,} bytes\n")


if __name__ == "__main__":
    main(sys.argv[1:])
