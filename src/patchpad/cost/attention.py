"""Query-key pairs that local layers see in documents of given lengths; torch-free."""

from collections import Counter
from collections.abc import Callable, Iterable


def window_pairs(window_bytes: int, num_positions: int) -> int:
    """Returns the sum of min(window_bytes, n + 1) over the positions n = 0 .. num_positions - 1 of a document."""
    ramp = min(window_bytes, num_positions)
    return ramp * (ramp + 1) // 2 + (num_positions - ramp) * ramp


def patch_pairs(patch_size: int, num_positions: int) -> int:
    """Returns the sum of n mod patch_size + 1 over the positions n: what MegaByte's local model sees of its patches."""
    whole, rest = divmod(num_positions, patch_size)
    return (whole * patch_size * (patch_size + 1) + rest * (rest + 1)) // 2


def mean_pairs(pairs_of: Callable[[int], int], document_positions: Iterable[int]) -> float:
    """Returns the mean pairs of a position over all documents.

    Args:
        pairs_of: pairs in a document of so many positions.
        document_positions: positions of each document, at least 1 each.
    """
    lengths = Counter(document_positions)
    num_pairs = sum(count * pairs_of(length) for length, count in lengths.items())
    return num_pairs / sum(count * length for length, count in lengths.items())
