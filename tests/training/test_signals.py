"""Which signals stop training after a save, and which are left alone."""

import os
import signal

import pytest

from patchpad.errors import TrainingInterrupted
from patchpad.training import trainer
from patchpad.training.checkpoint import load

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="Windows has no SIGHUP")


@pytest.fixture
def hang_ups():
    """Puts the handler of SIGHUP back."""
    before = signal.getsignal(signal.SIGHUP)
    yield
    signal.signal(signal.SIGHUP, before)


def hang_up():
    os.kill(os.getpid(), signal.SIGHUP)


def test_closed_terminal_saves_even_when_it_cannot_be_written_to_and_sends_its_signal_twice(tmp_path, text, tools):
    class Closed(tools.Hook):
        def update(self, step, total_steps, metrics):
            super().update(step, total_steps, metrics)
            if step == 3:
                hang_up()
                hang_up()
                raise OSError(5, "Input/output error")

    before = signal.getsignal(signal.SIGHUP)
    stop = Closed()
    error = tools.train_until_error(tools.config(), stop, TrainingInterrupted, data=text, out=tmp_path / "run")
    assert error.message == "stopped at step 3 of 10; everything is saved"
    assert signal.getsignal(signal.SIGHUP) == before
    load(tmp_path / "run")


def test_under_nohup_training_goes_on(tmp_path, text, tools, hang_ups):
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    hook = tools.Hook(2, hang_up)
    trainer.train(tools.config(steps=4), data=text, out=tmp_path / "run", progress=hook)
    assert hook.steps == [1, 2, 3, 4]
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN


def test_ctrl_c_stays_ignored_in_a_background_job(tmp_path, text, tools):
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        hook = tools.Hook(2, lambda: os.kill(os.getpid(), signal.SIGINT))
        trainer.train(tools.config(steps=4), data=text, out=tmp_path / "run", progress=hook)
    finally:
        signal.signal(signal.SIGINT, before)
    assert hook.steps == [1, 2, 3, 4]
