"""Bits per byte taken apart: by position in the patch, patch lag and letter; without the trunk's context; by the head.

And where scratchpads go: their rate by class of byte. Sums are fp64, counts integers.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from patchpad.data import Batch, Windows
from patchpad.evaluation.bits_per_byte import Point, Tally, evaluate, predictions
from patchpad.evaluation.calibrate import thresholds_at
from patchpad.model.language_model import LanguageModel, Predicted
from patchpad.shapes import ByteIds, ByteInts

BYTE_CLASSES = (
    "letter",
    "digit",
    "space",
    "newline",
    "punctuation",
    "utf8_lead",
    "utf8_continuation",
    "control",
    "document_start",
)
"""ASCII letters, digits, punctuation; space and tab; \\n and \\r; bytes from 0xC0 and from 0x80; and the separator."""

LEAD_IN_BYTES = 64
"""At most so many first bytes of each window, and an eighth of it, are left out of breakdowns. There is no text yet to
predict them from, whatever the model, and all of them would count towards the first places of patches."""
LONGEST_WORD = 12
"""Later letters count as this one."""


def byte_class_table() -> np.ndarray:
    """Returns the index into `BYTE_CLASSES` of each id from 0 to the separator, [257]."""
    table = np.full(257, BYTE_CLASSES.index("control"))
    for first, last, name in (
        (0x21, 0x7F, "punctuation"),
        (0x30, 0x3A, "digit"),
        (0x41, 0x5B, "letter"),
        (0x61, 0x7B, "letter"),
        (0x80, 0xC0, "utf8_continuation"),
        (0xC0, 0x100, "utf8_lead"),
        (0x100, 0x101, "document_start"),
    ):
        table[first:last] = BYTE_CLASSES.index(name)
    for characters, name in ((b" \t", "space"), (b"\n\r", "newline")):
        table[list(characters)] = BYTE_CLASSES.index(name)
    return table


@dataclass
class CountedSums:
    """Sums and counts by a small integer key."""

    sums: np.ndarray = field(default_factory=lambda: np.zeros(0))
    counts: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))

    def add(self, keys: Tensor, values: Tensor) -> None:
        """Adds values, each to the sum of its key; both of one shape."""
        keys, values = keys.flatten().cpu(), values.flatten().cpu().double()
        size = max(len(self.counts), int(keys.max()) + 1 if len(keys) else 0)
        self.sums = np.pad(self.sums, (0, size - len(self.sums)))
        self.counts = np.pad(self.counts, (0, size - len(self.counts)))
        self.sums += torch.bincount(keys, weights=values, minlength=size).numpy()
        self.counts += torch.bincount(keys, minlength=size).numpy()


@dataclass
class Breakdown:
    """What a pass of the patch model gives beside its bits per byte."""

    lead_in_bytes: int
    tally: Tally = field(default_factory=Tally)
    by_position: CountedSums = field(default_factory=CountedSums)
    """Nats by the place of the predicted byte in its patch, from 1."""
    by_lag: CountedSums = field(default_factory=CountedSums)
    """Nats by the patch lag of the position that predicts."""
    by_letter: CountedSums = field(default_factory=CountedSums)
    """Nats by the place of the predicted byte among the letters of its word, from 1; 0 for what is not a letter."""
    by_class: CountedSums = field(default_factory=CountedSums)
    """Scratchpads by the class of the byte at which they may fire."""
    head_nats: float = 0.0
    scores: list[np.ndarray] = field(default_factory=list)
    """The trigger's, where scratchpads may fire."""

    def add(self, model: LanguageModel, batch: Batch, predicted: Predicted, classes: Tensor) -> None:
        """Adds a batch."""
        output = predicted.output
        assert output is not None
        layout = output.layout
        counted = batch.is_byte & (layout.documents.offset >= self.lead_in_bytes)
        self.tally.add(batch, predicted)
        # A byte that follows a patch end, or the separator, is the first of its patch.
        place = torch.where(layout.patch_end_mask, 0, layout.open_bytes) + 1
        self.by_position.add(place[counted], predicted.nats[counted])
        self.by_lag.add(layout.patch_lag[counted], predicted.nats[counted])
        self.by_letter.add(letters_so_far(batch.targets.cpu(), classes)[counted.cpu()], predicted.nats[counted])
        read = ~layout.documents.is_padding
        self.by_class.add(classes[batch.byte_ids[read].cpu()], layout.scratchpad_mask[read])
        if predicted.entropy_head_nats is not None:
            self.head_nats += float(predicted.entropy_head_nats[batch.is_byte].cpu().double().sum())
        if model.takes_threshold_in_nats:
            self.scores.append(model.eligible_scores(output).cpu().numpy())

    def to_dict(self) -> dict[str, Any]:
        """Returns the tables of positions, lags, letters and classes."""
        lags = self.by_lag
        return {
            "bits_per_byte_by_position": _rows(self.by_position, "position"),
            "mean_patch_lag": float((np.arange(len(lags.counts)) * lags.counts).sum() / max(1, lags.counts.sum())),
            "bits_per_byte_by_patch_lag": _rows(lags, "patch_lag"),
            "bits_per_byte_by_letter": _rows(self.by_letter, "letter"),
            "scratchpads_by_class": [
                {"class": BYTE_CLASSES[key], "num_scratchpads": int(total), "num_bytes": int(count)}
                for key, (total, count) in enumerate(zip(self.by_class.sums, self.by_class.counts, strict=True))
                if count
            ],
        }


def letters_so_far(ids: ByteIds, classes: Tensor) -> ByteInts:
    """Returns, for each id, how many letters end with it, up to `LONGEST_WORD`; 0 for what is not a letter.

    Args:
        ids: targets; ignored ones are not letters.
        classes: the table of `byte_class_table`.
    """
    is_letter = (ids >= 0) & (classes[ids.clamp_min(0)] == BYTE_CLASSES.index("letter"))
    where = torch.arange(ids.shape[-1]).expand_as(ids)
    before = torch.where(is_letter, -1, where).cummax(dim=-1).values
    return (where - before).clamp(max=LONGEST_WORD)


def _rows(counted: CountedSums, key: str) -> list[dict[str, Any]]:
    return [
        {key: place, "bits_per_byte": float(nats) / (math.log(2) * int(count)), "num_bytes": int(count)}
        for place, (nats, count) in enumerate(zip(counted.sums, counted.counts, strict=True))
        if count
    ]


def break_down(
    model: LanguageModel, windows: Windows, threshold: float | None, *, lead_in_bytes: int | None = None
) -> Breakdown:
    """Runs the patch model once over windows.

    Args:
        model: in any mode; restored after.
        windows: all of them are used.
        threshold: in nats; None is the stored one.
        lead_in_bytes: how many first bytes of a window count neither by position, nor by lag, nor by letter; None for
            `LEAD_IN_BYTES` or an eighth of `context_bytes`, whichever is less.
    """
    if lead_in_bytes is None:
        lead_in_bytes = min(LEAD_IN_BYTES, model.config.context_bytes // 8)
    result, classes = Breakdown(lead_in_bytes), torch.from_numpy(byte_class_table())
    for batch, predicted in predictions(model, windows, threshold):
        result.add(model, batch, predicted, classes)
    return result


def null_context_bits_per_byte(model: LanguageModel, windows: Windows) -> float:
    """Returns bits per byte when no byte reads the trunk: what the local parts do alone."""
    tally = Tally()
    for batch, predicted in predictions(model, windows, math.inf, null_context=True):
        tally.add(batch, predicted)
    return tally.nats / (math.log(2) * tally.num_bytes)


def measure(model: LanguageModel, windows: Windows, scratchpads_per_byte: Sequence[float]) -> dict[str, Any]:
    """Measures all that a study reports of a model; what does not apply to it is None.

    Args:
        model: in any mode; restored after.
        windows: all of them are used.
        scratchpads_per_byte: rates at which a trigger with a threshold in nats is measured, where it can reach them.

    Returns:
        Points by `at`: `never`, a rate such as `0.25`, `stored` and `always`. A trigger that never fires has only
        `stored`, and so have baselines.
    """
    if not model.has_scratchpads:
        (point,) = evaluate(model, windows, limit_bytes=0)
        fields = ("entropy_head_bits_per_byte", "null_context_bits_per_byte", "without_scratchpads", "stored")
        return {"points": [{"at": "stored", **point.to_dict()}], **dict.fromkeys(fields)}
    num_bytes = int(windows.bounds.num_bytes.sum())
    stored_nats = float(model.scratchpad_threshold_nats)
    without = break_down(model, windows, math.inf)
    points: list[tuple[str, Point]] = []
    stored = without
    if model.config.trigger.kind != "never":
        stored = break_down(model, windows, None)
        points.append(("never", without.tally.point(model, math.inf, windows)))
        thresholds: dict[str, float] = {}
        if without.scores:
            found = thresholds_at(np.concatenate(without.scores), num_bytes, scratchpads_per_byte)
            thresholds = {f"{rate:g}": nats for rate, nats in found.items()}
        thresholds["always"] = -math.inf
        measured = evaluate(model, windows, scratchpad_threshold_nats=list(thresholds.values()), limit_bytes=0)
        points += zip(thresholds, measured, strict=True)
    points.append(("stored", stored.tally.point(model, stored_nats, windows)))
    head = without.head_nats / (math.log(2) * without.tally.num_bytes) if model.config.reads_entropy else None
    return {
        "points": [
            {"at": at, **point.to_dict()} for at, point in sorted(points, key=lambda p: p[1].trunk_calls_per_byte)
        ],
        "entropy_head_bits_per_byte": head,
        "null_context_bits_per_byte": null_context_bits_per_byte(model, windows),
        "without_scratchpads": without.to_dict(),
        "stored": stored.to_dict(),
    }
