"""Which part of a text is held out where no files of its own are given for that."""

import hashlib
from collections import Counter
from collections.abc import Sequence

import numpy as np

from patchpad.data.corpus import Corpus
from patchpad.errors import DataError

HEAD_BYTES = 4096
"""Documents of equal length that differ in so many first bytes are not read further to tell them apart."""


def split_corpus(corpus: Corpus, validation_fraction: float) -> tuple[Corpus, Corpus]:
    """Splits into training and validation text; always the same way for the same documents.

    Whole documents are held out where these come to between half and twice `validation_fraction` of the bytes; else the
    end of the largest document, cut after a line if one ends in the first half of that. Documents that are equal, byte
    for byte, count as one: they are held out, trained on or cut together.

    Raises:
        DataError: a single document of fewer than 2 bytes.
    """
    firsts = first_equals(corpus.documents)
    sizes = dict.fromkeys(firsts, 0)
    for first, document in zip(firsts, corpus.documents, strict=True):
        sizes[first] += len(document)
    goal = validation_fraction * corpus.num_bytes
    held_out = _choose_whole(firsts, sizes, goal)
    is_near = goal / 2 <= sum(sizes[first] for first in held_out) <= 2 * goal
    largest = max(sizes, key=lambda first: (len(corpus.documents[first]) > 1, sizes[first]))
    if len(sizes) > 1 and (is_near or len(corpus.documents[largest]) < 2):
        is_held_out = [first in held_out for first in firsts]
        return _select(corpus, [not held for held in is_held_out]), _select(corpus, is_held_out)
    share = validation_fraction if len(sizes) == 1 else min(1.0, goal / sizes[largest])
    cut = _place_to_cut(corpus.documents[largest], corpus.names[largest], share)
    is_cut = [first == largest for first in firsts]
    begins = [document[: cut if cuts else None] for document, cuts in zip(corpus.documents, is_cut, strict=True)]
    ends = _select(corpus, is_cut)
    return Corpus(tuple(begins), corpus.names), Corpus(tuple(document[cut:] for document in ends.documents), ends.names)


def first_equals(documents: Sequence[np.ndarray]) -> list[int]:
    """Returns for each document the index of the first one that is equal to it, byte for byte; often its own."""
    heads = [(len(document), hash(document[:HEAD_BYTES].tobytes())) for document in documents]
    counts = Counter(heads)
    seen: dict[bytes, int] = {}
    firsts = []
    for index, (document, head) in enumerate(zip(documents, heads, strict=True)):
        is_alone = counts[head] == 1
        firsts.append(index if is_alone else seen.setdefault(hashlib.sha256(document.data).digest(), index))
    return firsts


def _choose_whole(firsts: Sequence[int], sizes: dict[int, int], goal: float) -> set[int]:
    """Returns the documents, taken in a fixed random order, that fit the goal; the smallest one where none does."""
    held_out: set[int] = set()
    num_held_out = 0
    order = np.random.Generator(np.random.Philox(0)).permutation(len(firsts)).tolist()
    for first in dict.fromkeys(firsts[index] for index in order):
        leaves_text_to_train_on = len(held_out) < len(sizes) - 1
        if leaves_text_to_train_on and num_held_out < goal and num_held_out + sizes[first] <= 1.5 * goal:
            held_out.add(first)
            num_held_out += sizes[first]
    return held_out or {min(sizes, key=lambda first: sizes[first])}


def _place_to_cut(document: np.ndarray, name: str, share: float) -> int:
    """Returns where the last `share` of a document begins, moved behind a line's end that is near."""
    if len(document) < 2:
        raise DataError(f"{name} holds {len(document)} byte, too little to split", hint="Give more text.")
    cut = min(len(document) - 1, max(1, round((1 - share) * len(document))))
    newline = np.flatnonzero(document[cut - 1 : cut + (len(document) - cut) // 2] == ord("\n"))
    return cut + int(newline[0]) if len(newline) else cut


def _select(corpus: Corpus, is_chosen: Sequence[bool]) -> Corpus:
    return corpus.select([index for index, chooses in enumerate(is_chosen) if chooses])
