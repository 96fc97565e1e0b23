"""Quotas of a mixture: to the row within a block wherever it begins, and nearly so in any stretch."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from patchpad.data.mixture import QUOTA_ROWS, Quotas

weights = st.lists(st.floats(1e-4, 1), min_size=1, max_size=6)
rows = st.integers(0, 2**50)


def taken_in(quotas: Quotas, first: int, count: int) -> np.ndarray:
    return np.array(quotas.taken(first + count)) - quotas.taken(first)


@given(weights, st.integers(0, 2**63 - 1), rows)
def test_quotas_are_exact_in_a_block_wherever_it_begins(weights, seed, first):
    found = taken_in(Quotas(weights, seed=seed), first, QUOTA_ROWS)
    assert found.sum() == QUOTA_ROWS
    assert np.abs(found - np.array(weights) / sum(weights) * QUOTA_ROWS).max() <= len(weights)


@given(weights, st.integers(0, 2**63 - 1), rows, st.integers(1, 300))
def test_rows_are_given_to_sources_as_they_are_counted(weights, seed, first, count):
    quotas = Quotas(weights, seed=seed)
    given_to = quotas.sources(first, count)
    assert np.bincount(given_to, minlength=len(weights)).tolist() == taken_in(quotas, first, count).tolist()
    assert quotas.sources(first + count - 1, 1).tolist() == given_to[-1:].tolist()


@given(weights, st.integers(0, 2**63 - 1), rows, st.integers(1, 100_000))
def test_each_stretch_of_rows_has_nearly_the_shares_of_the_weights(weights, seed, first, count):
    found = taken_in(Quotas(weights, seed=seed), first, count)
    assert np.abs(found - np.array(weights) / sum(weights) * count).max() < 6


def test_a_source_of_almost_no_weight_still_comes_once_in_a_block():
    assert taken_in(Quotas([1e-12, 1.0], seed=0), 0, QUOTA_ROWS).tolist() == [1, QUOTA_ROWS - 1]


def test_a_source_alone_has_all_rows():
    quotas = Quotas([0.3], seed=7)
    assert quotas.taken(12345) == [12345]
    assert quotas.sources(99, 3).tolist() == [0, 0, 0]
