"""Bits per byte along a list of thresholds, and nats of single bytes."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from patchpad.cost import cost
from patchpad.data import Batch, Corpus, Windows, cut_windows, evaluation_batches, open_corpus
from patchpad.data.windows import IGNORED_TARGET
from patchpad.errors import InputError
from patchpad.model.byte_lm import ByteLM, ByteLMOutput
from patchpad.model.precision import autocast
from patchpad.model.visibility import count_trunk_pairs
from patchpad.shapes import ByteFloats, ByteIds, Logits

DEFAULT_LIMIT_BYTES = 1_000_000
ROW_BATCH_BYTES = 16_384
"""Bytes per forward pass in evaluation."""


@dataclass(frozen=True, kw_only=True)
class Point:
    """Quality and compute of a model at one threshold. Rates are per byte of the text."""

    scratchpad_threshold_nats: float
    bits_per_byte: float
    num_bytes: int
    scratchpads_per_byte: float
    patches_per_byte: float
    trunk_calls_per_byte: float
    flops_per_byte: float
    trunk_cache_bytes_per_byte: float

    def to_dict(self) -> dict[str, Any]:
        """Returns the keys of `patchpad evaluate --json`."""
        return asdict(self)


@dataclass
class Tally:
    """Integer counts and fp64 sums of a pass over a text."""

    nats: float = 0.0
    num_bytes: int = 0
    num_commits: int = 0
    num_scratchpads: int = 0
    trunk_pairs: int = 0
    pooled_positions: int = 0
    num_positions: int = 0

    def add(self, batch: Batch, output: ByteLMOutput, *, scratchpads_see_scratchpads: bool) -> None:
        """Adds a batch."""
        is_byte = batch.is_byte
        self.nats += float(target_nats(output.logits, batch.targets)[is_byte].cpu().double().sum())
        self.num_bytes += int(is_byte.sum())
        layout = output.layout
        self.num_commits += int(layout.slot_is_commit.sum())
        self.num_scratchpads += layout.num_slots - int(layout.slot_is_commit.sum())
        self.trunk_pairs += count_trunk_pairs(layout, scratchpads_see_scratchpads=scratchpads_see_scratchpads)
        self.pooled_positions += int(layout.slot_num_bytes.sum())
        self.num_positions += int((~layout.documents.is_padding).sum())

    def point(self, model: ByteLM, threshold: float, window_bytes: int) -> Point:
        """Turns the tally into rates per byte.

        Args:
            model: gives the cost formulas.
            threshold: recorded as it is.
            window_bytes: bytes of all windows, those that overlap counted twice: what the trunk calls were spent on.
        """
        slots = self.num_commits + self.num_scratchpads
        patches_per_byte, scratchpads_per_byte = self.num_commits / window_bytes, self.num_scratchpads / window_bytes
        costs = cost(
            model.config,
            context_bytes=model.config.context_bytes,
            patches_per_byte=patches_per_byte,
            scratchpads_per_byte=scratchpads_per_byte,
            trunk_pairs_per_slot=self.trunk_pairs / slots if slots else 0.0,
            pooled_bytes_per_slot=self.pooled_positions / slots if slots else 0.0,
            positions_per_byte=self.num_positions / window_bytes,
        )
        return Point(
            scratchpad_threshold_nats=threshold,
            bits_per_byte=self.nats / (math.log(2) * self.num_bytes),
            num_bytes=self.num_bytes,
            scratchpads_per_byte=scratchpads_per_byte,
            patches_per_byte=patches_per_byte,
            trunk_calls_per_byte=slots / window_bytes,
            flops_per_byte=costs.flops_per_byte,
            trunk_cache_bytes_per_byte=costs.trunk_cache_bytes_per_byte,
        )


def target_nats(logits: Logits, targets: ByteIds) -> ByteFloats:
    """Returns -ln p of each target in fp32; 0 where the target is ignored."""
    flat = logits.float().flatten(0, 1)
    nats = F.cross_entropy(flat, targets.flatten(), ignore_index=IGNORED_TARGET, reduction="none")
    return nats.view_as(targets)


def evaluate(
    model: ByteLM,
    data: Corpus | Windows | str | Path | Sequence[str | Path],
    *,
    scratchpad_threshold_nats: Sequence[float] | float | None = None,
    limit_bytes: int = DEFAULT_LIMIT_BYTES,
    overlap_bytes: int = 0,
) -> list[Point]:
    """Measures bits per byte at each threshold, every byte of the chosen windows counted once.

    Args:
        model: in any mode; restored after.
        data: a corpus, its windows, or paths to read.
        scratchpad_threshold_nats: one or several; None for the stored threshold.
        limit_bytes: about how many bytes to use, in windows spread over all documents; 0 for all.
        overlap_bytes: bytes of context that each further window of a document repeats without counting them.

    Returns:
        One point per threshold, in the given order.

    Raises:
        DataError: unreadable or empty text.
        InputError: a threshold that is not a number, or that the model's trigger does not take.
    """
    windows = choose_windows(model, data, limit_bytes=limit_bytes, overlap_bytes=overlap_bytes)
    if scratchpad_threshold_nats is None:
        thresholds: list[float] = [float(model.scratchpad_threshold_nats)]
        given: list[float | None] = [None]
    else:
        one = isinstance(scratchpad_threshold_nats, int | float)
        thresholds = [float(scratchpad_threshold_nats)] if one else [float(t) for t in scratchpad_threshold_nats]
        given = list(thresholds)
    return [
        _tally(model, windows, threshold).point(model, recorded, int(windows.num_bytes.sum()))
        for threshold, recorded in zip(given, thresholds, strict=True)
    ]


def choose_windows(
    model: ByteLM,
    data: Corpus | Windows | str | Path | Sequence[str | Path],
    *,
    limit_bytes: int = DEFAULT_LIMIT_BYTES,
    overlap_bytes: int = 0,
) -> Windows:
    """Returns the windows that a measurement of `model` on `data` uses; the arguments are those of `evaluate`."""
    if isinstance(data, Windows):
        windows = data
    else:
        corpus = data if isinstance(data, Corpus) else open_corpus(data)
        windows = cut_windows(corpus, model.config.context_bytes, overlap_bytes)
    if limit_bytes < 0:
        raise InputError(f"limit_bytes is {limit_bytes}; allowed: 0 for all, or a number of bytes")
    return windows.limit(limit_bytes)


@torch.no_grad()
def _tally(model: ByteLM, windows: Windows, threshold: float | None) -> Tally:
    row_positions = model.config.context_bytes + 1
    batch_rows = max(1, ROW_BATCH_BYTES // row_positions)
    tally = Tally()
    was_training = model.training
    model.eval()
    try:
        for batch in evaluation_batches(windows, row_positions=row_positions, batch_rows=batch_rows):
            batch = batch.to(model.device)
            with autocast(model.device):
                output = model(batch.byte_ids, threshold)
            tally.add(batch, output, scratchpads_see_scratchpads=model.config.scratchpads_see_scratchpads)
    finally:
        model.train(was_training)
    return tally


@torch.no_grad()
def score(model: ByteLM, text: bytes | str, *, scratchpad_threshold_nats: float | None = None) -> np.ndarray:
    """Returns -ln p of each byte of a text given those before it in its window, [byte] of float32, in nats.

    Text longer than the model's `context_bytes` is cut into windows as in `evaluate`. Empty text gives an empty array.
    """
    data = np.frombuffer(text.encode("utf-8") if isinstance(text, str) else text, dtype=np.uint8)
    if not len(data):
        return np.empty(0, dtype=np.float32)
    windows = cut_windows(Corpus((data,), ("text",)), model.config.context_bytes)
    pieces = []
    for batch in evaluation_batches(windows, row_positions=model.config.context_bytes + 1, batch_rows=1):
        batch = batch.to(model.device)
        with autocast(model.device):
            nats = target_nats(model(batch.byte_ids, scratchpad_threshold_nats).logits, batch.targets)
        pieces.append(nats[batch.is_byte].cpu().numpy())
    return np.concatenate(pieces)
