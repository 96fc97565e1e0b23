"""Triggers decide where scratchpads are issued: a causal score per position and a threshold.

A scratchpad fires at n when score[n] > threshold and n ends no patch. Over all triggers, +inf never fires and -inf
fires at every position, the separator included.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import SupportsFloat

import torch
from torch import Tensor

from patchpad.config import NATS_TRIGGERS, PatchifierConfig, TriggerConfig
from patchpad.errors import InputError
from patchpad.patching.documents import ByteFacts
from patchpad.patching.patchifiers import is_spacelike

Threshold = float | Tensor | None
"""None for the stored threshold, one for all, one per row [batch], or one per position [batch, byte]."""
ThresholdLike = SupportsFloat | Sequence[float] | None
"""What callers may give for it: numbers of any kind, lists, arrays and tensors."""


class Trigger(ABC):
    """A causal score per position; `threshold` is what it fires above unless the caller gives another."""

    threshold: float

    @abstractmethod
    def scores(self, facts: ByteFacts, open_bytes: Tensor) -> Tensor:
        """Returns the score of each position, in the shape of the facts.

        Args:
            facts: what is known at each position.
            open_bytes: bytes of the open patch up to and including n, the separator not counted.
        """

    def scratchpads(self, facts: ByteFacts, open_bytes: Tensor, patch_end: Tensor, threshold: Threshold) -> Tensor:
        """Returns where scratchpads fire: above the threshold and at no patch end."""
        scores = self.scores(facts, open_bytes)
        value = self.threshold if threshold is None else threshold
        if isinstance(value, Tensor):
            value = value.to(scores.device, scores.dtype)
            value = value.reshape(value.shape + (1,) * (scores.dim() - value.dim()))
        return (scores > value) & ~patch_end


class EntropyTrigger(Trigger):
    """Fires where the entropy of the next id exceeds the threshold: the method's own trigger."""

    def __init__(self, threshold_nats: float) -> None:
        self.threshold = threshold_nats

    def scores(self, facts: ByteFacts, open_bytes: Tensor) -> Tensor:
        """Returns the entropies in nats."""
        assert facts.entropy_nats is not None
        return facts.entropy_nats


class EntropyJumpTrigger(EntropyTrigger):
    """Fires where the entropy has risen by more than the threshold since the byte before."""

    def scores(self, facts: ByteFacts, open_bytes: Tensor) -> Tensor:
        """Returns entropy[n] - entropy[n-1] in nats, 0 at a separator."""
        assert facts.entropy_nats is not None
        assert facts.previous_entropy_nats is not None
        return facts.entropy_nats - facts.previous_entropy_nats


class ConstantTrigger(Trigger):
    """Fires nowhere (`never`) or at every position that ends no patch (`always`)."""

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold

    def scores(self, facts: ByteFacts, open_bytes: Tensor) -> Tensor:
        """Returns zeros."""
        return torch.zeros_like(open_bytes, dtype=torch.float32)


class RandomTrigger(Trigger):
    """Fires at random at a given rate: a counter-based hash of the seed and n - start(n), so any row repeats it."""

    def __init__(self, scratchpads_per_byte: float, target_patch_size: int, seed: int) -> None:
        others = 1 - 1 / target_patch_size
        self.threshold = 1 - min(1.0, scratchpads_per_byte / others) if others > 0 else 1.0
        self.seed = seed

    def scores(self, facts: ByteFacts, open_bytes: Tensor) -> Tensor:
        """Returns uniform numbers in [0, 1) with 24 bits."""
        mixed = _mix(facts.document_offset + (_mix_integer(self.seed) + 0x9E3779B9))
        return ((mixed >> 8).to(torch.float32) + 0.5) / 2**24


class StrideTrigger(Trigger):
    """Fires at every `stride` bytes of the open patch."""

    threshold = 0.5

    def __init__(self, stride: int) -> None:
        self.stride = stride

    def scores(self, facts: ByteFacts, open_bytes: Tensor) -> Tensor:
        """Returns 1 at multiples of the stride, else 0."""
        return (facts.is_byte & (open_bytes % self.stride == 0)).to(torch.float32)


class WhitespaceTrigger(Trigger):
    """Fires at every spacelike byte."""

    threshold = 0.5

    def scores(self, facts: ByteFacts, open_bytes: Tensor) -> Tensor:
        """Returns 1 at spacelike bytes, else 0."""
        return (facts.is_byte & is_spacelike(facts.byte_ids)).to(torch.float32)


def _mix_integer(value: int) -> int:
    return int(_mix(torch.tensor(value & 0xFFFFFFFF)).item())


def _mix(value: Tensor) -> Tensor:
    """Finaliser of 32-bit MurmurHash3 on int64 tensors."""
    value = value & 0xFFFFFFFF
    value = ((value ^ (value >> 16)) * 0x85EBCA6B) & 0xFFFFFFFF
    value = ((value ^ (value >> 13)) * 0xC2B2AE35) & 0xFFFFFFFF
    return value ^ (value >> 16)


def build_trigger(config: TriggerConfig, patchifier: PatchifierConfig) -> Trigger:
    """Returns the trigger that the configuration names."""
    if config.kind == "random":
        return RandomTrigger(config.scratchpads_per_byte, patchifier.target_patch_size, config.seed)
    if config.kind == "stride":
        return StrideTrigger(config.stride)
    if config.kind == "whitespace":
        return WhitespaceTrigger()
    if config.kind == "entropy":
        return EntropyTrigger(config.scratchpad_threshold_nats)
    if config.kind == "entropy_jump":
        return EntropyJumpTrigger(config.scratchpad_threshold_nats)
    return ConstantTrigger(math.inf if config.kind == "never" else -math.inf)


def threshold_values(threshold: SupportsFloat | Sequence[float], *, several: str = "one for each row") -> Tensor:
    """Returns what a caller gave as a threshold, in fp64.

    Args:
        threshold: numbers of any kind.
        several: what else than a number is allowed, for the message.

    Raises:
        InputError: no numbers.
    """
    try:
        return torch.as_tensor(threshold, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        found = f"scratchpad_threshold_nats is {threshold!r}"
        raise InputError(f"{found}; allowed: None, a number of nats, inf or -inf, or {several}") from error


def checked_threshold(
    threshold: ThresholdLike, trigger_kind: str, batch: int, length: int | None, *, own_threshold: float = math.inf
) -> Threshold:
    """Returns a threshold that a caller gave, as a float or a tensor.

    Args:
        threshold: the value; None passes.
        trigger_kind: the model's trigger. Only `entropy` and `entropy_jump` take finite thresholds.
        batch: rows of the batch.
        length: positions of a row; None in a step, where a threshold per position has no place.
        own_threshold: the threshold of a trigger that takes none in nats, which is allowed beside +inf and -inf.

    Raises:
        InputError: no number, a shape that fits no row, or a finite value for a trigger that takes none.
    """
    if threshold is None:
        return None
    values = threshold_values(threshold)
    if values.isnan().any():
        raise InputError("scratchpad_threshold_nats is nan; allowed: a number of nats, inf or -inf")
    shapes = [(), (batch,)] + ([(batch, length)] if length is not None else [])
    if tuple(values.shape) not in shapes:
        allowed = ", ".join(str(list(shape)) for shape in shapes)
        raise InputError(f"scratchpad_threshold_nats has the shape {list(values.shape)}; allowed: {allowed}")
    finite = values[values.isfinite()].float()
    if trigger_kind not in NATS_TRIGGERS and bool((finite != torch.tensor(own_threshold)).any()):
        raise InputError(
            f"this model's trigger `{trigger_kind}` takes no threshold in nats; allowed: None, inf (no scratchpads) or "
            "-inf (one at every byte)"
        )
    if isinstance(threshold, Tensor):
        return threshold
    return values if values.dim() else float(values)


__all__ = [
    "ConstantTrigger",
    "EntropyJumpTrigger",
    "EntropyTrigger",
    "RandomTrigger",
    "StrideTrigger",
    "Threshold",
    "ThresholdLike",
    "Trigger",
    "WhitespaceTrigger",
    "build_trigger",
    "checked_threshold",
    "threshold_values",
]
