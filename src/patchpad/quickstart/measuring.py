"""Measuring and sampling at the end of quickstart: in full, or as much as the time allows."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from patchpad.data import Windows
from patchpad.evaluation.bits_per_byte import Point, Tally, predictions
from patchpad.evaluation.calibrate import SHARES, calibration_points, eligible_scores, score_quantiles
from patchpad.inference.generator import Completion, Generation
from patchpad.model.language_model import LanguageModel

EVALUATED_BYTES = 80_000
"""Held-out bytes that are measured when there is time for all of them."""
PROMPT = "It was"
SAMPLE_BYTES, LEAST_SAMPLE_BYTES = 400, 60
NUM_PARTS = 16
"""Parts of the held-out text, each spread over all of it: after each one the clock is looked at."""
NUM_THRESHOLDS = len(SHARES) + 5
"""None, the highest score, one for each share, the stored threshold, the lowest score, and one at every byte."""
PASS_RATIO = 2.4
"""Seconds of a pass at a threshold, on average over all of them, over one without scratchpads."""

SecondsLeft = Callable[[], float]
"""Returns the seconds until something has to be over; below 0 when it should have been."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Points along the threshold, and the text that they were measured on."""

    points: tuple[Point, ...]
    windows: Windows


def measure(model: LanguageModel, windows: Windows, seconds_left: SecondsLeft | None) -> Measured:
    """Evaluates a model at the thresholds of its calibration table.

    Args:
        model: trained.
        windows: held-out text.
        seconds_left: for measuring; None to measure all windows at all thresholds. Otherwise a first part is timed, as
            many parts are chosen as fit, and the clock is looked at after each. Where not even one part would fit, it
            is measured at three thresholds: none, the stored one, and one at every byte.
    """
    if seconds_left is None:
        return Measured(points=tuple(calibration_points(model, windows)), windows=windows)
    count = min(NUM_PARTS, len(windows))
    parts = [np.arange(part, len(windows), count) for part in range(count)]
    before = seconds_left()
    eligible_scores(model, windows.select(parts[0]))
    seconds_per_part = (before - seconds_left()) * (1 + PASS_RATIO * NUM_THRESHOLDS)
    affordable = math.floor(seconds_left() / max(seconds_per_part, 1e-9))
    parts = parts[: max(1, affordable)]
    thresholds = {math.inf, -math.inf, float(model.scratchpad_threshold_nats)}
    if affordable >= 1:
        thresholds |= set(score_quantiles(model, windows.select(np.concatenate(parts))))
    tallies = {threshold: Tally() for threshold in sorted(thresholds, reverse=True)}
    done: list[np.ndarray] = []
    slowest = 0.0
    for part in parts:
        before = seconds_left()
        if done and before < slowest:
            break
        for threshold, tally in tallies.items():
            for batch, predicted in predictions(model, windows.select(part), threshold):
                tally.add(batch, predicted)
        slowest = max(slowest, before - seconds_left())
        done.append(part)
    measured = windows.select(np.sort(np.concatenate(done)))
    points = (tally.point(model, threshold, measured) for threshold, tally in tallies.items())
    return Measured(points=tuple(points), windows=measured)


def sample(model: LanguageModel, *, seed: int, seconds_left: SecondsLeft | None) -> Completion:
    """Generates up to `SAMPLE_BYTES` from `PROMPT`, fewer but at least `LEAST_SAMPLE_BYTES` when the time is over."""
    generation = Generation(model, [PROMPT], max_new_bytes=SAMPLE_BYTES, seed=seed)
    num_bytes = 0
    for new in generation:
        num_bytes += len(new.data)
        if seconds_left is not None and num_bytes >= LEAST_SAMPLE_BYTES and seconds_left() < 0:
            break
    (completion,) = generation.completions()
    generation.close()
    return completion
