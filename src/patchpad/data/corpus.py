"""Files, globs and directories become documents: arrays of bytes."""

import hashlib
import itertools
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from patchpad.data.file_reading import descriptors_kept_free, read_documents
from patchpad.data.file_search import GIVE_A_PATH, find_files
from patchpad.errors import DataError

logger = logging.getLogger(__name__)

FINGERPRINT_SAMPLES, FINGERPRINT_SAMPLE_BYTES = 1024, 4096


@dataclass(frozen=True)
class Corpus:
    """Documents as arrays of uint8, none of them empty."""

    documents: tuple[np.ndarray, ...]
    names: tuple[str, ...]
    """File of each document, with the line for JSONL."""

    @property
    def num_bytes(self) -> int:
        """Bytes of all documents."""
        return sum(len(document) for document in self.documents)

    def fingerprint(self) -> str:
        """SHA-256 over document lengths and bytes: all of up to 4 MiB, evenly spread samples of larger texts."""
        digest = hashlib.sha256()
        lengths = np.array([len(document) for document in self.documents], dtype="<i8")
        digest.update(lengths.tobytes())
        if self.num_bytes <= FINGERPRINT_SAMPLES * FINGERPRINT_SAMPLE_BYTES:
            for document in self.documents:
                digest.update(document.tobytes())
            return digest.hexdigest()
        ends = lengths.cumsum()
        for place in np.linspace(0, ends[-1] - 1, FINGERPRINT_SAMPLES).astype(np.int64):
            index = int(np.searchsorted(ends, place, side="right"))
            begin = int(place - (ends[index] - lengths[index]))
            digest.update(self.documents[index][begin : begin + FINGERPRINT_SAMPLE_BYTES].tobytes())
        return digest.hexdigest()


def open_corpus(paths: Sequence[str | Path] | str | Path) -> Corpus:
    """Reads files, globs and directories (recursively, links followed, hidden names left out), in sorted order.

    A plain or compressed (.gz, .bz2, .xz) file is one document; each line of a .jsonl file is one, its `text` field.

    Raises:
        DataError: a path that matches nothing, an unreadable file or line, or no text at all.
    """
    paths = [paths] if isinstance(paths, str | Path) else list(paths)
    if not paths:
        raise DataError("no text was given", hint=GIVE_A_PATH)
    documents: list[np.ndarray] = []
    names: list[str] = []
    num_empty = 0
    files = find_files(paths)
    with descriptors_kept_free():
        for name, document in itertools.chain.from_iterable(map(read_documents, files.values())):
            if len(document):
                documents.append(document)
                names.append(name)
            else:
                num_empty += 1
    if not documents:
        shown = ", ".join(str(path) for path in paths)
        raise DataError(f"{shown}: no text, only {num_empty} empty document(s)", hint="Give at least one byte of text.")
    if num_empty:
        logger.warning("%d empty document(s) have nothing to predict and are left out", num_empty)
    return Corpus(tuple(documents), tuple(names))


def split_corpus(corpus: Corpus, validation_fraction: float) -> tuple[Corpus, Corpus]:
    """Splits into training and validation documents; always the same way for the same documents.

    Several documents are split whole, about `validation_fraction` of the bytes going to validation. A single one gives
    its end, cut after a line if one ends in the first half of that.

    Raises:
        DataError: a single document of fewer than 2 bytes.
    """
    if len(corpus.documents) == 1:
        return _split_single(corpus, validation_fraction)
    goal = validation_fraction * corpus.num_bytes
    lengths = [len(document) for document in corpus.documents]
    held_out: set[int] = set()
    num_held_out = 0
    for index in np.random.Generator(np.random.Philox(0)).permutation(len(lengths)).tolist():
        leaves_text_to_train_on = len(held_out) < len(lengths) - 1
        if leaves_text_to_train_on and num_held_out < goal and num_held_out + lengths[index] <= 1.5 * goal:
            held_out.add(index)
            num_held_out += lengths[index]
    if not held_out:
        held_out = {int(np.argmin(lengths))}
    return (
        _select(corpus, [index for index in range(len(lengths)) if index not in held_out]),
        _select(corpus, sorted(held_out)),
    )


def _split_single(corpus: Corpus, validation_fraction: float) -> tuple[Corpus, Corpus]:
    document = corpus.documents[0]
    if len(document) < 2:
        raise DataError(f"{corpus.names[0]} holds {len(document)} byte, too little to split", hint="Give more text.")
    cut = min(len(document) - 1, max(1, round((1 - validation_fraction) * len(document))))
    newline = np.flatnonzero(document[cut - 1 : cut + (len(document) - cut) // 2] == ord("\n"))
    if len(newline):
        cut += int(newline[0])
    return replace(corpus, documents=(document[:cut],)), replace(corpus, documents=(document[cut:],))


def _select(corpus: Corpus, indices: list[int]) -> Corpus:
    return Corpus(tuple(corpus.documents[i] for i in indices), tuple(corpus.names[i] for i in indices))
