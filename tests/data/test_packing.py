"""Packing: every item in one row, no row too long, and little room left over."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchpad.data.packing import pack_in_order, pack_tightly

sizes = st.lists(st.integers(1, 17), min_size=1, max_size=60)


@given(sizes)
def test_tight_packing_places_every_item_once_and_none_would_fit_into_an_earlier_row(sizes):
    order, ends = pack_tightly(np.array(sizes), 17)
    assert sorted(order.tolist()) == list(range(len(sizes)))
    rows = [[sizes[item] for item in row] for row in np.split(order, ends[:-1])]
    assert all(1 <= sum(row) <= 17 for row in rows)
    for number, row in enumerate(rows):
        later = [size for other in rows[number + 1 :] for size in other]
        assert sum(row) + min(later, default=17) > 17


@given(sizes)
def test_packing_in_order_keeps_the_order_and_begins_a_row_only_where_the_next_item_does_not_fit(sizes):
    ends = pack_in_order(np.array(sizes), 17)
    rows = [row.tolist() for row in np.split(np.array(sizes), ends[:-1])]
    assert ends[-1] == len(sizes)
    for number, row in enumerate(rows):
        assert 1 <= sum(row) <= 17
        if number + 1 < len(rows):
            assert sum(row) + rows[number + 1][0] > 17


@pytest.mark.parametrize(("shortest", "longest"), [(2, 60), (2, 257), (40, 200), (100, 257)])
def test_tight_packing_leaves_less_room_than_packing_in_order(shortest, longest):
    sizes = np.random.default_rng(0).integers(shortest, longest, 2000)
    num_rows = len(pack_tightly(sizes, 257).ends), len(pack_in_order(sizes, 257))
    share_left = [1 - sizes.sum() / (257 * rows) for rows in num_rows]
    assert share_left[0] < 0.8 * share_left[1]


def test_items_of_one_size_are_taken_in_the_order_in_which_they_are_given():
    order, ends = pack_tightly(np.array([5, 8, 5, 5, 8]), 10)
    assert order.tolist() == [1, 4, 0, 2, 3]
    assert ends.tolist() == [1, 2, 4, 5]
