"""Numbers of a converted model and of its source compared pair by pair, as tables show them."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from patchpad.errors import DataError
from patchpad.tasks.result import Metric


def per_byte(values: Mapping[str, Any]) -> Metric:
    """Returns bits per byte of windows, with the standard error over these."""
    return Metric.ratio_of(values["bits"], values["num_bytes"])


def difference(values: Mapping[str, Any], reference: Mapping[str, Any], *, of: str = "windows") -> Metric:
    """Returns bits per byte less those of a reference on the same windows, with the standard error over these.

    Args:
        values: bits and bytes of each window.
        reference: likewise.
        of: what they are of, for the message.

    Raises:
        DataError: the windows differ.
    """
    if values["num_bytes"] != reference["num_bytes"]:
        raise DataError(f"two models were measured on different {of}", hint="Measure both again.")
    rests = [ours - theirs for ours, theirs in zip(values["bits"], reference["bits"], strict=True)]
    return Metric.ratio_of(rests, values["num_bytes"])


def mean_difference(values: Sequence[float], reference: Sequence[float]) -> Metric:
    """Returns the mean difference of pairs, with its standard error."""
    return Metric.mean_of([ours - theirs for ours, theirs in zip(values, reference, strict=True)])


def signed(metric: Metric) -> str:
    """Returns a difference with its error."""
    error = "" if metric.standard_error is None else f" ± {metric.standard_error:.3f}"
    return f"{metric.value:+.3f}{error}"


def with_error(metric: Metric) -> str:
    """Returns a number with its error."""
    error = "" if metric.standard_error is None else f" ± {metric.standard_error:.3f}"
    return f"{metric.value:.3f}{error}"


def sign_test(first: Sequence[float], second: Sequence[float]) -> float:
    """Returns the two-sided p-value that of the pairs that differ so many lean one way by chance (McNemar, exact)."""
    above = sum(a > b for a, b in zip(first, second, strict=True))
    below = sum(a < b for a, b in zip(first, second, strict=True))
    total, fewer = above + below, min(above, below)
    return min(1.0, 2 * sum(math.comb(total, count) for count in range(fewer + 1)) / 2**total)
