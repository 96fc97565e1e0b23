"""Which thresholds training uses in a step, and how they move after it."""

import functools
import math
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from patchpad.config import VOCAB_SIZE, Config, PatchifierConfig
from patchpad.model.language_model import LanguageModel
from patchpad.patching import Decisions
from patchpad.patching.blending import BlendedPatchifier, BlendedTrigger
from patchpad.patching.patchifiers import FixedPatchifier
from patchpad.patching.triggers import RandomTrigger
from patchpad.training.pass_scores import PassScores
from patchpad.training.spread import ThresholdSpread
from patchpad.training.thresholds import LAST_CHANGE, FollowedThreshold, num_newest, quantile_for_rate

FRESH_SHARE = 0.8
"""The entropy head is fresh while its mean entropy is above this share of ln 257."""
MOST_CORRECTION_RATE = 0.1
"""Share of a step's error in patches per byte that corrects the rate which the patch threshold follows, at most."""
CORRECTION_PER_MEAN = 0.5
"""That share times the steps that the threshold comes from: more of them answer later, so they are corrected less."""
MOST_CORRECTION = 4.0
"""Factor by which that rate may differ from the target."""


class ThresholdSchedule:
    """The thresholds that training uses for scratchpads, and for patches where the patchifier compares a score in nats.

    They move once per optimizer step, by the scores of all its passes. While the entropy head is fresh (entropies near
    ln 257 everywhere), scratchpads fire at random at the target rate, and `entropy` patches are cut as fixed ones.

    All of its state is on the device, and nothing of it is read but by `state`: whether the head is fresh, too.

    Args:
        config: the whole configuration.
        device: that of the model.
    """

    def __init__(self, config: Config, device: torch.device | str = "cpu") -> None:
        self.config = config
        self.device = torch.device(device)
        train = config.train
        self.is_fresh = torch.full((), config.model.reads_entropy, device=self.device)
        """Whether the entropy head is fresh."""
        self.scratchpad = self._threshold(train.scratchpad_threshold_nats)
        self.patch = self._threshold(train.patch_threshold_nats, takes_mean=True)
        self.target_patch_rate = 1 / config.model.patchifier.target_patch_size
        """Patches per byte aimed at."""
        self.patch_rate = torch.full_like(self.patch.nats, self.target_patch_rate)
        """Natural patch ends per byte that the patch threshold follows."""
        shares = [min(MOST_CORRECTION_RATE, CORRECTION_PER_MEAN / num_newest(n)) for n in range(LAST_CHANGE + 1)]
        self.correction_shares = torch.tensor(shares, dtype=self.patch_rate.dtype, device=self.device)
        """By which its error corrects that rate, for each number of steps followed."""
        self.spread = ThresholdSpread(train, self.device) if train.threshold_spread > 0 else None
        target = config.model.patchifier.target_patch_size
        self.fixed_patchifier = FixedPatchifier(PatchifierConfig(target_patch_size=target))
        self.passes: list[tuple[PassScores, int]] = []
        """Scores of the step's passes, each with its number of bytes."""

    def _threshold(self, fixed: float | None, *, takes_mean: bool = False) -> FollowedThreshold:
        nats = math.inf if fixed is None else fixed
        return FollowedThreshold(nats, is_fixed=fixed is not None, takes_mean=takes_mean, device=self.device)

    @property
    def target_rate(self) -> float:
        """Scratchpads per byte aimed at."""
        rate = self.config.train.scratchpads_per_byte
        return self.config.model.trigger.scratchpads_per_byte if rate is None else rate

    def decisions(self, model: LanguageModel, step: int, pass_number: int = 0, rows: range | None = None) -> Decisions:
        """Returns what decides in a pass of a step. With a spread of thresholds, there is one for each row.

        From step to step only tensors differ, so that a compiled pass takes the decisions as an input.

        Args:
            model: being trained.
            step: counted from 0.
            pass_number: forward pass within the step.
            rows: of the pass, which this rank has; None for all.
        """
        own = model.decisions_at(model.scratchpad_threshold_nats)
        if self.config.model.cuts_by_entropy and not self.patch.is_fixed:
            blended = BlendedPatchifier(self.is_fresh, self.fixed_patchifier, own.patchifier)
            own = replace(own, patchifier=blended)
        trigger, threshold, at_random = own.trigger, own.scratchpad_threshold, self.is_fresh
        if model.takes_threshold_in_nats:
            fixed, threshold = self.config.train.scratchpad_threshold_nats, self.scratchpad.nats
            never_follows = fixed is not None and math.isinf(fixed)
            if not never_follows:
                patchifier = self.config.model.patchifier
                at_target = RandomTrigger.threshold_at(
                    self.target_rate, patchifier.target_patch_size, commits_tokens=patchifier.commits_tokens
                )
                threshold = torch.where(self.is_fresh, at_target, threshold)
            if not never_follows or self.spread is not None:
                trigger = BlendedTrigger(self.is_fresh, self._random_trigger(step), own.trigger)
        elif isinstance(own.trigger, RandomTrigger):
            trigger, at_random = self._random_trigger(step), torch.full_like(self.is_fresh, True)
        if self.spread is not None:
            threshold = self.spread.row_thresholds(step, pass_number, threshold, at_random=at_random, rows=rows)
        return replace(own, trigger=trigger, scratchpad_threshold=threshold.float())

    def _random_trigger(self, step: int) -> RandomTrigger:
        salt = RandomTrigger.salt_of(self.config.train.seed * 1_000_003 + step + 1)
        return RandomTrigger.of_salt(torch.full((), salt, device=self.device))

    def observe(self, scores: PassScores | None, num_bytes: int) -> None:
        """Keeps the scores of a pass, of all ranks, until the step ends.

        Args:
            scores: of the pass; None for a model without an entropy head, which has no threshold to move.
            num_bytes: bytes among the pass's ids.
        """
        if scores is not None:
            self.passes.append((scores, num_bytes))

    def move(
        self,
        model: LanguageModel,
        step: int,
        planned_steps: int | float,
        *,
        is_kept: Bool[Tensor, ""] | None = None,
    ) -> None:
        """Moves the thresholds after a step, unless they are fixed or frozen, and stores them with the model.

        Args:
            model: being trained.
            step: counted from 0.
            planned_steps: of the whole run; frozen thresholds are the last share of these.
            is_kept: whether the step counts: where it is false, nothing moves; None for true.
        """
        passes, self.passes = self.passes, []
        if not passes:
            return
        scores, num_bytes = [scores for scores, _ in passes], sum(count for _, count in passes)
        places = self._places_of_state()
        before = [getattr(owner, name) for owner, name in places]
        was_fresh = self.is_fresh
        mean_entropy = _sum(part.entropy_sum for part in scores) / _sum(part.entropy_count for part in scores)
        self.is_fresh = was_fresh & (mean_entropy > FRESH_SHARE * math.log(VOCAB_SIZE))
        is_frozen = step >= planned_steps * (1 - self.config.train.threshold_frozen_fraction)
        if self.config.model.cuts_by_entropy and not self.patch.is_fixed:
            num_commits = _sum(part.num_commits for part in scores)
            stays = was_fresh | self.patch.has_followed if is_frozen else was_fresh
            self.correct_patch_rate(num_commits.to(self.patch_rate.dtype) / max(1, num_bytes), stays=stays)
            self._follow_patches(_joined(part.patch_ends for part in scores), num_bytes, is_frozen=is_frozen)
        if model.takes_threshold_in_nats and (self.spread is not None or not self.scratchpad.is_fixed):
            eligible = _joined(part.eligible for part in scores)
            self._follow_scratchpads(eligible, num_bytes, is_frozen=is_frozen)
        if is_kept is not None:
            for (owner, name), old in zip(places, before, strict=True):
                setattr(owner, name, torch.where(is_kept, getattr(owner, name), old))
        if self.config.model.cuts_by_entropy:
            model.store_patch_threshold(self.patch.nats)
        if model.takes_threshold_in_nats:
            model.store_threshold(self.scratchpad.nats)

    def _places_of_state(self) -> list[tuple[Any, str]]:
        """Returns all that `move` changes, as objects and names of their attributes."""
        followed = [self.scratchpad, self.patch, *([] if self.spread is None else [self.spread.quantiles])]
        moving = [(threshold, name) for threshold in followed for name in ("nats", "num_followed", "newest")]
        return [(self, "is_fresh"), (self, "patch_rate"), *moving]

    def _follow_patches(self, patch_ends: Tensor, num_bytes: int, *, is_frozen: bool) -> None:
        most = self.target_patch_rate * MOST_CORRECTION
        newest = quantile_for_rate(patch_ends, self.patch_rate, num_bytes, most_rate=most)
        self.patch.follow(newest, is_fresh=self.is_fresh, is_frozen=is_frozen)

    def _follow_scratchpads(self, eligible: Tensor, num_bytes: int, *, is_frozen: bool) -> None:
        if self.spread is not None:  # never frozen: it is not stored, and rates are to stay right
            self.spread.follow(eligible, is_fresh=self.is_fresh)
        if not self.scratchpad.is_fixed:
            newest = quantile_for_rate(eligible, self.target_rate, num_bytes)
            self.scratchpad.follow(newest, is_fresh=self.is_fresh, is_frozen=is_frozen)
            if is_frozen:
                self.scratchpad.settle()

    def correct_patch_rate(self, realised: Float[Tensor, ""], *, stays: Bool[Tensor, ""]) -> None:
        """Moves the rate of natural patch ends so that patches have their target size on average.

        Forced ends, and entropies that fall faster than the threshold follows, would otherwise shift it.

        Args:
            realised: patches per byte of the step.
            stays: whether the rate is left as it is.
        """
        target = self.target_patch_rate
        share = self.correction_shares[self.patch.num_followed.clamp(max=LAST_CHANGE).view(1)].view(())
        corrected = self.patch_rate + share * (target - realised)
        corrected = corrected.clamp(target / MOST_CORRECTION, target * MOST_CORRECTION)
        self.patch_rate = torch.where(stays, self.patch_rate, corrected)

    def state(self) -> dict[str, Any]:
        """Returns what a resumed run needs: this reads the device."""
        spread = {} if self.spread is None else {"spread": self.spread.state()}
        (scratchpad,), (patch,) = self.scratchpad.states(), self.patch.states()
        return {
            "is_fresh": bool(self.is_fresh),
            "scratchpad": scratchpad,
            "patch": patch,
            "patch_rate": float(self.patch_rate),
            **spread,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Takes over `state()` after a trip through JSON."""
        self.is_fresh = torch.full_like(self.is_fresh, bool(state["is_fresh"]))
        self.scratchpad.restore([state["scratchpad"]])
        self.patch.restore([state["patch"]])
        self.patch_rate = torch.full_like(self.patch_rate, float(state["patch_rate"]))
        if self.spread is not None:
            self.spread.restore(state["spread"])


def _sum(parts: Iterable[Tensor]) -> Tensor:
    return functools.reduce(torch.add, parts)


def _joined(parts: Iterable[Tensor | None]) -> Float[Tensor, " score"]:
    flat = [part.flatten() for part in parts if part is not None]
    return flat[0] if len(flat) == 1 else torch.cat(flat)
