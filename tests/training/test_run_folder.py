"""One process makes a run: a second one in its folder is refused, and so are the processes of a launcher."""

import os
import signal

import pytest

from patchpad.cli.app import main
from patchpad.errors import RunInUseError, TrainingInterrupted
from patchpad.run_lock import LOCK, run_lock
from patchpad.training import trainer
from patchpad.training.checkpoint import list_steps


def test_run_that_is_being_trained_is_neither_trained_again_nor_resumed_nor_calibrated(tmp_path, text, tools, capsys):
    """From its first moment on, and at each of its steps; it ends as if nobody had tried."""
    run, refused = tmp_path / "run", []

    def others_try():
        for attempt in (
            lambda: trainer.train(tools.config(seed=1), data=text, out=run),
            lambda: trainer.resume(run),
        ):
            with pytest.raises(RunInUseError) as caught:
                attempt()
            refused.append(caught.value.message)
        for path in (run, *list_steps(run)):
            assert main(["calibrate", str(path), "--data", str(text)]) == 1
            refused.append(capsys.readouterr().err.splitlines()[0].removeprefix("patchpad: "))

    config = tools.config(steps=4, checkpoint_every=2, checkpoint_async=False)
    trainer.train(config, data=text, out=tmp_path / "straight", progress=tools.Hook())
    for step in (1, 3):
        trainer.train(config, data=text, out=run, progress=tools.Hook(step, others_try))
        assert tools.losses(run) == tools.losses(tmp_path / "straight")
        assert not (run / LOCK).exists()
        run.rename(tmp_path / f"run-{step}")
    assert set(refused) == {f"{run} is in use by this very process (patchpad train)"}
    assert len(refused) == 3 + 4


def test_run_that_was_stopped_can_be_calibrated(tmp_path, text, tools, capsys):
    run = tmp_path / "run"
    stop = tools.Hook(2, lambda: os.kill(os.getpid(), signal.SIGINT))
    tools.train_until_error(tools.config(), stop, TrainingInterrupted, data=text, out=run)
    assert main(["calibrate", str(run), "--data", str(text)]) == 0
    assert (run / "checkpoints" / "step-2" / "calibration.json").exists()
    with run_lock(run, "patchpad train"):
        assert main(["calibrate", str(run), "--data", str(text)]) == 1


def test_folder_whose_run_left_its_lock_and_nothing_else_is_new(tmp_path, text, tools):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / LOCK).write_text("{}")
    trainer.train(tools.config(steps=1), data=text, out=tmp_path / "run", progress=tools.Hook())


@pytest.mark.parametrize("command", [["quickstart", "--minutes", "0.01"], ["study", "configs/studies/tiny.yaml"]])
def test_processes_of_a_launcher_are_refused_where_each_would_do_all(tmp_path, monkeypatch, capsys, command):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    assert main([*command, "--out", str(tmp_path / "run")]) == 2
    assert "a launcher such as torchrun or srun started 2 processes; allowed: one" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("size", ["", "1", "one"])
def test_one_process_of_a_launcher_trains(tmp_path, text, tools, monkeypatch, size):
    monkeypatch.setenv("WORLD_SIZE", size)
    trainer.train(tools.config(steps=1), data=text, out=tmp_path / "run", progress=tools.Hook())
