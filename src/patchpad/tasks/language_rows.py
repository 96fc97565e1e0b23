"""Measures one language after the other on the same sentences: bits, bytes and trunk calls of a sentence."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from patchpad.data import Corpus, Windows, cut_windows
from patchpad.evaluation.bits_per_byte import Tally, predictions
from patchpad.model.language_model import LanguageModel
from patchpad.tasks.compute import COUNTS, Compute, ComputeTally
from patchpad.tasks.parallel_text import non_latin_share


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What a model gave in some languages."""

    rows: list[dict[str, Any]]
    """One for each language; see `measure_languages`."""
    compute: Compute
    num_cut_sentences: int
    """Sentences longer than the model's context, in any language."""
    num_cut_bytes: int
    """Their bytes behind the first window, which do not see what stands before their own."""


def measure_languages(
    model: LanguageModel,
    sentences: Mapping[str, Sequence[bytes]],
    *,
    reference: str,
    scratchpad_threshold_nats: float | None = None,
    done: Callable[[str], None] = lambda language: None,
) -> Measured:
    """Measures the same sentences in each language, each sentence a document of its own.

    Short documents share rows and do not see each other. A sentence longer than `context_bytes` is read in windows, as
    `patchpad evaluate` reads long documents. The end of a sentence is predicted and not counted.

    Args:
        model: of any kind, in any mode; restored after.
        sentences: language -> its sentences, none empty, in the same order.
        reference: the language that the others are compared with, one of them.
        scratchpad_threshold_nats: None for the stored one.
        done: called with the name of each language that has been measured.

    Returns:
        For each language: `bits_per_byte` with its standard error over sentences, `bits_per_sentence`,
        `bits_to_reference` and `trunk_calls_to_reference` (over those of the reference, sentence for sentence the same
        content), `bytes_per_sentence`, `trunk_calls_per_sentence`, `trunk_calls_per_byte`, `scratchpads_per_byte`,
        `num_bytes`, `num_sentences`, `non_latin_share`.

    Raises:
        TrainingError: the model predicts nan or inf.
    """
    rows, counted = [], ComputeTally()
    num_cut_sentences = num_cut_bytes = 0
    context_bytes = model.config.context_bytes
    for language, column in sentences.items():
        arrays = tuple(np.frombuffer(sentence, dtype=np.uint8) for sentence in column)
        windows = cut_windows(Corpus(arrays, tuple(map(str, range(len(arrays))))), context_bytes)
        tally, nats = _measured(model, windows, scratchpad_threshold_nats)
        rows.append({"language": language, **_row(tally, nats, column)})
        _add(counted, tally, windows)
        too_long = [len(sentence) - context_bytes for sentence in column if len(sentence) > context_bytes]
        num_cut_sentences += len(too_long)
        num_cut_bytes += sum(too_long)
        done(language)
    own = next(row for row in rows if row["language"] == reference)
    for row in rows:
        row["bits_to_reference"] = row["bits_per_sentence"] / own["bits_per_sentence"]
        calls = own["trunk_calls_per_sentence"]
        row["trunk_calls_to_reference"] = row["trunk_calls_per_sentence"] / calls if calls else None
    compute = counted.compute(model, scratchpad_threshold_nats)
    return Measured(rows=rows, compute=compute, num_cut_sentences=num_cut_sentences, num_cut_bytes=num_cut_bytes)


def _measured(model: LanguageModel, windows: Windows, threshold: float | None) -> tuple[Tally, np.ndarray]:
    """Returns the tally of a language and the nats of each sentence, [sentence] of float64."""
    tally, parts = Tally(), []
    for batch, predicted in predictions(model, windows, threshold):
        tally.add(batch, predicted)
        parts.append(predicted.nats[batch.is_byte].double().cpu().numpy())
    ends = windows.corpus.lengths.cumsum()
    return tally, np.add.reduceat(np.concatenate(parts), ends - windows.corpus.lengths)


def _row(tally: Tally, nats: np.ndarray, sentences: Sequence[bytes]) -> dict[str, Any]:
    count, bits = len(sentences), nats / math.log(2)
    sizes = np.array([len(sentence) for sentence in sentences], dtype=np.float64)
    bits_per_byte = float(bits.sum() / sizes.sum())
    slots = tally.num_commits + tally.num_scratchpads
    return {
        "bits_per_byte": bits_per_byte,
        "bits_per_byte_standard_error": ratio_error(bits, sizes, bits_per_byte),
        "bits_per_sentence": float(bits.mean()),
        "bytes_per_sentence": float(sizes.mean()),
        "trunk_calls_per_sentence": slots / count,
        "trunk_calls_per_byte": slots / tally.num_bytes,
        "scratchpads_per_byte": tally.num_scratchpads / tally.num_bytes,
        "num_bytes": tally.num_bytes,
        "num_sentences": count,
        "non_latin_share": non_latin_share(b"\n".join(sentences).decode("utf-8", "replace")),
    }


def ratio_error(numerators: np.ndarray, denominators: np.ndarray, ratio: float) -> float | None:
    """Returns the standard error of a ratio of sums over independent items, to first order; None for a single item."""
    count = len(numerators)
    if count < 2:
        return None
    residuals = numerators - ratio * denominators
    return float(np.sqrt(count / (count - 1) * (residuals**2).sum()) / denominators.sum())


def _add(counted: ComputeTally, tally: Tally, windows: Windows) -> None:
    """Adds a language to the compute of all."""
    counted.add_counts({name: getattr(tally, name) for name in COUNTS})
    counted.num_positions += tally.num_positions
    counted.bytes_scored += tally.num_bytes
    counted.bytes_in_requests += tally.num_bytes
    counted.bytes_read += tally.num_bytes
    counted.document_positions += windows.bounds.num_positions.tolist()
