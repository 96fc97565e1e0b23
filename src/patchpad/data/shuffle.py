"""Random orders that are computed where they are asked for, so that no table grows with what they order."""

import math

import numpy as np

NUM_ROUNDS = 8
"""Four would do for large sizes; small ones need more to come near all their orders."""


class Shuffle:
    """A bijection of 0 to below `size` that looks random and follows from its key alone.

    A number is written as two digits, each of which is moved in turn by a hash of the other (a Feistel network over a
    rectangle of digits). The few numbers of the rectangle that lie outside are mapped again until they fall inside.

    Args:
        size: how many numbers.
        key: whole numbers of at least 0; another key gives another order.
    """

    def __init__(self, size: int, *key: int) -> None:
        self.size = size
        self._num_rows = max(1, math.isqrt(size))
        self._num_columns = max(1, -(-size // self._num_rows))
        self._keys = np.random.SeedSequence(key).generate_state(NUM_ROUNDS, np.uint64)

    def at(self, places: np.ndarray) -> np.ndarray:
        """Returns the number at each place of the order, [place] of int64; places are from 0 to below `size`."""
        found = self._mapped(places.astype(np.uint64))
        while len(outside := np.flatnonzero(found >= self.size)):
            found[outside] = self._mapped(found[outside])
        return found.astype(np.int64)

    def _mapped(self, numbers: np.ndarray) -> np.ndarray:
        rows, columns = np.uint64(self._num_rows), np.uint64(self._num_columns)
        row, column = numbers // columns, numbers % columns
        for key, row_key in zip(self._keys[::2], self._keys[1::2], strict=True):
            column = (column + _mixed(row ^ key) % columns) % columns
            row = (row + _mixed(column ^ row_key) % rows) % rows
        return row * columns + column


def _mixed(values: np.ndarray) -> np.ndarray:
    """Returns a hash of each number of 64 bits: the finalizer of SplitMix64."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
