"""Thresholds that follow a rate: a line through the last steps' quantiles. All of them stay on the device."""

import math
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from patchpad.device import wide_dtype
from patchpad.files import json_float

MOST_STEPS = 40
"""A followed threshold comes from the quantiles of at most so many steps."""
SHARE_OF_STEPS = 0.25
"""It comes from this share of the steps followed so far, while that is less."""


class FollowedThreshold:
    """A threshold in nats that is fixed, or that follows the last steps' quantiles and freezes. Or several at once.

    It lies on the straight line that fits these quantiles best, at the newest step. So the noise of single batches
    averages out, and it does not lag behind while entropies fall, as a mean would. What is stored in the end is a mean,
    see `settle`.

    Nothing is read from the device but by `states`.

    Args:
        nats: where it starts.
        is_fixed: whether it stays there: then nothing else is called.
        takes_mean: whether it is the mean instead. Where the rate that it follows is corrected anyway, the less noise
            the better.
        several: how many thresholds there are; None for one, whose tensors have no axis for it.
        device: of its tensors.
    """

    nats: Float[Tensor, "*several"]
    """In fp64, or fp32 on MPS."""
    num_followed: Int[Tensor, "*several"]
    """Steps followed since the last quantile that was used at once."""
    newest: Float[Tensor, "*several step"]
    """Quantiles of the last `MOST_STEPS` steps, oldest first."""
    num_newest: Int[Tensor, "*several"]
    """How many of these `nats` comes from: the last ones."""

    def __init__(
        self,
        nats: float,
        *,
        is_fixed: bool = False,
        takes_mean: bool = False,
        several: int | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        self.is_fixed = is_fixed
        self.takes_mean = takes_mean
        device, shape = torch.device(device), () if several is None else (several,)
        dtype = wide_dtype(device)
        self.nats = torch.full(shape, nats, dtype=dtype, device=device)
        self.num_followed = torch.zeros(shape, dtype=torch.long, device=device)
        self.newest = torch.zeros((*shape, MOST_STEPS), dtype=dtype, device=device)
        self.num_newest = torch.zeros(shape, dtype=torch.long, device=device)
        self.places = torch.arange(1 - MOST_STEPS, 1, device=device)
        """Of the quantiles, the newest at 0."""

    @property
    def has_followed(self) -> Bool[Tensor, "*several"]:
        """Whether it comes from at least one finite quantile."""
        return self.num_newest > 0

    def follow(self, newest: Float[Tensor, "*several"], *, is_fresh: Bool[Tensor, ""], is_frozen: bool = False) -> None:
        """Takes a step's quantile in; it is used alone while the head is fresh, and where it is infinite.

        Args:
            newest: the quantile.
            is_fresh: whether the entropy head still is.
            is_frozen: whether it may move only as long as it has followed nothing.
        """
        is_finite = newest.isfinite()
        alone = is_fresh | ~is_finite
        num_followed = torch.where(alone, 0, self.num_followed + 1)
        steps = ((num_followed * SHARE_OF_STEPS).long() + 1).clamp(max=MOST_STEPS)
        num_newest = torch.where(alone, is_finite.long(), torch.minimum(self.num_newest + 1, steps))
        window = torch.cat((self.newest[..., 1:], newest[..., None]), dim=-1)
        fitted = self._mean(window, num_newest) if self.takes_mean else self._newest_of_line(window, num_newest)
        nats = torch.where(alone, newest, fitted)
        if is_frozen:
            stays = self.has_followed
            nats = torch.where(stays, self.nats, nats)
            num_followed = torch.where(stays, self.num_followed, num_followed)
            num_newest = torch.where(stays, self.num_newest, num_newest)
            window = torch.where(stays[..., None], self.newest, window)
        self.nats, self.num_followed, self.newest, self.num_newest = nats, num_followed, window, num_newest

    def settle(self) -> None:
        """Takes the mean of the newer half of its quantiles: less noise than the line, and entropies fall no more.

        It may be called again and changes nothing then, nor where nothing has been followed.
        """
        half = (self.num_newest // 2).clamp(min=1)
        self.nats = torch.where(self.has_followed, self._mean(self.newest, half), self.nats)

    def _mean(self, window: Tensor, count: Tensor) -> Tensor:
        """Returns the mean of the last `count` of the window; not a number where that is 0."""
        return torch.where(self.places > -count[..., None], window, 0).sum(dim=-1) / count

    def _newest_of_line(self, window: Tensor, count: Tensor) -> Tensor:
        """Returns the last value of the least-squares line through the last `count`, which are evenly spaced."""
        total = count[..., None]
        weights = 3 * (self.places + total) - total - 1
        weighted = torch.where(self.places > -total, weights * window, 0).sum(dim=-1)
        return 2 * weighted / (count * (count + 1))

    def states(self) -> list[dict[str, Any]]:
        """Returns what a resumed run needs, of each threshold: this reads the device."""
        columns = zip(
            self.nats.reshape(-1).tolist(),
            self.num_followed.reshape(-1).tolist(),
            self.num_newest.reshape(-1).tolist(),
            self.newest.reshape(-1, MOST_STEPS).tolist(),
            strict=True,
        )
        return [
            {"nats": nats, "num_followed": followed, "newest": window[MOST_STEPS - count :]}
            for nats, followed, count, window in columns
        ]

    def restore(self, states: list[dict[str, Any]]) -> None:
        """Takes over `states()` after a trip through JSON."""
        windows = [[float(nats) for nats in state["newest"]] for state in states]
        self.nats = self._like(self.nats, [json_float(state["nats"]) for state in states])
        self.num_followed = self._like(self.num_followed, [int(state["num_followed"]) for state in states])
        self.num_newest = self._like(self.num_newest, [len(window) for window in windows])
        self.newest = self._like(self.newest, [[0.0] * (MOST_STEPS - len(window)) + window for window in windows])

    @staticmethod
    def _like(before: Tensor, values: list[Any]) -> Tensor:
        return torch.tensor(values, dtype=before.dtype, device=before.device).reshape(before.shape)


def quantile_for_rate(
    scores: Float[Tensor, " score"],
    rate: float | Float[Tensor, ""],
    num_bytes: int,
    *,
    most_rate: float | None = None,
) -> Float[Tensor, ""]:
    """Returns the threshold above which `rate * num_bytes` of the scores lie: +inf for none, -inf for all.

    Args:
        scores: -inf where there is none.
        rate: scores per byte that are to lie above the threshold.
        num_bytes: bytes that the rate is over.
        most_rate: the most that a rate on the device can be; not needed for a number of the host.
    """
    if isinstance(rate, Tensor):
        assert most_rate is not None
        most, count = round(most_rate * num_bytes), (rate * num_bytes).round().long()
    else:
        most = round(rate * num_bytes)
        count = torch.full((), most, device=scores.device)
    highest = torch.topk(scores, min(max(0, most) + 1, len(scores))).values.to(wide_dtype(scores.device))
    # Halfway between two neighbours, so that rounding does not decide which of them fire.
    places = count + torch.arange(-1, 1, device=scores.device)
    between = highest.gather(0, places.clamp(0, len(highest) - 1)).mean()
    threshold = torch.where(count >= (scores > -math.inf).sum(), -math.inf, between)
    return torch.where(count <= 0, math.inf, threshold)
