"""A corpus: documents as arrays of bytes, in memory or in files."""

import hashlib
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import overload

import numpy as np

from patchpad.data.documents import Documents, DocumentView, JoinedDocuments, MemoryDocuments

FINGERPRINT_SAMPLES, FINGERPRINT_SAMPLE_BYTES = 1024, 4096


class Names(Sequence[str]):
    """Names of documents, each made when it is asked for.

    Args:
        count: of names.
        name: makes the name of a document's index.
    """

    def __init__(self, count: int, name: Callable[[int], str]) -> None:
        self._count, self.name = count, name

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[str]: ...
    def __getitem__(self, index: int | slice) -> str | Sequence[str]:
        numbers = range(self._count)[index]
        return self.name(numbers) if isinstance(numbers, int) else [self.name(number) for number in numbers]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and not isinstance(other, str) and list(self) == list(other)


def record_names(file: str, numbers: Sequence[int] | np.ndarray) -> Names:
    """Returns the names of documents that are records of a file: its path and their numbers, counted from 1."""
    return Names(len(numbers), lambda index: f"{file}:{numbers[index]}")


class Corpus:
    """Documents as arrays of uint8, none of them empty.

    Args:
        documents: in order. Arrays are taken as they are; `Documents` may be read from a file whenever one is asked
            for, so nobody goes through all of them to learn their sizes.
        names: file of each document, with the line for JSONL.
        prompt_bytes: bytes at the start of each document that are read as context, and neither trained on nor counted,
            [document] of int64, below its length; None: of no document.
    """

    def __init__(
        self, documents: Sequence[np.ndarray], names: Sequence[str], prompt_bytes: np.ndarray | None = None
    ) -> None:
        self.documents = documents if isinstance(documents, Documents) else MemoryDocuments(documents)
        self.names = names
        self.prompt_bytes = prompt_bytes

    @property
    def lengths(self) -> np.ndarray:
        """Bytes of each document, [document] of int64; reads none of them."""
        return self.documents.lengths

    @cached_property
    def num_bytes(self) -> int:
        """Bytes of all documents, prompts included."""
        return int(self.lengths.sum())

    @property
    def files(self) -> frozenset[str]:
        """The files that are read while documents are used; the others lie in memory."""
        return self.documents.files

    def read(self, document: int, begin: int, end: int) -> np.ndarray:
        """Returns the bytes of a document from `begin` to before `end` or its own end, [byte] of uint8.

        Raises:
            DataError: its file has gone, has shrunk or cannot be read.
        """
        return self.documents.read(document, begin, end)

    def select(self, indices: Sequence[int] | np.ndarray) -> "Corpus":
        """Returns the documents at `indices`, in that order."""
        return self.cut(np.asarray(indices, dtype=np.int64))

    def cut(self, indices: np.ndarray, begins: np.ndarray | None = None, ends: np.ndarray | None = None) -> "Corpus":
        """Returns the documents at `indices`, or of each the bytes from `begins` to before `ends`."""
        lengths = None
        if begins is not None or ends is not None:
            lengths = (self.lengths[indices] if ends is None else ends) - (0 if begins is None else begins)
        prompt_bytes = self.prompt_bytes
        if prompt_bytes is not None:
            prompt_bytes = prompt_bytes[indices] if begins is None else np.maximum(prompt_bytes[indices] - begins, 0)
        names = self.names
        return Corpus(
            DocumentView(self.documents, indices, begins, lengths),
            Names(len(indices), lambda index: names[int(indices[index])]),
            prompt_bytes,
        )

    @staticmethod
    def join(corpora: Sequence["Corpus"]) -> "Corpus":
        """Returns the documents of several corpora as those of one."""
        if len(corpora) == 1:
            return corpora[0]
        prompts = None
        if any(corpus.prompt_bytes is not None for corpus in corpora):
            none = [np.zeros(len(corpus.lengths), dtype=np.int64) for corpus in corpora]
            known = [corpus.prompt_bytes for corpus in corpora]
            prompts = np.concatenate([b if a is None else a for a, b in zip(known, none, strict=True)])
        documents = JoinedDocuments([corpus.documents for corpus in corpora])

        def name(index: int) -> str:
            part, number = documents.place(index)
            return corpora[part].names[number]

        return Corpus(documents, Names(len(documents), name), prompts)

    def checksum(self) -> str:
        """SHA-256 over document lengths and every byte."""
        digest = self._digest_of_lengths()
        for index in range(len(self.lengths)):
            for piece in self.documents.pieces(index):
                digest.update(np.ascontiguousarray(piece).data)
        return digest.hexdigest()

    def fingerprint(self, *, most_read: int = FINGERPRINT_SAMPLES * FINGERPRINT_SAMPLE_BYTES) -> str:
        """SHA-256 over document lengths and bytes: all of up to `most_read`, evenly spread samples of larger texts.

        It names a text beside results. A change between the samples is not seen: see `checksum`.
        """
        if self.num_bytes <= most_read:
            return self.checksum()
        digest = self._digest_of_lengths()
        ends = self.lengths.cumsum()
        for place in np.linspace(0, ends[-1] - 1, FINGERPRINT_SAMPLES).astype(np.int64):
            index = int(np.searchsorted(ends, place, side="right"))
            begin = int(place - (ends[index] - self.lengths[index]))
            digest.update(self.read(index, begin, begin + FINGERPRINT_SAMPLE_BYTES).tobytes())
        return digest.hexdigest()

    def _digest_of_lengths(self) -> "hashlib._Hash":
        """Returns SHA-256 over the lengths of documents and, where there are any, of their prompts."""
        digest = hashlib.sha256(np.ascontiguousarray(self.lengths, dtype="<i8").data)
        if self.prompt_bytes is not None:
            digest.update(np.ascontiguousarray(self.prompt_bytes, dtype="<i8").data)
        return digest
