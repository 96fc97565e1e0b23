"""The threshold follows a rate, freezes, and is stored with the model."""

import json
import math
import random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from patchpad.config import Config
from patchpad.evaluation.bits_per_byte import evaluate
from patchpad.files import strict_json
from patchpad.model.build import build_model
from patchpad.model.byte_lm import ByteLM
from patchpad.patching.triggers import EntropyTrigger, RandomTrigger
from patchpad.testing import sharp_model
from patchpad.training import trainer
from patchpad.training.checkpoint import load
from patchpad.training.pass_scores import PassScores
from patchpad.training.threshold_schedule import ThresholdSchedule
from patchpad.training.thresholds import FollowedThreshold, quantile_for_rate

NOT_FRESH = torch.tensor(False)


def number(value):
    return torch.tensor(value, dtype=torch.float64)


@pytest.fixture(scope="module")
def graded(tmp_path_factory):
    """Every second byte is uncertain to its own degree, so that entropies soon settle at evenly spread values."""
    source = random.Random(0)
    pairs = (bytes([65 + n % 24, 128 + source.randrange(2 + n % 24 * 2)]) for n in range(15_000))
    path = tmp_path_factory.mktemp("text") / "graded"
    path.write_bytes(b"".join(pairs))
    return path


@pytest.fixture(scope="module")
def followed(tmp_path_factory, graded, tools):
    """A run long enough for the head to leave its fresh phase and for the threshold to settle."""
    out = tmp_path_factory.mktemp("runs") / "followed"
    config = tools.config(steps=90, batch_rows=8, learning_rate=0.02, threshold_frozen_fraction=0.2)
    trainer.train(config, data=graded, out=out, progress=tools.Hook())
    return out


@pytest.mark.unchecked
def test_realised_rate_is_the_target_while_the_head_is_fresh_and_near_it_once_entropies_settle(followed, tools):
    rates = [line["scratchpads_per_byte"] for line in tools.losses(followed)]
    for first, last in ((0, 8), (50, 70), (70, 90)):
        assert sum(rates[first:last]) / (last - first) == pytest.approx(3 / 16, abs=0.03)


@pytest.mark.unchecked
def test_threshold_moves_until_it_is_frozen_and_is_then_stored(followed, tools):
    thresholds = [line["scratchpad_threshold_nats"] for line in tools.losses(followed)]
    assert len(set(thresholds[:72])) == 72
    assert len(set(thresholds[72:])) == 1
    assert float(load(followed).scratchpad_threshold_nats) == thresholds[-1]
    assert 0 < thresholds[-1] < math.log(257)


@pytest.mark.unchecked
def test_stored_threshold_is_used_when_none_is_given_and_keeps_the_rate_on_the_text(followed, graded):
    model = load(followed)
    stored, given = (
        evaluate(model, graded, scratchpad_threshold_nats=threshold)[0]
        for threshold in (None, float(model.scratchpad_threshold_nats))
    )
    assert stored == given
    assert stored.scratchpads_per_byte == pytest.approx(3 / 16, abs=0.04)


@pytest.mark.parametrize("threshold", [2.0, math.inf, -math.inf])
def test_fixed_threshold_stays_and_is_stored(tmp_path, text, tools, threshold):
    config = tools.config(
        steps=5, scratchpads_per_byte=None, scratchpad_threshold_nats=threshold, threshold_frozen_fraction=0.0
    )
    trainer.train(config, data=text, out=tmp_path / "run", progress=tools.Hook())
    lines = tools.losses(tmp_path / "run")
    assert {float(line["scratchpad_threshold_nats"]) for line in lines} == {threshold}
    assert float(load(tmp_path / "run").scratchpad_threshold_nats) == threshold
    rates = {line["scratchpads_per_byte"] for line in lines}
    if threshold == math.inf:
        assert rates == {0.0}
    elif threshold == -math.inf:
        assert all(line["scratchpads_per_byte"] + line["patches_per_byte"] >= 1 for line in lines)
    else:
        assert 0 < min(rates) <= max(rates) < 0.5, "the fresh head's entropies lie above 2 nats at every byte"


@pytest.mark.parametrize("trigger", ["random", "stride", "whitespace", "always", "never"])
def test_other_triggers_train_at_their_own_rate_and_keep_their_threshold(tmp_path, text, tools, trigger):
    config = tools.config(trigger, steps=4, batch_rows=8)
    run = trainer.train(config, data=text, out=tmp_path / "run", progress=tools.Hook())
    rates = [line["scratchpads_per_byte"] for line in tools.losses(run.path)]
    if trigger == "random":
        assert sum(rates) / 4 == pytest.approx(3 / 16, abs=0.04)
        assert len(set(rates)) > 1, "each step has a seed of its own"
    if trigger == "stride":
        assert rates == pytest.approx([1 / 8] * 4, abs=0.01)
    if trigger == "never":
        assert set(rates) == {0.0}
    initial = float(build_model(config.model).scratchpad_threshold_nats)
    assert float(load(run.path).scratchpad_threshold_nats) == float(run.model.scratchpad_threshold_nats) == initial


def test_head_is_fresh_until_its_entropies_fall_and_never_again(tools):
    config = tools.config()
    ids = torch.tensor([[256, *b"the cat sat on the mat"]])
    untrained, sharp = ByteLM(config.model), sharp_model(config.model)
    schedule = ThresholdSchedule(config)
    for model, is_fresh in ((untrained, True), (sharp, False), (untrained, False)):
        with torch.no_grad():
            schedule.observe(PassScores.of(model, model(ids)), ids.shape[1] - 1)
        schedule.move(model, step=0, planned_steps=10)
        assert bool(schedule.is_fresh) == is_fresh
        trigger = schedule.decisions(model, 1).trigger
        facts = model(ids).facts
        holding = trigger.first if is_fresh else trigger.second
        assert isinstance(holding, RandomTrigger if is_fresh else EntropyTrigger)
        assert torch.equal(trigger.scores(facts, facts.document_offset), holding.scores(facts, facts.document_offset))


@given(
    st.lists(st.floats(-5, 5, width=32), min_size=1, max_size=60, unique=True),
    st.floats(0, 1),
    st.integers(0, 20),
)
def test_quantile_lets_exactly_the_wanted_number_of_scores_fire(scores, rate, num_ends):
    num_bytes = len(scores) + num_ends
    padded = torch.tensor([-math.inf, *scores, -math.inf])
    threshold = quantile_for_rate(padded, rate, num_bytes)
    on_device = torch.tensor(rate, dtype=torch.float64)
    assert float(quantile_for_rate(padded, on_device, num_bytes, most_rate=1.5)) == float(threshold)
    expected = min(round(rate * num_bytes), len(scores))
    assert sum(score > threshold for score in scores) == expected
    if expected == 0:
        assert threshold == math.inf
    if expected == len(scores):
        assert threshold == -math.inf


@given(st.floats(allow_nan=False), st.lists(st.floats(0, 6), max_size=60), st.booleans(), st.booleans())
def test_state_of_the_schedule_survives_its_trip_through_json(threshold, quantiles, begins_fresh, is_fresh):
    schedule = ThresholdSchedule(Config())
    schedule.is_fresh = torch.tensor(is_fresh)
    schedule.scratchpad.follow(number(threshold), is_fresh=torch.tensor(begins_fresh))
    for quantile in quantiles:
        schedule.patch.follow(number(quantile), is_fresh=NOT_FRESH)
    restored = ThresholdSchedule(Config())
    restored.restore(json.loads(strict_json(schedule.state())))
    assert restored.state() == schedule.state()


def test_followed_threshold_lies_on_the_line_of_the_last_quarter_of_its_steps_and_of_40_at_most():
    threshold = FollowedThreshold(math.inf)
    quantiles = torch.rand(300, generator=torch.Generator().manual_seed(0), dtype=torch.float64).tolist()
    for step, quantile in enumerate(quantiles, start=1):
        threshold.follow(number(quantile), is_fresh=NOT_FRESH)
        count = min(40, 1 + step // 4)
        places, values = np.arange(count), quantiles[step - count : step]
        slope, offset = np.polyfit(places, values, 1) if count > 1 else (0.0, values[0])
        assert float(threshold.nats) == pytest.approx(slope * (count - 1) + offset, abs=1e-9)


def test_followed_threshold_averages_noise_and_does_not_lag():
    noise = torch.randn(400, generator=torch.Generator().manual_seed(0)).tolist()
    threshold, misses = FollowedThreshold(math.inf), []
    for step, error in enumerate(noise):
        threshold.follow(number(5 - 0.01 * step + 0.1 * error), is_fresh=NOT_FRESH)
        misses.append(float(threshold.nats) - (5 - 0.01 * step))
    settled = torch.tensor(misses[160:])
    assert abs(float(settled.mean())) < 0.01
    assert float(settled.std()) < 0.1 / 2.5


def test_stored_threshold_is_the_mean_of_the_newer_half_of_the_quantiles_however_often_it_settles():
    threshold = FollowedThreshold(math.inf)
    for step in range(200):
        threshold.follow(number(2.0 + (-1) ** step * step / 1000), is_fresh=NOT_FRESH)
    newest = [2.0 + (-1) ** step * step / 1000 for step in range(180, 200)]
    for _ in range(2):
        threshold.settle()
        assert float(threshold.nats) == pytest.approx(sum(newest) / 20)


def test_followed_threshold_takes_a_fresh_or_an_infinite_quantile_alone():
    threshold = FollowedThreshold(math.inf)
    for quantile in (1.0, 2.0, 3.0, 4.0, 5.0):
        threshold.follow(number(quantile), is_fresh=NOT_FRESH)
    assert threshold.nats == 5.0
    threshold.follow(number(9.0), is_fresh=torch.tensor(True))
    assert threshold.nats == 9.0
    threshold.follow(number(8.0), is_fresh=NOT_FRESH)
    assert threshold.nats == 8.0, "what a fresh head gave is forgotten"
    threshold.follow(number(-math.inf), is_fresh=NOT_FRESH)
    assert (threshold.nats, threshold.has_followed) == (-math.inf, False)
    threshold.follow(number(2.0), is_fresh=NOT_FRESH)
    assert (threshold.nats, threshold.has_followed) == (2.0, True)


def test_frozen_threshold_moves_only_until_it_has_followed_something():
    threshold = FollowedThreshold(math.inf, several=2)
    before = torch.tensor([1.0, math.inf], dtype=torch.float64)
    after = torch.tensor([3.0, 3.0], dtype=torch.float64)
    threshold.follow(before, is_fresh=NOT_FRESH)
    for _ in range(2):
        threshold.follow(after, is_fresh=NOT_FRESH, is_frozen=True)
        threshold.settle()
        assert threshold.nats.tolist() == [1.0, 3.0]
        after = after + 1


@pytest.mark.unchecked
def test_rate_in_training_is_within_3_percent_of_its_target_at_the_end_of_following(tmp_path, graded, tools):
    config = tools.config(steps=180, batch_rows=8, learning_rate=0.01, threshold_frozen_fraction=0.0)
    run = trainer.train(config, data=graded, out=tmp_path / "run", progress=tools.Hook())
    rates = [line["scratchpads_per_byte"] for line in tools.losses(run.path)][-30:]
    assert sum(rates) / 30 == pytest.approx(3 / 16, rel=0.03)
    # After so few steps of so few bytes the stored threshold gives a rate that differs by seed: in eight runs,
    # with two orders of the text, it was 3 % above to 15 % below its target.
    (point,) = evaluate(run.model, graded, limit_bytes=20_000)
    assert point.scratchpads_per_byte == pytest.approx(3 / 16, rel=0.2)
