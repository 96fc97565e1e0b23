"""Steps that are not finite, or explode: they change nothing, are counted and told, and too many end training."""

import logging
import math
from dataclasses import replace

import pytest
import torch

from patchpad.config import TrainConfig
from patchpad.errors import TrainingError
from patchpad.training import passes, trainer
from patchpad.training.checkpoint import open_checkpoint
from patchpad.training.guard import LEAST_NORMS, NUM_NORMS, StepGuard
from patchpad.training.optimizer import optimizer_tensors
from patchpad.training.sums import StepSums
from patchpad.training.text import RunText
from patchpad.training.trainer import Trainer


@pytest.fixture
def spoil(monkeypatch):
    """Makes the losses of some steps nan, counted from 0 over the whole test."""
    original, made = passes.PassWeights.of_step, []

    def spoil(*steps: int) -> None:
        def of_step(*arguments):
            made.append(None)
            weights = original(*arguments)
            return replace(weights, num_targets=weights.num_targets * (math.nan if len(made) - 1 in steps else 1))

        monkeypatch.setattr(passes.PassWeights, "of_step", of_step)

    return spoil


def guard_of(**options) -> StepGuard:
    return StepGuard(TrainConfig(**options), late=False)


def tensors_of(run: Trainer) -> dict[str, torch.Tensor]:
    averaged = {f"averaged {name}": value for name, value in run.averaged.tensors.items()}
    return {**run.model.state_dict(), **optimizer_tensors(run.model, run.optimizer), **averaged}


def noted(guard: StepGuard, norms, loss: float = 1.0) -> list[bool]:
    found = []
    for step, norm in enumerate(norms):
        found.append(bool(guard.note(step, [torch.tensor(loss)], torch.tensor(float(norm)))))
    return found


def test_a_norm_far_above_the_median_of_those_before_is_skipped_and_never_counts_among_them(caplog):
    guard = guard_of(max_skipped_steps=2, skip_norm_ratio=4.0)
    calm = [1.0, 3.0] * (LEAST_NORMS // 2)
    assert noted(guard, [50.0, *calm[1:]]) == [True] * LEAST_NORMS, "with few norms before, none explodes"
    assert noted(guard, [12.0, 12.1, 13.0, 3.0, math.inf, 12.0]) == [True, False, False, True, False, True]
    assert guard.num_skipped == 3
    assert guard.num_in_a_row == 0
    assert "the gradient has a norm of 12.1, 4.03 times the median of the steps before" in caplog.text
    assert noted(guard, [1.0] * NUM_NORMS) == [True] * NUM_NORMS
    assert int(guard.num_norms) == NUM_NORMS
    assert noted(guard, [4.0, 4.01]) == [True, False], "old norms are forgotten"


def test_a_guard_goes_on_from_its_state():
    first, second = (guard_of(max_skipped_steps=2, skip_norm_ratio=4.0) for _ in range(2))
    noted(first, [2.0 + 0.1 * n for n in range(30)])
    noted(first, [100.0])
    second.restore(first.state())
    assert second.state() == first.state()
    norms = [13.0, 100.0, 3.0, 100.0, 100.0]
    assert noted(second, norms) == noted(first, norms)
    assert second.state() == first.state()
    with pytest.raises(TrainingError, match=r"diverged: the gradient has a norm of 100, .* and 2 before"):
        noted(second, [100.0])


@pytest.mark.parametrize("late", [False, True])
def test_without_skips_the_first_number_that_is_not_finite_is_an_error(late):
    guard = StepGuard(TrainConfig(), late=late)
    if late:
        noted(guard, [1.0, math.inf])
    with pytest.raises(TrainingError) as caught:
        guard.finish() if late else noted(guard, [1.0, math.inf])
    assert caught.value.message == "training has diverged: the gradient is inf after 1 steps"


def test_a_skipped_step_changes_no_weight_no_moment_and_no_threshold(tmp_path, text, tools, spoil, caplog):
    config = tools.config(patchifier="entropy", max_skipped_steps=1, threshold_spread=0.5, accumulation_steps=2)
    config = replace(config, train=replace(config.train, averaged_decay=0.5))
    run = Trainer(config, tmp_path / "run", RunText.open(replace(config.data, paths=(str(text),))))
    spoil(2)
    sums = StepSums()
    for step in range(4):
        before = {name: value.clone() for name, value in tensors_of(run).items()}
        schedule, seen = run.schedule.state(), replace(sums)
        with caplog.at_level(logging.WARNING):
            run.train_step(sums)
        run.step += 1
        now = tensors_of(run)
        is_same = [torch.equal(value, now[name]) for name, value in before.items()]
        if step == 2:
            assert all(is_same)
            assert run.schedule.state() == schedule
            assert (sums.nats, sums.num_commits) == (seen.nats, seen.num_commits)
            assert sums.num_counted_bytes == seen.num_counted_bytes < sums.num_bytes
        else:
            assert not all(is_same)
            assert run.schedule.state() != schedule
    assert caplog.text.count("is skipped") == 1
    assert "step 3 is skipped, and changes nothing: the loss is nan" in caplog.text
    assert 5 < sums.bits_per_byte(sums.nats) < 9


def test_skips_are_counted_in_the_metrics_and_a_resumed_run_goes_on_the_same(tmp_path, text, tools, spoil):
    config = tools.config(steps=8, max_skipped_steps=2, skip_norm_ratio=50.0, checkpoint_every=4, log_every=2)
    spoil(1, 2, 5, 9, 10, 14)
    trainer.train(config, data=text, out=tmp_path / "whole", progress=tools.Hook())
    lines = tools.losses(tmp_path / "whole")
    assert [line["skipped_steps"] for line in lines] == [1, 2, 3, 3]
    assert all(math.isfinite(line["train/bpb"]) for line in lines)

    def stop():
        raise KeyboardInterrupt

    out = tmp_path / "resumed"
    tools.train_until_error(config, tools.Hook(5, stop), KeyboardInterrupt, data=text, out=out)
    trainer.resume(out, progress=tools.Hook())  # from step 4, which is the test's number 13
    assert tools.losses(out) == lines


def test_too_many_skips_in_a_row_end_training_and_leave_the_last_checkpoint(tmp_path, text, tools, spoil):
    config = tools.config(steps=8, max_skipped_steps=2, checkpoint_every=1)
    spoil(2, 4, 5, 6)
    error = tools.train_until_error(config, tools.Hook(), TrainingError, data=text, out=tmp_path / "run")
    expected = "training has diverged: the loss is nan after 6 steps, and 2 before this one were skipped"
    assert error.message == expected
    assert open_checkpoint(tmp_path / "run").path.name == "step-6"


def test_a_guard_that_skips_nothing_changes_no_bit(tmp_path, text, tools):
    found = []
    for name, options in (("plain", {}), ("guarded", {"max_skipped_steps": 3, "skip_norm_ratio": 100.0})):
        trainer.train(tools.config(steps=5, **options), data=text, out=tmp_path / name, progress=tools.Hook())
        found.append(tools.losses(tmp_path / name))
    assert [line.pop("skipped_steps") for line in found[1]] == [0] * 5
    assert found[0] == found[1]


@pytest.mark.parametrize("trigger", ["entropy", "never"])
def test_the_z_loss_pulls_the_divisor_of_softmax_to_1_and_is_no_part_of_the_bits(tmp_path, text, tools, trigger):
    config = tools.config(trigger, steps=1, batch_rows=4)
    runs = []
    for weight in (0.0, 0.5):
        options = replace(config, train=replace(config.train, z_loss_weight=weight))
        run = Trainer(options, tmp_path / "run", RunText.open(replace(config.data, paths=(str(text),))))
        sums, losses = StepSums(), []
        original = run.guard.note
        run.guard.note = lambda step, given, *rest, note=original, kept=losses: (
            kept.extend(given) or note(step, given, *rest)
        )
        run.train_step(sums)
        runs.append((run, sums, float(losses[0])))
    (plain, plain_sums, plain_loss), (_, sums, loss) = runs
    assert sums.nats == plain_sums.nats
    assert sums.head_nats == plain_sums.head_nats
    batch = plain.batches.batch(0)
    fresh = Trainer(config, tmp_path / "run", plain.text)
    decisions = fresh.schedule.decisions(fresh.model, 0)
    with torch.no_grad():
        predicted = fresh.model.predict_targets(batch.byte_ids, batch.targets, decisions)
    squares = predicted.logits.exp().sum(-1).log()[batch.targets >= 0].square()
    assert loss - plain_loss == pytest.approx(0.5 * float(squares.mean()), rel=1e-3)
