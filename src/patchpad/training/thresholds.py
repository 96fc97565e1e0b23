"""Thresholds that follow a rate: the mean of the last steps' quantiles."""

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from patchpad.files import json_float

MOST_STEPS = 40
"""A followed threshold is the mean of the quantiles of at most so many steps."""
SHARE_OF_STEPS = 0.25
"""It is the mean over this share of the steps followed so far, while that is less."""


@dataclass
class FollowedThreshold:
    """A threshold in nats that is fixed, or the mean of the last steps' quantiles, which follows a rate and freezes.

    The newest quantile has the whole weight at first, and 1/40 after 160 steps: what the first steps gave is soon
    forgotten, and the noise of single batches averages out.
    """

    nats: float
    is_fixed: bool = False
    num_followed: int = 0
    """Steps followed since the last quantile that was used at once."""
    newest: list[float] = field(default_factory=list)
    """Quantiles that `nats` is the mean of, oldest first."""

    @property
    def has_followed(self) -> bool:
        """Whether it is the mean of at least one finite quantile."""
        return bool(self.newest)

    def follow(self, newest: float, *, is_fresh: bool) -> None:
        """Takes a step's quantile in; it is used alone while the head is fresh, and where it is infinite."""
        if is_fresh or not math.isfinite(newest):
            self.nats, self.num_followed, self.newest = newest, 0, [newest] if math.isfinite(newest) else []
            return
        self.num_followed += 1
        steps = min(MOST_STEPS, 1 + int(SHARE_OF_STEPS * self.num_followed))
        self.newest = [*self.newest, newest][-steps:]
        self.nats = sum(self.newest) / len(self.newest)

    def state(self) -> dict[str, Any]:
        """Returns what a resumed run needs."""
        return {"nats": self.nats, "num_followed": self.num_followed, "newest": self.newest}

    def restore(self, state: dict[str, Any]) -> None:
        """Takes over `state()` after a trip through JSON."""
        self.nats, self.num_followed = json_float(state["nats"]), int(state["num_followed"])
        self.newest = [float(value) for value in state["newest"]]


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
