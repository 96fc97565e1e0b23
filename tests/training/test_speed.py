"""What training says of its speed: the time left, and once, that others have made it slow."""

import logging

import pytest
import torch

from patchpad.processors import WAITING_VARIABLES, OtherWork
from patchpad.training import progress as module
from patchpad.training.progress import LogProgress
from patchpad.training.speed import SpeedWatch

METRICS = {"bytes_seen": 1e6, "train/bpb": 2.0, "bytes_per_second": 1000.0, "scratchpads_per_byte": 0.25}


class Work(OtherWork):
    def __init__(self, busy):
        super().__init__()
        self.busy = busy

    def processors(self):
        return self.busy


@pytest.fixture(autouse=True)
def _two_threads(monkeypatch):
    for name in WAITING_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)


def run(watch, *stretches):
    """Steps of 1000 bytes: for each stretch, seconds per step and seconds in all."""
    for per_step, seconds in stretches:
        for _ in range(round(seconds / per_step)):
            watch.step(1000, per_step)


def test_slow_training_beside_others_says_once_how_to_go_on(caplog):
    watch = SpeedWatch("patchpad train --resume 'my run'", Work(1.5))
    run(watch, (0.1, 60), (1.0, 29))
    assert caplog.messages == []
    run(watch, (1.0, 600))
    assert caplog.messages == [
        "training fell from 10.0 to 1.0 kB/s while other processes use 1.5 processors. It is faster if threads sleep "
        "while they wait: stop with Ctrl-C, which saves, and continue with: OMP_WAIT_POLICY=PASSIVE patchpad train "
        "--resume 'my run'"
    ]


@pytest.mark.parametrize(
    "stretches",
    [
        [(0.1, 60), (0.25, 600)],  # not slow enough
        [(0.1, 60), *[(1.0, 20), (0.1, 20)] * 5],  # never for long
        [(1.0, 600)],  # never faster
    ],
)
def test_training_that_is_not_slow_for_long_says_nothing(caplog, stretches):
    run(SpeedWatch("again", Work(1.5)), *stretches)
    assert caplog.messages == []


@pytest.mark.parametrize("busy", [None, 0.2])
def test_training_that_is_slow_for_another_reason_says_nothing(caplog, busy):
    run(SpeedWatch("again", Work(busy)), (0.1, 60), (1.0, 600))
    assert caplog.messages == []


def test_who_has_chosen_or_trains_on_one_thread_is_left_alone(caplog, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(torch, "get_num_threads", lambda: 1)
        run(SpeedWatch("again", Work(1.5)), (0.1, 60), (1.0, 600))
    monkeypatch.setenv("GOMP_SPINCOUNT", "0")
    run(SpeedWatch("again", Work(1.5)), (0.1, 60), (1.0, 600))
    assert caplog.messages == []


def test_log_lines_have_step_and_total_and_the_time_left_at_the_speed_of_the_last_lines(caplog, monkeypatch):
    caplog.set_level(logging.INFO)
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    progress = LogProgress(seconds=10.0)
    for step in range(1001, 1021):  # a resumed run: its earlier steps took no time here
        now[0] += 5
        progress.update(step, 2000, METRICS)
    now[0] += 100
    for step in range(1021, 2001):
        now[0] += 1
        progress.update(step, 2000, METRICS)
    tail = "1.00 MB  2.000 bits/byte  1.0 kB/s  0.250 scratchpads/byte"
    assert caplog.messages[0] == f"step 1,002/2,000  {tail}  1 h 23 min left"
    assert caplog.messages[-3].startswith("step 1,98")
    assert caplog.messages[-3].endswith(" s left")
    assert caplog.messages[-1] == f"step 2,000/2,000  {tail}"
