"""Buckets: things of like length are put together, so that what pads them to the longest has a bound."""

from collections.abc import Sequence
from itertools import groupby

MOST_PADDING = 0.25
"""Padding of a bucket, as a share of what it holds."""
FREE_POSITIONS = 256
"""Padding of prompts that a pass may have at least: to read it takes less time than one more pass."""


def buckets(
    lengths: Sequence[int], *, most_padding: float = MOST_PADDING, free: int = 0, free_each: int = 0
) -> list[list[int]]:
    """Puts things of like length together. Those of equal length stay together.

    Args:
        lengths: of the things.
        most_padding: of a bucket, as a share of what it holds.
        free: padding that a bucket may have at least.
        free_each: the same, for each thing in it.

    Returns:
        Numbers of the things in each bucket, ascending; the bucket of the longest ones comes first.
    """
    found: list[list[int]] = []
    longest = held = 0
    by_length = sorted(range(len(lengths)), key=lambda number: (-lengths[number], number))
    for length, group in groupby(by_length, key=lambda number: lengths[number]):
        alike = list(group)
        if found:
            count, all_held = len(found[-1]) + len(alike), held + length * len(alike)
            padding = longest * count - all_held
            if padding <= max(free, free_each * count, most_padding * all_held):
                found[-1] += alike
                held = all_held
                continue
        found.append(alike)
        longest, held = length, length * len(alike)
    return [sorted(bucket) for bucket in found]


__all__ = ["FREE_POSITIONS", "MOST_PADDING", "buckets"]
