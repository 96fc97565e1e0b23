"""Training and evaluation on the pretended device: no mix of devices or dtypes, and few waits."""

import math
from dataclasses import replace

import pytest
from cuda_models import CASES, TEXT, small_config

from patchpad.config import Config
from patchpad.evaluation.bits_per_byte import evaluate
from patchpad.evaluation.calibrate import calibrate
from patchpad.model.byte_lm import ByteLM
from patchpad.testing import BASELINE_KINDS, tiny_baseline_config
from patchpad.training.metrics import read_metrics
from patchpad.training.trainer import train

STEPS = 3
CLOSE_NATS = 0.02
"""Bits per byte of a run in bf16 and of one in fp32 differ by less, while both have learned little."""


def run_config(model, device: str = "cuda", **options) -> Config:
    config = Config(model=model)
    options = {"batch_rows": 2, "validate_every": 0, "checkpoint_every": 0, "log_every": 1, **options}
    return replace(
        config,
        train=replace(config.train, device=device, steps=STEPS, validation_bytes=600, **options),
        data=replace(config.data, paths=(TEXT,)),
    )


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


def test_calibration_and_evaluation_run_on_the_device(record, tmp_path):
    from patchpad.training.text import RunText

    model = ByteLM(small_config()).eval()
    text = RunText.open(run_config(model.config).data).validation
    expected = evaluate(model, text, limit_bytes=2000)
    found = evaluate(model.to("cuda"), text, limit_bytes=2000)
    assert abs(found[0].bits_per_byte - expected[0].bits_per_byte) < CLOSE_NATS
    calibrate(model, text, limit_bytes=600)
    assert not record.oddities
