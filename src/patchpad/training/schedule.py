"""Learning rate by step, and thresholds that follow a rate of scratchpads or of patches."""

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from patchpad.config import NATS_TRIGGERS, VOCAB_SIZE, Config, TrainConfig
from patchpad.model.byte_lm import ByteLM, ByteLMOutput
from patchpad.model.language_model import LanguageModel
from patchpad.patching import Decisions
from patchpad.patching.patchifiers import FixedPatchifier
from patchpad.patching.triggers import RandomTrigger, Trigger
from patchpad.training.followed import FollowedThreshold
from patchpad.training.spread import ThresholdSpread

FRESH_SHARE = 0.8
"""The entropy head is fresh while its mean entropy is above this share of ln 257."""
CORRECTION_RATE = 0.1
"""Share of a step's error in patches per byte that corrects the rate which the patch threshold follows."""
MOST_CORRECTION = 4.0
"""Factor by which that rate may differ from the target."""


def learning_rate(step: int, config: TrainConfig, planned_steps: int | float | None = None) -> float:
    """Learning rate of a step counted from 0: linear warm-up, then a cosine that approaches the final ratio.

    It would reach it at step `planned_steps` (default: `config.steps`), one after the last.
    """
    steps = config.steps if planned_steps is None else planned_steps
    warmup = min(config.warmup_steps, steps)
    if step < warmup:
        return config.learning_rate * (step + 1) / (warmup + 1)
    progress = (step - warmup) / max(1, steps - warmup)
    floor = config.final_learning_rate_ratio
    return config.learning_rate * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress)))


class ThresholdSchedule:
    """The thresholds that training uses for scratchpads, and for patches where the patchifier is `entropy`.

    While the entropy head is fresh (entropies near ln 257 everywhere), scratchpads fire at random at the target rate,
    and `entropy` patches are cut as fixed ones.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        train = config.train
        self.trigger_reads_entropy = config.model.trigger.kind in NATS_TRIGGERS
        self.cuts_by_entropy = config.model.patchifier.kind == "entropy"
        self.is_fresh = config.model.reads_entropy
        self.scratchpad = self._threshold(train.scratchpad_threshold_nats)
        self.patch = self._threshold(train.patch_threshold_nats)
        self.patch_rate = 1 / config.model.patchifier.target_patch_size
        """Natural patch ends per byte that the patch threshold follows."""
        self.spread = ThresholdSpread(train) if train.threshold_spread > 0 else None
        self.fixed_patchifier = FixedPatchifier(replace(config.model.patchifier, kind="fixed"))

    @staticmethod
    def _threshold(fixed: float | None) -> FollowedThreshold:
        return FollowedThreshold(math.inf) if fixed is None else FollowedThreshold(fixed, is_fixed=True)

    @property
    def target_rate(self) -> float:
        """Scratchpads per byte aimed at."""
        rate = self.config.train.scratchpads_per_byte
        return self.config.model.trigger.scratchpads_per_byte if rate is None else rate

    def decisions(self, model: LanguageModel, step: int, pass_number: int = 0) -> Decisions:
        """Returns what decides in a pass of a step. With a spread of thresholds, there is one for each row."""
        own = model.decisions_at(model.scratchpad_threshold_nats)
        if self.cuts_by_entropy and self.is_fresh and not self.patch.is_fixed:
            own = replace(own, patchifier=self.fixed_patchifier)
        common, trigger, at_random = self._common_threshold(own, step)
        if self.spread is None:
            threshold = torch.tensor(common, dtype=torch.float32)
        else:
            threshold = self.spread.row_thresholds(step, pass_number, common, at_random=at_random)
        return replace(own, trigger=trigger, scratchpad_threshold=threshold.to(model.device))

    def _common_threshold(self, own: Decisions, step: int) -> tuple[float, Trigger, bool]:
        """Returns the threshold of rows without a rate of their own, the trigger, and whether it fires at random."""
        step_seed = self.config.train.seed * 1_000_003 + step + 1
        patch_size = self.config.model.patchifier.target_patch_size
        if isinstance(own.trigger, RandomTrigger):
            return float(own.scratchpad_threshold), RandomTrigger(step_seed), True
        if not self.trigger_reads_entropy:
            return float(own.scratchpad_threshold), own.trigger, False
        common = self.scratchpad.nats
        stays = self.scratchpad.is_fixed and math.isinf(common)
        if self.is_fresh and not (stays and self.spread is None):
            if not stays:
                common = RandomTrigger.threshold_at(self.target_rate, patch_size)
            return common, RandomTrigger(step_seed), True
        return common, own.trigger, False

    def update(self, model: ByteLM, output: ByteLMOutput, step: int, planned_steps: int | float) -> None:
        """Moves the thresholds after a step, unless they are fixed or frozen, and stores them with the model.

        Args:
            model: being trained.
            output: of the pass.
            step: counted from 0.
            planned_steps: of the whole run; frozen thresholds are the last share of these.
        """
        if not self.config.model.reads_entropy:
            return
        assert output.entropy_nats is not None
        layout, was_fresh = output.layout, self.is_fresh
        mean_entropy = float(output.entropy_nats[~layout.documents.is_padding].mean())
        self.is_fresh = self.is_fresh and mean_entropy > FRESH_SHARE * math.log(VOCAB_SIZE)
        train = self.config.train
        frozen = step >= planned_steps * (1 - train.threshold_frozen_fraction)
        num_bytes = int(layout.documents.is_byte.sum())
        if self.cuts_by_entropy:
            if not self.patch.is_fixed and not (frozen and self.patch.has_followed):
                if not was_fresh:
                    self.correct_patch_rate(int(layout.patch_end_mask.sum()) / num_bytes)
                scores = model.patch_end_scores(output)
                self.patch.follow(quantile_for_rate(scores, self.patch_rate, num_bytes), is_fresh=self.is_fresh)
            model.store_patch_threshold(self.patch.nats)
        if self.trigger_reads_entropy:
            if self.spread is not None:  # never frozen: it is not stored, and rates are to stay right
                self.spread.follow(model.eligible_scores(output), is_fresh=self.is_fresh)
            if not self.scratchpad.is_fixed and not (frozen and self.scratchpad.has_followed):
                newest = quantile_for_rate(model.eligible_scores(output), self.target_rate, num_bytes)
                self.scratchpad.follow(newest, is_fresh=self.is_fresh)
            model.store_threshold(self.scratchpad.nats)

    def correct_patch_rate(self, realised: float) -> None:
        """Moves the rate of natural patch ends so that patches have their target size on average.

        Forced ends, and entropies that fall faster than the threshold follows, would otherwise shift it.
        """
        target = 1 / self.config.model.patchifier.target_patch_size
        self.patch_rate += CORRECTION_RATE * (target - realised)
        self.patch_rate = min(max(self.patch_rate, target / MOST_CORRECTION), target * MOST_CORRECTION)

    def state(self) -> dict[str, Any]:
        """Returns what a resumed run needs."""
        spread = {} if self.spread is None else {"spread": self.spread.state()}
        return {
            "is_fresh": self.is_fresh,
            "scratchpad": self.scratchpad.state(),
            "patch": self.patch.state(),
            "patch_rate": self.patch_rate,
            **spread,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Takes over `state()` after a trip through JSON."""
        self.is_fresh = bool(state["is_fresh"])
        self.scratchpad.restore(state["scratchpad"])
        self.patch.restore(state["patch"])
        self.patch_rate = float(state["patch_rate"])
        if self.spread is not None:
            self.spread.restore(state["spread"])


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
