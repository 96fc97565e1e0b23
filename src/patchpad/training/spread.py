"""Rows that train at rates of their own, so that one model serves every compute (`train.threshold_spread`).

A rate is drawn as a share of the positions where a scratchpad may fire: 0 is a rate of 0, 1 the most that the patches
leave. Whatever the patchifier, the rate per byte is then uniform between 0 and the most possible.
"""

import math
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from patchpad.config import TrainConfig
from patchpad.training.thresholds import FollowedThreshold

NUM_SHARES = 17
SHARES = tuple((1 - math.cos(math.pi * number / (NUM_SHARES - 1))) / 2 for number in range(NUM_SHARES))
"""Shares at which running quantiles are kept: dense at both ends, where scores are thin and quantiles far apart."""
FIRST_STREAM = 2**63
"""Streams of the run's seed from here on are ours, one a step; those below belong to the order of the data."""


class ThresholdSpread:
    """Which rows of a step have shares of their own, and the thresholds that fire at these shares."""

    def __init__(self, train: TrainConfig) -> None:
        self.train = train
        self.quantiles = [FollowedThreshold(math.inf) for _ in SHARES]
        """In nats, for each of `SHARES`; the first and last are the largest and the smallest score."""

    def row_shares(self, step: int, pass_number: int) -> list[float | None]:
        """Returns the share of each row of a pass; None for rows that train at the common rate.

        The rows of a step are drawn together, from the seed and the step alone. Where the spread is no whole number of
        rows, the odd row is drawn too, so that it holds on average.
        """
        num_rows = self.train.batch_rows * self.train.accumulation_steps
        key = np.array([self.train.seed, FIRST_STREAM + step], dtype=np.uint64)
        source = np.random.Generator(np.random.Philox(key=key))
        count = int(self.train.threshold_spread * num_rows + source.random())
        chosen = set(source.permutation(num_rows)[:count].tolist())
        shares = source.random(num_rows).tolist()
        first = pass_number * self.train.batch_rows
        return [shares[row] if row in chosen else None for row in range(first, first + self.train.batch_rows)]

    def row_thresholds(self, step: int, pass_number: int, common: float, *, at_random: bool) -> Float[Tensor, " batch"]:
        """Returns the threshold of each row of a pass.

        Args:
            step: counted from 0.
            pass_number: forward pass within the step.
            common: threshold of the rows without a share of their own.
            at_random: whether scratchpads fire at random, so that thresholds are those of `RandomTrigger`.
        """
        own = random_threshold if at_random else self.threshold
        return torch.tensor(
            [common if share is None else own(share) for share in self.row_shares(step, pass_number)],
            dtype=torch.float32,
        )

    def threshold(self, share: float) -> float:
        """Returns the threshold above which about `share` of the eligible scores lie, between running quantiles."""
        if share <= 0 or share >= 1:
            return math.inf if share <= 0 else -math.inf
        return float(np.interp(share, SHARES, [quantile.nats for quantile in self.quantiles]))

    def follow(self, eligible_scores: Float[Tensor, " eligible"], *, is_fresh: bool) -> None:
        """Moves the quantiles towards those of the newest scores."""
        shares = torch.tensor(SHARES, dtype=torch.float64)
        newest = torch.quantile(eligible_scores.cpu().double(), 1 - shares).tolist()
        for quantile, nats in zip(self.quantiles, newest, strict=True):
            quantile.follow(nats, is_fresh=is_fresh)

    def state(self) -> list[dict[str, Any]]:
        """Returns what a resumed run needs."""
        return [quantile.state() for quantile in self.quantiles]

    def restore(self, state: list[dict[str, Any]]) -> None:
        """Takes over `state()` after a trip through JSON."""
        for quantile, values in zip(self.quantiles, state, strict=True):
            quantile.restore(values)


def random_threshold(share: float) -> float:
    """Returns the threshold at which `RandomTrigger`, whose scores are uniform, fires at a share of the positions."""
    return math.inf if share <= 0 else 1 - share
