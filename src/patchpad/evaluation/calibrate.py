"""Measuring the calibration table of a model on a text."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from patchpad.calibration_table import ROW_KEYS, Calibration
from patchpad.config import nats_triggers
from patchpad.data import Corpus, Windows
from patchpad.errors import GenerationError
from patchpad.evaluation.bits_per_byte import DEFAULT_LIMIT_BYTES, Point, choose_windows, evaluate, predictions
from patchpad.model.language_model import LanguageModel
from patchpad.model.wrapped import unwrapped

SHARES = (1 / 32, 1 / 16, 1 / 8, 3 / 16, 1 / 4, 3 / 8, 1 / 2, 3 / 4)
"""Scratchpads per byte at which the table has rows, beside none, the stored threshold and one at every byte."""


def calibrate(
    model: LanguageModel,
    data: Corpus | Windows | str | Path | Sequence[str | Path],
    *,
    limit_bytes: int = DEFAULT_LIMIT_BYTES,
) -> Calibration:
    """Measures the table on held-out text. Put it into `model.calibration` to make `compute` work.

    Thresholds are quantiles of the trigger's own scores on the text, so rows lie at even rates whatever the model.

    Args:
        model: in any mode; restored after.
        data: a corpus, its windows, or paths to read.
        limit_bytes: about how many bytes to use, in windows spread over all documents; 0 for all.

    Raises:
        DataError: unreadable or empty text.
        GenerationError: the model has no scratchpads, or its trigger no threshold in nats.
    """
    model = unwrapped(model)
    model.require_scratchpads("there is nothing to calibrate")
    if not model.takes_threshold_in_nats:
        raise GenerationError(
            f"the trigger `{model.config.trigger.kind}` has no threshold to calibrate; "
            f"allowed: {', '.join(nats_triggers())}"
        )
    windows = choose_windows(model, data, limit_bytes=limit_bytes)
    commits_tokens = model.config.patchifier.commits_tokens
    return calibration_of(calibration_points(model, windows), windows, commits_tokens=commits_tokens)


def calibration_points(model: LanguageModel, windows: Windows) -> list[Point]:
    """Evaluates the model at the thresholds of its table, from +inf to -inf."""
    thresholds = {math.inf, -math.inf, float(model.scratchpad_threshold_nats), *score_quantiles(model, windows)}
    return evaluate(model, windows, scratchpad_threshold_nats=sorted(thresholds, reverse=True), limit_bytes=0)


def calibration_of(points: Sequence[Point], windows: Windows, *, commits_tokens: bool = False) -> Calibration:
    """Makes the table of points that were measured on `windows`."""
    rows = tuple(map(_row, points))
    return Calibration(rows=rows, text_sha256=windows.corpus.fingerprint(), commits_tokens=commits_tokens)


def _row(point: Point) -> dict[str, Any]:
    values = point.to_dict()
    return {key: values[key] for key in ROW_KEYS}


def score_quantiles(model: LanguageModel, windows: Windows) -> list[float]:
    """Returns thresholds, high to low: the highest score, one for each of SHARES, and just below the lowest score."""
    scores, num_bytes = eligible_scores(model, windows)
    found = thresholds_at(scores, num_bytes, SHARES).values()
    return [float(scores.max()), *found, float(scores.min()) - 1e-3]


def thresholds_at(scores: np.ndarray, num_bytes: int, scratchpads_per_byte: Sequence[float]) -> dict[float, float]:
    """Returns, for each rate, the threshold at which about as many scratchpads fire; rates out of reach are left out.

    Args:
        scores: the trigger's at positions that end no patch, [eligible].
        num_bytes: bytes that the rates are per.
        scratchpads_per_byte: the rates.
    """
    scores = np.sort(scores)[::-1]
    places = {rate: round(rate * num_bytes) for rate in scratchpads_per_byte}
    return {rate: float(scores[place]) for rate, place in places.items() if place < len(scores)}


def eligible_scores(model: LanguageModel, windows: Windows) -> tuple[np.ndarray, int]:
    """Returns the trigger's scores at positions that end no patch, [eligible], and the bytes of the windows."""
    pieces = []
    for _, predicted in predictions(model, windows, math.inf):
        assert predicted.output is not None
        pieces.append(model.eligible_scores(predicted.output).cpu().numpy())
    return np.concatenate(pieces), int(windows.bounds.num_bytes.sum())
