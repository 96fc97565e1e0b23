"""Bits per byte of a converted model and of its source on the same windows, and on the same windows with noise."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from conversion_record import Record
from conversion_source import Source

from patchpad.data import Corpus, Windows, cut_windows, open_corpus
from patchpad.errors import DataError
from patchpad.evaluation.bits_per_byte import Tally, predictions
from patchpad.evaluation.calibrate import eligible_scores, thresholds_at
from patchpad.evaluation.compressors import compressors_bits_per_byte
from patchpad.model.language_model import LanguageModel
from patchpad.tasks.noise import KINDS, noisy

RATES = (0.04, 0.08, 0.12, 0.2, 0.3)
"""Scratchpads per byte at which the converted model is measured, beside none and all."""
MAIN_RATE = "0.12"
"""The one that stands for the curve in the parts that measure three points."""
PLAIN, EVERYWHERE = "plain", "everywhere"
NOISES = ("typo", "case", "repeat", "drop", "homoglyph")
CLEAN = "clean"


@dataclass(frozen=True)
class Pair:
    """What is measured, and where results go."""

    source: Source
    model: LanguageModel
    record: Record
    batch_rows: int = 2
    """Windows of a pass of the converted model."""

    @property
    def context_bytes(self) -> int:
        """Most bytes of a window."""
        return self.model.config.context_bytes


@dataclass(frozen=True)
class Text:
    """A text and how much of it is measured."""

    name: str
    corpus: Corpus
    num_bytes: int
    """About so many are measured."""
    calibration_bytes: int
    """About so many of the others set the thresholds."""

    @staticmethod
    def read(name: str, path: Path, num_bytes: int, calibration_bytes: int) -> "Text":
        """Reads a text; the errors are those of `open_corpus`."""
        return Text(name, open_corpus([path]), num_bytes, calibration_bytes)

    def windows(self, context_bytes: int) -> tuple[Windows, Windows]:
        """Returns the windows that are measured, as `patchpad evaluate --limit-bytes` takes them, and others.

        Raises:
            DataError: the text has no others.
        """
        every = cut_windows(self.corpus, context_bytes)
        measured = every.limit(self.num_bytes)
        if measured.numbers is None:
            raise DataError(
                f"all {self.corpus.num_bytes:,} bytes of {self.name} would be measured; allowed: a text with others, "
                "on which thresholds are set",
                hint="Measure less of it: --bytes.",
            )
        others = np.setdiff1d(np.arange(len(every)), measured.numbers)
        return measured, every.select(others).limit(self.calibration_bytes)

    def inputs(self) -> dict[str, Any]:
        """Returns what cells about it depend on."""
        return {"text_sha256": self.corpus.fingerprint(), "bytes": self.num_bytes}


def thresholds_of(
    pair: Pair, text: Text, *, name: str | None = None, inputs: dict[str, Any] | None = None
) -> dict[str, float]:
    """Returns the thresholds by the names of the points, from no scratchpads to all, calibrated on other windows.

    Args:
        pair: the model and the record.
        text: what is measured.
        name: of the cell; `calibration/` and the name of the text if left out.
        inputs: what the cell depends on beside the length; those of the text if left out.
    """

    def measure() -> dict[str, Any]:
        _, others = text.windows(pair.context_bytes)
        scores, num_bytes = eligible_scores(pair.model, others)
        found = thresholds_at(scores, num_bytes, RATES)
        return {"thresholds_nats": {f"{rate:g}": nats for rate, nats in found.items()}, "num_bytes": num_bytes}

    known = {**(text.inputs() if inputs is None else inputs), "calibration_bytes": text.calibration_bytes}
    found = pair.record.cell(name or f"calibration/{text.name}", known, measure)["thresholds_nats"]
    return {PLAIN: math.inf, **found, EVERYWHERE: -math.inf}


def main_thresholds(pair: Pair, text: Text) -> dict[str, float]:
    """Returns three of `thresholds_of`: none, `MAIN_RATE` where the model reaches it, and all."""
    found = thresholds_of(pair, text)
    return {name: nats for name, nats in found.items() if name in (PLAIN, MAIN_RATE, EVERYWHERE)}


def source_values(source: Source, texts: Sequence[bytes]) -> dict[str, Any]:
    """Returns what the source costs on windows, each of which begins a document.

    `bits` lets tokens go on beyond a window's end, as a byte model's bits do; `token_bits` are those of the tokens.
    """
    scores = [source.score_text(data) for data in texts]
    sizes = [len(data) for data in texts]
    rates = source.rates([(size, score.num_tokens) for size, score in zip(sizes, scores, strict=True)])
    return {
        "bits": [_bits(score.open_nats) for score in scores],
        "token_bits": [_bits(score.nats) for score in scores],
        "num_bytes": sizes,
        "num_tokens": [score.num_tokens for score in scores],
        "num_lost_bytes": sum(score.num_lost_bytes for score in scores),
        "scratchpads_per_byte": 0.0,
        **rates,
    }


def our_values(pair: Pair, windows: Windows, threshold: float) -> dict[str, Any]:
    """Returns what the converted model costs on windows at a threshold."""
    tally, pieces = Tally(), []
    for batch, predicted in predictions(pair.model, windows, threshold, batch_rows=pair.batch_rows):
        tally.add(batch, predicted)
        pieces.append(predicted.nats[batch.is_byte].double().cpu().numpy())
    sizes = windows.bounds.num_counted_bytes
    begins = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    point = tally.point(pair.model, threshold, windows)
    names = ("scratchpads_per_byte", "trunk_calls_per_byte", "flops_per_byte", "trunk_cache_bytes_per_byte")
    return {
        "bits": [_bits(nats) for nats in np.add.reduceat(np.concatenate(pieces), begins)],
        "num_bytes": sizes.tolist(),
        "scratchpad_threshold_nats": threshold,
        **{name: getattr(point, name) for name in names},
    }


def _bits(nats: float) -> float:
    return round(float(nats) / math.log(2), 3)


def texts_of(windows: Windows) -> list[bytes]:
    """Returns the bytes of each window."""
    return [document.tobytes() for document in windows.as_corpus().documents]


def measure_bits(pair: Pair, text: Text) -> None:
    """Measures a text: the source, and the converted model along its threshold."""
    measured, _ = text.windows(pair.context_bytes)
    _measure_windows(pair, f"bits/{text.name}", measured, thresholds_of(pair, text), text.inputs())


def measure_noise(pair: Pair, text: Text, num_bytes: int) -> None:
    """Measures a text clean and with each kind of noise. Windows are half as long as a context: noise makes them grow.

    The thresholds are those of the clean text.

    Args:
        pair: the models.
        text: clean.
        num_bytes: about so many are measured.
    """
    thresholds = main_thresholds(pair, text)
    clean = texts_of(cut_windows(text.corpus, pair.context_bytes // 2).limit(num_bytes))
    for kind, texts in noised(clean, text.name):
        documents = [np.frombuffer(data[: pair.context_bytes], dtype=np.uint8) for data in texts]
        corpus = Corpus(tuple(documents), tuple(map(str, range(len(documents)))))
        windows = cut_windows(corpus, pair.context_bytes)
        inputs = {**text.inputs(), "bytes": num_bytes, "rate": KINDS[kind].default_rate if kind != CLEAN else 0.0}
        _measure_windows(pair, f"noise/{kind}", windows, thresholds, inputs)


def noised(clean: Sequence[bytes], name: str) -> Iterator[tuple[str, list[bytes]]]:
    """Yields the kinds of noise at their usual rates, and what they make of windows; the clean ones come first."""
    yield CLEAN, list(clean)
    for kind in NOISES:
        rate = KINDS[kind].default_rate
        yield kind, [noisy(data, kind, rate, seed=0, place=f"{name}/{number}") for number, data in enumerate(clean)]


def _measure_windows(
    pair: Pair, name: str, windows: Windows, thresholds: dict[str, float], inputs: dict[str, Any]
) -> None:
    """Measures windows: cells `name/compressors`, `name/source` and `name/<point>`."""
    record = pair.record
    record.cell(f"{name}/compressors", inputs, lambda: compressors_bits_per_byte(windows.as_corpus()))
    record.cell(f"{name}/source", inputs, lambda: source_values(pair.source, texts_of(windows)))
    for point, threshold in thresholds.items():
        known = {**inputs, "threshold_nats": threshold}
        record.cell(f"{name}/{point}", known, lambda threshold=threshold: our_values(pair, windows, threshold))
