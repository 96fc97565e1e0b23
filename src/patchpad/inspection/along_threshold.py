"""What each byte of a text costs at several thresholds, and what a model expects of the next byte there."""

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from patchpad.config import SEPARATOR
from patchpad.data import Batch, Windows, evaluation_batches
from patchpad.evaluation.bits_per_byte import Point, Tally, not_finite, predictions
from patchpad.evaluation.calibrate import SHARES, eligible_scores
from patchpad.inspection.shared_trunk import SharedTrunk, shares_its_trunk
from patchpad.model.byte_lm import ByteLM
from patchpad.model.outputs import ByteLMOutput
from patchpad.model.precision import autocast
from patchpad.shapes import ByteMask, Logits

NUM_LIKELIEST = 5
LIKELIEST_BYTES = 20_000
"""Of longer texts, the likeliest next bytes are kept up to the byte with this index."""
SHORT_BYTES = 20_000
"""Of longer texts, fewer thresholds are measured."""
FEWER_SHARES = (1 / 16, 1 / 2)
"""Scratchpads per byte at which a long text is measured, beside none, the stored threshold and one at every byte."""
SCORED_BYTES = 16_384
"""About how many bytes, spread over the text, the thresholds are chosen by."""
PASS_BYTES = 4_096
"""Bytes of a pass; the tensors of larger ones no longer fit the caches of a processor's core."""

OnProgress = Callable[[int, int], None]
"""Is told how many bytes have been read, and of how many."""


@dataclass(frozen=True, kw_only=True)
class NextBytes:
    """The likeliest next bytes after each of a text's first positions: separators and bytes that are read, in order.

    The end of the document is not a byte, and is left out.
    """

    with_ids: UInt8[np.ndarray, "threshold position likely"]
    """The likeliest bytes, likeliest first, each with its probability."""
    with_probability: Float[np.ndarray, "threshold position likely"]
    without_ids: UInt8[np.ndarray, "threshold position likely"]
    """The same if the newest scratchpad, and no other, had not been there; equal where none is read."""
    without_probability: Float[np.ndarray, "threshold position likely"]
    reads_scratchpad: Bool[np.ndarray, "threshold position"]
    """Whether the newest slot is a scratchpad, so that the two differ."""


@dataclass(frozen=True, kw_only=True)
class AlongThreshold:
    """What bytes cost at several thresholds, from +inf (no scratchpads) to the lowest."""

    points: tuple[Point, ...]
    """Rates, bits per byte and cost at each threshold."""
    nats: Float[np.ndarray, "threshold byte"]
    """-ln p of each byte given those before it in its window."""
    next_bytes: NextBytes | None
    """None for a model whose source's head speaks too."""

    @property
    def bits_saved(self) -> Float[np.ndarray, "threshold byte"]:
        """Bits that scratchpads save of each byte's cost; negative where they cost some."""
        return (self.nats[:1] - self.nats) / math.log(2)


def thresholds_of(model: ByteLM, windows: Windows, used: float, stored: float) -> list[float]:
    """Returns the thresholds to measure, from +inf down: quantiles of the scores, the chosen and the stored one.

    A model whose trigger takes no nats has none but +inf and what is used.

    Args:
        model: to be measured.
        windows: of the text.
        used: the chosen threshold.
        stored: the stored one.
    """
    if not model.takes_threshold_in_nats:
        return sorted({math.inf, used}, reverse=True)
    sample = windows.limit(SCORED_BYTES)
    shares = SHARES if windows.num_counted_bytes <= SHORT_BYTES else FEWER_SHARES
    quantiles = _between_scores(*eligible_scores(model, sample), shares)
    return sorted({math.inf, -math.inf, used, stored, *quantiles}, reverse=True)


def _between_scores(scores: np.ndarray, num_bytes: int, rates: Sequence[float]) -> list[float]:
    """Returns a threshold for each rate within reach, between two scores, since on a score rounding would decide."""
    ordered = np.sort(scores.astype(np.float64))[::-1]
    places = {round(rate * num_bytes) for rate in rates}
    return [float(ordered[place - 1 : place + 1].mean()) for place in places if 0 < place < len(ordered)]


@dataclass
class _Measured:
    """What is gathered at one threshold."""

    given: float | None
    """None for the stored threshold of a model that takes no nats."""
    tally: Tally = dataclasses.field(default_factory=Tally)
    nats: list[np.ndarray] = dataclasses.field(default_factory=list)
    with_: list[tuple[Tensor, Tensor]] = dataclasses.field(default_factory=list)
    without: list[tuple[Tensor, Tensor]] = dataclasses.field(default_factory=list)
    reads: list[Tensor] = dataclasses.field(default_factory=list)

    def add(self, batch: Batch, output: ByteLMOutput) -> None:
        """Adds a batch.

        Raises:
            TrainingError: the model predicts nan or inf.
        """
        predicted = output.predicted(batch.targets)
        nats = predicted.nats[batch.is_byte]
        if not bool(nats.isfinite().all()):
            raise not_finite()
        self.tally.add(batch, predicted)
        self.nats.append(nats.cpu().numpy())

    def add_likeliest(self, logits: Logits, without: Logits, reads: ByteMask, kept: ByteMask) -> None:
        """Adds the likeliest next bytes of the positions that are kept."""
        self.with_.append(likeliest(logits[kept]))
        self.without.append(likeliest(without[kept]))
        self.reads.append(reads[kept].cpu())


def measure(
    model: ByteLM,
    windows: Windows,
    thresholds: Sequence[float],
    used: float,
    *,
    is_stored: bool = False,
    take_output: Callable[[Batch, ByteLMOutput], None],
    on_progress: OnProgress | None = None,
) -> AlongThreshold:
    """Measures a text at each threshold; the trunk runs once for all of them.

    Args:
        model: restored to its mode after.
        windows: of the text.
        thresholds: from +inf down; the trunk runs where the last one has slots.
        used: one of them.
        is_stored: whether `used` stands for the model's stored threshold.
        take_output: gets each batch and what the model gives at `used`.
        on_progress: is told how far it is.

    Raises:
        TrainingError: the model predicts nan or inf.
    """
    parts = {value: _Measured(None if is_stored and value == used else value) for value in thresholds}
    run = _measure_together if shares_its_trunk(model) else _measure_apart
    for batch, output in run(model, windows, parts, used, on_progress or (lambda done, total: None)):
        take_output(batch, output)
    points = tuple(part.tally.point(model, value, windows) for value, part in parts.items())
    return AlongThreshold(
        points=points,
        nats=np.stack([np.concatenate(part.nats) for part in parts.values()]),
        next_bytes=_next_bytes(list(parts.values())) if shares_its_trunk(model) else None,
    )


def _measure_together(
    model: ByteLM, windows: Windows, parts: dict[float, _Measured], used: float, on_progress: OnProgress
) -> Iterator[tuple[Batch, ByteLMOutput]]:
    total, done, was_training = windows.num_counted_bytes, 0, model.training
    row_positions = model.config.context_bytes + 1
    rows = max(1, PASS_BYTES // row_positions)
    model.eval()
    try:
        for batch in evaluation_batches(windows, row_positions=row_positions, batch_rows=rows):
            batch = batch.to(model.device)
            with torch.no_grad(), autocast(model.device):
                output = _read_at_all(model, batch, parts, used, takes_likeliest=done < LIKELIEST_BYTES)
            yield batch, output
            done += batch.num_bytes
            on_progress(done, total)
    finally:
        model.train(was_training)


def _read_at_all(
    model: ByteLM, batch: Batch, parts: dict[float, _Measured], used: float, *, takes_likeliest: bool
) -> ByteLMOutput:
    """Reads a batch at every threshold, and returns the output at `used`."""
    decisions = {value: model.decisions(part.given, batch=1) for value, part in parts.items()}
    lowest = min(parts)
    everything = model.run(batch.byte_ids, decisions[lowest], keep_activations=True)
    shared, documents = SharedTrunk(model, everything), everything.layout.documents
    found = everything
    for value, part in parts.items():
        layout = everything.layout if value == lowest else decisions[value].layout(everything.facts, documents)
        if takes_likeliest:
            output, without, reads = shared.read_with_and_without(layout)
            part.add_likeliest(output.logits, without, reads, ~documents.is_padding)
        else:
            output = shared.read(layout)
        part.add(batch, output)
        found = output if value == used else found
    return found


def _measure_apart(
    model: ByteLM, windows: Windows, parts: dict[float, _Measured], used: float, on_progress: OnProgress
) -> Iterator[tuple[Batch, ByteLMOutput]]:
    total, done = windows.num_counted_bytes * len(parts), 0
    for value, part in parts.items():
        for batch, predicted in predictions(model, windows, part.given):
            assert predicted.output is not None
            part.add(batch, predicted.output)
            if value == used:
                yield batch, predicted.output
            done += batch.num_bytes
            on_progress(done, total)


def likeliest(logits: Float[Tensor, "position vocab"]) -> tuple[Tensor, Tensor]:
    """Returns the likeliest bytes, likeliest first, as uint8, and their probabilities, in fp32; on the CPU."""
    probabilities = logits.float().softmax(dim=-1)
    found = probabilities[:, :SEPARATOR].topk(NUM_LIKELIEST, dim=-1)
    return found.indices.to(torch.uint8).cpu(), found.values.cpu()


def _next_bytes(parts: list[_Measured]) -> NextBytes:
    def stacked(pairs: list[list[tuple[Tensor, Tensor]]], which: int) -> np.ndarray:
        return np.stack([torch.cat([pair[which] for pair in one]).numpy() for one in pairs])

    with_, without = [part.with_ for part in parts], [part.without for part in parts]
    return NextBytes(
        with_ids=stacked(with_, 0),
        with_probability=stacked(with_, 1),
        without_ids=stacked(without, 0),
        without_probability=stacked(without, 1),
        reads_scratchpad=np.stack([torch.cat(part.reads).numpy() for part in parts]),
    )
