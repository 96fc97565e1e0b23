"""Colours, marks and ranges of a study's plots."""

import pytest

from patchpad.study.families import family_numbers, family_of
from patchpad.study.plots import highest_of, looks_of, pairs
from patchpad.study.summary import Arm


def result(patchifier="fixed", size=16, kind="patch", rate=0.0):
    point = {"at": "stored", "scratchpads_per_byte": rate, "bits_per_byte": 2.0}
    model = {"kind": kind, "patchifier": {"kind": patchifier, "target_patch_size": size}}
    return {"seed": 0, "config": {"model": model}, "measured": {"points": [point]}}


def arm(name, look, **options):
    return Arm(name, "books", 1, False, look, (result(**options),))


@pytest.mark.parametrize(
    ("options", "family"),
    [
        ({"size": 1}, "one byte per patch"),
        ({"size": 16}, "16-byte patches"),
        ({"patchifier": "spacebyte"}, "SpaceByte"),
        ({"patchifier": "mine"}, "mine patches"),
        ({"kind": "bpe"}, "BPE tokens"),
        ({"kind": "megabyte"}, "megabyte"),
    ],
)
def test_a_family_is_named_by_how_it_cuts_text(options, family):
    assert family_of(result(**options)) == family


def test_families_are_numbered_in_the_order_in_which_they_come():
    results = [result(size=1), result(size=16), result(size=16, rate=0.2), result(patchifier="hnet")]
    assert family_numbers(results) == {"one byte per patch": 0, "16-byte patches": 1, "H-Net": 2}


def test_a_pair_is_one_arm_without_and_one_with_scratchpads():
    plain, having, again = arm("plain", 1), arm("having", 1, rate=0.2), arm("again", 1, rate=0.3)
    other = arm("other", 2, size=4)
    assert pairs([plain, having, other]) == [(plain, having)]
    assert pairs([plain, having, again]) == []  # an arrow could end at either


def test_arms_have_the_colour_of_their_family_unless_only_colours_could_tell_them_apart():
    plain, having, again = arm("plain", 3), arm("having", 3, rate=0.2), arm("again", 3, rate=0.3)
    assert looks_of([plain, having]) == {plain: 3, having: 3}
    assert looks_of([plain, having, arm("other", 2, size=4)])[having] == 3
    assert looks_of([plain, having, again]) == {plain: 0, having: 1, again: 2}


@pytest.mark.parametrize(
    ("values", "limit"),
    [
        ([1.0, 1.1, 1.2, 1.3], None),
        ([1.0, 1.1, 1.2, 9.0], 1.21),
        ([1.0, 1.1, 1.2, 1.35], None),  # higher, but not far
        ([1.0, *[1.1] * 17, 1.2, 5.0, 9.0], 1.21),  # of twenty-one values two may be left out
        ([2.0, 2.0, 9.0], None),
        ([], None),
    ],
)
def test_a_few_values_far_above_all_others_are_left_out(values, limit):
    assert highest_of(values) == (None if limit is None else pytest.approx(limit))
