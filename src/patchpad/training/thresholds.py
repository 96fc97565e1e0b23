"""Thresholds that follow a rate: a line through the last steps' quantiles."""

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from patchpad.files import json_float

MOST_STEPS = 40
"""A followed threshold comes from the quantiles of at most so many steps."""
SHARE_OF_STEPS = 0.25
"""It comes from this share of the steps followed so far, while that is less."""


@dataclass
class FollowedThreshold:
    """A threshold in nats that is fixed, or that follows the last steps' quantiles and freezes.

    It lies on the straight line that fits these quantiles best, at the newest step. So the noise of single batches
    averages out, and it does not lag behind while entropies fall, as a mean would. What is stored in the end is a mean,
    see `settle`.
    """

    nats: float
    is_fixed: bool = False
    takes_mean: bool = False
    """Takes the mean instead: where the rate that it follows is corrected anyway, the less noise the better."""
    num_followed: int = 0
    """Steps followed since the last quantile that was used at once."""
    newest: list[float] = field(default_factory=list)
    """Quantiles that `nats` comes from, oldest first."""

    @property
    def has_followed(self) -> bool:
        """Whether it comes from at least one finite quantile."""
        return bool(self.newest)

    def follow(self, newest: float, *, is_fresh: bool) -> None:
        """Takes a step's quantile in; it is used alone while the head is fresh, and where it is infinite."""
        if is_fresh or not math.isfinite(newest):
            self.nats, self.num_followed, self.newest = newest, 0, [newest] if math.isfinite(newest) else []
            return
        self.num_followed += 1
        steps = min(MOST_STEPS, 1 + int(SHARE_OF_STEPS * self.num_followed))
        self.newest = [*self.newest, newest][-steps:]
        self.nats = sum(self.newest) / len(self.newest) if self.takes_mean else newest_of_line(self.newest)

    def settle(self) -> None:
        """Takes the mean of the newer half of its quantiles: less noise than the line, and entropies fall no more.

        It may be called again and changes nothing then.
        """
        last = self.newest[-max(1, len(self.newest) // 2) :]
        self.nats = sum(last) / len(last)

    def state(self) -> dict[str, Any]:
        """Returns what a resumed run needs."""
        return {"nats": self.nats, "num_followed": self.num_followed, "newest": self.newest}

    def restore(self, state: dict[str, Any]) -> None:
        """Takes over `state()` after a trip through JSON."""
        self.nats, self.num_followed = json_float(state["nats"]), int(state["num_followed"])
        self.newest = [float(value) for value in state["newest"]]


def newest_of_line(values: list[float]) -> float:
    """Returns the last value of the least-squares line through evenly spaced values, oldest first."""
    count = len(values)
    weighted = sum((3 * number - count - 1) * value for number, value in enumerate(values, start=1))
    return 2 * weighted / (count * (count + 1))


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
