"""Every patchifier trains, also on text that is hard to cut, follows its target where it can, and resumes exactly."""

import math
import os
import signal

import pytest

from patchpad.errors import TrainingInterrupted
from patchpad.evaluation.bits_per_byte import evaluate, score
from patchpad.registry import PATCHIFIERS
from patchpad.training import trainer
from patchpad.training.checkpoint import load

HARD_TEXTS = {
    "aaaa": b"a" * 700,
    "zeros": b"\x00" * 700,
    "no spaces": b"withoutanyspacesatall" * 35,
    "one word": b"word",
    "two bytes": b"ab",
}


@pytest.mark.parametrize("name", HARD_TEXTS)
@pytest.mark.parametrize("trigger", [pytest.param("never", marks=pytest.mark.slow), "entropy"])
@pytest.mark.parametrize("patchifier", sorted({*PATCHIFIERS} - {"tokens"}))  # those start from a converted run
def test_text_that_is_hard_to_cut_trains_finitely_and_every_byte_is_predicted(
    tmp_path, tools, patchifier, trigger, name
):
    path, held_out = tmp_path / "text", tmp_path / "held_out"
    path.write_bytes(HARD_TEXTS[name])
    held_out.write_bytes(HARD_TEXTS[name][1:])  # equal documents would all be held out
    config = tools.config(trigger, patchifier, steps=3)
    config = tools.replace(config, data=tools.replace(config.data, validation_paths=(str(held_out),)))
    run = trainer.train(config, data=path, out=tmp_path / "run", progress=tools.Hook())
    for line in tools.losses(run.path):
        numbers = [value for value in line.values() if isinstance(value, float)]
        assert all(math.isfinite(value) for value in numbers if value != line["scratchpad_threshold_nats"])
    (point,) = evaluate(run.model, path)
    assert point.num_bytes == len(HARD_TEXTS[name])
    assert math.isfinite(point.bits_per_byte)
    assert len(score(run.model, HARD_TEXTS[name])) == len(HARD_TEXTS[name])


@pytest.mark.unchecked
@pytest.mark.parametrize("trigger", ["never", pytest.param("entropy", marks=pytest.mark.slow)])
def test_entropy_patches_follow_their_target_size_and_the_threshold_is_stored(tmp_path, tools, text, trigger):
    config = tools.config(trigger, "entropy", steps=80, batch_rows=4, learning_rate=0.005)
    trainer.train(config, data=text, out=tmp_path / "run", progress=tools.Hook())
    lines = tools.losses(tmp_path / "run")
    assert lines[0]["patches_per_byte"] == pytest.approx(1 / 8, abs=0.02)  # fresh: as fixed patches
    rates = [line["patches_per_byte"] for line in lines[40:]]
    assert len(rates) / sum(rates) == pytest.approx(8, rel=0.15)
    thresholds = [line["patch_threshold_nats"] for line in lines]
    assert len(set(thresholds[-8:])) == 1
    model = load(tmp_path / "run")
    assert float(model.patch_threshold_nats) == thresholds[-1]
    (point,) = evaluate(model, text)
    assert 1 / point.patches_per_byte == pytest.approx(8, rel=0.25)


def test_a_fixed_patch_threshold_stays(tmp_path, tools, text):
    config = tools.config("entropy", "entropy", steps=4, patch_threshold_nats=2.5)
    run = trainer.train(config, data=text, out=tmp_path / "run", progress=tools.Hook())
    assert float(load(run.path).patch_threshold_nats) == 2.5


@pytest.mark.unchecked
def test_the_ratio_loss_pulls_hnet_towards_its_target(tmp_path, tools, text):
    shares = {}
    for weight in (0.0, 1.0):
        config = tools.config("never", "hnet", steps=60, batch_rows=4, learning_rate=0.01, ratio_loss_weight=weight)
        trainer.train(config, data=text, out=tmp_path / f"run{weight}", progress=tools.Hook())
        last = tools.losses(tmp_path / f"run{weight}")[-10:]
        shares[weight] = sum(line["patches_per_byte"] for line in last) / 10
    assert abs(shares[1.0] - 1 / 8) < 0.06
    assert abs(shares[0.0] - 1 / 8) > 2 * abs(shares[1.0] - 1 / 8)


@pytest.mark.parametrize("patchifier", [pytest.param("entropy", marks=pytest.mark.slow), "hnet"])
def test_a_stopped_run_resumes_to_the_same_losses(tmp_path, tools, text, patchifier):
    config = tools.config("entropy", patchifier, steps=24, learning_rate=0.02)
    trainer.train(config, data=text, out=tmp_path / "whole", progress=tools.Hook())

    hook = tools.Hook(13, lambda: os.kill(os.getpid(), signal.SIGTERM))
    tools.train_until_error(config, hook, TrainingInterrupted, data=text, out=tmp_path / "stopped")
    trainer.resume(tmp_path / "stopped", progress=tools.Hook())
    assert tools.losses(tmp_path / "stopped") == tools.losses(tmp_path / "whole")
