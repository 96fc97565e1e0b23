"""Rows of a batch train at rates of their own; the stored threshold stays that of the common rate."""

import json
import math
import os
import random
import signal

import pytest
import torch

from patchpad.errors import ConfigError, TrainingInterrupted
from patchpad.files import sha256_of, strict_json
from patchpad.model.byte_lm import ByteLM
from patchpad.patching.triggers import RandomTrigger
from patchpad.training import trainer
from patchpad.training.checkpoint import load
from patchpad.training.pass_scores import PassScores
from patchpad.training.spread import SHARES, ThresholdSpread
from patchpad.training.threshold_schedule import ThresholdSchedule

ROW_TOLERANCE = 0.12
"""Mean distance of a row's realised share from its own: a row has 56 eligible positions in this test."""


@pytest.fixture(scope="module")
def graded(tmp_path_factory):
    """Every second byte is uncertain to its own degree, so that entropies spread."""
    source = random.Random(0)
    pairs = (bytes([65 + n % 24, 128 + source.randrange(2 + n % 24 * 2)]) for n in range(15_000))
    path = tmp_path_factory.mktemp("text") / "graded"
    path.write_bytes(b"".join(pairs))
    return path


def watch(monkeypatch):
    """Records (step, fresh, share or None, realised share) of each row of each pass."""
    seen = []
    original_decisions, original_of = ThresholdSchedule.decisions, PassScores.of
    passes = []

    def decisions(self, model, step, pass_number=0, rows=None):
        passes.append((step, bool(self.is_fresh), self.spread.row_shares(step, pass_number)))
        return original_decisions(self, model, step, pass_number, rows)

    def of(model, output):
        layout = output.layout
        eligible = ~(layout.patch_end_mask | layout.documents.is_padding)
        realised = (layout.scratchpad_mask.sum(1) / eligible.sum(1)).tolist()
        step, is_fresh, shares = passes[-1]
        seen.extend((step, is_fresh, share, found) for share, found in zip(shares, realised, strict=True))
        return original_of(model, output)

    monkeypatch.setattr(ThresholdSchedule, "decisions", decisions)
    monkeypatch.setattr(PassScores, "of", staticmethod(of))
    return seen


@pytest.mark.unchecked
def test_rows_follow_their_own_rates_and_the_others_the_common_one(tmp_path, graded, tools, monkeypatch):
    seen = watch(monkeypatch)
    config = tools.config(
        steps=90, batch_rows=8, learning_rate=0.02, threshold_frozen_fraction=0.2, threshold_spread=0.5
    )
    run = trainer.train(config, data=graded, out=tmp_path / "run", progress=tools.Hook())
    assert len(seen) == 90 * 8
    fresh = [row for row in seen if row[1]]
    settled = [row for row in seen if row[0] >= 50]
    assert len(fresh) >= 4 * 8
    assert not any(row[1] for row in settled)
    for rows in (fresh, settled):
        own = [(share, found) for _, _, share, found in rows if share is not None]
        assert len(own) == len(rows) / 2
        assert sum(abs(share - found) for share, found in own) / len(own) < ROW_TOLERANCE
        for low, high in ((0.0, 0.2), (0.4, 0.6), (0.8, 1.0)):
            near = [(share, found) for share, found in own if low <= share <= high]
            bias = sum(found - share for share, found in near) / len(near)
            assert abs(bias) < ROW_TOLERANCE, (low, high)
        common = [found for _, _, share, found in rows if share is None]
        assert sum(common) / len(common) == pytest.approx(3 / 16 / (7 / 8), abs=0.05)

    thresholds = [line["scratchpad_threshold_nats"] for line in tools.losses(run.path)]
    assert len(set(thresholds[72:])) == 1, "the stored threshold is frozen for the last fifth"
    assert float(load(run.path).scratchpad_threshold_nats) == thresholds[-1]


@pytest.mark.unchecked
@pytest.mark.parametrize("trigger", ["entropy", pytest.param("random", marks=pytest.mark.slow)])
def test_interrupted_run_with_a_spread_resumes_exactly(tmp_path, text, tools, trigger):
    config = tools.config(trigger, batch_rows=3, accumulation_steps=2, learning_rate=0.02, threshold_spread=0.4)
    config = tools.replace(config, train=tools.replace(config.train, steps=14))
    trainer.train(config, data=text, out=tmp_path / "straight", progress=tools.Hook())
    stop = tools.Hook(9, lambda: os.kill(os.getpid(), signal.SIGINT))
    tools.train_until_error(config, stop, TrainingInterrupted, data=text, out=tmp_path / "stopped")
    trainer.resume(tmp_path / "stopped", progress=tools.Hook())
    assert tools.losses(tmp_path / "straight") == tools.losses(tmp_path / "stopped")
    first, second = (sha256_of(tmp_path / name / "model.safetensors") for name in ("straight", "stopped"))
    assert first == second


def test_quantiles_of_the_spread_survive_their_trip_through_json_and_matter_after_it(tools):
    config = tools.config(threshold_spread=1.0)
    schedule, restored = ThresholdSchedule(config), ThresholdSchedule(config)
    schedule.spread.follow(torch.rand(500), is_fresh=torch.tensor(False))
    schedule.spread.follow(torch.rand(500) * 3, is_fresh=torch.tensor(False))
    restored.restore(json.loads(strict_json(schedule.state())))
    assert restored.state() == schedule.state()
    shares = torch.linspace(0, 1, 11, dtype=torch.float64)
    assert torch.equal(restored.spread.thresholds(shares), schedule.spread.thresholds(shares))


def test_threshold_of_a_share_lies_between_quantiles_and_the_ends_are_infinite(tools):
    spread = ThresholdSpread(tools.config(threshold_spread=1.0).train)
    scores = torch.linspace(0, 5, 1001)
    spread.follow(torch.cat((scores, torch.full((70,), -math.inf))).roll(30), is_fresh=torch.tensor(True))
    shares = torch.tensor([0.003, 0.01, 0.3, 0.77, 0.999, *SHARES], dtype=torch.float64)
    for share, threshold in zip(shares.tolist(), spread.thresholds(shares).tolist(), strict=True):
        assert float((scores > threshold).float().mean()) == pytest.approx(share, abs=2e-3)
        if share in (0, 1):
            assert threshold == (math.inf if share == 0 else -math.inf)


def test_rows_of_a_step_are_drawn_together_whatever_the_passes(tools):
    one = ThresholdSpread(tools.config(batch_rows=6, threshold_spread=0.5).train)
    three = ThresholdSpread(tools.config(batch_rows=2, accumulation_steps=3, threshold_spread=0.5).train)
    other_seed = ThresholdSpread(tools.config(batch_rows=6, seed=1, threshold_spread=0.5).train)
    for step in range(5):
        shares = one.row_shares(step, 0)
        assert shares == [share for number in range(3) for share in three.row_shares(step, number)]
        assert sum(share is not None for share in shares) == 3
        assert shares != one.row_shares(step + 1, 0)
        assert shares != other_seed.row_shares(step, 0)


def test_spread_that_is_no_whole_number_of_rows_holds_on_average(tools):
    spread = ThresholdSpread(tools.config(batch_rows=2, threshold_spread=0.2).train)
    drawn = [share for step in range(500) for share in spread.row_shares(step, 0) if share is not None]
    assert len(drawn) / 1000 == pytest.approx(0.2, abs=0.03)
    assert sum(drawn) / len(drawn) == pytest.approx(0.5, abs=0.06)


@pytest.mark.parametrize("fixed", [1.5, math.inf, -math.inf])
def test_fixed_threshold_holds_for_the_other_rows_once_the_head_is_no_longer_fresh(tools, fixed):
    config = tools.config(
        batch_rows=4, scratchpads_per_byte=None, scratchpad_threshold_nats=fixed, threshold_spread=0.5
    )
    model, schedule = ByteLM(config.model), ThresholdSchedule(config)
    shares = schedule.spread.row_shares(3, 0)
    others = [row for row, share in enumerate(shares) if share is None]
    assert len(others) == 2

    decisions = schedule.decisions(model, 3)
    fresh = decisions.scratchpad_threshold
    assert bool(decisions.trigger.is_first)
    assert isinstance(decisions.trigger.first, RandomTrigger)
    at_random = RandomTrigger.threshold_at(schedule.target_rate, config.model.patchifier.target_patch_size)
    assert fresh[others].tolist() == [fixed if math.isinf(fixed) else pytest.approx(at_random)] * 2
    for row, share in enumerate(shares):
        assert share is None or float(fresh[row]) == pytest.approx(1 - share)

    schedule.is_fresh = torch.tensor(False)
    schedule.spread.follow(torch.linspace(0, 1, 1001), is_fresh=schedule.is_fresh)
    decisions = schedule.decisions(model, 3)
    settled = decisions.scratchpad_threshold
    assert not bool(decisions.trigger.is_first)
    assert decisions.trigger.second is model.trigger
    assert settled[others].tolist() == [fixed] * 2
    for row, share in enumerate(shares):
        assert share is None or float(settled[row]) == pytest.approx(1 - share, abs=1e-3)


@pytest.mark.parametrize("trigger", ["never", "always", "stride", "whitespace"])
def test_trigger_without_a_rate_takes_no_spread(tools, trigger):
    with pytest.raises(ConfigError, match=r"train.threshold_spread is 0\.5 with the trigger"):
        tools.config(trigger, threshold_spread=0.5)


def test_scores_of_a_diverged_step_are_followed_without_an_index_out_of_bounds(tools):
    schedule = ThresholdSchedule(tools.config("entropy", threshold_spread=0.5))
    schedule.spread.follow(torch.full((8,), math.nan), is_fresh=torch.tensor(False))
    assert not schedule.spread.quantiles.nats.isfinite().any()
