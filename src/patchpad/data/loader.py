"""Batches: windows packed into rows, in an order that follows from the seed and the step number alone."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch

from patchpad.config import PADDING, SEPARATOR
from patchpad.data.windows import IGNORED_TARGET, Windows
from patchpad.device import moved
from patchpad.shapes import ByteIds, ByteMask


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
    """Rows times width, padding included."""


def counted(targets: ByteIds) -> ByteMask:
    """Returns where a target is a byte that counts: neither ignored nor the end of a document."""
    return (targets != IGNORED_TARGET) & (targets != SEPARATOR)


def make_batch(windows: Windows, rows: list[np.ndarray], width: int | None = None) -> Batch:
    """Builds a batch whose row i holds the windows at indices `rows[i]`, padded at its end.

    Args:
        windows: to choose from.
        rows: indices of windows.
        width: positions of a row; None for those of the longest one.
    """
    width = width or longest_row(windows, rows)
    ids = np.full((len(rows), width), PADDING, dtype=np.int64)
    targets = np.full((len(rows), width), IGNORED_TARGET, dtype=np.int64)
    for number, row in enumerate(rows):
        place = 0
        for index in row.tolist():
            window_ids, window_targets = windows.ids_and_targets(index)
            ids[number, place : place + len(window_ids)] = window_ids
            targets[number, place : place + len(window_ids)] = window_targets
            place += len(window_ids)
    return Batch.of(torch.from_numpy(ids), torch.from_numpy(targets))


def longest_row(windows: Windows, rows: list[np.ndarray]) -> int:
    """Returns the positions of the longest of some rows."""
    return max(int(windows.num_positions[row].sum()) for row in rows)


def pack_rows(num_positions: np.ndarray, order: np.ndarray, row_positions: int) -> list[np.ndarray]:
    """Packs windows, in the given order, into rows of at most `row_positions`; returns each row's window indices."""
    ends = num_positions[order].cumsum()
    rows = []
    first = 0
    while first < len(order):
        used = ends[first - 1] if first else 0
        last = max(first + 1, int(np.searchsorted(ends, used + row_positions, side="right")))
        rows.append(order[first:last])
        first = last
    return rows


class TrainingBatches:
    """Batches for training. Row r of the run is found from (seed, r), so that resuming needs the step number only.

    Windows are packed once, in an order shuffled by the seed; every epoch visits all rows in an order of its own.

    Args:
        windows: all of them are visited.
        row_positions: that a row may take at most.
        batch_rows: of a batch.
        seed: of the order.
        width: positions of each row, padding included; None for those of a batch's longest row.
    """

    def __init__(
        self, windows: Windows, *, row_positions: int, batch_rows: int, seed: int, width: int | None = None
    ) -> None:
        order = self._generator(seed, 0).permutation(len(windows))
        self.windows = windows
        self.rows = pack_rows(windows.num_positions, order, row_positions)
        self.batch_rows = batch_rows
        self.seed = seed
        self.width = width
        self._epoch_order = lru_cache(maxsize=2)(self._shuffle_epoch)

    def batch(self, index: int, rows: range | None = None) -> Batch:
        """Returns the batch number `index`, counted from 0 over all epochs.

        Args:
            index: of the batch.
            rows: those of its rows to return, from 0 to below `batch_rows`, possibly none; None for all. They are as
                wide as the whole batch, so that all ranks that share it have the same width.
        """
        chosen = self._rows(index)
        width = self.width or longest_row(self.windows, chosen)
        return make_batch(self.windows, chosen if rows is None else chosen[rows.start : rows.stop], width)

    def counts(self, index: int) -> BatchCounts:
        """Returns what is in the whole batch number `index`; reads no text."""
        rows = self._rows(index)
        chosen = self.windows.select(np.concatenate(rows))
        num_bytes = int(chosen.num_counted_bytes.sum())
        return BatchCounts(
            num_targets=num_bytes + int(chosen.is_last.sum()),
            num_bytes=num_bytes,
            num_bytes_read=int(chosen.num_positions.sum()) - len(chosen),
            num_positions=len(rows) * (self.width or longest_row(self.windows, rows)),
        )

    def _rows(self, index: int) -> list[np.ndarray]:
        first = index * self.batch_rows
        return [self._row(number) for number in range(first, first + self.batch_rows)]

    def _row(self, number: int) -> np.ndarray:
        epoch, place = divmod(number, len(self.rows))
        return self.rows[self._epoch_order(epoch)[place]]

    def _shuffle_epoch(self, epoch: int) -> np.ndarray:
        return self._generator(self.seed, epoch + 1).permutation(len(self.rows))

    @staticmethod
    def _generator(seed: int, stream: int) -> np.random.Generator:
        return np.random.Generator(np.random.Philox(key=np.array([seed, stream], dtype=np.uint64)))


def evaluation_batches(windows: Windows, *, row_positions: int, batch_rows: int) -> Iterator[Batch]:
    """Yields every window once, in document order, packed into rows."""
    rows = pack_rows(windows.num_positions, np.arange(len(windows)), row_positions)
    for first in range(0, len(rows), batch_rows):
        yield make_batch(windows, rows[first : first + batch_rows])
