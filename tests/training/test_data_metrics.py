"""What the metrics say about the data: padding, waiting and epochs."""

import threading
import time

import pytest

from patchpad.config import DataConfig
from patchpad.data import TrainingBatches
from patchpad.training.text import RunText
from patchpad.training.trainer import Trainer

SECONDS_TO_MAKE_A_BATCH = 0.15


def trainer_of(tools, documents, folder, **options) -> Trainer:
    return Trainer(tools.config(**options), folder / "run", RunText.open(DataConfig(paths=(str(documents),))))


def test_lines_tell_padding_and_epochs(tmp_path, documents, tools):
    run = trainer_of(tools, documents, tmp_path, steps=6, log_every=2, accumulation_steps=2)
    run.run(tools.Hook())
    lines = tools.losses(tmp_path / "run")
    for number, line in enumerate(lines):
        counts = [run.batches.counts(index) for index in range(4 * number, 4 * number + 4)]
        share = sum(count.num_padding for count in counts) / sum(count.num_positions for count in counts)
        assert line["padding_share"] == share
        assert line["epoch"] == pytest.approx((4 * number + 4) * 2 / run.batches.rows[0].num_rows)
    assert 0 < sum(line["padding_share"] for line in lines) < 0.1


def test_batches_are_made_while_steps_compute_and_waiting_for_them_is_told(tmp_path, documents, tools, monkeypatch):
    shares, makers = [], set()
    original = TrainingBatches.batch

    def slow(self, *arguments):
        makers.add(threading.current_thread() is threading.main_thread())
        time.sleep(SECONDS_TO_MAKE_A_BATCH)
        return original(self, *arguments)

    monkeypatch.setattr(TrainingBatches, "batch", slow)
    before = threading.active_count()
    for step_seconds in (0.0, 2 * SECONDS_TO_MAKE_A_BATCH):
        folder = tmp_path / str(step_seconds)
        run = trainer_of(tools, documents, folder, steps=5, log_every=5, validate_every=0)
        step = run.optimizer.step
        run.optimizer.step = lambda seconds=step_seconds, step=step: time.sleep(seconds) or step()
        run.run(tools.Hook())
        shares.append(run.metrics.newest["data_wait_share"])
    assert makers == {False}
    assert threading.active_count() == before
    assert 0 < 2 * shares[1] < shares[0] < 1
