"""The documents of a corpus: arrays of bytes, in memory or in files that are read when they are asked for."""

import hashlib
import operator
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import SupportsIndex, overload

import numpy as np

from patchpad.data.open_files import OpenedFile, read_piece
from patchpad.errors import DataError

SMALLEST_MAPPED = 1 << 20
"""Smaller documents of files are read, larger ones mapped, when a whole one is asked for."""
PIECE_BYTES = 1 << 23
"""A document is read in pieces of this size where all of it has to be looked at."""


class Documents(Sequence[np.ndarray], ABC):
    """Documents whose lengths are known, and whose bytes are read when they are asked for."""

    @property
    @abstractmethod
    def lengths(self) -> np.ndarray:
        """Bytes of each document, [document] of int64."""

    @abstractmethod
    def read(self, index: int, begin: int, end: int) -> np.ndarray:
        """Returns the bytes of a document from `begin` to before `end` or its own end, [byte] of uint8.

        Raises:
            DataError: its file has gone, has shrunk or cannot be read.
        """

    @property
    def digests(self) -> np.ndarray | None:
        """What `digest` gives for each document, [document] of uint64, where it is known without reading any."""
        return None

    @property
    def files(self) -> frozenset[str]:
        """The files that are read while documents are used."""
        return frozenset()

    def digest(self, index: int) -> int:
        """Returns 64 bits of the SHA-256 of a document; reads all of it, unless they are known."""
        known = self.digests
        return int(known[index]) if known is not None else digest_of(self.pieces(index))

    def pieces(self, index: int) -> Iterator[np.ndarray]:
        """Yields the bytes of a document in order, a few at a time."""
        length = int(self.lengths[index])
        for begin in range(0, length, PIECE_BYTES):
            yield self.read(index, begin, min(begin + PIECE_BYTES, length))

    def __len__(self) -> int:
        return len(self.lengths)

    @overload
    def __getitem__(self, index: SupportsIndex) -> np.ndarray: ...
    @overload
    def __getitem__(self, index: slice) -> "Documents": ...
    def __getitem__(self, index: SupportsIndex | slice) -> "np.ndarray | Documents":
        if isinstance(index, slice):
            return DocumentView(self, np.arange(len(self))[index])
        number = operator.index(index)
        number += len(self) if number < 0 else 0
        if not 0 <= number < len(self):
            raise IndexError(f"document {index} of {len(self)}")
        return self._whole(number)

    def __iter__(self) -> Iterator[np.ndarray]:
        return map(self._whole, range(len(self)))

    def _whole(self, index: int) -> np.ndarray:
        return self.read(index, 0, int(self.lengths[index]))


def digest_of(pieces: Iterator[np.ndarray]) -> int:
    """Returns 64 bits of the SHA-256 of bytes, by which equal documents are recognised."""
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(np.ascontiguousarray(piece).data)
    return int.from_bytes(digest.digest()[:8], "little")


class MemoryDocuments(Documents):
    """Documents in memory, each an array of its own."""

    def __init__(self, arrays: Sequence[np.ndarray]) -> None:
        self.arrays = tuple(arrays)

    @cached_property
    def lengths(self) -> np.ndarray:
        """Bytes of each document, [document] of int64."""
        return np.fromiter(map(len, self.arrays), dtype=np.int64, count=len(self.arrays))

    def read(self, index: int, begin: int, end: int) -> np.ndarray:
        """Returns a part of a document."""
        return self.arrays[index][begin:end]

    def _whole(self, index: int) -> np.ndarray:
        return self.arrays[index]


class PackedDocuments(Documents):
    """Documents in memory that lie in one array.

    Args:
        content: all bytes, [byte] of uint8.
        begins: place of each document's first byte, [document] of int64.
        lengths: bytes of each, [document] of int64.
    """

    def __init__(self, content: np.ndarray, begins: np.ndarray, lengths: np.ndarray) -> None:
        self.content, self.begins = content, begins
        self._lengths = lengths

    @property
    def lengths(self) -> np.ndarray:
        """Bytes of each document, [document] of int64."""
        return self._lengths

    def read(self, index: int, begin: int, end: int) -> np.ndarray:
        """Returns a part of a document."""
        first = int(self.begins[index])
        return self.content[first + begin : first + min(end, int(self._lengths[index]))]


class FileDocuments(Documents):
    """Documents that lie in files and stay there.

    Args:
        files: in an order in which their bytes are numbered through.
        begins: number of each document's first byte, [document] of int64; no document goes on in the next file.
        lengths: bytes of each, [document] of int64; may be mapped from a file themselves, as may the others.
        digests: see `Documents.digests`.
    """

    def __init__(
        self, files: Sequence[OpenedFile], begins: np.ndarray, lengths: np.ndarray, digests: np.ndarray | None = None
    ) -> None:
        self.opened = tuple(files)
        self.begins = begins
        self._lengths, self._digests = lengths, digests
        self.ends_of_files = np.cumsum([file.num_bytes for file in files]).tolist()

    @property
    def lengths(self) -> np.ndarray:
        """Bytes of each document, [document] of int64."""
        return self._lengths

    @property
    def digests(self) -> np.ndarray | None:
        """What `digest` gives for each document, where it is known."""
        return self._digests

    @property
    def files(self) -> frozenset[str]:
        """The files in which the documents lie."""
        return frozenset(file.path for file in self.opened)

    def read(self, index: int, begin: int, end: int) -> np.ndarray:
        """Reads a part of a document."""
        end = min(end, int(self._lengths[index]))
        file, first = self._place(index)
        return np.frombuffer(read_piece(file, first + begin, first + end), dtype=np.uint8)

    def _whole(self, index: int) -> np.ndarray:
        length = int(self._lengths[index])
        if length < SMALLEST_MAPPED:
            return self.read(index, 0, length)
        file, first = self._place(index)
        try:
            return np.memmap(file.path, dtype=np.uint8, mode="r", offset=first, shape=(length,))
        except (OSError, ValueError) as error:  # ValueError: the file is shorter
            raise DataError(
                f"cannot read {file.path}: {error}", hint="Check that the file is complete and readable."
            ) from error

    def _place(self, index: int) -> tuple[OpenedFile, int]:
        """Returns the file of a document, and the place of its first byte there."""
        begin = int(self.begins[index])
        if not 0 <= begin < self.ends_of_files[-1]:
            raise DataError(
                f"document {index} begins at byte {begin} of {self.ends_of_files[-1]} in {self.opened[0].path} and on",
                hint="What says where documents lie is damaged: compare checksums, patchpad prepare --verify CORPUS.",
            )
        number = bisect_right(self.ends_of_files, begin)
        return self.opened[number], begin - (self.ends_of_files[number - 1] if number else 0)


class JoinedDocuments(Documents):
    """The documents of several sequences, one sequence after the other."""

    def __init__(self, parts: Sequence[Documents]) -> None:
        self.parts = tuple(parts)
        self.ends = np.cumsum([len(part) for part in self.parts]).tolist()

    @cached_property
    def lengths(self) -> np.ndarray:
        """Bytes of each document, [document] of int64."""
        return np.concatenate([part.lengths for part in self.parts])

    @cached_property
    def digests(self) -> np.ndarray | None:
        """What `digest` gives for each document, where it is known of all."""
        known = [part.digests for part in self.parts]
        return None if any(part is None for part in known) else np.concatenate(known)  # pyrefly: ignore

    @property
    def files(self) -> frozenset[str]:
        """The files in which documents lie."""
        return frozenset().union(*(part.files for part in self.parts))

    def digest(self, index: int) -> int:
        """Returns 64 bits of the SHA-256 of a document."""
        part, number = self.place(index)
        return self.parts[part].digest(number)

    def read(self, index: int, begin: int, end: int) -> np.ndarray:
        """Returns a part of a document."""
        part, number = self.place(index)
        return self.parts[part].read(number, begin, end)

    def _whole(self, index: int) -> np.ndarray:
        part, number = self.place(index)
        return self.parts[part]._whole(number)

    def place(self, index: int) -> tuple[int, int]:
        """Returns the part of a document, and its index there."""
        part = bisect_right(self.ends, index)
        return part, index - (self.ends[part - 1] if part else 0)


class DocumentView(Documents):
    """Chosen documents of a sequence, or parts of them.

    Args:
        documents: to choose from.
        indices: of the chosen ones, [chosen] of int64.
        begins: first byte of each that belongs to the view, [chosen] of int64; None: the first of all.
        lengths: bytes of each that belong to it, [chosen] of int64; None: all.
    """

    def __init__(
        self,
        documents: Documents,
        indices: np.ndarray,
        begins: np.ndarray | None = None,
        lengths: np.ndarray | None = None,
    ) -> None:
        self.documents, self.indices, self.begins = documents, indices, begins
        self._lengths = lengths

    @cached_property
    def lengths(self) -> np.ndarray:
        """Bytes of each document, [document] of int64."""
        return self.documents.lengths[self.indices] if self._lengths is None else self._lengths

    @property
    def is_of_whole_documents(self) -> bool:
        """Whether nothing is cut off any document."""
        return self.begins is None and self._lengths is None

    @cached_property
    def digests(self) -> np.ndarray | None:
        """What `digest` gives for each document, where it is known."""
        known = self.documents.digests
        return known[self.indices] if known is not None and self.is_of_whole_documents else None

    @property
    def files(self) -> frozenset[str]:
        """The files in which documents lie, those that were not chosen included."""
        return self.documents.files

    def digest(self, index: int) -> int:
        """Returns 64 bits of the SHA-256 of a document."""
        original = int(self.indices[index])
        is_whole = self.lengths[index] == self.documents.lengths[original]
        return self.documents.digest(original) if is_whole else super().digest(index)

    def read(self, index: int, begin: int, end: int) -> np.ndarray:
        """Returns a part of a document."""
        first = 0 if self.begins is None else int(self.begins[index])
        end = min(end, int(self.lengths[index]))
        return self.documents.read(int(self.indices[index]), first + begin, first + end)

    def _whole(self, index: int) -> np.ndarray:
        whole = self.documents._whole(int(self.indices[index]))
        if self.is_of_whole_documents:
            return whole
        first = 0 if self.begins is None else int(self.begins[index])
        return whole[first : first + int(self.lengths[index])]
