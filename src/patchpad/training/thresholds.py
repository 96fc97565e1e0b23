"""Thresholds that follow a rate: a line through the last steps' quantiles. All of them stay on the device."""

import math
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from patchpad.device import wide_dtype
from patchpad.files import json_float

MOST_STEPS = 40
"""A followed threshold comes from the quantiles of at most so many steps."""
SHARE_OF_STEPS = 0.25
"""It comes from this share of the steps followed so far, while that is less."""
LAST_CHANGE = math.ceil((MOST_STEPS - 1) / SHARE_OF_STEPS)
"""Steps followed from which on their number is `MOST_STEPS`."""


def line_weights(count: int) -> list[float]:
    """Returns weights of evenly spaced values that sum to the newest value of the straight line that fits them best."""
    return [2 * (3 * number - count - 1) / (count * (count + 1)) for number in range(1, count + 1)]


def mean_weights(count: int) -> list[float]:
    """Returns weights that sum to the mean."""
    return [1 / count] * count


def newer_half_weights(count: int) -> list[float]:
    """Returns weights that sum to the mean of the newer half."""
    half = max(1, count // 2)
    return [0.0] * (count - half) + mean_weights(half)


def num_newest(num_followed: int) -> int:
    """Returns how many quantiles a threshold comes from after following so many steps; 1 for one used at once."""
    return min(MOST_STEPS, 1 + int(SHARE_OF_STEPS * num_followed))


class FollowedThreshold:
    """A threshold in nats that is fixed, or that follows the last steps' quantiles and freezes. Or several at once.

    It lies on the straight line that fits these quantiles best, at the newest step. So the noise of single batches
    averages out, and it does not lag behind while entropies fall, as a mean would. What is stored in the end is a mean,
    see `settle`. Nothing is read from the device but by `states`.

    Args:
        nats: where it starts.
        is_fixed: whether it stays there: then only `nats` is used.
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
    """Quantiles of the last `MOST_STEPS` steps, oldest first; 0 where one was infinite."""

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
        device, shape = torch.device(device), () if several is None else (several,)
        dtype = wide_dtype(device)
        self.nats = torch.full(shape, nats, dtype=dtype, device=device)
        self.num_followed = torch.zeros(shape, dtype=torch.long, device=device)
        self.newest = torch.zeros((*shape, MOST_STEPS), dtype=dtype, device=device)
        self.weights = _table(mean_weights if takes_mean else line_weights).to(device, dtype)
        """Of the newest quantiles, for each number of steps followed."""
        self.settled_weights = _table(newer_half_weights).to(device, dtype)

    @property
    def has_followed(self) -> Bool[Tensor, "*several"]:
        """Whether it comes from at least one finite quantile."""
        return self.nats.isfinite()

    def follow(self, newest: Float[Tensor, "*several"], *, is_fresh: Bool[Tensor, ""], is_frozen: bool = False) -> None:
        """Takes a step's quantile in; it is used alone while the head is fresh, and where it is infinite.

        Args:
            newest: the quantile.
            is_fresh: whether the entropy head still is.
            is_frozen: whether it may move only as long as it has followed nothing.
        """
        is_finite = newest.isfinite()
        num_followed = torch.where(is_finite & ~is_fresh, self.num_followed + 1, 0)
        window = torch.cat((self.newest[..., 1:], torch.where(is_finite, newest, 0)[..., None]), dim=-1)
        nats = torch.where(is_finite, _weighted(window, self.weights, num_followed), newest)
        if is_frozen:
            stays = self.has_followed
            nats = torch.where(stays, self.nats, nats)
            num_followed = torch.where(stays, self.num_followed, num_followed)
            window = torch.where(stays[..., None], self.newest, window)
        self.nats, self.num_followed, self.newest = nats, num_followed, window

    def settle(self) -> None:
        """Takes the mean of the newer half of its quantiles: less noise than the line, and entropies fall no more.

        It may be called again and changes nothing then, nor where nothing has been followed.
        """
        settled = _weighted(self.newest, self.settled_weights, self.num_followed)
        self.nats = torch.where(self.has_followed, settled, self.nats)

    def states(self) -> list[dict[str, Any]]:
        """Returns what a resumed run needs, of each threshold: this reads the device."""
        columns = zip(
            self.nats.reshape(-1).tolist(),
            self.num_followed.reshape(-1).tolist(),
            self.newest.reshape(-1, MOST_STEPS).tolist(),
            strict=True,
        )
        return [
            {
                "nats": nats,
                "num_followed": followed,
                "newest": window[-num_newest(followed) :] if math.isfinite(nats) and not self.is_fixed else [],
            }
            for nats, followed, window in columns
        ]

    def restore(self, states: list[dict[str, Any]]) -> None:
        """Takes over `states()` after a trip through JSON."""
        windows = [[float(nats) for nats in state["newest"]] for state in states]
        self.nats = self._like(self.nats, [json_float(state["nats"]) for state in states])
        self.num_followed = self._like(self.num_followed, [int(state["num_followed"]) for state in states])
        self.newest = self._like(self.newest, [[0.0] * (MOST_STEPS - len(window)) + window for window in windows])

    @staticmethod
    def _like(before: Tensor, values: list[Any]) -> Tensor:
        return torch.tensor(values, dtype=before.dtype, device=before.device).reshape(before.shape)


def _table(weights: Callable[[int], list[float]]) -> Float[Tensor, "num_followed step"]:
    rows = [weights(num_newest(followed)) for followed in range(LAST_CHANGE + 1)]
    return torch.tensor([[0.0] * (MOST_STEPS - len(row)) + row for row in rows], dtype=torch.float64)


def _weighted(window: Tensor, table: Tensor, num_followed: Tensor) -> Tensor:
    """Returns the sum of the window's values, weighted as the table has it after so many steps."""
    return (F.embedding(num_followed.clamp(max=LAST_CHANGE), table) * window).sum(dim=-1)


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
    most = round((most_rate or 0.0) * num_bytes) if isinstance(rate, Tensor) else round(rate * num_bytes)
    highest = torch.topk(scores, min(max(0, most) + 1, len(scores))).values
    highest = F.pad(F.pad(highest, (1, 0), value=math.inf), (0, 1), value=-math.inf).to(wide_dtype(scores.device))
    if isinstance(rate, Tensor):
        count = (rate * num_bytes).round().long()
        neighbours = highest.gather(0, (count + torch.arange(2, device=scores.device)).clamp(0, len(highest) - 1))
    else:
        neighbours = highest[min(max(0, most), len(highest) - 2) :][:2]
    # Halfway between two neighbours, so that rounding does not decide which of them fire.
    return neighbours.mean().nan_to_num(nan=math.inf, posinf=math.inf, neginf=-math.inf)
