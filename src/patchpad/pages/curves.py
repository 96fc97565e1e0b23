"""Long curves made short and smooth enough to be drawn. Standard library only."""

import itertools
from collections.abc import Sequence

MAX_CURVE_POINTS = 400


def smoothed(pairs: Sequence[tuple[float, float]], window: int) -> list[tuple[float, float]]:
    """Returns (x, mean of the y values of `window` neighbours), with fewer neighbours at both ends.

    At most about twice `MAX_CURVE_POINTS` pairs come back, evenly spaced, the last one included.
    """
    half = window // 2
    sums = [0.0, *itertools.accumulate(y for _, y in pairs)]
    kept = list(range(len(pairs) - 1, -1, -max(1, len(pairs) // MAX_CURVE_POINTS)))[::-1]
    result = []
    for index in kept:
        reach = min(half, index, len(pairs) - 1 - index)  # symmetric, so that a falling curve is not shifted
        mean = (sums[index + reach + 1] - sums[index - reach]) / (2 * reach + 1) if reach else pairs[index][1]
        result.append((pairs[index][0], mean))
    return result


def thinned(pairs: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Returns a curve of at most about twice `MAX_CURVE_POINTS` pairs that reaches as high and as low everywhere."""
    stride = -(-len(pairs) // MAX_CURVE_POINTS)
    if stride < 3:
        return list(pairs)
    kept = {0, len(pairs) - 1}
    for first in range(0, len(pairs), stride):
        part = range(first, min(first + stride, len(pairs)))
        kept |= {min(part, key=lambda index: pairs[index][1]), max(part, key=lambda index: pairs[index][1])}
    return [pairs[index] for index in sorted(kept)]
