"""Triggers: a causal score per position, which decides where scratchpads are issued.

A scratchpad fires at n when score[n] > threshold and n ends no patch; see `Decisions`. Over all triggers, +inf never
fires and -inf fires at every position, the separator included.
"""

import math
from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch
from jaxtyping import Int
from torch import Tensor

from patchpad.config import PatchifierConfig, TriggerConfig
from patchpad.patching.documents import ByteFacts
from patchpad.patching.patchifiers import is_spacelike
from patchpad.registry import TRIGGERS

LEAST_SHARE = 1e-3
"""With `ending_entropy`: what the entropy counts for at least. Else most scores would be 0, and no threshold would let
scratchpads fire at some of these places."""


class Trigger(ABC):
    """A causal score per position; a pure function, which knows no threshold.

    A plug-in derives from it; see `docs/plugins.md`.
    """

    Options: ClassVar[type | None] = None
    """A dataclass of the options that a plug-in's class has in `model.trigger.options`; None for none."""
    reads_entropy: ClassVar[bool] = False
    """Whether it reads entropies, so that the model needs its entropy head; true wherever the threshold is in nats."""
    threshold_in_nats: ClassVar[bool] = False
    """Whether the score is in nats: training then follows a rate, and the threshold can be given and calibrated."""

    def __init__(self, config: TriggerConfig | None = None) -> None:
        self.options: Any = None if config is None else config.parsed_options()
        """The options of a plug-in's class, as its `Options`; None without."""

    @classmethod
    def of(cls, config: TriggerConfig) -> "Trigger":
        """Returns the trigger of a configuration that names it."""
        return cls(config)

    def initial_threshold(self, config: TriggerConfig, patchifier: PatchifierConfig) -> float:
        """Returns the threshold of a new model, which is stored with it until another is."""
        return config.scratchpad_threshold_nats if self.threshold_in_nats else 0.5

    @abstractmethod
    def scores(self, facts: ByteFacts, open_bytes: Tensor) -> Tensor:
        """Returns the score of each position, in the shape of the facts.

        Args:
            facts: what is known at each position.
            open_bytes: bytes of the open patch up to and including n, the separator not counted.
        """


class EntropyTrigger(Trigger):
    """Fires where the entropy of the next id exceeds the threshold: the method's own trigger."""

    reads_entropy = True
    threshold_in_nats = True

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


class EndingEntropyTrigger(EntropyTrigger):
    """Fires where the open token has probably ended and the next byte is uncertain, for models with a source head.

    Where a token goes on, the source's newest commit says how; only where it ends, a scratchpad has something to fetch.
    """

    def scores(self, facts: ByteFacts, open_bytes: Tensor) -> Tensor:
        """Returns the entropies in nats, each times the chance that the open token has ended, or `LEAST_SHARE`."""
        assert facts.entropy_nats is not None
        assert facts.ended_share is not None
        return facts.entropy_nats * facts.ended_share.clamp_min(LEAST_SHARE)


class ConstantTrigger(Trigger):
    """Fires nowhere (`never`) or at every position that ends no patch (`always`)."""

    def initial_threshold(self, config: TriggerConfig, patchifier: PatchifierConfig) -> float:
        """Returns inf for `never`, -inf for `always`."""
        return math.inf if config.kind == "never" else -math.inf

    def scores(self, facts: ByteFacts, open_bytes: Tensor) -> Tensor:
        """Returns zeros."""
        return torch.zeros_like(open_bytes, dtype=torch.float32)


class RandomTrigger(Trigger):
    """Fires at random: a counter-based hash of the seed and n - start(n), so any row repeats it."""

    def __init__(self, seed: int) -> None:
        self.salt: int | Int[Tensor, ""] = self.salt_of(seed)
        """The seed, mixed; added to n - start(n) before that is hashed."""

    @classmethod
    def of(cls, config: TriggerConfig) -> "Trigger":
        """Returns the trigger of a configuration that names it."""
        return cls(config.seed)

    def initial_threshold(self, config: TriggerConfig, patchifier: PatchifierConfig) -> float:
        """Returns the threshold at which the configured rate fires."""
        return self.threshold_at(
            config.scratchpads_per_byte, patchifier.target_patch_size, commits_tokens=patchifier.commits_tokens
        )

    @staticmethod
    def salt_of(seed: int) -> int:
        """Returns the salt of a seed, below 2^33."""
        return _mix_integer(seed) + 0x9E3779B9

    @staticmethod
    def of_salt(salt: Int[Tensor, ""]) -> "RandomTrigger":
        """Returns the trigger of a salt that lies on the device, in int64.

        A compiled pass takes it as an input, so that it need not be compiled again for another seed.
        """
        trigger = RandomTrigger(0)
        trigger.salt = salt
        return trigger

    @staticmethod
    def threshold_at(scratchpads_per_byte: float, target_patch_size: int, *, commits_tokens: bool = False) -> float:
        """Returns the threshold that fires so many scratchpads per byte, if patches have their target size.

        Args:
            scratchpads_per_byte: the rate.
            target_patch_size: bytes per patch.
            commits_tokens: whether patches are `tokens`, where one may fire at most bytes, beside commits too.
        """
        others = 1.0 if commits_tokens else 1 - 1 / target_patch_size
        return 1 - min(1.0, scratchpads_per_byte / others) if others > 0 else 1.0

    def scores(self, facts: ByteFacts, open_bytes: Tensor) -> Tensor:
        """Returns uniform numbers in [0, 1) with 24 bits."""
        mixed = _mix(facts.document_offset + self.salt)
        return ((mixed >> 8).to(torch.float32) + 0.5) / 2**24


class StrideTrigger(Trigger):
    """Fires at every `stride` bytes of the open patch."""

    def __init__(self, stride: int) -> None:
        self.stride = stride

    @classmethod
    def of(cls, config: TriggerConfig) -> "Trigger":
        """Returns the trigger of a configuration that names it."""
        return cls(config.stride)

    def scores(self, facts: ByteFacts, open_bytes: Tensor) -> Tensor:
        """Returns 1 at multiples of the stride, else 0."""
        return (facts.is_byte & (open_bytes % self.stride == 0)).to(torch.float32)


class WhitespaceTrigger(Trigger):
    """Fires at every spacelike byte."""

    def scores(self, facts: ByteFacts, open_bytes: Tensor) -> Tensor:
        """Returns 1 at spacelike bytes, else 0."""
        return (facts.is_byte & is_spacelike(facts.byte_ids)).to(torch.float32)


def _mix_integer(value: int) -> int:
    return int(_mix(torch.tensor(value & 0xFFFFFFFF, device="cpu")).item())


def _mix(value: Tensor) -> Tensor:
    """Finaliser of 32-bit MurmurHash3 on int64 tensors."""
    value = value & 0xFFFFFFFF
    value = ((value ^ (value >> 16)) * 0x85EBCA6B) & 0xFFFFFFFF
    value = ((value ^ (value >> 13)) * 0xC2B2AE35) & 0xFFFFFFFF
    return value ^ (value >> 16)


def build_trigger(config: TriggerConfig) -> Trigger:
    """Returns the trigger that the configuration names."""
    return TRIGGERS.get(config.kind).of(config)


def initial_threshold(config: TriggerConfig, patchifier: PatchifierConfig) -> float:
    """Returns the threshold of a new model's trigger, which is stored with it until another is."""
    return build_trigger(config).initial_threshold(config, patchifier)


__all__ = [
    "ConstantTrigger",
    "EndingEntropyTrigger",
    "EntropyJumpTrigger",
    "EntropyTrigger",
    "RandomTrigger",
    "StrideTrigger",
    "Trigger",
    "WhitespaceTrigger",
    "build_trigger",
    "initial_threshold",
]
