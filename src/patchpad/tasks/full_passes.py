"""Scores windows by full passes: packed into rows, each read from its first byte to its last but one."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from patchpad.data.documents import MemoryDocuments
from patchpad.data.loader import Batch, PackedRows, counted
from patchpad.data.packing import pack_in_order
from patchpad.data.windows import Bounds
from patchpad.evaluation.bits_per_byte import not_finite
from patchpad.model.language_model import LanguageModel
from patchpad.model.precision import autocast
from patchpad.tasks.compute import ComputeTally


@dataclass(frozen=True)
class Window:
    """Bytes that a model reads at once: what is given, and what is scored. Together at most `context_bytes`."""

    context: bytes
    continuation: bytes

    @property
    def num_bytes(self) -> int:
        """Bytes of both."""
        return len(self.context) + len(self.continuation)


@dataclass(frozen=True)
class WindowScore:
    """What a model says about a window."""

    nats: float
    """-ln p of the continuation given the context."""
    is_greedy: bool


def score_by_full_passes(
    model: LanguageModel,
    windows: Sequence[Window],
    threshold: float | None,
    tally: ComputeTally,
    *,
    batch_positions: int,
) -> list[WindowScore]:
    """Returns the score of each window, in order.

    Args:
        model: in eval mode.
        windows: a separator is put before each, and its last byte is not read.
        threshold: one scratchpad threshold in nats; None for the stored one.
        tally: what the passes took is added to it.
        batch_positions: about how many positions a pass has.

    Raises:
        TrainingError: the model predicts nan or inf.
    """
    decisions = model.decisions(threshold, batch=1)
    nats: list[np.ndarray] = []
    hits: list[np.ndarray] = []
    token_bytes: list[int] = []
    for batch in _batches(windows, model.config.context_bytes, batch_positions):
        batch = batch.to(model.device)
        with torch.no_grad(), autocast(model.device):
            predicted = model.predict_targets(batch.byte_ids, batch.targets, decisions)
        of_bytes = predicted.nats[batch.is_byte]
        if not bool(of_bytes.isfinite().all()):
            raise not_finite()
        nats.append(of_bytes.double().cpu().numpy())
        is_target = counted(predicted.targets)
        wanted = predicted.targets[is_target]
        hits.append((predicted.logits[is_target].argmax(dim=-1) == wanted).cpu().numpy())
        token_bytes += [len(model.bytes_of(target) or b"") for target in wanted.tolist()]
        tally.add_counts(predicted.counts())
    tally.count_windows([(window.num_bytes, len(window.continuation)) for window in windows])
    tally.bytes_read += sum(window.num_bytes for window in windows)
    return _by_window(windows, np.concatenate(nats), np.concatenate(hits), np.array(token_bytes))


def _batches(windows: Sequence[Window], context_bytes: int, batch_positions: int) -> Iterator[Batch]:
    """Packs windows into rows, in their order, and yields rows of about `batch_positions` together."""
    texts = [np.frombuffer(window.context + window.continuation, dtype=np.uint8) for window in windows]
    bounds = Bounds(
        document=np.arange(len(windows)),
        begin=np.zeros(len(windows), dtype=np.int64),
        num_bytes=np.array([window.num_bytes for window in windows]),
        num_ignored=np.array([len(window.context) for window in windows]),
        is_last=np.zeros(len(windows), dtype=bool),  # so nothing reads the last byte, or predicts an end
    )
    ends = pack_in_order(bounds.num_positions, context_bytes)
    batch_rows = max(1, batch_positions // context_bytes)
    for row in range(0, len(ends), batch_rows):
        begin, batch_ends = (ends[row - 1] if row else 0), ends[row : row + batch_rows]
        packed = PackedRows(
            documents=MemoryDocuments(texts),
            bounds=bounds.select(np.arange(begin, batch_ends[-1])),
            ends=batch_ends - begin,
        )
        yield packed.batch(range(len(batch_ends)), packed.width)


def _by_window(
    windows: Sequence[Window], nats: np.ndarray, hits: np.ndarray, token_bytes: np.ndarray
) -> list[WindowScore]:
    """Sums what is known of each counted byte, [byte], and each counted token, [token]; both in the windows' order.

    A byte model's tokens are its bytes. No token belongs to two windows.
    """
    sizes = np.array([len(window.continuation) for window in windows])
    begins = sizes.cumsum() - sizes
    first_token = np.searchsorted(token_bytes.cumsum() - token_bytes, begins)
    sums = np.add.reduceat(nats, begins)
    are_greedy = np.logical_and.reduceat(hits, first_token)
    return [WindowScore(*pair) for pair in zip(sums.tolist(), are_greedy.tolist(), strict=True)]


__all__ = ["Window", "WindowScore", "score_by_full_passes"]
