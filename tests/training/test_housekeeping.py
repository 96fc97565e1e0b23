"""What a run tidies up beside itself never ends it, and nothing that others put there is lost."""

import errno
import os
import shutil
import signal
from pathlib import Path

import pytest

from patchpad import files as plain_files
from patchpad.errors import TrainingInterrupted
from patchpad.training import step_folders, trainer
from patchpad.training.checkpoint import list_steps, load


@pytest.fixture(autouse=True)
def _said_anew():
    step_folders._report_left.cache_clear()
    plain_files._report_unsynced.cache_clear()


def said_by_us(caplog) -> list[str]:
    """Without a log of PyTorch's that has no readers but pytest."""
    return [record.getMessage() for record in caplog.records if record.name.startswith("patchpad")]


def names(run: Path) -> list[str]:
    return sorted(path.name for path in (run / "checkpoints").iterdir())


def test_a_link_among_the_steps_is_left_and_nothing_is_removed_through_it(tmp_path, text, tools):
    run, elsewhere = tmp_path / "run", tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "mine").write_text("mine")

    def link():
        (run / "checkpoints" / "step-1").symlink_to(elsewhere)
        (run / "checkpoints" / "step-0").symlink_to(tmp_path / "missing")
        (run / "checkpoints" / "step-3").write_text("a file")
        (run / "checkpoints" / ".step-9.1.tmp").symlink_to(elsewhere)

    config = tools.config(steps=8, checkpoint_every=2, keep_checkpoints=1)
    trainer.train(config, data=text, out=run, progress=tools.Hook(3, link))
    assert names(run) == [".step-9.1.tmp", "step-0", "step-1", "step-3", "step-8"]
    assert (elsewhere / "mine").read_text() == "mine"
    step_folders.remove_unfinished_steps(run)
    assert (elsewhere / "mine").exists()
    assert (run / "checkpoints" / ".step-9.1.tmp").is_symlink()


def test_a_link_in_place_of_a_new_step_is_moved_aside(tmp_path, text, tools):
    run, elsewhere = tmp_path / "run", tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "mine").write_text("mine")
    hook = tools.Hook(1, lambda: (run / "checkpoints" / "step-2").symlink_to(elsewhere))
    trainer.train(tools.config(steps=4, checkpoint_every=2), data=text, out=run, progress=hook)
    assert names(run) == ["step-2", "step-2.replaced", "step-4"]
    assert (run / "checkpoints" / "step-2.replaced").is_symlink()
    assert (elsewhere / "mine").exists()
    load(run / "checkpoints" / "step-2")


def test_an_old_step_that_cannot_be_removed_is_said_once_and_training_goes_on(
    tmp_path, text, tools, monkeypatch, caplog
):
    run, original = tmp_path / "run", shutil.rmtree

    def refuse(folder, **options):
        if Path(folder).name == "step-1" and not options:
            raise PermissionError(errno.EPERM, "Operation not permitted")
        original(folder, **options)

    monkeypatch.setattr(shutil, "rmtree", refuse)
    config = tools.config(steps=4, checkpoint_every=1, keep_checkpoints=1)
    trainer.train(config, data=text, out=run, progress=tools.Hook())
    assert names(run) == ["step-1", "step-4"]
    assert said_by_us(caplog) == [
        f"cannot remove {run / 'checkpoints' / 'step-1'} (Operation not permitted): it is left where it is"
    ]


@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOTSUP, errno.EACCES, errno.EIO])
def test_a_folder_that_cannot_be_synced_is_said_once_and_training_goes_on(
    tmp_path, text, tools, monkeypatch, caplog, code
):
    original = os.fsync

    def refuse(descriptor):
        if os.path.isdir(f"/proc/self/fd/{descriptor}"):
            raise OSError(code, os.strerror(code))
        original(descriptor)

    if not Path("/proc/self/fd").exists():
        pytest.skip("whether an open file is a folder is read from /proc")
    monkeypatch.setattr(os, "fsync", refuse)
    config = tools.config(steps=4, checkpoint_every=2)
    trainer.train(config, data=text, out=tmp_path / "run", progress=tools.Hook())
    load(tmp_path / "run")
    assert said_by_us(caplog) == [
        f"folders cannot be synced here ({os.strerror(code)}): a power cut may lose the newest files"
    ]


def test_what_cannot_be_tidied_up_does_not_keep_a_run_from_going_on(tmp_path, text, tools, monkeypatch):
    run, original = tmp_path / "run", shutil.rmtree
    stop = tools.Hook(2, lambda: os.kill(os.getpid(), signal.SIGINT))
    tools.train_until_error(tools.config(steps=4), stop, TrainingInterrupted, data=text, out=run)
    (run / "checkpoints" / ".step-3.1.tmp").mkdir()

    def refuse(folder, **options):
        if Path(folder).name == ".step-3.1.tmp":
            raise PermissionError(errno.EPERM, "Operation not permitted")
        original(folder, **options)

    monkeypatch.setattr(shutil, "rmtree", refuse)
    trainer.resume(run, progress=tools.Hook())
    assert [step.name for step in list_steps(run)] == ["step-2", "step-4"]
