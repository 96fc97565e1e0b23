"""Paired differences against closed forms, and how often their intervals hold the truth."""

import math

import numpy as np
import pytest

from patchpad.tasks.bootstrap import NUM_DRAWS, paired_difference


def test_equal_results_have_p_one_and_no_width():
    values = [0.0, 1.0, 1.0, 0.3] * 20
    found = paired_difference(values, values)
    assert (found.mean, found.low, found.high, found.p_value, found.num_examples) == (0.0, 0.0, 0.0, 1.0, 80)


@pytest.mark.parametrize("constant", [0.1, -2.0])
def test_a_constant_difference_has_p_at_the_floor_and_no_width(constant):
    reference = np.linspace(0, 1, 50)
    found = paired_difference(reference + constant, reference)
    assert found.p_value == 1 / (1 + NUM_DRAWS)
    assert found.mean == pytest.approx(constant)
    assert found.high - found.low < 1e-9


def test_opposite_differences_that_cancel_have_p_one():
    found = paired_difference([1.0, 0.0] * 50, [0.0, 1.0] * 50)
    assert found.mean == 0
    assert found.p_value == 1
    assert found.low == pytest.approx(-found.high, abs=0.021)


def test_the_interval_and_p_value_are_those_of_the_normal_distribution_for_many_examples():
    differences = np.random.default_rng(3).normal(0.05, 1.0, 2000)
    found = paired_difference(differences, np.zeros(2000))
    error = differences.std() / math.sqrt(2000)
    assert found.low == pytest.approx(found.mean - 1.96 * error, abs=0.05 * error + 0.002)
    assert found.high == pytest.approx(found.mean + 1.96 * error, abs=0.05 * error + 0.002)
    normal = math.erfc(abs(found.mean) / error / math.sqrt(2))
    assert found.p_value == pytest.approx(normal, abs=0.015)


def test_the_same_seed_gives_the_same_numbers_and_the_order_of_both_results_only_the_sign():
    random = np.random.default_rng(0)
    ours, theirs = random.random(100), random.random(100)
    found = paired_difference(ours, theirs, seed=4)
    assert paired_difference(ours, theirs, seed=4) == found
    assert paired_difference(ours, theirs, seed=5) != found
    other_way = paired_difference(theirs, ours, seed=4)
    assert other_way.mean == -found.mean
    assert other_way.p_value == found.p_value
    assert other_way.low == pytest.approx(-found.high)


def test_weights_make_the_mean_of_bytes_and_not_of_examples():
    found = paired_difference([3.0, 1.0], [1.0, 2.0], weights=[100, 300])
    assert found.mean == pytest.approx((100 * 2 - 300) / 400)
    assert found.low == -1
    assert found.high == 2
    equal = paired_difference([1.0, 0.0, 1.0], [0.0, 0.0, 1.0], weights=[5, 5, 5])
    assert equal == paired_difference([1.0, 0.0, 1.0], [0.0, 0.0, 1.0])


def test_the_interval_covers_the_truth_at_its_rate():
    random = np.random.default_rng(11)
    trials, examples, truth = 400, 200, 0.1
    num_covered = num_surprised = 0
    for trial in range(trials):  # correct or wrong, with the same examples hard for both
        ease = random.random(examples)
        theirs = random.random(examples) < ease * 0.8
        ours = np.where(random.random(examples) < 2 * truth, random.random(examples) < 0.5, theirs)
        shift = 2 * truth * (0.5 - 0.4)
        found = paired_difference(ours.astype(float), theirs.astype(float), seed=trial, num_draws=1000)
        num_covered += found.low <= shift <= found.high
        null = paired_difference(ours - shift, theirs.astype(float), seed=trial, num_draws=1000)
        num_surprised += null.p_value < 0.05
    assert abs(num_covered / trials - 0.95) < 0.035  # 3 standard errors
    assert abs(num_surprised / trials - 0.05) < 0.035


def test_right_and_wrong_answers_have_the_interval_of_their_two_counts():
    ours, theirs = np.zeros(400), np.zeros(400)
    ours[:60], theirs[60:90] = 1, 1
    found = paired_difference(ours, theirs)
    error = math.sqrt((90 / 400 - (30 / 400) ** 2) / 400)
    assert found.mean == pytest.approx(30 / 400)
    assert found.low == pytest.approx(30 / 400 - 1.96 * error, abs=0.08 * error + 1 / 400)
    assert found.high == pytest.approx(30 / 400 + 1.96 * error, abs=0.08 * error + 1 / 400)
    blurred = paired_difference(ours + np.linspace(0, 1e-9, 400), theirs)  # each example by itself
    assert blurred.low == pytest.approx(found.low, abs=0.08 * error + 1 / 400)
    assert blurred.p_value == pytest.approx(found.p_value, abs=0.003)


@pytest.mark.parametrize(("ours", "theirs"), [([], []), ([1.0], [1.0, 2.0])])
def test_lists_that_cannot_be_paired_are_refused(ours, theirs):
    with pytest.raises(ValueError, match="equally many"):
        paired_difference(ours, theirs)
