"""Whether rows draft follows from measured numbers, and stays off where it cannot pay."""

import pytest
import torch

import patchpad
from patchpad.errors import GenerationError
from patchpad.inference import draft_rule
from patchpad.inference.draft_rule import (
    ARMS,
    COMPILED_WARM_UP_IDS,
    HOPELESS_IDS,
    REMEMBERED_IDS,
    STEPS,
    TRIAL_IDS,
    WARM_UP_IDS,
    FixedDrafts,
    MeasuredDrafts,
    Tally,
    choose_arm,
    draft_rule_for,
)
from patchpad.inference.drafting import DraftLimits
from patchpad.testing import sharp_baseline, sharp_model, tiny_model_config


def known(pace: float, num_ids: float = TRIAL_IDS) -> Tally:
    return Tally(seconds=float(pace * num_ids), num_ids=float(num_ids), num_seen=float(num_ids) + WARM_UP_IDS)


def test_each_arm_is_tried_before_the_fastest_is_kept():
    tallies = {}
    for number, arm in enumerate(ARMS):
        assert choose_arm(tallies) == arm
        tallies[arm] = known(0.010 - 0.001 * number, TRIAL_IDS - 1)
        assert choose_arm(tallies) == arm
        tallies[arm] = known((0.010, 0.008, 0.007, 0.009, 0.012)[number])
    assert choose_arm(tallies) == ARMS[2]
    assert choose_arm(tallies | {STEPS: known(0.006)}) == STEPS


def test_where_the_first_drafts_are_hopeless_no_others_are_tried():
    assert choose_arm({STEPS: known(0.010), ARMS[1]: known(0.013)}) == STEPS
    assert choose_arm({STEPS: known(0.010), ARMS[1]: known(0.012)}) == ARMS[2]


def test_hopeless_drafts_are_given_up_after_a_few_bytes():
    rule, paces = MeasuredDrafts(), dict.fromkeys(ARMS, 0.013) | {STEPS: 0.010}
    arms = costs(rule, 1, paces, 400)
    assert set(arms) == {STEPS, ARMS[1]}
    assert arms.count(ARMS[1]) == WARM_UP_IDS + HOPELESS_IDS
    assert set(arms[-200:]) == {STEPS}


def costs(rule: MeasuredDrafts, num_rows: int, paces, num_ids: int) -> list:
    """Lets a rule choose for so many ids, each arm at a pace of its own; returns what it chose."""
    arms = []
    for _ in range(num_ids):
        arms.append(rule.limits(num_rows))
        rule.note(num_rows, arms[-1], paces[arms[-1]], 1)
    return arms


def test_a_rule_settles_on_what_is_fastest_and_finds_out_when_that_changes():
    rule, paces = MeasuredDrafts(), dict(zip(ARMS, (0.010, 0.009, 0.008, 0.007, 0.011), strict=True))
    trials = len(ARMS) * (TRIAL_IDS + WARM_UP_IDS)
    assert set(costs(rule, 1, paces, trials)) == set(ARMS)
    assert set(costs(rule, 1, paces, 500)) == {ARMS[3]}
    paces[STEPS] = 0.001
    arms = costs(rule, 1, paces, 3 * REMEMBERED_IDS)
    assert arms[-1] == STEPS
    assert arms.count(STEPS) > len(arms) / 2


def test_what_is_done_once_is_not_measured():
    rule = MeasuredDrafts()
    assert rule.limits(1) == STEPS
    rule.note(1, STEPS, 60.0, WARM_UP_IDS)
    rule.note(1, STEPS, 0.5, TRIAL_IDS)
    assert rule.tallies[0][STEPS].pace == 0.5 / TRIAL_IDS


@pytest.mark.unchecked
def test_batches_of_different_sizes_are_watched_apart():
    rule = MeasuredDrafts()
    small, large = (
        dict(zip(ARMS, paces, strict=True)) for paces in ((9.0, 5.0, 6.0, 7.0, 8.0), (5.0, 6.0, 7.0, 8.0, 9.0))
    )
    for _ in range(3):
        costs(rule, 1, small, 300)
        costs(rule, 30, large, 30 * 300)
    assert (rule.limits(1), rule.limits(32), rule.limits(2)) == (ARMS[1], STEPS, STEPS)
    assert set(costs(rule, 31, large, 50)) == {STEPS}


def test_trials_of_many_rows_take_as_many_bytes_of_each_row():
    rule = MeasuredDrafts()
    for _ in range(WARM_UP_IDS + TRIAL_IDS - 1):
        rule.note(32, STEPS, 0.5, 32)
    assert rule.limits(32) == STEPS
    rule.note(32, STEPS, 0.5, 32)
    assert rule.limits(32) == ARMS[1]
    assert rule.tallies[5][STEPS].pace == 0.5


def test_auto_stays_off_where_the_trunk_is_small_and_for_baselines(monkeypatch):
    model = sharp_model(tiny_model_config())
    for one in (model, sharp_baseline("byte"), sharp_baseline("bpe"), sharp_baseline("megabyte")):
        assert draft_rule_for(one, "auto").limits(1) == STEPS
    monkeypatch.setattr(draft_rule, "LEAST_TRUNK_PARAMETERS", 100)
    rule = draft_rule_for(model, "auto")
    assert isinstance(rule, MeasuredDrafts)
    assert draft_rule_for(model, "auto") is rule
    compiled = draft_rule_for(model, "auto", compile=True)
    assert compiled is not rule
    assert (rule.warm_up_ids, compiled.warm_up_ids) == (WARM_UP_IDS, COMPILED_WARM_UP_IDS)
    assert isinstance(draft_rule_for(sharp_baseline("byte"), "auto"), FixedDrafts)


def test_a_number_of_bytes_is_taken_as_it_is():
    model = sharp_model(tiny_model_config())
    assert draft_rule_for(model, 9).limits(100) == DraftLimits(most_bytes=9, most_slots=None)
    assert draft_rule_for(model, "off").limits(1) == STEPS
    with pytest.raises(GenerationError, match=r"draft is 4 with a `megabyte` model; allowed: auto or off"):
        patchpad.complete(sharp_baseline("megabyte"), ["a"], draft=4)


@pytest.mark.unchecked
def test_auto_generates_what_steps_generate(monkeypatch):
    for name, value in (("LEAST_TRUNK_PARAMETERS", 100), ("TRIAL_IDS", 9), ("WARM_UP_IDS", 1)):
        monkeypatch.setattr(draft_rule, name, value)
    model = sharp_model(tiny_model_config("spacebyte"))
    with torch.no_grad():
        model.local_decoder.lm_head.weight[256] = 0  # documents hardly end
    options = {"max_new_bytes": 90, "temperature": 1.0, "seed": 3}
    generation = patchpad.Generation(model, ["It was", "and"], **options)
    for _ in generation:
        pass
    assert generation.passes.drafts > 0
    assert generation.completions() == patchpad.complete(model, ["It was", "and"], draft="off", **options)
