"""Prompts cut inside a word: does a converted model, and does its source, write the rest of the word?"""

import math
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
from conversion_bits import Pair, Text, main_thresholds
from conversion_source import Source

from patchpad.data import Corpus
from patchpad.errors import DataError
from patchpad.inference.generator import complete
from patchpad.tasks.scoring import Request, Scorer

WORD = re.compile(rb"(?<= )[A-Za-z]{6,}(?=[^A-Za-z0-9'\x80-\xff])")
"""A word of at least six letters between a space and what ends it."""
CONTEXT_BYTES = 300
"""About so many stand before the word that is cut."""
LOOKED_AT_BYTES = 400
"""In which a word is looked for, from a drawn place on."""
LEAST_LETTERS = 2
"""On either side of the cut."""
DRAWS_FOR_EACH = 4
"""Places that are drawn for each prompt: not each has a word."""
SEED = 0


@dataclass(frozen=True)
class CutWord:
    """A prompt, and what should follow."""

    prompt: bytes
    rest: bytes
    """The rest of the word and the byte that ends it."""

    def marks(self, written: bytes) -> tuple[int, int]:
        """Returns whether the word was written to its end and no further, and whether with the same byte behind it.

        Each is 1 or 0.
        """
        is_word = written.startswith(self.rest[:-1]) and not written[len(self.rest) - 1 :][:1].isalpha()
        return int(is_word and len(written) >= len(self.rest)), int(written == self.rest)


def cut_words(corpus: Corpus, count: int, context_bytes: int) -> list[CutWord]:
    """Draws prompts at places spread over a text, the same for the same text and count.

    Args:
        corpus: in UTF-8.
        count: prompts.
        context_bytes: of the model; prompt and rest fit.

    Raises:
        DataError: the text has too few words for so many.
    """
    before = min(CONTEXT_BYTES, context_bytes - LOOKED_AT_BYTES // 4)
    ends = np.cumsum(corpus.lengths)
    found: dict[tuple[int, int], CutWord] = {}
    draw = random.Random(f"{SEED}/{count}")
    for number in range(count * DRAWS_FOR_EACH):
        stretch = number % count  # each stretch of the text once before any is drawn from again
        place = int((stretch + draw.random()) / count * int(ends[-1]))
        document = int(np.searchsorted(ends, place, side="right"))
        begin = max(0, place - int(ends[document] - corpus.lengths[document]) - before)
        end = min(int(corpus.lengths[document]), begin + before + LOOKED_AT_BYTES)
        data = corpus.read(document, begin, end).tobytes()
        word = WORD.search(data, before)
        start = data.find(b" ") + 1
        if word is None or not 0 < start < word.start() or len(found) == count:
            continue
        if word.end() + 1 - start > context_bytes:
            continue
        letters = len(word[0])
        cut = word.start() + draw.randint(LEAST_LETTERS, letters - LEAST_LETTERS)
        key = (document, begin + word.start())
        found.setdefault(key, CutWord(data[start:cut], data[cut : word.end() + 1]))
    if len(found) < count:
        raise DataError(f"only {len(found)} of {count} words were found", hint="Ask for fewer: --prompts.")
    return [found[key] for key in sorted(found)]


def source_answers(source: Source, words: Sequence[CutWord], *, takes_back: bool) -> dict[str, Any]:
    """Returns whether the source writes each rest, and the bits of each rest.

    Args:
        source: the model.
        words: prompts.
        takes_back: some of the prompt's last tokens make way for one that goes on beyond them before it writes, and
            bits are those of prompt and rest together less those of the prompt, whatever tokens they have. Otherwise
            the prompt's tokens are those that the tokenizer gives for the cut prompt.
    """
    marks, bits = [], []
    for word in words:
        marks.append(word.marks(source.write(word.prompt, len(word.rest), takes_back=takes_back)))
        if takes_back:
            nats = source.score_text(word.prompt + word.rest).open_nats - source.score_text(word.prompt).open_nats
        else:
            nats = source.score(source.encode(word.prompt), source.encode(word.rest), len(word.rest)).open_nats
        bits.append(round(nats / math.log(2), 3))
    return {**_columns(marks), "bits": bits, "num_bytes": [len(word.rest) for word in words]}


def our_answers(pair: Pair, words: Sequence[CutWord], threshold: float) -> dict[str, Any]:
    """Returns the same of the converted model at a threshold."""
    positions = pair.batch_rows * (pair.context_bytes + 1)
    scorer = Scorer(pair.model, scratchpad_threshold_nats=threshold, batch_positions=positions)
    scores = scorer.score([Request(word.prompt, word.rest) for word in words])
    written: dict[CutWord, bytes] = {}
    by_length = sorted(words, key=lambda word: len(word.rest))
    for size, several in groupby(by_length, key=lambda word: len(word.rest)):
        some = list(several)
        options = {"max_new_bytes": size, "temperature": 0, "scratchpad_threshold_nats": threshold}
        completions = complete(pair.model, [word.prompt for word in some], **options)
        written |= {word: found.data for word, found in zip(some, completions, strict=True)}
    return {
        **_columns([word.marks(written[word]) for word in words]),
        "bits": [round(score.bits, 3) for score in scores],
        "num_bytes": [len(word.rest) for word in words],
        "scratchpad_threshold_nats": threshold,
        "trunk_calls_per_byte": scorer.compute().trunk_calls_per_byte,
    }


def _columns(marks: Sequence[tuple[int, int]]) -> dict[str, list[int]]:
    return {"word_right": [word for word, _ in marks], "right": [both for _, both in marks]}


def measure_words(pair: Pair, text: Text, count: int) -> None:
    """Measures both models on the same cut words: cells `cut/source`, `cut/source taken back` and `cut/<point>`."""
    words = cut_words(text.corpus, count, pair.context_bytes)
    inputs = {**text.inputs(), "prompts": count}
    ways: dict[str, Callable[[], dict[str, Any]]] = {
        "source": lambda: source_answers(pair.source, words, takes_back=False),
        "source taken back": lambda: source_answers(pair.source, words, takes_back=True),
    }
    for name, measure in ways.items():
        pair.record.cell(f"cut/{name}", inputs, measure)
    for point, threshold in main_thresholds(pair, text).items():
        known = {**inputs, "threshold_nats": threshold}
        pair.record.cell(f"cut/{point}", known, lambda threshold=threshold: our_answers(pair, words, threshold))
