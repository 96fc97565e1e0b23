"""Learning rate by step, and the scratchpad threshold that follows a rate."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from patchpad.config import NATS_TRIGGERS, VOCAB_SIZE, Config, TrainConfig
from patchpad.files import json_float
from patchpad.model.byte_lm import ByteLM, ByteLMOutput
from patchpad.model.language_model import LanguageModel
from patchpad.patching.triggers import RandomTrigger, Trigger
from patchpad.shapes import ByteIds

FRESH_SHARE = 0.8
"""The entropy head is fresh while its mean entropy is above this share of ln 257."""
FOLLOW_RATE = 0.5
"""Weight of the newest batch's quantile in the running threshold."""


def learning_rate(step: int, config: TrainConfig) -> float:
    """Learning rate of a step counted from 0: linear warm-up, then a cosine down to the final ratio."""
    warmup = min(config.warmup_steps, config.steps)
    if step < warmup:
        return config.learning_rate * (step + 1) / (warmup + 1)
    progress = (step - warmup) / max(1, config.steps - warmup)
    floor = config.final_learning_rate_ratio
    return config.learning_rate * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress)))


@dataclass
class ScratchpadSchedule:
    """The threshold that training uses: fixed in nats, or a running quantile that follows a rate and then freezes.

    While the entropy head is fresh (entropies near ln 257 everywhere), scratchpads fire at random at the target rate.
    """

    config: Config
    threshold_nats: float = math.inf
    is_fresh: bool = True
    has_followed: bool = False

    def __post_init__(self) -> None:
        self.reads_entropy = self.config.model.trigger.kind in NATS_TRIGGERS
        fixed = self.config.train.scratchpad_threshold_nats
        self.is_fresh = self.is_fresh and self.reads_entropy
        if fixed is not None:
            self.threshold_nats = fixed

    @property
    def target_rate(self) -> float:
        """Scratchpads per byte aimed at."""
        rate = self.config.train.scratchpads_per_byte
        return self.config.model.trigger.scratchpads_per_byte if rate is None else rate

    def decision(self, model: LanguageModel, step: int) -> tuple[float | None, Trigger]:
        """Returns the threshold and trigger of a step; None stands for the trigger's own threshold."""
        step_seed = self.config.train.seed * 1_000_003 + step + 1
        patch_size = self.config.model.patchifier.target_patch_size
        fixed = self.config.train.scratchpad_threshold_nats
        if self.is_fresh and not (fixed is not None and math.isinf(fixed)):
            return None, RandomTrigger(self.target_rate, patch_size, step_seed)
        if self.reads_entropy:
            return self.threshold_nats, model.trigger
        if isinstance(model.trigger, RandomTrigger):
            return None, RandomTrigger(self.config.model.trigger.scratchpads_per_byte, patch_size, step_seed)
        return None, model.trigger

    def update(self, model: ByteLM, byte_ids: ByteIds, output: ByteLMOutput, step: int) -> None:
        """Moves the threshold after a step, unless it is fixed or frozen, and stores it with the model."""
        if not self.reads_entropy:
            return
        assert output.entropy_nats is not None
        is_input = ~output.layout.documents.is_padding
        mean_entropy = float(output.entropy_nats[is_input].mean())
        self.is_fresh = self.is_fresh and mean_entropy > FRESH_SHARE * math.log(VOCAB_SIZE)
        train = self.config.train
        frozen = step >= train.steps * (1 - train.threshold_frozen_fraction)
        if train.scratchpad_threshold_nats is None and not (frozen and self.has_followed):
            num_bytes = int(output.layout.documents.is_byte.sum())
            newest = quantile_for_rate(model.eligible_scores(byte_ids, output), self.target_rate, num_bytes)
            if not self.has_followed or self.is_fresh or not math.isfinite(newest):
                self.threshold_nats = newest
            else:
                self.threshold_nats += FOLLOW_RATE * (newest - self.threshold_nats)
            self.has_followed = math.isfinite(newest)
        model.store_threshold(self.threshold_nats)

    def state(self) -> dict[str, Any]:
        """Returns what a resumed run needs."""
        return {
            "threshold_nats": self.threshold_nats,
            "is_fresh": self.is_fresh,
            "has_followed": self.has_followed,
        }

    @staticmethod
    def from_state(config: Config, state: dict[str, Any]) -> "ScratchpadSchedule":
        """Restores the schedule from `state()` after a trip through JSON."""
        return ScratchpadSchedule(
            config, json_float(state["threshold_nats"]), bool(state["is_fresh"]), bool(state["has_followed"])
        )


def quantile_for_rate(scores: Tensor, rate: float, num_bytes: int) -> float:
    """Returns the threshold above which `rate * num_bytes` of the scores lie: +inf for none, -inf for all."""
    count = round(rate * num_bytes)
    if count <= 0:
        return math.inf
    if count >= len(scores):
        return -math.inf
    # Halfway between two neighbours, so that rounding does not decide which of them fire.
    above, below = torch.topk(scores.cpu().double(), count + 1).values[-2:].tolist()
    return (above + below) / 2
