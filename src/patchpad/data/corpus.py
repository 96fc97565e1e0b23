"""Files, globs and directories become documents: arrays of bytes."""

import hashlib
import itertools
import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from patchpad.data.file_reading import descriptors_kept_free, read_documents
from patchpad.data.file_search import find_files
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

    def checksum(self) -> str:
        """SHA-256 over document lengths and every byte."""
        digest = hashlib.sha256(self._lengths().tobytes())
        for document in self.documents:
            digest.update(np.ascontiguousarray(document).data)
        return digest.hexdigest()

    def fingerprint(self) -> str:
        """SHA-256 over document lengths and bytes: all of up to 4 MiB, evenly spread samples of larger texts.

        It names a text beside results. A change between the samples is not seen: see `checksum`.
        """
        if self.num_bytes <= FINGERPRINT_SAMPLES * FINGERPRINT_SAMPLE_BYTES:
            return self.checksum()
        lengths = self._lengths()
        digest = hashlib.sha256(lengths.tobytes())
        ends = lengths.cumsum()
        for place in np.linspace(0, ends[-1] - 1, FINGERPRINT_SAMPLES).astype(np.int64):
            index = int(np.searchsorted(ends, place, side="right"))
            begin = int(place - (ends[index] - lengths[index]))
            digest.update(self.documents[index][begin : begin + FINGERPRINT_SAMPLE_BYTES].tobytes())
        return digest.hexdigest()

    def _lengths(self) -> np.ndarray:
        return np.array([len(document) for document in self.documents], dtype="<i8")


def open_corpus(paths: Sequence[str | Path] | str | Path) -> Corpus:
    """Reads files, globs and directories (recursively, links followed, hidden names left out), in sorted order.

    A plain or compressed (.gz, .bz2, .xz) file is one document; each line of a .jsonl file is one, its `text` field.

    Raises:
        DataError: a path that matches nothing, an unreadable file or line, or no text at all.
    """
    return read_corpus(find_files([paths] if isinstance(paths, str | Path) else list(paths)).values())


def read_corpus(files: Collection[Path]) -> Corpus:
    """Reads files that `find_files` found.

    Raises:
        DataError: an unreadable file or line, or no text at all.
    """
    documents: list[np.ndarray] = []
    names: list[str] = []
    num_empty = 0
    with descriptors_kept_free():
        for name, document in itertools.chain.from_iterable(map(read_documents, files)):
            if len(document):
                documents.append(document)
                names.append(name)
            else:
                num_empty += 1
    if not documents:
        shown = [str(file) for file in itertools.islice(files, 3)] + ["..."] * (len(files) > 3)
        message = f"{', '.join(shown)}: no text, only {num_empty} empty document(s)"
        raise DataError(message, hint="Give at least one byte of text.")
    if num_empty:
        logger.warning("%d empty document(s) have nothing to predict and are left out", num_empty)
    return Corpus(tuple(documents), tuple(names))
