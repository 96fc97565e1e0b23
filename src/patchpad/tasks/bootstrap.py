"""Paired differences of two results: mean, interval and p-value, by drawing examples with replacement. Torch-free."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

Numbers = Sequence[int | float] | np.ndarray

NUM_DRAWS = 10_000
COVERAGE = 0.95
FEW_EXAMPLES = 30
"""Below so many, intervals are too narrow and p-values too small; pages and tables say so."""
FEW_KINDS = 16
"""Up to so many different examples, the number of each is drawn instead of single examples."""
INDICES_AT_ONCE = 1 << 22
"""About how many indices are drawn at once."""
ROUNDING = 1e-12
"""Means closer than this, as a share of the largest difference, count as equal."""


@dataclass(frozen=True, kw_only=True)
class Difference:
    """How much a result lies above a reference, over the examples that both have."""

    mean: float
    low: float
    """Lower end of the interval."""
    high: float
    p_value: float
    """Two-sided: how often means this far from 0 come by chance if the true difference is 0.
    At least 1 / (draws + 1)."""
    num_examples: int

    def to_dict(self) -> dict[str, Any]:
        """Returns one difference of `patchpad compare --json`."""
        return asdict(self)


def paired_difference(
    values: Numbers,
    reference: Numbers,
    *,
    weights: Numbers | None = None,
    seed: int = 0,
    num_draws: int = NUM_DRAWS,
) -> Difference:
    """Compares two results example by example.

    The interval holds the middle 95 % of the means of redrawn examples. The p-value is the share of redrawn means that
    lie as far from the mean as the mean lies from 0, the redrawing itself counted once.

    Args:
        values: of each example, in one order.
        reference: of the same examples in the same order.
        weights: of each example, at least 0, such as its bytes where the values are bits per byte; None: all alike.
        seed: of the draws.
        num_draws: sets of examples to draw.

    Raises:
        ValueError: no examples, or lists of different lengths.
    """
    if not len(values) or len(values) != len(reference):
        raise ValueError(f"{len(values)} values and {len(reference)} of the reference; allowed: equally many, above 0")
    differences = np.asarray(values, dtype=np.float64) - np.asarray(reference, dtype=np.float64)
    shares = np.ones_like(differences) if weights is None else np.asarray(weights, dtype=np.float64)
    weighted = differences * shares
    count = len(differences)
    mean = float(weighted.sum() / shares.sum())
    if (differences == differences[0]).all():  # whatever is drawn, but for rounding
        mean = float(differences[0])
        drawn = np.full(num_draws, mean)
    else:
        drawn = _redrawn_means(weighted, shares, num_draws, np.random.default_rng(seed))
    low, high = np.quantile(drawn, [(1 - COVERAGE) / 2, (1 + COVERAGE) / 2])
    slack = ROUNDING * float(np.abs(differences).max())
    num_as_far = int((np.abs(drawn - mean) >= abs(mean) - slack).sum())
    return Difference(
        mean=mean,
        low=float(low),
        high=float(high),
        p_value=(1 + num_as_far) / (1 + num_draws),
        num_examples=count,
    )


def _redrawn_means(weighted: np.ndarray, shares: np.ndarray, num_draws: int, random: np.random.Generator) -> np.ndarray:
    """Returns the mean of each set of redrawn examples.

    Args:
        weighted: differences times their weights, one for each example.
        shares: the weights.
        num_draws: sets to draw.
        random: draws them.
    """
    count = len(weighted)
    kinds, sizes = np.unique(np.stack([weighted, shares]), axis=1, return_counts=True)
    if kinds.shape[1] <= FEW_KINDS:  # as of right and wrong answers: draw how many of each, which is the same
        totals = random.multinomial(count, sizes / count, size=num_draws) @ kinds.T
        return totals[:, 0] / totals[:, 1]
    means = np.empty(num_draws)
    rows = max(1, INDICES_AT_ONCE // count)
    for first in range(0, num_draws, rows):
        chosen = random.integers(count, size=(min(rows, num_draws - first), count))
        means[first : first + rows] = weighted[chosen].sum(axis=1) / shares[chosen].sum(axis=1)
    return means
