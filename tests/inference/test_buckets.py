"""Buckets hold everything once, and what pads them has a bound."""

from hypothesis import given
from hypothesis import strategies as st

from patchpad.inference.buckets import buckets


@given(
    lengths=st.lists(st.integers(0, 3000), max_size=40),
    most_padding=st.sampled_from([0.0, 0.25, 1.0]),
    free=st.sampled_from([0, 256]),
    free_each=st.sampled_from([0, 64]),
)
def test_padding_has_a_bound_and_nothing_is_lost(lengths, most_padding, free, free_each):
    found = buckets(lengths, most_padding=most_padding, free=free, free_each=free_each)
    assert sorted(number for bucket in found for number in bucket) == list(range(len(lengths)))
    for bucket in found:
        held = sum(lengths[number] for number in bucket)
        padding = max(lengths[number] for number in bucket) * len(bucket) - held
        assert padding <= max(free, free_each * len(bucket), most_padding * held)
        assert bucket == sorted(bucket)
    for value in set(lengths):
        assert sum(any(lengths[number] == value for number in bucket) for bucket in found) == 1, "alike stay together"


def test_things_of_like_length_are_one_bucket_and_a_long_one_is_another():
    assert buckets([90, 100, 95, 1000, 98]) == [[3], [0, 1, 2, 4]]
    assert buckets([5, 90, 100], free=256) == [[0, 1, 2]]
    assert buckets([]) == []
