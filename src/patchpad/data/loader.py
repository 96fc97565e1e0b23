"""Batches: rows of packed windows, in an order that follows from the seed and the step number alone."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch

from patchpad.config import PADDING, SEPARATOR
from patchpad.data.corpus import Corpus
from patchpad.data.documents import Documents, JoinedDocuments
from patchpad.data.mixture import Quotas, TextSource
from patchpad.data.packing import pack_in_order
from patchpad.data.rows import SourceRows
from patchpad.data.windows import IGNORED_TARGET, Bounds, Windows
from patchpad.device import moved
from patchpad.shapes import ByteIds, ByteMask

WINDOWS_AT_ONCE = 1 << 16
"""Windows that an evaluation packs at once, so that their number costs no memory."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Rows of packed windows, with the counts that the host knows without asking the device; see `of`."""

    byte_ids: ByteIds
    targets: ByteIds
    """Next id; `IGNORED_TARGET` where nothing is predicted or counted."""
    num_targets: int
    """Predictions that are trained on, ends of documents included."""
    num_bytes: int
    """Predicted bytes, the unit of bits per byte."""
    num_bytes_read: int
    """Ids that are bytes: neither separators nor padding."""

    @staticmethod
    def of(byte_ids: ByteIds, targets: ByteIds) -> "Batch":
        """Makes a batch of ids and targets on the CPU, and counts them."""
        return Batch(
            byte_ids=byte_ids,
            targets=targets,
            num_targets=int((targets != IGNORED_TARGET).sum()),
            num_bytes=int(counted(targets).sum()),
            num_bytes_read=int((byte_ids < SEPARATOR).sum()),
        )

    @property
    def is_byte(self) -> ByteMask:
        """Where a byte is predicted that counts."""
        return counted(self.targets)

    def to(self, device: torch.device) -> "Batch":
        """Returns a batch of the host on a device; a copy to CUDA is only begun."""
        return replace(self, byte_ids=moved(self.byte_ids, device), targets=moved(self.targets, device))

    def pinned(self) -> "Batch":
        """Returns the batch in pinned memory, from which CUDA copies while the processor goes on."""
        return replace(self, byte_ids=self.byte_ids.pin_memory(), targets=self.targets.pin_memory())


@dataclass(frozen=True, kw_only=True)
class BatchCounts:
    """What is in a whole batch, known from the lengths of its windows, however many ranks share its rows."""

    num_targets: int
    """Predictions that are trained on, ends of documents included."""
    num_bytes: int
    """Predicted bytes, the unit of bits per byte."""
    num_bytes_read: int
    """Ids that are bytes: neither separators nor padding."""
    num_positions: int
    """Rows times width."""
    num_padding: int
    """Positions that hold nothing."""


def counted(targets: ByteIds) -> ByteMask:
    """Returns where a target is a byte that counts: neither ignored nor the end of a document."""
    return (targets != IGNORED_TARGET) & (targets != SEPARATOR)


@dataclass(frozen=True, kw_only=True)
class PackedRows:
    """Rows of windows, as they are known before any text is read."""

    documents: Documents
    bounds: Bounds
    """Of the windows, row after row."""
    ends: np.ndarray
    """Windows in all rows up to and including each, [row]."""

    @property
    def width(self) -> int:
        """Positions of the longest row."""
        return int(np.add.reduceat(self.bounds.num_positions, [0, *self.ends[:-1]]).max())

    def counts(self, width: int) -> BatchCounts:
        """Returns what is in the rows, each with `width` positions."""
        num_bytes = int(self.bounds.num_counted_bytes.sum())
        num_filled, num_positions = int(self.bounds.num_positions.sum()), len(self.ends) * width
        return BatchCounts(
            num_targets=num_bytes + int(self.bounds.is_last.sum()),
            num_bytes=num_bytes,
            num_bytes_read=num_filled - len(self.bounds),
            num_positions=num_positions,
            num_padding=num_positions - num_filled,
        )

    def batch(self, rows: range, width: int) -> Batch:
        """Reads some of the rows, each padded at its end to `width` positions."""
        shape = (len(rows), width)
        ids, targets = np.full(shape, PADDING, dtype=np.int64), np.full(shape, IGNORED_TARGET, dtype=np.int64)
        sizes = self.bounds.num_positions.tolist()
        for number, row in enumerate(rows):
            place = 0
            for window in range(self.ends[row - 1] if row else 0, self.ends[row]):
                end = place + sizes[window]
                self.bounds.read(window, self.documents, ids[number, place:end], targets[number, place:end])
                place = end
        return Batch.of(torch.from_numpy(ids), torch.from_numpy(targets))


class TrainingBatches:
    """Batches for training. Row r of the run follows from (seed, r) alone, whoever reads it.

    So a run goes on from the number of its steps, on any number of ranks, and skips and repeats nothing.

    Args:
        sources: texts that share the rows by their weights, or a corpus alone; each has epochs of its own, in which
            all its windows are visited once.
        context_bytes: most bytes of a window; a row has one position more.
        batch_rows: of a batch.
        seed: of the order.
        width: positions of each row, padding included; None for those of a batch's longest row.
    """

    def __init__(
        self,
        sources: Corpus | Sequence[TextSource],
        *,
        context_bytes: int,
        batch_rows: int,
        seed: int,
        width: int | None = None,
    ) -> None:
        self.sources = [TextSource(corpus=sources)] if isinstance(sources, Corpus) else list(sources)
        self.rows = [SourceRows(part.corpus, context_bytes, seed=seed, name=part.name) for part in self.sources]
        """Of each source."""
        self.batch_rows = batch_rows
        self.width = width
        self._quotas = Quotas([part.weight for part in self.sources], seed=seed)
        self._documents = JoinedDocuments([part.corpus.documents for part in self.sources])
        self._begins = np.cumsum([0, *(len(part.corpus.documents) for part in self.sources)])
        self._packed = lru_cache(maxsize=64)(self._pack)

    def batch(self, index: int, rows: range | None = None) -> Batch:
        """Returns the batch number `index`, counted from 0 over all epochs.

        Args:
            index: of the batch.
            rows: those of its rows to return, from 0 to below `batch_rows`, possibly none; None for all. They are as
                wide as the whole batch, so that all ranks that share it have the same width.
        """
        packed = self._packed(index)
        return packed.batch(range(self.batch_rows) if rows is None else rows, self.width or packed.width)

    def counts(self, index: int) -> BatchCounts:
        """Returns what is in the whole batch number `index`; reads no text."""
        packed = self._packed(index)
        return packed.counts(self.width or packed.width)

    def epochs(self, num_batches: int) -> dict[str, float]:
        """Returns how often each source has been visited in the first batches, by its name."""
        taken = self._quotas.taken(num_batches * self.batch_rows)
        return {
            part.name: count / rows.num_rows for part, count, rows in zip(self.sources, taken, self.rows, strict=True)
        }

    def _pack(self, index: int) -> PackedRows:
        first = index * self.batch_rows
        source_of_row, taken = self._quotas.sources(first, self.batch_rows), self._quotas.taken(first)
        parts, rows_of_windows = [], []
        for source in np.unique(source_of_row).tolist():
            rows = np.flatnonzero(source_of_row == source)
            visited = self.rows[source].visited(taken[source], len(rows))
            document, ordinal, sizes = self.rows[source].windows(visited)
            rows_of_windows.append(np.repeat(rows, sizes))
            bounds = self.rows[source].cutting.bounds(document, ordinal)
            parts.append(replace(bounds, document=bounds.document + self._begins[source]))
        row_of_window = np.concatenate(rows_of_windows)
        ends = np.bincount(row_of_window, minlength=self.batch_rows).cumsum()
        bounds = Bounds.joined(parts).select(np.argsort(row_of_window, kind="stable"))
        return PackedRows(documents=self._documents, bounds=bounds, ends=ends)


def padding_batch(width: int) -> Batch:
    """Returns one row of padding: what a rank runs that has no rows, where a pass takes all ranks."""
    return Batch.of(torch.full((1, width), PADDING), torch.full((1, width), IGNORED_TARGET))


def evaluation_batches(
    windows: Windows, *, row_positions: int, batch_rows: int, rank: int = 0, num_ranks: int = 1
) -> Iterator[Batch]:
    """Yields every window once, in document order, packed into rows.

    Args:
        windows: to read.
        row_positions: that a row may take at most.
        batch_rows: of a batch.
        rank: gets every `num_ranks`-th batch, and one of padding where others get one more.
        num_ranks: that share the batches.
    """
    number = 0
    most_windows = max(WINDOWS_AT_ONCE, (batch_rows + 1) * row_positions)
    first = 0
    while first < len(windows):
        chosen = np.arange(first, min(first + most_windows, len(windows)))
        bounds = windows.select(chosen).bounds
        ends = pack_in_order(bounds.num_positions, row_positions)
        if first + len(chosen) < len(windows):  # the last row may hold more, and the last batch more rows
            ends = ends[: (len(ends) - 1) // batch_rows * batch_rows]
        for row in range(0, len(ends), batch_rows):
            begin, batch_ends = (ends[row - 1] if row else 0), ends[row : row + batch_rows]
            packed = PackedRows(
                documents=windows.corpus.documents,
                bounds=bounds.select(np.arange(begin, batch_ends[-1])),
                ends=batch_ends - begin,
            )
            if number % num_ranks == rank:
                yield packed.batch(range(len(batch_ends)), packed.width)
            number += 1
        first += int(ends[-1])
    if 0 < number % num_ranks <= rank:
        yield padding_batch(row_positions)
