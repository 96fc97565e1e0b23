"""The rows of a source by number, found from the lengths of its documents and a seed, with few tables.

A window that a document's end does not cut short fills a row alone. The last windows of documents are packed: all
documents, in a random order, are taken in blocks, and each block is packed on its own. Kept are the rows per block, and
how the blocks that were packed last are packed.
"""

import hashlib
from bisect import bisect_right
from functools import lru_cache

import numpy as np

from patchpad.data.corpus import Corpus
from patchpad.data.packing import Packing, pack_tightly
from patchpad.data.shuffle import Shuffle
from patchpad.data.windows import Cutting

FULL_BLOCK = 1024
"""Documents in a block of those whose windows that fill a row are counted together."""
PACKED_BLOCK_ROWS = 256
"""About how many rows a block is packed into. The last one is not full, which costs half a row in a block."""
MOST_BLOCK_DOCUMENTS = 65_536
KEPT_DOCUMENTS = 1 << 22
"""Documents whose packing is kept; that of others is found again, in about a millisecond a row."""
ORDERED_AT_ONCE = 4096
"""Places of an epoch's order that are computed together."""
OPENED_AT_ONCE = 1 << 20
"""Documents whose lengths are read at once when the rows are counted; whole blocks."""


class SourceRows:
    """Rows of at most `context_bytes` + 1 positions, numbered from 0; each epoch visits all in an order of its own.

    Args:
        corpus: every window of it is in one row.
        context_bytes: most bytes of a window.
        seed: of packing and order.
        name: of the source; another name gives another order.
    """

    def __init__(self, corpus: Corpus, context_bytes: int, *, seed: int, name: str = "") -> None:
        self.cutting = Cutting(corpus=corpus, context_bytes=context_bytes)
        self._key = (seed, int.from_bytes(hashlib.sha256(name.encode()).digest()[:8]))
        num_documents = len(corpus.lengths)
        full_counts, packed_positions = [], 0
        for begin in range(0, num_documents, OPENED_AT_ONCE):
            documents = np.arange(begin, min(begin + OPENED_AT_ONCE, num_documents))
            counts = self._num_full(documents)
            full_counts.append(np.add.reduceat(counts, np.arange(0, len(counts), FULL_BLOCK)))
            packed_positions += int(self._packed_positions(documents).sum())
        self._full_ends = np.concatenate(full_counts).cumsum().tolist()
        documents_per_row = num_documents * (context_bytes + 1) / packed_positions
        self._block_documents = min(MOST_BLOCK_DOCUMENTS, round(PACKED_BLOCK_ROWS * documents_per_row))
        self._document_order = Shuffle(num_documents, *self._key, 0)
        self._full_block = lru_cache(maxsize=FULL_BLOCK)(self._count_full_block)
        self._packed_block = lru_cache(maxsize=max(1, KEPT_DOCUMENTS // self._block_documents))(self._pack_block)
        self._ordered = lru_cache(maxsize=8)(self._order_chunk)
        num_blocks = -(-num_documents // self._block_documents)
        packed_counts = [len(self._packed_block(block).ends) for block in range(num_blocks)]
        self._packed_ends = np.cumsum(packed_counts).tolist()
        self.num_full = self._full_ends[-1]
        """Rows that one window fills; those of packed windows follow."""
        self.num_rows = self.num_full + self._packed_ends[-1]

    def visited(self, first: int, count: int) -> np.ndarray:
        """Returns the rows at `count` places of the run, from place `first` on, counted from 0 over all epochs."""
        found: list[np.ndarray] = []
        while count:
            epoch, place = divmod(first, self.num_rows)
            chunk, begin = divmod(place, ORDERED_AT_ONCE)
            found.append(self._ordered(epoch, chunk)[begin : begin + count])
            first, count = first + len(found[-1]), count - len(found[-1])
        return np.concatenate(found)

    def windows(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns documents and ordinals of the windows in some rows, each [window], and their number, [row]."""
        documents, before_last = zip(*map(self._windows, rows.tolist()), strict=True)
        document = np.concatenate(documents)
        sizes = np.array([len(part) for part in documents])
        _, last = self.cutting.ordinals(document)
        return document, last - np.repeat(before_last, sizes), sizes

    def _windows(self, row: int) -> tuple[np.ndarray, int]:
        """Returns the documents of a row's windows, and how many windows of its document follow a lone one."""
        if row < self.num_full:
            block = bisect_right(self._full_ends, row)
            row -= self._full_ends[block - 1] if block else 0
            ends = self._full_block(block)
            place = int(ends.searchsorted(row, side="right"))
            return np.array([block * FULL_BLOCK + place]), int(ends[place]) - row
        row -= self.num_full
        block = bisect_right(self._packed_ends, row)
        row -= self._packed_ends[block - 1] if block else 0
        documents, ends = self._packed_block(block)
        return documents[ends[row - 1] if row else 0 : ends[row]], 0

    def _num_full(self, documents: np.ndarray) -> np.ndarray:
        first, last = self.cutting.ordinals(documents)
        return last - first

    def _packed_positions(self, documents: np.ndarray) -> np.ndarray:
        _, last = self.cutting.ordinals(documents)
        return self.cutting.corpus.lengths[documents] - last * self.cutting.context_bytes + 1

    def _count_full_block(self, block: int) -> np.ndarray:
        begin = block * FULL_BLOCK
        return self._num_full(np.arange(begin, min(begin + FULL_BLOCK, self._document_order.size))).cumsum()

    def _pack_block(self, block: int) -> Packing:
        """Returns how a block is packed, its items being numbers of documents."""
        begin = block * self._block_documents
        places = np.arange(begin, min(begin + self._block_documents, self._document_order.size))
        documents = self._document_order.at(places)
        order, ends = pack_tightly(self._packed_positions(documents), self.cutting.context_bytes + 1)
        return Packing(documents[order], ends)

    def _order_chunk(self, epoch: int, chunk: int) -> np.ndarray:
        """Returns the rows at `ORDERED_AT_ONCE` places of an epoch, fewer at its end."""
        begin = chunk * ORDERED_AT_ONCE
        places = np.arange(begin, min(begin + ORDERED_AT_ONCE, self.num_rows))
        return Shuffle(self.num_rows, *self._key, 1 + epoch).at(places)
