"""A run that was stopped goes on to the same losses and weights, to the last bit."""

import logging
import os
import shutil
import signal
import sys

import pytest
import torch

from patchpad.config import load_config
from patchpad.errors import CheckpointError, ConfigError, DataError, TrainingInterrupted
from patchpad.files import sha256_of
from patchpad.testing import ALL_OPTIONS
from patchpad.training import trainer
from patchpad.training.checkpoint import list_steps, load
from patchpad.training.tensor_folders import FIRST_SHARD
from patchpad.training.text import RunText


def stop_at(tools, step, config, **paths):
    """Trains to a step, where a signal stops the run."""
    stop = tools.Hook(step, lambda: os.kill(os.getpid(), signal.SIGINT))
    return tools.train_until_error(config, stop, TrainingInterrupted, **paths)


def assert_same_run(first, second, tools):
    assert tools.losses(first) == tools.losses(second)
    expected, found = load(first).state_dict(), load(second).state_dict()
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert sha256_of(first / "model.safetensors") == sha256_of(second / "model.safetensors")


@pytest.mark.parametrize(
    ("trigger", "number"),
    [
        ("entropy", signal.SIGINT),
        pytest.param("random", signal.SIGINT, marks=pytest.mark.slow),
        pytest.param("entropy_jump", signal.SIGTERM, marks=pytest.mark.unchecked),
    ],
)
def test_interrupted_run_resumes_to_the_same_losses_and_weights(tmp_path, text, tools, trigger, number):
    config = tools.config(trigger, accumulation_steps=2)
    trainer.train(config, data=text, out=tmp_path / "straight", progress=tools.Hook())
    handler = signal.getsignal(number)
    stop = tools.Hook(4, lambda: os.kill(os.getpid(), number))
    error = tools.train_until_error(config, stop, TrainingInterrupted, data=text, out=tmp_path / "stopped")
    assert stop.steps == [1, 2, 3, 4]
    assert error.exit_code == 130
    assert error.message == "stopped at step 4 of 10; everything is saved"
    assert error.hint == f"Continue with: patchpad train --resume {tmp_path / 'stopped'}"
    assert signal.getsignal(number) == handler

    torch.manual_seed(99)  # neither the global generator nor anything else outside the run may matter
    go_on = tools.Hook()
    trainer.resume(tmp_path / "stopped", progress=go_on)
    assert go_on.steps == [5, 6, 7, 8, 9, 10]
    assert_same_run(tmp_path / "straight", tmp_path / "stopped", tools)


def test_run_stopped_several_times_across_epochs_resumes_exactly(tmp_path, tools):
    (tmp_path / "text").write_bytes(bytes(range(65, 91)) * 12)
    config = tools.config("entropy", "spacebyte", batch_rows=3, threshold_frozen_fraction=0.3)
    trainer.train(config, data=tmp_path / "text", out=tmp_path / "straight", progress=tools.Hook())
    stop = tools.Hook(1, lambda: os.kill(os.getpid(), signal.SIGINT))
    tools.train_until_error(config, stop, TrainingInterrupted, data=tmp_path / "text", out=tmp_path / "stopped")
    for step in (2, 5, 9):
        with pytest.raises(TrainingInterrupted):
            trainer.resume(tmp_path / "stopped", progress=tools.Hook(step, lambda: os.kill(os.getpid(), signal.SIGINT)))
    trainer.resume(tmp_path / "stopped", progress=tools.Hook())
    assert_same_run(tmp_path / "straight", tmp_path / "stopped", tools)


def test_damaged_newest_step_names_the_way_back_to_the_one_before(tmp_path, text, tools):
    run = tmp_path / "run"
    config = tools.config("entropy", steps=6, checkpoint_every=2)
    trainer.train(config, data=text, out=tmp_path / "straight", progress=tools.Hook())
    losses = tools.losses(tmp_path / "straight")
    stop_at(tools, 4, config, data=text, out=run)
    newest = list_steps(run)[-1]
    (newest / "optimizer" / FIRST_SHARD).write_bytes(b"damaged")
    with pytest.raises(CheckpointError, match=rf"optimizer/{FIRST_SHARD} was altered") as caught:
        trainer.resume(run)
    assert caught.value.hint == (
        f"Move {newest} to another place; then this continues from step-2: patchpad train --resume {run}"
    )
    newest.rename(tmp_path / "step-4")
    trainer.resume(run, progress=tools.Hook())
    assert tools.losses(run) == losses


def test_damaged_only_step_sends_to_a_new_folder(tmp_path, text, tools):
    run = tmp_path / "run"
    stop_at(tools, 2, tools.config(), data=text, out=run)
    (newest,) = list_steps(run)
    (newest / "weights" / FIRST_SHARD).unlink()
    with pytest.raises(CheckpointError, match=rf"weights/{FIRST_SHARD} is missing") as caught:
        trainer.resume(run)
    assert caught.value.hint == "Train again into a new folder: there is no earlier checkpoint."


def test_run_with_every_option_resumes_exactly_and_loads(tmp_path, text, tools):
    config = tools.config("entropy", "spacebyte", threshold_spread=0.5)
    config = tools.replace(config, model=tools.replace(config.model, **ALL_OPTIONS, trunk_dim=36))
    trainer.train(config, data=text, out=tmp_path / "straight", progress=tools.Hook())
    stop = tools.Hook(4, lambda: os.kill(os.getpid(), signal.SIGINT))
    tools.train_until_error(config, stop, TrainingInterrupted, data=text, out=tmp_path / "stopped")
    run = trainer.resume(tmp_path / "stopped", progress=tools.Hook())
    assert_same_run(tmp_path / "straight", tmp_path / "stopped", tools)
    loaded = load(tmp_path / "stopped")
    assert loaded.config == run.model.config
    assert loaded.config.ngram_sizes == (3, 4, 5, 6, 7, 8)


def test_killed_run_goes_on_from_its_checkpoint_to_the_same_lines_of_metrics(tmp_path, text, tools):
    """The lines are means over several steps, and the checkpoint lies between two of them."""

    def die():
        raise RuntimeError("killed")

    config = tools.config(log_every=4, checkpoint_every=3, validate_every=5)
    trainer.train(config, data=text, out=tmp_path / "straight", progress=tools.Hook())
    tools.train_until_error(config, tools.Hook(5, die), RuntimeError, data=text, out=tmp_path / "killed")
    assert [folder.name for folder in list_steps(tmp_path / "killed")] == ["step-3"]
    trainer.resume(tmp_path / "killed", progress=tools.Hook())
    assert [line["step"] for line in tools.losses(tmp_path / "killed")] == [4, 5, 8, 10]
    assert_same_run(tmp_path / "straight", tmp_path / "killed", tools)


def test_second_signal_stops_at_once(tmp_path, text, tools):
    def twice():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    tools.train_until_error(tools.config(), tools.Hook(2, twice), KeyboardInterrupt, data=text, out=tmp_path / "run")
    assert signal.getsignal(signal.SIGINT) == before


def test_signal_at_the_last_step_ends_the_run_as_usual(tmp_path, text, tools):
    stop = tools.Hook(4, lambda: os.kill(os.getpid(), signal.SIGINT))
    run = trainer.train(tools.config(steps=4), data=text, out=tmp_path / "run", progress=stop)
    assert (run.path / "manifest.json").exists()
    assert tools.losses(run.path)[-1]["val/bpb"] > 0


def test_resuming_a_finished_run_says_so_and_changes_nothing_whether_its_text_and_steps_are_there_or_not(
    tmp_path, text, tools, caplog
):
    caplog.set_level(logging.INFO)
    data = tmp_path / "text.txt"
    data.write_bytes(text.read_bytes())
    run = trainer.train(tools.config(steps=3), data=data, out=tmp_path / "run", progress=tools.Hook()).path
    data.unlink()
    before = {file.name: sha256_of(file) for file in run.iterdir() if file.is_file()}
    again = tools.Hook()
    for _ in range(2):
        caplog.clear()
        found = trainer.resume(run, progress=again)
        assert caplog.messages == [f"{run} has finished all of its 3 steps: nothing is left to train"]
        assert torch.equal(*(next(model.parameters()) for model in (found.model, load(run))))
        shutil.rmtree(run / "checkpoints", ignore_errors=True)
    assert again.steps == []
    assert {file.name: sha256_of(file) for file in run.iterdir() if file.is_file()} == before


def test_run_can_be_resumed_from_another_folder_although_its_paths_were_relative(tmp_path, text, tools, monkeypatch):
    (tmp_path / "training").write_bytes(text.read_bytes())
    (tmp_path / "held_out").write_bytes(b"some other text\n" * 20)
    monkeypatch.chdir(tmp_path)
    config = tools.config(steps=4)
    config = tools.replace(config, data=tools.replace(config.data, validation_paths=("held_out",)))
    stop = tools.Hook(2, lambda: os.kill(os.getpid(), signal.SIGINT))
    tools.train_until_error(config, stop, TrainingInterrupted, data="training", out=tmp_path / "run")
    monkeypatch.chdir("/")
    run = trainer.resume(tmp_path / "run", progress=tools.Hook())
    assert RunText.open(run.config.data).validation.documents[0].tobytes() == b"some other text\n" * 20


@pytest.mark.parametrize("place", [0, -1])
def test_text_that_changed_before_resuming_is_refused(tmp_path, text, tools, place):
    """One byte of the training part or of the held-out part, which is the last tenth."""
    data = tmp_path / "text.txt"
    data.write_bytes(text.read_bytes())
    stop = tools.Hook(2, lambda: os.kill(os.getpid(), signal.SIGINT))
    tools.train_until_error(tools.config(), stop, TrainingInterrupted, data=data, out=tmp_path / "run")
    changed = bytearray(text.read_bytes())
    changed[place] ^= 1
    data.write_bytes(changed)
    with pytest.raises(DataError, match="the text has changed since the run began") as caught:
        trainer.resume(tmp_path / "run", progress=tools.Hook())
    assert str(data) in caught.value.message
    assert "Restore the text" in caught.value.hint
    data.write_bytes(text.read_bytes())
    trainer.resume(tmp_path / "run", progress=tools.Hook())


def test_text_that_is_gone_is_named_when_resuming(tmp_path, text, tools):
    data = tmp_path / "text.txt"
    data.write_bytes(text.read_bytes())
    stop_at(tools, 1, tools.config(), data=data, out=tmp_path / "run")
    data.unlink()
    with pytest.raises(DataError, match=r"no file is at .*text\.txt"):
        trainer.resume(tmp_path / "run", progress=tools.Hook())


def test_what_killed_processes_left_half_saved_goes_when_the_run_goes_on(tmp_path, text, tools):
    run = tmp_path / "run"
    stop_at(tools, 2, tools.config(steps=4), data=text, out=run)
    shutil.copytree(run / "checkpoints" / "step-2", run / "checkpoints" / ".step-4.123.tmp")
    (run / "checkpoints" / "notes.tmp").write_text("not ours")
    trainer.resume(run, progress=tools.Hook())
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["notes.tmp", "step-2", "step-4"]


def test_a_run_killed_before_its_first_checkpoint_is_neither_resumed_nor_written_over(tmp_path, text, tools):
    """Both messages name the same way out, and it works."""

    def die():
        raise RuntimeError("killed")

    run = tmp_path / "run"
    tools.train_until_error(tools.config(), tools.Hook(2, die), RuntimeError, data=text, out=run)
    assert (run / "metrics.jsonl").exists()
    again = tools.train_until_error(tools.config(), tools.Hook(), ConfigError, data=text, out=run)
    assert again.message == f"{run} holds a run that stopped before its first checkpoint; a run needs a new folder"
    assert again.hint == "Choose another --out, or move that folder away."
    with pytest.raises(CheckpointError, match="does not hold a checkpoint yet") as caught:
        trainer.resume(run)
    assert caught.value.hint.endswith("train again into a new folder.")
    run.rename(tmp_path / "elsewhere")
    trainer.train(tools.config(steps=1), data=text, out=run, progress=tools.Hook())


@pytest.mark.skipif(os.name == "nt" or sys.platform == "darwin", reason="names of files are Unicode there")
def test_text_under_a_path_that_is_not_utf8_is_trained_on_and_resumed(tmp_path, text, tools):
    data = tmp_path / os.fsdecode(b"\xff\xc3.txt")
    data.write_bytes(text.read_bytes())
    run = tmp_path / os.fsdecode(b"run-\xfe")
    stop = tools.Hook(2, lambda: os.kill(os.getpid(), signal.SIGINT))
    tools.train_until_error(tools.config(steps=4), stop, TrainingInterrupted, data=data, out=run)
    assert load_config(list_steps(run)[0] / "config.json").data.paths == (str(data),)
    assert trainer.resume(run, progress=tools.Hook()).config.data.paths == (str(data),)


def test_only_a_run_with_checkpoints_can_be_resumed(tmp_path, finished):
    with pytest.raises(CheckpointError, match="no run is at"):
        trainer.resume(tmp_path / "missing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match=r"it has no manifest\.json"):
        trainer.resume(tmp_path / "empty")
    step = list_steps(finished)[0]
    with pytest.raises(CheckpointError, match="has no checkpoints to continue from"):
        trainer.resume(step)
    assert not (step / "checkpoints").exists()
