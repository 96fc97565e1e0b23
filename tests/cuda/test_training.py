"""Training and evaluation on the pretended device: no mix of devices or dtypes, and few waits."""

import json
import math
from dataclasses import replace

import pytest
import torch
from cuda_models import CASES, run_config, small_config

from patchpad.errors import TrainingError
from patchpad.evaluation.bits_per_byte import evaluate
from patchpad.evaluation.calibrate import calibrate
from patchpad.model import flex_attention
from patchpad.model.byte_lm import ByteLM
from patchpad.testing import BASELINE_KINDS, tiny_baseline_config
from patchpad.training.metrics import read_metrics
from patchpad.training.trainer import Trainer, train

pytestmark = pytest.mark.unmeasured

CLOSE_NATS = 0.02
"""Bits per byte of a run in bf16 and of one in fp32 differ by less, while both have learned little."""


@pytest.mark.parametrize(("patchifier", "trigger"), CASES)
def test_a_run_trains_validates_and_saves_without_mixing_devices(tmp_path, record, patchifier, trigger):
    config = run_config(small_config(patchifier, trigger))
    run = train(config, out=tmp_path / "cuda")
    assert all(parameter.device.type == "cuda" for parameter in run.model.parameters())
    assert not record.oddities
    on_cpu = replace(config, train=replace(config.train, device="cpu"))
    train(on_cpu, out=tmp_path / "cpu")
    for name in ("train/bpb", "val/bpb"):
        found, expected = (
            [line[name] for line in read_metrics(tmp_path / device) if name in line] for device in ("cuda", "cpu")
        )
        assert len(found) == len(expected) > 0
        assert all(abs(a - b) < CLOSE_NATS for a, b in zip(found, expected, strict=True)), (name, found, expected)


@pytest.mark.parametrize("kind", BASELINE_KINDS)
def test_baselines_train_without_mixing_devices(tmp_path, record, kind):
    train(run_config(tiny_baseline_config(kind, context_bytes=256)), out=tmp_path / "run")
    assert all(math.isfinite(line["train/bpb"]) for line in read_metrics(tmp_path / "run"))
    assert not record.oddities


@pytest.mark.parametrize("options", [{"compile": True}, {"accumulation_steps": 2}, {"threshold_spread": 0.25}], ids=str)
def test_options_of_training_run_on_the_device(tmp_path, record, options):
    train(run_config(small_config(), **options), out=tmp_path / "run")
    assert all(math.isfinite(line["train/bpb"]) for line in read_metrics(tmp_path / "run"))
    assert not record.oddities


def test_a_checkpoint_between_two_lines_of_metrics_has_the_sums_of_its_steps(tmp_path):
    train(run_config(small_config(), steps=4, log_every=4, checkpoint_every=3), out=tmp_path / "run")
    (saved,) = (tmp_path / "run" / "checkpoints").glob("step-*3/trainer.json")
    interval = json.loads(saved.read_text(encoding="utf-8"))["interval"]
    bits_per_byte = interval["nats"] / (math.log(2) * interval["num_bytes"])
    assert abs(bits_per_byte - read_metrics(tmp_path / "run")[-1]["train/bpb"]) < 0.1
    assert interval["num_commits"] > 0.1 * interval["num_bytes"]


@pytest.mark.parametrize("options", [{}, {"threshold_spread": 0.25}], ids=str)
def test_divergence_is_told_before_its_line_of_metrics_is_written(tmp_path, monkeypatch, options):
    plain_step = Trainer.train_step

    def step(trainer, sums):
        if trainer.step == 1:
            with torch.no_grad():
                next(trainer.model.parameters()).fill_(math.nan)
        plain_step(trainer, sums)

    monkeypatch.setattr(Trainer, "train_step", step)
    with pytest.raises(TrainingError, match="the loss is nan after 1 steps"):
        train(run_config(small_config(), **options), out=tmp_path / "run")
    assert [line["step"] for line in read_metrics(tmp_path / "run")] == [1]


def test_calibration_and_evaluation_run_on_the_device(record, tmp_path):
    from patchpad.training.text import RunText

    model = ByteLM(small_config()).eval()
    text = RunText.open(run_config(model.config).data).validation
    expected = evaluate(model, text, limit_bytes=2000)
    found = evaluate(model.to("cuda"), text, limit_bytes=2000)
    assert abs(found[0].bits_per_byte - expected[0].bits_per_byte) < CLOSE_NATS
    calibrate(model, text, limit_bytes=600)
    assert not record.oddities


@pytest.mark.parametrize("trigger", ["never", "entropy"])
def test_a_first_batch_without_slots_trains_and_leaves_attention_as_it_is(trigger):
    model = ByteLM(small_config(trigger=trigger)).to("cuda")
    ids = torch.tensor([[256, 65, 66]]).to("cuda")
    with torch.autocast("cuda", dtype=torch.bfloat16):
        predicted = model.predict_targets(
            ids, torch.tensor([[65, 66, 256]]).to("cuda"), model.decisions(math.inf, batch=1)
        )
    assert int(predicted.num_commits) == int(predicted.num_scratchpads) == 0
    predicted.nats.sum().backward()
    assert not flex_attention.has_given_up()
    found = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    assert found
    assert all(bool(gradient.isfinite().all()) for gradient in found)
