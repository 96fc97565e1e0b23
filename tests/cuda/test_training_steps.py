"""Optimizer steps on the pretended device: few waits, no graph but one, late checks, and repeated passes."""

import math
from dataclasses import replace

import pytest
import torch
from cuda_models import CASES, TEXT, small_config

from patchpad.config import Config, DataConfig
from patchpad.errors import TrainingError
from patchpad.patching import SlotRoom
from patchpad.training import passes
from patchpad.training.room import Rooms, room_ladder
from patchpad.training.sums import StepSums
from patchpad.training.text import RunText
from patchpad.training.trainer import Trainer

MOST_WAITS = 4
"""Of the host for the device, in a training step."""


def trainer_of(model, folder, device="cuda", **options) -> Trainer:
    config = Config(model=model)
    options = {"batch_rows": 2, "validate_every": 0, "checkpoint_every": 0, "steps": 20, **options}
    config = replace(config, train=replace(config.train, device=device, **options), data=DataConfig(paths=(TEXT,)))
    return Trainer(config, folder / "run", RunText.open(config.data))


def steps(run: Trainer, count: int) -> StepSums:
    sums = StepSums()
    for _ in range(count):
        run.train_step(sums)
        run.step += 1
    return sums


ALL_OPTIONS = {"threshold_spread": 0.5, "accumulation_steps": 2, "activation_checkpointing": True}


@pytest.mark.parametrize(
    ("patchifier", "trigger", "options"), [*((*case, {}) for case in CASES), ("entropy", "entropy", ALL_OPTIONS)]
)
def test_a_step_waits_for_the_device_once_a_pass(tmp_path, record, patchifier, trigger, options):
    run = trainer_of(small_config(patchifier, trigger), tmp_path, **options)
    with record.in_phase("step"):
        sums = steps(run, 1)
    passes_made = record.compiled["training_pass"]
    assert record.num_waits("step") == passes_made <= MOST_WAITS, record.describe_waits("step")
    if patchifier != "hnet":  # a fresh router begins more chunks than are scheduled, so its first pass is repeated
        assert passes_made == run.config.train.accumulation_steps
    assert sums.num_bytes > 0
    assert sums.nats == 0, "sums stay on the device"
    with record.in_phase("read"):
        run.read(sums)
    assert record.num_waits("read") <= 2, record.describe_waits("read")  # for the flag of the newest step, and the sums
    assert 0 < sums.nats / sums.num_bytes / math.log(2) < 20


def test_rows_have_a_fixed_width_and_sums_are_those_of_a_cpu(tmp_path):
    found, expected = (trainer_of(small_config(), tmp_path, device) for device in ("cuda", "cpu"))
    assert found.batches.batch(0).byte_ids.shape == (2, 384)
    assert expected.batches.batch(0).byte_ids.shape[1] <= 257
    sums = [steps(run, 1) for run in (found, expected)]
    found.read(sums[0])
    assert sums[0].num_bytes == sums[1].num_bytes
    assert sums[0].num_commits == sums[1].num_commits > 0
    assert sums[0].num_scratchpads == sums[1].num_scratchpads > 0
    assert sums[0].nats == pytest.approx(sums[1].nats, rel=5e-3)  # in bf16
    assert sums[0].head_nats == pytest.approx(sums[1].head_nats, rel=5e-3)


def test_a_pass_whose_slots_do_not_fit_is_repeated_with_more_room_and_changes_nothing(tmp_path, monkeypatch):
    plain, tight = (trainer_of(small_config("spacebyte"), tmp_path) for _ in range(2))
    ladder = [SlotRoom(commits=128, scratchpads=0), *plain.passes.rooms.ladder]
    tight.passes.rooms = Rooms(ladder)
    used = []
    original = tight.passes._pass
    tight.passes._pass = lambda *arguments: used.append(arguments[-1]) or original(*arguments)
    found, expected = (steps(run, 2) for run in (tight, plain))
    for run, sums in ((tight, found), (plain, expected)):
        run.read(sums)
    assert used[0] == ladder[0]
    assert used[1] == used[2] != ladder[0], "the next pass begins with the room that held the last one"
    assert len(used) == 3
    assert found == expected
    for name, weights in plain.model.named_parameters():
        assert torch.equal(weights.cpu(), tight.model.get_parameter(name).cpu()), name


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_a_step_that_diverges_changes_no_weights_and_is_noticed_a_step_later_and_before_anything_is_saved(
    tmp_path, monkeypatch, what
):
    run = trainer_of(small_config(), tmp_path)
    steps(run, 1)
    before = {name: value.cpu().clone() for name, value in run.model.state_dict().items()}
    moments = {key: value.clone() for key, value in optimizer_state(run).items()}
    if what == "loss":
        nan = torch.full((), math.nan, device="cuda")
        monkeypatch.setattr(passes.PassWeights, "of_step", lambda *_: replace(weights_of(run), num_targets=nan))
    else:
        monkeypatch.setattr(run.parallel, "tensor_norms", spoiled)
    steps(run, 1)
    for name, weights in run.model.named_parameters():
        assert torch.equal(weights.cpu(), before[name]), name
    for key, value in optimizer_state(run).items():
        assert torch.equal(value, moments[key]), key
    message = f"training has diverged: the {what} is nan after 1 steps"
    for action in (run.save, run.validate, lambda: steps(run, 1)):
        unread = list(run.guard._unread)
        with pytest.raises(TrainingError, match=message):
            action()
        run.guard._unread.extend(unread)
    assert not (tmp_path / "run").exists()


def test_a_guarded_step_waits_no_more_and_skips_on_the_device(tmp_path, record, monkeypatch, caplog):
    """What a skipped step has seen is left out of the sums; it is told a step later, or before anything is saved."""
    run = trainer_of(small_config("entropy"), tmp_path, max_skipped_steps=1, skip_norm_ratio=8.0, threshold_spread=0.5)
    steps(run, 2)
    with record.in_phase("step"):
        sums = steps(run, 1)
    assert record.num_waits("step") <= 2, record.describe_waits("step")  # for the pass, and the step before
    before = {name: value.cpu().clone() for name, value in run.model.state_dict().items()}
    schedule, moments = run.schedule.state(), {key: value.clone() for key, value in optimizer_state(run).items()}
    run.read(sums)
    nan = torch.full((), math.nan, device="cuda")
    with monkeypatch.context() as spoilt:
        spoilt.setattr(passes.PassWeights, "of_step", lambda *_: replace(weights_of(run), num_targets=nan))
        sums = steps(run, 1)
    assert "skipped" not in caplog.text
    run.read(sums)
    assert "step 4 is skipped, and changes nothing: the loss is nan" in caplog.text
    assert (sums.nats, sums.num_commits, sums.num_counted_bytes) == (0, 0, 0) < (0, 0, sums.num_bytes)
    assert run.readings.skipped_steps == 1
    assert run.schedule.state() == schedule
    for name, value in run.model.state_dict().items():
        assert torch.equal(value.cpu(), before[name]), name
    for key, value in optimizer_state(run).items():
        assert torch.equal(value, moments[key]), key
    caplog.clear()  # that a step was skipped is no sign of a slow path


def optimizer_state(run: Trainer) -> dict[str, torch.Tensor]:
    from patchpad.training.optimizer import optimizer_tensors

    return optimizer_tensors(run.model, run.optimizer)


def weights_of(run: Trainer) -> passes.PassWeights:
    train = run.config.train
    return passes.PassWeights(
        num_targets=torch.ones((), device="cuda"),
        entropy_head=train.entropy_head_weight,
        ratio=train.ratio_loss_weight,
        ratio_loss=None,
    )


def spoiled(gradients):
    for gradient in gradients:
        gradient.fill_(math.nan)
    return torch.full((len(gradients),), math.nan, device="cuda")


def test_a_thread_makes_the_batches_and_a_resumed_run_is_the_same(tmp_path, record):
    run = trainer_of(small_config(), tmp_path, steps=4, log_every=1)
    with run.prefetching():
        ahead = run.feed
        assert ahead is not run.own_rows
        for number in (0, 1, 2, 5):
            assert torch.equal(ahead.batch(number).byte_ids, run.batches.batch(number).byte_ids)
            assert ahead.batch(number).byte_ids.is_pinned()
    assert run.feed is run.own_rows


def test_the_ladder_of_a_run_ends_with_a_place_at_every_position(tmp_path):
    run = trainer_of(small_config("entropy"), tmp_path)
    assert run.passes.rooms.ladder == room_ladder(run.config, 2, 384)
    assert run.passes.rooms.ladder[-1] == SlotRoom(commits=768, scratchpads=768)
