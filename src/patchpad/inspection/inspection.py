"""`inspect`: what a model decides at each byte of a text, counted exactly as `evaluate` counts it."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from patchpad.config import ModelConfig
from patchpad.cost import cost
from patchpad.data import Batch, Corpus, Windows, cut_windows
from patchpad.errors import InputError
from patchpad.evaluation.bits_per_byte import Point, Tally, predictions
from patchpad.inspection.along_threshold import AlongThreshold, OnProgress, measure, thresholds_of
from patchpad.model.byte_lm import ByteLM
from patchpad.model.language_model import LanguageModel
from patchpad.model.outputs import ByteLMOutput, Predicted
from patchpad.model.wrapped import unwrapped
from patchpad.text import encode_text

NULL_CONTEXT, SEPARATOR_SLOT, NOT_READ = -1, -2, -3
"""What `Inspection.slot_byte` holds where it is not a byte of the text."""


@dataclass(frozen=True, kw_only=True)
class WindowStarts:
    """The separators that the windows of a text start with, one per window."""

    first_byte: Int[np.ndarray, " window"]
    """Index in the text of the window's first byte."""
    num_bytes: Int[np.ndarray, " window"]
    entropy_nats: Float[np.ndarray, " window"] | None
    """Entropy of the window's first byte; None without an entropy head."""
    score: Float[np.ndarray, " window"]
    """The trigger's score at the separator."""
    scratchpad: Bool[np.ndarray, " window"]
    """Whether a scratchpad was issued at the separator."""
    may_fire: Bool[np.ndarray, " window"]
    """Whether a low enough threshold would issue one."""

    def __len__(self) -> int:
        return len(self.first_byte)


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """A text and what a model decided at each byte of it. Arrays are [byte], in the order of the text.

    A text longer than the model's `context_bytes` is cut into windows. The last byte of every window but the last is
    predicted and never read, since the next window starts afresh: there `entropy_nats` and `score` are NaN.
    """

    text: bytes
    entropy_nats: Float[np.ndarray, " byte"] | None
    """Entropy of the byte that follows, once this one is read; None without an entropy head."""
    score: Float[np.ndarray, " byte"]
    """The trigger's score: a scratchpad fires above the threshold, except at patch ends."""
    nats: Float[np.ndarray, " byte"]
    """-ln p of this byte given those before it in its window."""
    patch_end: Bool[np.ndarray, " byte"]
    scratchpad: Bool[np.ndarray, " byte"]
    may_fire: Bool[np.ndarray, " byte"]
    """Whether a low enough threshold would issue a scratchpad here."""
    patch_index: Int[np.ndarray, " byte"]
    """Patches closed in the window before this byte; -1 where the byte is not read."""
    patch_lag: Int[np.ndarray, " byte"]
    """Bytes since the newest trunk output that this byte reads; -1 where the byte is not read."""
    open_bytes: Int[np.ndarray, " byte"]
    """Bytes up to this one that no commit at or before it covers; 0 where the byte is not read."""
    slot_byte: Int[np.ndarray, " byte"]
    """Newest byte of the slot that this byte reads, or NULL_CONTEXT, SEPARATOR_SLOT or NOT_READ."""
    windows: WindowStarts

    point: Point
    """Rates, bits per byte and cost, as `evaluate` gives them for this text and threshold."""
    num_patches: int
    most_patches: int
    """Patches of the window that has most of them."""
    num_scratchpads: int
    """Scratchpads, those at separators included."""
    along: AlongThreshold | None
    """What bytes cost at several thresholds, and what is likeliest next; None when it was not asked for."""
    stored_threshold_nats: float
    """What the model uses when no threshold is given."""
    config: ModelConfig

    @property
    def grid(self) -> tuple[Point, ...] | None:
        """Points from +inf to -inf; None when they were not asked for, or the trigger has no threshold in nats."""
        return self.along.points if self.along is not None and self.has_threshold_in_nats else None

    @property
    def num_bytes(self) -> int:
        """Bytes of the text."""
        return len(self.text)

    @property
    def trunk_calls(self) -> int:
        """Patches and scratchpads."""
        return self.num_patches + self.num_scratchpads

    @property
    def scratchpad_threshold_nats(self) -> float:
        """The threshold that was used."""
        return self.point.scratchpad_threshold_nats

    @property
    def bits_per_byte(self) -> float:
        """Nats summed / (ln 2 x bytes)."""
        return self.point.bits_per_byte

    @property
    def mean_patch_size(self) -> float | None:
        """Bytes per committed patch, those of patches that are still open left out; None without one.

        With `tokens` patches, all bytes per token, the one that begins each window not counted.
        """
        if self.config.patchifier.commits_tokens:
            num_tokens = self.num_patches - len(self.windows)
            return self.num_bytes / num_tokens if num_tokens else None
        ends = np.flatnonzero(self.patch_end)
        if not len(ends):
            return None
        window = np.searchsorted(self.windows.first_byte, ends, side="right") - 1
        is_last = np.append(window[1:] != window[:-1], True)
        return float((ends[is_last] + 1 - self.windows.first_byte[window[is_last]]).sum() / len(ends))

    @property
    def mean_patch_lag(self) -> float:
        """Mean over the bytes that are read."""
        is_read = self.slot_byte != NOT_READ
        return float(self.patch_lag[is_read].mean()) if is_read.any() else 0.0

    @property
    def trunk_cache_bytes_per_entry(self) -> int:
        """Keys and values of one committed patch in all layers of the trunk, in fp32."""
        return round(
            cost(
                self.config, context_bytes=1, patches_per_byte=1.0, scratchpads_per_byte=0.0
            ).trunk_cache_bytes_per_byte
        )

    @property
    def trunk_cache_entries(self) -> int:
        """Committed patches of the window that has most of them: each window starts with an empty cache.

        Where the trunk sees the newest ones alone, no more than these.
        """
        return min(self.most_patches, self.config.trunk_window_patches or self.most_patches)

    @property
    def trunk_cache_bytes(self) -> int:
        """Persistent trunk keys and values of that window; scratchpads leave nothing there."""
        return self.trunk_cache_entries * self.trunk_cache_bytes_per_entry

    @property
    def has_threshold_in_nats(self) -> bool:
        """Whether scratchpads move with a threshold in nats."""
        return self.config.trigger.threshold_in_nats

    def slot_kinds(self) -> list[str | None]:
        """Returns what each byte reads.

        It is "commit", "scratchpad", "separator" (the slot at the separator), "null_context", or None where the byte is
        not read.
        """
        names = {NULL_CONTEXT: "null_context", SEPARATOR_SLOT: "separator", NOT_READ: None}
        fires = self.scratchpad
        return [names[s] if s < 0 else "scratchpad" if fires[s] else "commit" for s in self.slot_byte.tolist()]

    def to_dict(self) -> dict[str, Any]:
        """Returns the JSON of `patchpad inspect`; null stands where there is no value."""
        windows = self.windows
        return {
            "scratchpad_threshold_nats": self.scratchpad_threshold_nats,
            "stored_threshold_nats": self.stored_threshold_nats,
            "num_bytes": self.num_bytes,
            "num_windows": len(windows),
            "num_patches": self.num_patches,
            "num_scratchpads": self.num_scratchpads,
            "trunk_calls": self.trunk_calls,
            "trunk_calls_per_byte": self.point.trunk_calls_per_byte,
            "bits_per_byte": self.bits_per_byte,
            "flops_per_byte": self.point.flops_per_byte,
            "mean_patch_size": self.mean_patch_size,
            "mean_patch_lag": self.mean_patch_lag,
            "trunk_cache_entries": self.trunk_cache_entries,
            "trunk_cache_bytes": self.trunk_cache_bytes,
            "bytes": {
                "value": list(self.text),
                "entropy_nats": _numbers(self.entropy_nats),
                "score": _numbers(self.score),
                "nats": _numbers(self.nats),
                "patch_end": self.patch_end.tolist(),
                "scratchpad": self.scratchpad.tolist(),
                "patch_index": _indices(self.patch_index),
                "patch_lag": _indices(self.patch_lag),
                "slot_byte": _indices(self.slot_byte),
                "slot_kind": self.slot_kinds(),
            },
            "windows": {
                "first_byte": windows.first_byte.tolist(),
                "num_bytes": windows.num_bytes.tolist(),
                "entropy_nats": _numbers(windows.entropy_nats),
                "score": _numbers(windows.score),
                "scratchpad": windows.scratchpad.tolist(),
            },
        }


def inspect(
    model: LanguageModel,
    text: bytes | str,
    *,
    scratchpad_threshold_nats: int | float | None = None,
    with_grid: bool = False,
    on_progress: OnProgress | None = None,
) -> Inspection:
    """Shows what a model decides at each byte of a text.

    Args:
        model: in any mode; restored after.
        text: at least one byte; a string is taken as UTF-8.
        scratchpad_threshold_nats: None for the stored threshold.
        with_grid: also measure what bytes cost at no scratchpads, at quantiles of the scores, at the stored and the
            chosen threshold, and at a scratchpad per byte, and what is likeliest next there.
        on_progress: is told how many bytes have been read, and of how many.

    Raises:
        InputError: no text, something else than text or bytes, or a threshold that is not a number or that the model's
            trigger does not take.
        TrainingError: the model predicts nan or inf.
        GenerationError: a model without scratchpads.
    """
    model = unwrapped(model)
    model.require_scratchpads("there is nothing to inspect")
    data = encode_text(text)
    if not data:
        raise InputError("the text is empty; allowed: at least one byte", hint="Give some text to inspect.")
    threshold = None if scratchpad_threshold_nats is None else _number(scratchpad_threshold_nats)
    model.decisions(threshold, batch=1)  # which checks it
    stored = float(model.scratchpad_threshold_nats)
    used = stored if threshold is None else threshold
    windows = cut_windows(Corpus((np.frombuffer(data, dtype=np.uint8),), ("text",)), model.config.context_bytes)
    taken = _Taken(model)
    along = None
    if with_grid:
        assert isinstance(model, ByteLM)
        along = measure(
            model,
            windows,
            thresholds_of(model, windows, used, stored),
            used,
            is_stored=threshold is None,
            take_output=lambda batch, output: taken.add(batch, output.predicted(batch.targets)),
            on_progress=on_progress,
        )
    else:
        for batch, predicted in predictions(model, windows, threshold):
            taken.add(batch, predicted)
            if on_progress is not None:
                on_progress(taken.tally.num_bytes, len(data))
    positions = _join(taken.pieces)
    commits = positions["commits"]
    return Inspection(
        text=data,
        nats=np.concatenate(taken.nats),
        **_per_byte(positions, windows),
        point=taken.tally.point(model, used, windows),
        num_patches=taken.tally.num_commits,
        most_patches=int(np.add.reduceat(commits, np.flatnonzero(positions["offset"] == 0)).max()),
        num_scratchpads=taken.tally.num_scratchpads,
        along=along,
        stored_threshold_nats=stored,
        config=model.config,
    )


class _Taken:
    """What is gathered from the passes at the chosen threshold."""

    def __init__(self, model: LanguageModel) -> None:
        self.model, self.tally = model, Tally()
        self.pieces: list[dict[str, np.ndarray]] = []
        self.nats: list[np.ndarray] = []

    def add(self, batch: Batch, predicted: Predicted) -> None:
        """Adds a batch."""
        assert predicted.output is not None
        self.tally.add(batch, predicted)
        self.pieces.append(_position_values(self.model, predicted.output))
        self.nats.append(predicted.nats[batch.is_byte].cpu().numpy())


def _position_values(model: LanguageModel, output: ByteLMOutput) -> dict[str, np.ndarray]:
    """Returns values of the batch's positions in document order, padding left out; slots as positions, -1 for none."""
    layout, documents = output.layout, output.layout.documents
    kept = ~documents.is_padding
    place = kept.flatten().cumsum(0) - 1
    slot_place = torch.cat([place.new_full((1,), -1), place[layout.slot_byte]])
    covers_itself = not model.config.patchifier.commits_tokens
    values = {
        "offset": documents.offset,
        "score": model.trigger_scores(output).float(),
        "patch_end": layout.patch_end_mask,
        "scratchpad": layout.scratchpad_mask,
        "may_fire": layout.may_fire,
        "patch_index": layout.patch_index,
        "patch_lag": layout.patch_lag,
        "commits": layout.commits_at,
        "open_bytes": torch.where(layout.patch_end_mask & covers_itself, 0, layout.open_bytes),
        "slot": slot_place[layout.newest_slot],
    }
    if output.entropy_nats is not None:
        values["entropy_nats"] = output.entropy_nats.float()
    return {name: value[kept].cpu().numpy() for name, value in values.items()}


def _join(pieces: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Joins the values of batches; slots count from the first position of the first batch."""
    begin = 0
    for piece in pieces:
        piece["slot"] = np.where(piece["slot"] >= 0, piece["slot"] + begin, -1)
        begin += len(piece["slot"])
    return {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}


def _per_byte(positions: dict[str, np.ndarray], windows: Windows) -> dict[str, Any]:
    """Sorts the values of positions into those of bytes and those of separators."""
    is_separator = positions["offset"] == 0
    window = is_separator.cumsum() - 1
    byte_of_position = np.where(is_separator, SEPARATOR_SLOT, windows.bounds.begin[window] + positions["offset"] - 1)
    read = byte_of_position[~is_separator]
    num_bytes = int(windows.bounds.num_bytes.sum())

    def spread(values: np.ndarray, missing: int | float | bool) -> np.ndarray:
        result = np.full(num_bytes, missing, dtype=values.dtype)
        result[read] = values[~is_separator]
        return result

    slots = np.where(positions["slot"] >= 0, byte_of_position[positions["slot"]], NULL_CONTEXT)
    entropies = positions.get("entropy_nats")
    return {
        "entropy_nats": None if entropies is None else spread(entropies, math.nan),
        "score": spread(positions["score"], math.nan),
        "patch_end": spread(positions["patch_end"], False),
        "scratchpad": spread(positions["scratchpad"], False),
        "may_fire": spread(positions["may_fire"], False),
        "patch_index": spread(positions["patch_index"], -1),
        "patch_lag": spread(positions["patch_lag"], -1),
        "open_bytes": spread(positions["open_bytes"], 0),
        "slot_byte": spread(slots, NOT_READ),
        "windows": WindowStarts(
            first_byte=windows.bounds.begin,
            num_bytes=windows.bounds.num_bytes,
            entropy_nats=None if entropies is None else entropies[is_separator],
            score=positions["score"][is_separator],
            scratchpad=positions["scratchpad"][is_separator],
            may_fire=positions["may_fire"][is_separator],
        ),
    }


def _number(threshold: int | float) -> float:
    try:
        return float(threshold)
    except (TypeError, ValueError, OverflowError) as error:
        found = f"scratchpad_threshold_nats is {threshold!r}"
        raise InputError(f"{found}; allowed: None, a number of nats, inf or -inf") from error


def _numbers(values: np.ndarray | None) -> list[float | None] | None:
    return None if values is None else [None if math.isnan(value) else value for value in values.tolist()]


def _indices(values: np.ndarray) -> list[int | None]:
    return [None if value < 0 else value for value in values.tolist()]


__all__ = ["NOT_READ", "NULL_CONTEXT", "SEPARATOR_SLOT", "Inspection", "WindowStarts", "inspect"]
