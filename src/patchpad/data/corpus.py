"""Files, globs and directories become documents: arrays of bytes."""

import hashlib
import itertools
import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
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

    documents: Sequence[np.ndarray]
    """In order. A sequence with an attribute `lengths`, [document] of int64, need not have read its documents: one may
    be read from a file whenever it is asked for, so nobody goes through all of them to learn their sizes."""
    names: Sequence[str]
    """File of each document, with the line for JSONL."""
    prompt_bytes: np.ndarray | None = None
    """Bytes at the start of each document that are read as context, and neither trained on nor counted, [document] of
    int64, below `lengths`; None: of no document."""

    @cached_property
    def lengths(self) -> np.ndarray:
        """Bytes of each document, [document] of int64; reads none of them."""
        known = getattr(self.documents, "lengths", None)
        if known is not None:
            return known
        return np.fromiter(map(len, self.documents), dtype=np.int64, count=len(self.documents))

    @property
    def num_bytes(self) -> int:
        """Bytes of all documents, prompts included."""
        return int(self.lengths.sum())

    def select(self, indices: Sequence[int] | np.ndarray) -> "Corpus":
        """Returns the documents at `indices`, in that order."""
        prompt_bytes = self.prompt_bytes
        return Corpus(
            tuple(self.documents[index] for index in indices),
            tuple(self.names[index] for index in indices),
            None if prompt_bytes is None else prompt_bytes[np.asarray(indices, dtype=np.int64)],
        )

    def checksum(self) -> str:
        """SHA-256 over document lengths and every byte."""
        digest = self._digest_of_lengths()
        for document in self.documents:
            digest.update(np.ascontiguousarray(document).data)
        return digest.hexdigest()

    def fingerprint(self) -> str:
        """SHA-256 over document lengths and bytes: all of up to 4 MiB, evenly spread samples of larger texts.

        It names a text beside results. A change between the samples is not seen: see `checksum`.
        """
        if self.num_bytes <= FINGERPRINT_SAMPLES * FINGERPRINT_SAMPLE_BYTES:
            return self.checksum()
        lengths = self.lengths
        digest = self._digest_of_lengths()
        ends = lengths.cumsum()
        for place in np.linspace(0, ends[-1] - 1, FINGERPRINT_SAMPLES).astype(np.int64):
            index = int(np.searchsorted(ends, place, side="right"))
            begin = int(place - (ends[index] - lengths[index]))
            digest.update(self.documents[index][begin : begin + FINGERPRINT_SAMPLE_BYTES].tobytes())
        return digest.hexdigest()

    def _digest_of_lengths(self) -> "hashlib._Hash":
        """Returns SHA-256 over the lengths of documents and, where there are any, of their prompts."""
        digest = hashlib.sha256(self.lengths.astype("<i8", copy=False).data)
        if self.prompt_bytes is not None:
            digest.update(self.prompt_bytes.astype("<i8", copy=False).data)
        return digest


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
