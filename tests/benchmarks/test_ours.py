"""What the benchmarks measure is what the library does: its training step, its engine, at 1/4 trunk call per byte."""

import ours
import pytest
import torch
from sizes import SCRATCHPADS_PER_BYTE, plain_patches

from patchpad.config import Config, DataConfig, TrainConfig
from patchpad.patching.blending import BlendedTrigger
from patchpad.training.learning_rate import learning_rate
from patchpad.training.optimizer import set_learning_rate
from patchpad.training.sums import StepSums
from patchpad.training.text import RunText
from patchpad.training.trainer import Trainer

PATCH_BYTES = 16


def test_training_runs_at_a_quarter_trunk_call_per_byte():
    costs = ours.TrainingStep(ours.build(ours.TINY), ours.text_batch(2, 256)).cost()
    assert costs.scratchpads_per_byte == SCRATCHPADS_PER_BYTE
    assert costs.patches_per_byte == 15 / 256  # the last byte of a row is a target only, so its patch stays open


def test_plain_patches_run_at_one_trunk_call_per_byte():
    config = plain_patches(ours.TINY, 1)
    assert ours.forced_trigger(config, [[range(64)]]) is None
    assert ours.TrainingStep(ours.build(config), ours.text_batch(1, 64)).cost().patches_per_byte == 63 / 64
    assert ours.Prefill(ours.build(config), 2, 32).cost().trunk_calls_per_byte == 1


def test_prefill_runs_at_a_quarter_trunk_call_per_byte():
    costs = ours.Prefill(ours.build(ours.TINY), 2, 128).cost()
    assert costs.patches_per_byte == 1 / PATCH_BYTES
    assert costs.scratchpads_per_byte == pytest.approx(SCRATCHPADS_PER_BYTE, abs=0.5 / 128 + 1e-9)


def test_a_step_changes_the_weights_as_the_trainer_does(tmp_path):
    text = tmp_path / "text.txt"
    text.write_bytes(ours.text()[:4000])
    config = Config(model=ours.TINY, train=TrainConfig(device="cpu", batch_rows=2))
    trainer = Trainer(config, tmp_path / "run", RunText.open(DataConfig(paths=(str(text),))))
    step = ours.TrainingStep(ours.build(ours.TINY), trainer.batches.batch(0), trainer.config.train)
    step.model.load_state_dict(trainer.model.state_dict())
    step.decisions = trainer.schedule.decisions(trainer.model, 0)
    assert isinstance(step.decisions.trigger, BlendedTrigger)
    assert bool(step.decisions.trigger.is_first), "the head is fresh: scratchpads fire at random"
    set_learning_rate(step.optimizer, learning_rate(0, trainer.config.train))
    trainer.train_step(StepSums())
    step.run()
    for name, weights in trainer.model.named_parameters():
        assert torch.equal(weights, step.model.get_parameter(name)), name


@pytest.mark.parametrize("lengths", [[20], [20, 27, 34, 41]])
def test_generation_counts_what_the_engine_gave_at_a_quarter_trunk_call_per_byte(lengths):
    generation = ours.SteadyGeneration(ours.build(ours.TINY), lengths, bytes_per_row=32, runs=3)
    first = sum(len(row.data) for row in generation.rows)
    for _ in range(3):
        generation.run()
    num_bytes = sum(run["bytes"] for run in generation.counts)
    assert num_bytes == sum(len(row.data) for row in generation.rows) - first
    assert 0 <= num_bytes - 3 * 32 * len(lengths) < 3 * len(lengths)
    calls = sum(run["trunk_calls"] for run in generation.counts)
    if len(lengths) == 1:
        assert calls == num_bytes / 4
    # Rows that wait for the trunk at the start and at the end of what was counted shift a call or two.
    assert calls / num_bytes == pytest.approx(1 / 4, abs=0.03)
    assert all(run["trunk_batches"] <= run["trunk_calls"] for run in generation.counts)


def test_trunk_cache_is_a_sixteenth_of_plain_patches():
    sides = [ours.build(ours.TINY), ours.build(plain_patches(ours.TINY, 1))]
    found = []
    for model in sides:
        generation = ours.SteadyGeneration(model, [31], bytes_per_row=16, runs=1)
        generation.run()
        assert int(generation.engine.batch.state.position[0]) == 48  # the chosen byte has been read too
        found.append(generation.trunk_cache_bytes_per_byte)
    assert found[1] == 16 * found[0]


def test_the_end_is_never_chosen():
    model = ours.build(ours.TINY)
    with torch.no_grad():
        head = model.local_decoder.lm_head.weight
        logits = torch.randn(1000, head.shape[1]) @ head.T
    assert not (logits.argmax(dim=1) == 256).any()


def test_a_row_that_ends_is_an_error():
    model = ours.build(ours.TINY)
    generation = ours.SteadyGeneration(model, [20], bytes_per_row=4, runs=1)
    model.bytes_of = lambda chosen: None
    with pytest.raises(RuntimeError, match="row 0 has ended"):
        generation.run()
