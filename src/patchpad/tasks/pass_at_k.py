"""pass@k: how likely at least one of k samples passes its checks."""

from collections.abc import Sequence

from patchpad.errors import ConfigError
from patchpad.tasks.result import Metric


def pass_at_k(num_samples: int, num_passed: int, k: int) -> float:
    """Returns the unbiased estimate of pass@k for one problem: 1 - C(n - c, k) / C(n, k).

    Chen et al. 2021, arXiv:2107.03374, equation 1: the share of all choices of k samples that hold one that passed.

    Args:
        num_samples: n, how many were drawn.
        num_passed: c, how many of them passed.
        k: at most n.

    Raises:
        ConfigError: numbers that do not fit each other.
    """
    if not 1 <= k <= num_samples:
        raise ConfigError(f"k is {k} with {num_samples} samples; allowed: 1 to the number of samples")
    if not 0 <= num_passed <= num_samples:
        raise ConfigError(f"num_passed is {num_passed}; allowed: 0 to {num_samples}, the number of samples")
    none_passes = 1.0
    for taken in range(k):  # each further sample of k comes from those that are left
        none_passes *= max(0, num_samples - num_passed - taken) / (num_samples - taken)
    return 1.0 - none_passes


def pass_at_k_over(num_samples: int, passed: Sequence[int], k: int) -> Metric:
    """Returns the mean over problems, with its standard error over problems.

    Args:
        num_samples: drawn for each problem.
        passed: how many of them passed, one for each problem.
        k: at most `num_samples`.
    """
    return Metric.mean_of([pass_at_k(num_samples, one, k) for one in passed])
