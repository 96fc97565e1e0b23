"""Which part of a text is held out where no files of its own are given for that, and which documents are equal."""

import numpy as np

from patchpad.data.corpus import Corpus
from patchpad.data.documents import Documents, DocumentView, JoinedDocuments
from patchpad.errors import DataError

HEAD_BYTES = 4096
"""Documents of equal length that differ in so many first bytes are not read further to tell them apart."""
LINE_SEARCH_BYTES = 1 << 20
"""So far behind the place where a document is to be cut, the end of a line is looked for."""


def split_corpus(corpus: Corpus, validation_fraction: float) -> tuple[Corpus, Corpus]:
    """Splits into training and validation text; always the same way for the same documents.

    Whole documents are held out where these come to between half and twice `validation_fraction` of the bytes; else the
    end of the largest document, cut after a line if one ends in the first half of that. Documents that are equal, byte
    for byte, count as one: they are held out, trained on or cut together.

    Raises:
        DataError: a single document of fewer than 2 bytes, or of fewer than 2 behind its prompt.
    """
    firsts = first_equals(corpus.documents)
    lengths = corpus.lengths
    groups = np.flatnonzero(firsts == np.arange(len(firsts)))
    sizes = np.bincount(firsts, weights=lengths).astype(np.int64)
    goal = validation_fraction * corpus.num_bytes
    held_out = _choose_whole(firsts, sizes, groups, goal)
    is_near = goal / 2 <= sizes[held_out].sum() <= 2 * goal
    can_be_cut = lengths[groups] > 1 if corpus.prompt_bytes is None else (lengths - corpus.prompt_bytes)[groups] > 1
    to_choose_from = groups[can_be_cut] if can_be_cut.any() else groups
    largest = to_choose_from[sizes[to_choose_from].argmax()]
    if len(groups) > 1 and (is_near or not can_be_cut.any()):
        is_held_out = np.isin(firsts, held_out)
        return corpus.select(np.flatnonzero(~is_held_out)), corpus.select(np.flatnonzero(is_held_out))
    share = validation_fraction if len(groups) == 1 else min(1.0, goal / sizes[largest])
    is_cut = firsts == largest
    cut = _place_to_cut(corpus, int(largest), np.flatnonzero(is_cut), share)
    training = corpus.cut(np.arange(len(firsts)), ends=np.where(is_cut, cut, lengths))
    indices = np.flatnonzero(is_cut)
    return training, corpus.cut(indices, begins=np.full(len(indices), cut))


def first_equals(documents: Documents) -> np.ndarray:
    """Returns for each document the index of the first one that is equal to it, byte for byte; often its own.

    Documents of a length that no other one has are not read, nor are those whose digests are known; of the others the
    first bytes are, and all of those that agree in them.

    Returns:
        [document] of int64.
    """
    firsts = np.arange(len(documents))
    lengths = documents.lengths
    alike = np.flatnonzero(_is_shared(lengths))
    known = documents.digests
    if known is None:
        heads = (hash(documents.read(index, 0, HEAD_BYTES).tobytes()) for index in alike.tolist())
        found = np.fromiter(heads, dtype=np.int64, count=len(alike))
        alike = alike[_is_shared(lengths[alike], found)]
        read = map(documents.digest, alike.tolist())
        digests = np.fromiter(read, dtype=np.uint64, count=len(alike))
    else:
        digests = known[alike]
    order, is_start = _sorted_groups(lengths[alike], digests)
    ordered = alike[order]
    firsts[ordered] = ordered[is_start][is_start.cumsum() - 1]
    return firsts


def is_in(documents: Documents, others: Documents) -> np.ndarray:
    """Returns which documents equal one of the others, byte for byte, [document] of bool."""
    shared = np.intersect1d(documents.lengths, others.lengths)
    asked = np.flatnonzero(np.isin(documents.lengths, shared))
    known = np.flatnonzero(np.isin(others.lengths, shared))
    firsts = first_equals(JoinedDocuments([DocumentView(others, known), DocumentView(documents, asked)]))
    found = np.zeros(len(documents), dtype=bool)
    found[asked] = firsts[len(known) :] < len(known)
    return found


def _is_shared(*keys: np.ndarray) -> np.ndarray:
    """Returns which items have the keys of another one, [item] of bool."""
    order, is_start = _sorted_groups(*keys)
    counts = np.bincount(is_start.cumsum() - 1) if len(order) else np.zeros(0, dtype=np.int64)
    shared = np.zeros(len(order), dtype=bool)
    shared[order] = np.repeat(counts > 1, counts)
    return shared


def _sorted_groups(*keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the order of items by their keys, equal ones as they stand, and where in it a group of equals begins."""
    order = np.lexsort(keys)
    is_start = np.zeros(len(order), dtype=bool)
    is_start[:1] = True
    for key in keys:
        is_start[1:] |= np.diff(key[order]) != 0
    return order, is_start


def _choose_whole(firsts: np.ndarray, sizes: np.ndarray, groups: np.ndarray, goal: float) -> list[int]:
    """Returns the documents, taken in a fixed random order, that fit the goal; the smallest one where none does."""
    held_out: dict[int, None] = {}
    num_held_out = 0
    for index in np.random.Generator(np.random.Philox(0)).permutation(len(firsts)):
        if num_held_out >= goal or len(held_out) >= len(groups) - 1:
            break
        first = int(firsts[index])
        if first not in held_out and num_held_out + sizes[first] <= 1.5 * goal:
            held_out[first] = None
            num_held_out += int(sizes[first])
    return list(held_out) or [int(groups[sizes[groups].argmin()])]


def _place_to_cut(corpus: Corpus, document: int, equals: np.ndarray, share: float) -> int:
    """Returns where the last `share` of a document begins, moved behind a line's end that is near.

    Args:
        corpus: holds the document.
        document: its index.
        equals: indices of all that are equal to it; none is cut inside its prompt.
        share: of the bytes that are not prompt.
    """
    prompt = 0 if corpus.prompt_bytes is None else int(corpus.prompt_bytes[equals].max())
    length = int(corpus.lengths[document])
    size = length - prompt
    if size < 2:
        behind = " behind its prompt" if prompt else ""
        raise DataError(
            f"{corpus.names[document]} holds {size} byte{behind}, too little to split", hint="Give more text."
        )
    cut = prompt + min(size - 1, max(1, round((1 - share) * size)))
    end = min(cut + (length - cut) // 2, cut - 1 + LINE_SEARCH_BYTES)
    newline = np.flatnonzero(corpus.read(document, cut - 1, end) == ord("\n"))
    return cut + int(newline[0]) if len(newline) else cut
