"""Rows that train at rates of their own, so that one model serves every compute (`train.threshold_spread`).

A rate is drawn as a share of the positions where a scratchpad may fire: 0 is a rate of 0, 1 the most that the patches
leave. Whatever the patchifier, the rate per byte is then uniform between 0 and the most possible.
"""

import math
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from patchpad.config import TrainConfig
from patchpad.device import moved
from patchpad.training.thresholds import FollowedThreshold

NUM_SHARES = 17
SHARES = tuple((1 - math.cos(math.pi * number / (NUM_SHARES - 1))) / 2 for number in range(NUM_SHARES))
"""Shares at which running quantiles are kept: dense at both ends, where scores are thin and quantiles far apart."""
FIRST_STREAM = 2**63
"""Streams of the run's seed from here on are ours, one a step; those below belong to the order of the data."""


class ThresholdSpread:
    """Which rows of a step have shares of their own, and the thresholds that fire at these shares."""

    def __init__(self, train: TrainConfig, device: torch.device | str = "cpu") -> None:
        self.train = train
        self.quantiles = FollowedThreshold(math.inf, several=NUM_SHARES, device=device)
        """In nats, for each of `SHARES`; the first and last are the largest and the smallest score."""
        self.shares = torch.tensor(SHARES, dtype=self.quantiles.nats.dtype, device=device)
        """`SHARES` on the device."""

    def row_shares(self, step: int, pass_number: int) -> list[float | None]:
        """Returns the share of each row of a pass; None for rows that train at the common rate.

        The rows of a step are drawn together, from the seed and the step alone. Where the spread is not a whole number
        of rows, the odd row is drawn too, so that it holds on average.
        """
        num_rows = self.train.batch_rows * self.train.accumulation_steps
        key = np.array([self.train.seed, FIRST_STREAM + step], dtype=np.uint64)
        source = np.random.Generator(np.random.Philox(key=key))
        count = int(self.train.threshold_spread * num_rows + source.random())
        chosen = set(source.permutation(num_rows)[:count].tolist())
        shares = source.random(num_rows).tolist()
        first = pass_number * self.train.batch_rows
        return [shares[row] if row in chosen else None for row in range(first, first + self.train.batch_rows)]

    def row_thresholds(
        self,
        step: int,
        pass_number: int,
        common: Float[Tensor, ""],
        *,
        at_random: Bool[Tensor, ""],
        rows: range | None = None,
    ) -> Float[Tensor, " batch"]:
        """Returns the threshold of each row of a pass, in fp32.

        Args:
            step: counted from 0.
            pass_number: forward pass within the step.
            common: threshold of the rows without a share of their own.
            at_random: whether scratchpads fire at random, so that thresholds are those of `RandomTrigger`.
            rows: of the pass that are wanted; None for all.
        """
        shares = self.row_shares(step, pass_number)
        if rows is not None:
            shares = shares[rows.start : rows.stop]
        drawn = [math.nan if share is None else share for share in shares]
        placed = moved(torch.tensor(drawn, dtype=self.shares.dtype), self.shares.device)
        own = torch.where(at_random, random_thresholds(placed), self.thresholds(placed))
        return torch.where(placed.isnan(), common, own).float()

    def thresholds(self, shares: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """Returns the thresholds above which about these shares of the eligible scores lie, between the quantiles."""
        above = (shares[:, None] >= self.shares[1:-1]).sum(dim=1)
        low, high = self.shares[above], self.shares[above + 1]
        nats_low, nats_high = self.quantiles.nats[above], self.quantiles.nats[above + 1]
        between = nats_low + (nats_high - nats_low) / (high - low) * (shares - low)
        return torch.where(shares <= 0, math.inf, torch.where(shares >= 1, -math.inf, between))

    def follow(self, eligible_scores: Float[Tensor, " score"], *, is_fresh: Bool[Tensor, ""]) -> None:
        """Moves the quantiles towards those of the newest scores; -inf where there is none.

        Of a step that has diverged there may be no score that is a number: then they mean nothing, but nothing fails,
        as an index out of bounds would on a GPU.
        """
        ordered = eligible_scores.sort().values.to(self.shares.dtype)
        num_scores = (eligible_scores > -math.inf).sum()
        ranks = (1 - self.shares) * (num_scores - 1)
        first = len(ordered) - num_scores
        places = ((first + rank.long()).clamp(max=len(ordered) - 1) for rank in (ranks, ranks.ceil()))
        low, high = (ordered.gather(0, place) for place in places)
        self.quantiles.follow(torch.lerp(low, high, ranks - ranks.floor()), is_fresh=is_fresh)

    def state(self) -> list[dict[str, Any]]:
        """Returns what a resumed run needs."""
        return self.quantiles.states()

    def restore(self, states: list[dict[str, Any]]) -> None:
        """Takes over `state()` after a trip through JSON."""
        self.quantiles.restore(states)


def random_thresholds(shares: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
    """Returns the thresholds at which `RandomTrigger`, whose scores are uniform, fires at shares of the positions."""
    return torch.where(shares <= 0, math.inf, 1 - shares)
