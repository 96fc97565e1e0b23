"""Windows packed into rows: with little padding for training, in their order for evaluation."""

from typing import NamedTuple

import numpy as np


class Packing(NamedTuple):
    """Which items share a row."""

    order: np.ndarray
    """Indices of all items, row after row, [item]."""
    ends: np.ndarray
    """Items in all rows up to and including each, [row]."""


def pack_tightly(sizes: np.ndarray, row_positions: int) -> Packing:
    """Packs items into few rows: each row takes, again and again, the largest item left that fits.

    This is "first fit decreasing". Items of one size are taken in the order in which they are given.

    Args:
        sizes: positions of each item, from 1 to `row_positions`, [item].
        row_positions: that a row holds.
    """
    by_size = np.argsort(sizes, kind="stable")
    counts = np.bincount(sizes, minlength=1)
    begins = (counts.cumsum() - counts).tolist()  # of each size in `by_size`
    left = counts.tolist()
    present = sum(1 << size for size in np.flatnonzero(counts).tolist())  # a bit for each size of which items are left
    smallest = int(sizes.min(initial=row_positions))
    taken_from, taken, ends = [], [], []
    num_packed = 0
    while present:
        room = row_positions
        while room >= smallest and (fitting := present & ((2 << room) - 1)):
            size = fitting.bit_length() - 1
            count = min(left[size], room // size)
            taken_from.append(begins[size])
            taken.append(count)
            begins[size] += count
            left[size] -= count
            if not left[size]:
                present ^= 1 << size
            room -= count * size
            num_packed += count
        ends.append(num_packed)
    takes = np.array(taken, dtype=np.int64)
    offsets = np.array(taken_from, dtype=np.int64) - (takes.cumsum() - takes)
    places = np.repeat(offsets, takes) + np.arange(num_packed)
    return Packing(by_size[places], np.array(ends, dtype=np.int64))


def pack_in_order(sizes: np.ndarray, row_positions: int) -> np.ndarray:
    """Packs items into rows one after the other; returns how many are in all rows up to and including each, [row]."""
    positions = sizes.cumsum()
    ends: list[int] = []
    first = 0
    while first < len(sizes):
        used = positions[first - 1] if first else 0
        first = max(first + 1, int(np.searchsorted(positions, used + row_positions, side="right")))
        ends.append(first)
    return np.array(ends, dtype=np.int64)
