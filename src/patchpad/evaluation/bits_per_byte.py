"""Bits per byte along a list of thresholds, and nats of single bytes."""

import math
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, astuple, dataclass
from pathlib import Path
from typing import Any, Protocol, SupportsFloat, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from patchpad.cost import cost
from patchpad.data import Batch, Corpus, Windows, cut_windows, evaluation_batches, open_corpus
from patchpad.device import wide_dtype
from patchpad.errors import InputError, TrainingError, integer_or_none
from patchpad.model.language_model import LanguageModel
from patchpad.model.outputs import Predicted
from patchpad.model.precision import autocast
from patchpad.model.wrapped import unwrapped
from patchpad.patching import ThresholdLike, threshold_values
from patchpad.text import encode_text

DEFAULT_LIMIT_BYTES = 1_000_000
ROW_BATCH_BYTES = 16_384
"""Bytes per forward pass in evaluation."""


@dataclass(frozen=True, kw_only=True)
class Point:
    """Quality and compute of a model at one threshold.

    Bits and FLOPs are per counted byte. The other rates are per byte that is read. The two differ only if windows
    overlap: bytes that are read again as context cost FLOPs, but are not counted. Compute (patches plus scratchpads per
    byte) does not depend on the overlap.
    """

    scratchpad_threshold_nats: float
    bits_per_byte: float
    num_bytes: int
    """Counted bytes. Each counts once."""
    scratchpads_per_byte: float
    """Per byte read."""
    patches_per_byte: float
    """Per byte read."""
    trunk_calls_per_byte: float
    """Patches and scratchpads per byte read: compute, as `--compute` and the calibration mean it."""
    flops_per_byte: float
    """Forward FLOPs for each byte that counts, those of repeated context included."""
    trunk_cache_bytes_per_byte: float
    """Of fp32 keys and values, per byte read: it is context, whether it counts or not."""

    def to_dict(self) -> dict[str, Any]:
        """Returns the keys of `patchpad evaluate --json`."""
        return asdict(self)


@runtime_checkable
class Ranks(Protocol):
    """Processes that share a measurement; see `patchpad.training.parallel`."""

    rank: int
    num_ranks: int

    def sum(self, tensor: Tensor) -> Tensor:
        """Returns the sum of a tensor over all ranks."""
        ...


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

    def add(self, batch: Batch, predicted: Predicted) -> None:
        """Adds a batch; two reads from the device."""
        nats = torch.where(batch.is_byte, predicted.nats, 0)
        self.nats += float(nats.sum(dtype=wide_dtype(nats.device)))
        self.num_bytes += batch.num_bytes
        for name, count in predicted.counts().items():
            setattr(self, name, getattr(self, name) + count)

    def point(self, model: LanguageModel, threshold: float, windows: Windows) -> Point:
        """Turns the tally into rates, as `Point` defines them.

        Args:
            model: gives the cost formulas.
            threshold: recorded as it is.
            windows: what was read. Bytes that overlap are read again and count again.
        """
        window_bytes = int(windows.bounds.num_bytes.sum())
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
            document_positions=windows.bounds.num_positions.tolist(),
        )
        return Point(
            scratchpad_threshold_nats=threshold,
            bits_per_byte=self.nats / (math.log(2) * self.num_bytes),
            num_bytes=self.num_bytes,
            scratchpads_per_byte=scratchpads_per_byte,
            patches_per_byte=patches_per_byte,
            trunk_calls_per_byte=slots / window_bytes,
            flops_per_byte=costs.flops_per_byte * (window_bytes / self.num_bytes),
            trunk_cache_bytes_per_byte=costs.trunk_cache_bytes_per_byte,
        )


def evaluate(
    model: LanguageModel,
    data: Corpus | Windows | str | Path | Sequence[str | Path],
    *,
    scratchpad_threshold_nats: ThresholdLike = None,
    limit_bytes: int = DEFAULT_LIMIT_BYTES,
    overlap_bytes: int = 0,
    ranks: Ranks | None = None,
) -> list[Point]:
    """Measures bits per byte at each threshold, every byte of the chosen windows counted once.

    Args:
        model: in any mode; restored after.
        data: a corpus, its windows, or paths to read.
        scratchpad_threshold_nats: one or several; None for the stored threshold.
        limit_bytes: about how many bytes to use, in windows spread over all documents; 0 for all.
        overlap_bytes: bytes of context that each further window of a document repeats without counting them; what they
            cost is in `flops_per_byte`.
        ranks: that share the windows, in training; None for one process.

    Returns:
        One point per threshold, in the given order.

    Raises:
        DataError: unreadable or empty text.
        TrainingError: the model predicts nan or inf.
        InputError: something else than a model or than paths, or a threshold that is not a number or that the trigger
            does not take.
    """
    model = unwrapped(model)
    windows = choose_windows(model, data, limit_bytes=limit_bytes, overlap_bytes=overlap_bytes)
    if scratchpad_threshold_nats is None:
        thresholds: list[float] = [float(model.scratchpad_threshold_nats)]
        given: list[float | None] = [None]
    else:
        thresholds = _thresholds(scratchpad_threshold_nats)
        given = list(thresholds)
    return [
        _tally(model, windows, threshold, ranks).point(model, recorded, windows)
        for threshold, recorded in zip(given, thresholds, strict=True)
    ]


def _thresholds(given: SupportsFloat | Sequence[float]) -> list[float]:
    values = threshold_values(given, several="a list of these")
    if values.dim() > 1:
        shape = list(values.shape)
        raise InputError(f"scratchpad_threshold_nats has the shape {shape}; allowed: None, a number, or a flat list")
    return values.reshape(-1).tolist()


def choose_windows(
    model: LanguageModel,
    data: Corpus | Windows | str | Path | Sequence[str | Path],
    *,
    limit_bytes: int = DEFAULT_LIMIT_BYTES,
    overlap_bytes: int = 0,
) -> Windows:
    """Returns the windows that a measurement of `model` on `data` uses; the arguments are those of `evaluate`."""
    limit, overlap = integer_or_none(limit_bytes), integer_or_none(overlap_bytes)
    if limit is None or limit < 0:
        raise InputError(f"limit_bytes is {limit_bytes!r}; allowed: 0 for all, or a number of bytes")
    if overlap is None:
        raise InputError(f"overlap_bytes is {overlap_bytes!r}; allowed: a number of bytes")
    if isinstance(data, Windows):
        return data.limit(limit)
    corpus = data if isinstance(data, Corpus) else open_corpus(checked_paths(data))
    return cut_windows(corpus, model.config.context_bytes, overlap).limit(limit)


def checked_paths(data: Any) -> list[str | Path]:
    """Returns what a caller gave as paths of texts, as a list.

    Raises:
        InputError: it is something else, such as the text itself as bytes.
    """
    paths = [data] if isinstance(data, str | os.PathLike) else data
    if isinstance(paths, Iterable) and not isinstance(paths, bytes | bytearray | dict):
        paths = list(paths)
        if all(isinstance(path, str | os.PathLike) for path in paths):
            return [path if isinstance(path, str) else Path(path) for path in paths]
    raise InputError(
        f"data is of type {type(data).__name__}; allowed: a path, a list of paths, a Corpus or Windows",
        hint="For text that is in memory: patchpad.score(model, text), or patchpad.inspect(model, text).point.",
    )


def predictions(
    model: LanguageModel,
    windows: Windows,
    threshold: float | None,
    *,
    batch_rows: int | None = None,
    null_context: bool = False,
    ranks: Ranks | None = None,
) -> Iterator[tuple[Batch, Predicted]]:
    """Runs a model over windows, in eval mode and without gradients.

    Args:
        model: restored to its mode after.
        windows: all of them are run, in order.
        threshold: one scratchpad threshold in nats; None for the stored one.
        batch_rows: rows of a pass; default: as many as ROW_BATCH_BYTES hold.
        null_context: for the patch model alone: no byte reads the trunk; see `ByteLM.forward`.
        ranks: that share the windows: this one gets as many passes as the others. It has to check by itself, together
            with them, whether what it gets is finite.

    Raises:
        TrainingError: the model predicts nan or inf.
    """
    shares = {} if ranks is None else {"rank": ranks.rank, "num_ranks": ranks.num_ranks}
    row_positions = model.config.context_bytes + 1
    rows = batch_rows or max(1, ROW_BATCH_BYTES // row_positions)
    decisions = model.decisions(threshold, batch=1)
    was_training = model.training
    predict = model.predict_targets_without_trunk if null_context else model.predict_targets
    model.eval()
    try:
        for batch in evaluation_batches(windows, row_positions=row_positions, batch_rows=rows, **shares):
            batch = batch.to(model.device)
            # Inside: as a decorator of a generator, no_grad does nothing under the hook that checks shapes in tests.
            with torch.no_grad(), autocast(model.device):
                predicted = predict(batch.byte_ids, batch.targets, decisions)
            if ranks is None and not bool(torch.where(batch.is_byte, predicted.nats, 0).isfinite().all()):
                raise not_finite()
            yield batch, predicted
    finally:
        model.train(was_training)


def not_finite() -> TrainingError:
    """Returns what is raised where a model predicts no numbers."""
    return TrainingError(
        "the model predicts nan or inf in place of probabilities; its weights, or what they compute, are not finite",
        hint="Use an earlier checkpoint of the run: training had probably diverged.",
    )


def _tally(model: LanguageModel, windows: Windows, threshold: float | None, ranks: Ranks | None) -> Tally:
    tally = Tally()
    shared = ranks if ranks is not None and ranks.num_ranks > 1 else None
    for batch, predicted in predictions(model, windows, threshold, ranks=shared):
        tally.add(batch, predicted)
    if shared is not None:
        total = shared.sum(torch.tensor(astuple(tally), dtype=torch.float64)).tolist()
        tally = Tally(total[0], *map(int, total[1:]))
        if not math.isfinite(tally.nats):
            raise not_finite()
    return tally


def score(model: LanguageModel, text: bytes | str, *, scratchpad_threshold_nats: float | None = None) -> np.ndarray:
    """Returns -ln p of each byte of a text given those before it in its window, [byte] of float32, in nats.

    Text longer than the model's `context_bytes` is cut into windows as in `evaluate`. Empty text gives an empty array.

    Raises:
        InputError: something else than a model, than text or bytes, or than one threshold.
        TrainingError: the model predicts nan or inf.
    """
    model = unwrapped(model)
    data = np.frombuffer(encode_text(text), dtype=np.uint8)
    if not len(data):
        return np.empty(0, dtype=np.float32)
    windows = cut_windows(Corpus((data,), ("text",)), model.config.context_bytes)
    passes = predictions(model, windows, scratchpad_threshold_nats, batch_rows=1)
    return np.concatenate([predicted.nats[batch.is_byte].cpu().numpy() for batch, predicted in passes])
