"""Quickstart by a fake clock, fast and slow: the promised time holds, and the report says what came of it."""

import json
import math
from dataclasses import replace

import pytest

from patchpad.config import ModelConfig
from patchpad.data import Windows, cut_windows
from patchpad.data.corpus import Corpus
from patchpad.evaluation.calibrate import calibration_points
from patchpad.quickstart import measuring
from patchpad.quickstart import run as job
from patchpad.quickstart.measuring import measure
from patchpad.quickstart.record import Request
from patchpad.testing import random_documents, sharp_model, tiny_model_config
from patchpad.training.trainer import Trainer

pytestmark = pytest.mark.unchecked
TINY = ModelConfig(byte_dim=16, window_bytes=4, trunk_dim=16, trunk_heads=2, trunk_layers=1, context_bytes=64)
EVALUATED_BYTES = 4_000
SAMPLE_BYTES = 120
VALIDATION_STEPS, PASS_STEPS, SAMPLE_BYTE_STEPS = 18, 20, 5 / SAMPLE_BYTES
"""What a validation, a pass over all evaluated bytes at one threshold, and a byte of the sample take, in steps."""
REAL_STEPS = 3
"""The others are not computed: only the clock moves."""


class Clock:
    """Moves by work that is done, measured in training steps, whose seconds depend on the time."""

    def __init__(self, seconds_per_step) -> None:
        self.now, self.seconds_per_step = 500.0, seconds_per_step

    def __call__(self) -> float:
        return self.now

    def work(self, steps: float) -> None:
        self.now += steps * self.seconds_per_step(self.now - 500.0)


@pytest.fixture
def run_by(tmp_path, monkeypatch):
    """Runs quickstart for 300 s of a clock, and returns its result, result file and page."""
    text = tmp_path / "own.txt"
    text.write_bytes(b"\n".join(random_documents(1, [60] * 2000)))
    train = replace(job.CONFIG.train, checkpoint_every=0, validate_every=0, log_every=50)
    monkeypatch.setattr(job, "CONFIG", replace(job.CONFIG, model=TINY, train=train))
    monkeypatch.setattr(measuring, "SAMPLE_BYTES", SAMPLE_BYTES)
    monkeypatch.setattr(job, "EVALUATED_BYTES", EVALUATED_BYTES)

    def run(seconds_per_step):
        clock = Clock(seconds_per_step)
        step, predictions = Trainer.train_step, measuring.predictions
        next_bytes = measuring.Generation.__next__

        def slow_step(self, sums):
            clock.work(1)
            if self.step < REAL_STEPS:
                return step(self, sums)
            sums.num_bytes, sums.nats = sums.num_bytes + 1, sums.nats + 4.0
            return 1.0

        def pass_over(windows, cost):
            clock.work(cost * PASS_STEPS * int(windows.bounds.num_bytes.sum()) / EVALUATED_BYTES)

        def slow_predictions(model, windows, threshold, **options):
            pass_over(windows, 0.4 if math.isinf(threshold) and threshold > 0 else 1.0)
            return predictions(model, windows, threshold, **options)

        def slow_scores(model, windows):
            pass_over(windows, 0.4)
            return scores(model, windows)

        def slow_byte(self):
            clock.work(SAMPLE_BYTE_STEPS)
            return next_bytes(self)

        def slow_validation(self):
            clock.work(VALIDATION_STEPS)
            return {"val/bpb": 5.0}

        scores = measuring.eligible_scores
        monkeypatch.setattr(Trainer, "train_step", slow_step)
        monkeypatch.setattr(Trainer, "validate", slow_validation)
        monkeypatch.setattr(measuring, "predictions", slow_predictions)
        monkeypatch.setattr(measuring, "eligible_scores", slow_scores)
        monkeypatch.setattr(measuring.Generation, "__next__", slow_byte)
        request = Request(out=tmp_path / "run", minutes=5.0, data=(str(text),))
        result = job.quickstart(request, progress=Silent(), clock=clock)
        stored = json.loads((tmp_path / "run" / "quickstart.json").read_text())
        return result, stored, (tmp_path / "run" / "report.html").read_text()

    return run


class Silent:
    def update(self, step: int, total_steps: int, metrics: dict) -> None:
        pass


@pytest.mark.parametrize(
    ("name", "seconds_per_step"),
    [
        ("free", lambda now: 0.25),
        ("busy", lambda now: 1.0),
        ("very busy", lambda now: 3.0),
        ("busy from the middle on", lambda now: 2.0 if now > 120 else 0.25),
        ("busy at the start", lambda now: 2.0 if now < 60 else 0.25),
        ("busy now and then", lambda now: 2.0 if now % 60 < 25 else 0.25),
        ("busy once training is over", lambda now: 1.0 if now > 225 else 0.25),
    ],
)
def test_five_minutes_are_kept_to_a_fifth_however_busy_the_machine_is(run_by, name, seconds_per_step):
    result, stored, page = run_by(seconds_per_step)
    assert 0.8 * 300 < result.seconds < 1.2 * 300, name
    budget = stored["budget"]
    assert budget["steps_made"] == result.run.config.train.steps
    assert budget["bytes_measured"] == result.points[0].num_bytes
    assert budget["sample_bytes"] == len(result.completion.data) <= SAMPLE_BYTES
    assert f"made {budget['steps_made']:,} steps" in page
    cut_short = "there was no time for all" in page
    assert cut_short == (budget["bytes_measured"] < budget["bytes_to_measure"])


def test_the_report_says_why_more_or_fewer_steps_were_made_than_planned(run_by):
    _, stored, page = run_by(lambda now: 1.0 if now > 60 else 0.2)
    budget = stored["budget"]
    assert budget["steps_planned_at_first"] > 2 * budget["steps_made"]
    assert f"{budget['steps_planned_at_first']:,} were planned after the first 10: on average, steps then took" in page
    assert "times as long" in page


@pytest.fixture(scope="module")
def model():
    return sharp_model(tiny_model_config("fixed", "entropy"))


@pytest.fixture(scope="module")
def windows(model) -> Windows:
    import numpy as np

    documents = tuple(np.frombuffer(text, dtype=np.uint8) for text in random_documents(3, [90] * 16))
    return cut_windows(Corpus(documents, tuple(map(str, range(16)))), model.config.context_bytes)


def test_with_time_enough_the_parts_add_up_to_the_points_of_a_calibration(model, windows):
    whole = calibration_points(model, windows)
    measured = measure(model, windows, lambda: 1e9)
    assert len(measured.points) == len(whole)
    for ours, point in zip(measured.points, whole, strict=True):
        assert ours.scratchpad_threshold_nats == pytest.approx(point.scratchpad_threshold_nats, rel=1e-6)
        assert (ours.num_bytes, ours.patches_per_byte) == (point.num_bytes, point.patches_per_byte)
        # Thresholds lie on observed entropies: the rounding of another batch may decide a scratchpad the other way.
        assert ours.scratchpads_per_byte == pytest.approx(point.scratchpads_per_byte, abs=3 / point.num_bytes)
        assert ours.bits_per_byte == pytest.approx(point.bits_per_byte, rel=2e-3)


@pytest.mark.parametrize("left", [0.0, -100.0])
def test_without_time_one_part_is_measured_at_the_three_thresholds_that_matter(model, windows, left):
    measured = measure(model, windows, lambda: left)
    assert [point.scratchpad_threshold_nats for point in measured.points] == [
        float("inf"),
        float(model.scratchpad_threshold_nats),
        float("-inf"),
    ]
    assert 0 < measured.points[0].num_bytes <= 1 + int(windows.bounds.num_bytes.sum()) // 4
