"""Which thresholds training uses in a step, and how they move after it."""

import math
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from patchpad.config import VOCAB_SIZE, Config
from patchpad.model.language_model import LanguageModel
from patchpad.model.outputs import ByteLMOutput
from patchpad.patching import Decisions
from patchpad.patching.patchifiers import FixedPatchifier
from patchpad.patching.triggers import RandomTrigger
from patchpad.training.spread import ThresholdSpread
from patchpad.training.thresholds import FollowedThreshold, quantile_for_rate

FRESH_SHARE = 0.8
"""The entropy head is fresh while its mean entropy is above this share of ln 257."""
MOST_CORRECTION_RATE = 0.1
"""Share of a step's error in patches per byte that corrects the rate which the patch threshold follows, at most."""
CORRECTION_PER_MEAN = 0.5
"""That share times the steps that the threshold comes from: more of them answer later, so they are corrected less."""
MOST_CORRECTION = 4.0
"""Factor by which that rate may differ from the target."""


@dataclass
class StepScores:
    """What the passes of a step leave for the thresholds; tensors stay on the device until the step ends."""

    eligible: list[Tensor] = field(default_factory=list)
    """The trigger's scores where a scratchpad may fire."""
    patch_ends: list[Tensor] = field(default_factory=list)
    """The patchifier's scores at all bytes."""
    entropies: list[Tensor] = field(default_factory=list)
    """Entropies at all positions, padding left out."""
    num_bytes: list[Tensor] = field(default_factory=list)
    num_commits: list[Tensor] = field(default_factory=list)


class ThresholdSchedule:
    """The thresholds that training uses for scratchpads, and for patches where the patchifier is `entropy`.

    They move once per optimizer step, by the scores of all its passes. While the entropy head is fresh (entropies near
    ln 257 everywhere), scratchpads fire at random at the target rate, and `entropy` patches are cut as fixed ones.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        train = config.train
        self.is_fresh = config.model.reads_entropy
        self.scratchpad = self._threshold(train.scratchpad_threshold_nats)
        self.patch = self._threshold(train.patch_threshold_nats)
        self.patch.takes_mean = True
        self.patch_rate = 1 / config.model.patchifier.target_patch_size
        """Natural patch ends per byte that the patch threshold follows."""
        self.spread = ThresholdSpread(train) if train.threshold_spread > 0 else None
        self.fixed_patchifier = FixedPatchifier(replace(config.model.patchifier, kind="fixed"))
        self.scores = StepScores()

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
        if self.config.model.cuts_by_entropy and self.is_fresh and not self.patch.is_fixed:
            own = replace(own, patchifier=self.fixed_patchifier)
        common: float | None = None
        """The threshold of rows without a rate of their own; None for the stored one."""
        at_random = isinstance(own.trigger, RandomTrigger)
        if model.takes_threshold_in_nats:
            common = self.scratchpad.nats
            never_follows = self.scratchpad.is_fixed and math.isinf(common)
            at_random = self.is_fresh and not (never_follows and self.spread is None)
            if at_random and not never_follows:
                patch_size = self.config.model.patchifier.target_patch_size
                common = RandomTrigger.threshold_at(self.target_rate, patch_size)
        if at_random:
            own = replace(own, trigger=RandomTrigger(self.config.train.seed * 1_000_003 + step + 1))
        if self.spread is not None:
            shared = float(own.scratchpad_threshold) if common is None else common
            rows = self.spread.row_thresholds(step, pass_number, shared, at_random=at_random)
            return replace(own, scratchpad_threshold=rows.to(model.device))
        if common is None:
            return own
        return replace(own, scratchpad_threshold=torch.tensor(common, dtype=torch.float32, device=model.device))

    def observe(self, model: LanguageModel, output: ByteLMOutput) -> None:
        """Keeps the scores of a pass until the step ends."""
        if output.entropy_nats is None:
            return
        layout, scores = output.layout, self.scores
        scores.entropies.append(output.entropy_nats[~layout.documents.is_padding])
        scores.num_bytes.append(layout.documents.is_byte.sum())
        scores.num_commits.append(layout.patch_end_mask.sum())
        if self.config.model.cuts_by_entropy:
            scores.patch_ends.append(model.patch_end_scores(output))
        if model.takes_threshold_in_nats:
            scores.eligible.append(model.eligible_scores(output))

    def move(self, model: LanguageModel, step: int, planned_steps: int | float) -> None:
        """Moves the thresholds after a step, unless they are fixed or frozen, and stores them with the model.

        Args:
            model: being trained.
            step: counted from 0.
            planned_steps: of the whole run; frozen thresholds are the last share of these.
        """
        scores, self.scores = self.scores, StepScores()
        if not scores.entropies:
            return
        was_fresh = self.is_fresh
        mean_entropy = float(torch.cat(scores.entropies).mean())
        self.is_fresh = self.is_fresh and mean_entropy > FRESH_SHARE * math.log(VOCAB_SIZE)
        frozen = step >= planned_steps * (1 - self.config.train.threshold_frozen_fraction)
        num_bytes = int(sum(scores.num_bytes))
        if scores.patch_ends:
            if not self.patch.is_fixed and not (frozen and self.patch.has_followed):
                if not was_fresh:
                    self.correct_patch_rate(int(sum(scores.num_commits)) / num_bytes)
                newest = quantile_for_rate(torch.cat(scores.patch_ends), self.patch_rate, num_bytes)
                self.patch.follow(newest, is_fresh=self.is_fresh)
            model.store_patch_threshold(self.patch.nats)
        if scores.eligible:
            eligible = torch.cat(scores.eligible)
            if self.spread is not None:  # never frozen: it is not stored, and rates are to stay right
                self.spread.follow(eligible, is_fresh=self.is_fresh)
            if frozen and self.scratchpad.has_followed:
                self.scratchpad.settle()
            elif not self.scratchpad.is_fixed:
                newest = quantile_for_rate(eligible, self.target_rate, num_bytes)
                self.scratchpad.follow(newest, is_fresh=self.is_fresh)
            model.store_threshold(self.scratchpad.nats)

    def correct_patch_rate(self, realised: float) -> None:
        """Moves the rate of natural patch ends so that patches have their target size on average.

        Forced ends, and entropies that fall faster than the threshold follows, would otherwise shift it.
        """
        target = 1 / self.config.model.patchifier.target_patch_size
        share = min(MOST_CORRECTION_RATE, CORRECTION_PER_MEAN / max(1, len(self.patch.newest)))
        self.patch_rate += share * (target - realised)
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
