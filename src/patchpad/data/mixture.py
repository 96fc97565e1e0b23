"""Several texts in one run: which of them each row is taken from, by exact quotas."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from patchpad.data.corpus import Corpus

QUOTA_ROWS = 1 << 20
"""Rows over which quotas are exact, wherever one begins to count."""
STRIDE = 648_055
"""Odd, and near `QUOTA_ROWS` over the golden ratio: steps of this size fill a circle evenly, however many are made."""


@dataclass(frozen=True, kw_only=True)
class TextSource:
    """A text of a mixture."""

    corpus: Corpus
    name: str = ""
    weight: float = 1.0
    """Its share of the rows, in relation to the weights of the others."""


class Quotas:
    """Which source each row of a run is taken from. It follows from the row's number alone.

    Each row stands at a place of a circle, one stride after the row before, and the sources own arcs of the circle.
    In any `QUOTA_ROWS` rows after one another each source has its weight's share to the row; in fewer, nearly.

    Args:
        weights: of the sources, above 0.
        seed: sets the place of the first row.
    """

    def __init__(self, weights: Sequence[float], *, seed: int) -> None:
        arcs = np.array(weights, dtype=np.float64) / sum(weights) * QUOTA_ROWS
        arcs = np.maximum(1, arcs).astype(np.int64)
        arcs[arcs.argmax()] += QUOTA_ROWS - arcs.sum()
        self.ends = arcs.cumsum()
        """Where the arcs end, [source]."""
        self._first_place = int(np.random.SeedSequence(seed).generate_state(1)[0]) % QUOTA_ROWS

    def sources(self, first: int, count: int) -> np.ndarray:
        """Returns the source of each of `count` rows of the run, from row `first` on."""
        begin = (self._first_place + first * STRIDE) % QUOTA_ROWS
        places = (begin + np.arange(count) * STRIDE) % QUOTA_ROWS
        return np.searchsorted(self.ends, places, side="right")

    def taken(self, num_rows: int) -> list[int]:
        """Returns how many of the first rows of the run are taken from each source."""
        below = [self._num_below(int(end), num_rows) for end in self.ends]
        return [end - begin for begin, end in zip([0, *below], below, strict=False)]

    def _num_below(self, place: int, num_rows: int) -> int:
        """Returns how many of the first rows stand before a place of the circle."""
        sums = [_floor_sum(num_rows, start) for start in (self._first_place, self._first_place + QUOTA_ROWS - place)]
        return sums[0] - sums[1] + num_rows


def _floor_sum(count: int, start: int) -> int:
    """Returns the sum of (start + i x STRIDE) // QUOTA_ROWS over all i below `count`, as Euclid finds divisors."""
    total, modulus, stride = 0, QUOTA_ROWS, STRIDE
    while count:
        total += (count - 1) * count // 2 * (stride // modulus) + count * (start // modulus)
        stride, start = stride % modulus, start % modulus
        count, start = divmod(stride * count + start, modulus)
        modulus, stride = stride, modulus
    return total
