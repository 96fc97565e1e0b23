"""Query-key pairs: those of local layers exactly, those of trunk and pooling as means for patches of equal size."""

import math
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


def mean_earlier_patches(num_patches: float, window: int | None = None) -> float:
    """Mean commits that an evenly placed slot sees, when a document holds `num_patches` patches of equal size.

    A slot in patch k sees k commits. The last patch may be a fraction, so with K = floor(num_patches) the mean is
    (0 + 1 + ... + K - 1 + (num_patches - K) K) / num_patches, which is (K - 1) / 2 for whole patches. With a window of
    W commits, slots in patch W and behind it see W.

    Args:
        num_patches: of the document.
        window: newest commits that a slot sees; None for all.
    """
    whole = math.floor(num_patches) if window is None else min(math.floor(num_patches), window)
    return whole * (num_patches - (whole + 1) / 2) / num_patches if whole else 0.0


def mean_pooled_bytes(
    patches_per_byte: float, scratchpads_per_byte: float, context_bytes: int, *, commits_tokens: bool = False
) -> float:
    """Mean positions that a slot pools, for patches of equal size.

    A commit pools its patch. A scratchpad pools half of it on average: it ends before the last byte, and whether
    scratchpads are random, everywhere or at a stride that divides the patch, as many lie in one half as in the other.
    In a document's first patch the separator comes in addition. With `tokens` patches commits pool nothing, and a
    scratchpad half of a token and the byte at which the one before was committed.
    """
    patch_bytes = min(1 / patches_per_byte, context_bytes)
    if commits_tokens:
        return scratchpads_per_byte * (patch_bytes / 2 + 1) / (patches_per_byte + scratchpads_per_byte)
    weighted = patches_per_byte * patch_bytes + scratchpads_per_byte * patch_bytes / 2
    share_in_first_patch = 1 / max(1.0, patches_per_byte * context_bytes)
    return weighted / (patches_per_byte + scratchpads_per_byte) + share_in_first_patch
