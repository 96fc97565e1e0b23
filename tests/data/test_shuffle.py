"""Orders without tables: each number once, whatever the size, and another order for another key."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from patchpad.data.shuffle import Shuffle

keys = st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=3)


@given(st.one_of(st.integers(1, 20), st.integers(1, 3000)), keys)
def test_every_number_comes_once_for_any_size(size, key):
    assert sorted(Shuffle(size, *key).at(np.arange(size)).tolist()) == list(range(size))


@given(st.integers(1, 2**62), keys, st.data())
def test_numbers_at_places_of_a_large_order_differ_and_follow_from_the_place_alone(size, key, data):
    places = np.array(data.draw(st.lists(st.integers(0, size - 1), min_size=1, max_size=50, unique=True)))
    found = Shuffle(size, *key).at(places)
    assert len(np.unique(found)) == len(places)
    assert found.min() >= 0
    assert found.max() < size
    assert Shuffle(size, *key).at(places[-1:]).tolist() == found[-1:].tolist()


def test_each_number_comes_to_each_place_about_as_often():
    size, num_keys = 7, 3000
    found = np.array([Shuffle(size, key).at(np.arange(size)) for key in range(num_keys)])
    for place in range(size):
        often = np.bincount(found[:, place], minlength=size)
        assert np.abs(often - num_keys / size).max() < 5 * (num_keys / size) ** 0.5


def test_neighbours_are_far_apart_and_keys_give_orders_that_have_nothing_in_common():
    size = 100_003
    found = Shuffle(size, 1, 2).at(np.arange(size))
    assert abs(np.corrcoef(found[:-1], found[1:])[0, 1]) < 0.02
    assert np.abs(np.diff(found)).mean() > size / 4
    for other in (Shuffle(size, 1, 3), Shuffle(size, 2, 2)):
        assert (other.at(np.arange(size)) == found).sum() < 10
