"""pass@k is the share of choices of k samples that hold one that passed."""

import itertools

import pytest

from patchpad.errors import ConfigError
from patchpad.tasks.pass_at_k import pass_at_k


def test_the_estimate_equals_counting_all_choices():
    for n in range(1, 7):
        for c, k in itertools.product(range(n + 1), range(1, n + 1)):
            choices = list(itertools.combinations([number < c for number in range(n)], k))
            assert pass_at_k(n, c, k) == pytest.approx(sum(map(any, choices)) / len(choices), abs=1e-12)
    assert pass_at_k(200, 1, 100) == pytest.approx(0.5)


@pytest.mark.parametrize(("n", "c", "k"), [(3, 0, 4), (3, 0, 0), (3, 4, 1), (3, -1, 1)])
def test_numbers_that_do_not_fit_are_errors(n, c, k):
    with pytest.raises(ConfigError, match="allowed"):
        pass_at_k(n, c, k)
