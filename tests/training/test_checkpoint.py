"""Checkpoints: whole or absent, checked at load, and nothing unpickled."""

import errno
import json
import os
import pickle
import shutil
import time
from pathlib import Path

import pytest
import safetensors.torch
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from patchpad.calibration_table import ROW_KEYS, Calibration
from patchpad.errors import CheckpointError, ConfigError
from patchpad.files import sha256_of, write_atomically
from patchpad.training import checkpoint, manifest, metrics, release, step_folders, tensor_folders, trainer
from patchpad.training.checkpoint import list_steps, load, open_checkpoint
from patchpad.training.tensor_folders import FIRST_SHARD

IDS = torch.tensor([[256, *b"the cat sat on 42 mats", 256, *b"o"]])
RUN_FILES = {"config.json", "model.safetensors", "metrics.jsonl", "manifest.json"}
PLAIN_STEP_FILES = {"config.json", "metrics.jsonl", "trainer.json", "manifest.json"}
STEP_FILES = PLAIN_STEP_FILES | {f"{folder}/{FIRST_SHARD}" for folder in ("weights", "optimizer")}


@pytest.fixture
def run(tmp_path, finished) -> Path:
    """A copy of a finished run, to be damaged."""
    shutil.copytree(finished, tmp_path / "run")
    return tmp_path / "run"


def sign_again(folder: Path) -> None:
    """Writes the manifest anew, as someone who alters a checkpoint on purpose would."""
    content = json.loads((folder / "manifest.json").read_text())
    content["files"] = {name: sha256_of(folder / name) for name in content["files"]}
    (folder / "manifest.json").write_text(json.dumps(content))


def names(folder: Path) -> set[str]:
    """Files below a folder, but for those of a run's steps."""
    files = {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()}
    return {name for name in files if not name.startswith("checkpoints/")}


def test_run_and_step_folders_hold_the_files_promised(finished):
    assert names(finished) == RUN_FILES
    steps = list_steps(finished)
    assert [step.name for step in steps] == ["step-3", "step-6"]
    for step in steps:
        assert names(step) == STEP_FILES
        digests = json.loads((step / "manifest.json").read_text())["files"]
        assert set(digests) == STEP_FILES - {"manifest.json"}
        for name, digest in digests.items():
            assert digest == sha256_of(step / name)
    assert sorted(path.name for path in (finished / "checkpoints").iterdir()) == ["step-3", "step-6"]


def test_run_and_its_last_step_give_equal_logits_and_an_earlier_step_others(finished):
    earlier, last = list_steps(finished)
    with torch.no_grad():
        expected = load(finished)(IDS).logits
        assert torch.equal(load(last)(IDS).logits, expected)
        assert torch.equal(load(str(last))(IDS).logits, expected)
        assert not torch.equal(load(earlier)(IDS).logits, expected)
    assert not load(finished).training


def test_run_that_has_not_finished_gives_its_newest_step(run):
    for name in RUN_FILES:
        (run / name).unlink()
    assert open_checkpoint(run).path == list_steps(run)[-1]
    shutil.copytree(run / "checkpoints" / "step-6", run / "checkpoints" / "step-10")
    assert open_checkpoint(run).path.name == "step-10", "steps are ordered as numbers"


def test_run_can_be_moved(run, tmp_path, finished):
    moved = run.rename(tmp_path / "elsewhere")
    with torch.no_grad():
        assert torch.equal(load(moved)(IDS).logits, load(finished)(IDS).logits)


def test_loading_and_resuming_unpickle_nothing(run, monkeypatch, tools):
    def refuse(*_, **__):
        raise AssertionError("something was unpickled")

    for module, name in ((pickle, "load"), (pickle, "loads"), (pickle, "Unpickler"), (torch, "load")):
        monkeypatch.setattr(module, name, refuse)
    load(run)
    load(list_steps(run)[0])
    shutil.rmtree(run / "checkpoints" / "step-6")
    (run / "manifest.json").unlink()
    trainer.resume(run, progress=tools.Hook())


@pytest.mark.parametrize("name", sorted(RUN_FILES))
@pytest.mark.parametrize("place", [0, 0.37, 0.99])
def test_one_flipped_byte_in_any_file_of_a_run_is_found_at_load(run, name, place):
    file = run / name
    content = bytearray(file.read_bytes())
    content[int(place * len(content))] ^= 0x10
    file.write_bytes(content)
    with pytest.raises(CheckpointError) as caught:
        load(run)
    assert str(run) in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize("name", sorted(STEP_FILES))
def test_one_flipped_byte_in_any_file_of_a_step_is_found_at_load_and_at_resuming(run, name, tools):
    step = list_steps(run)[-1]
    content = bytearray((step / name).read_bytes())
    content[len(content) // 2] ^= 1
    (step / name).write_bytes(content)
    (run / "manifest.json").unlink()  # as if it had not finished
    for attempt in (lambda: load(step), lambda: trainer.resume(run, progress=tools.Hook())):
        with pytest.raises(CheckpointError) as caught:
            attempt()
        assert str(step if name == "manifest.json" else step / name) in caught.value.message


def test_no_single_flipped_bit_of_a_manifest_goes_unnoticed(run):
    content = (run / "manifest.json").read_bytes()
    for place in range(len(content)):
        changed = bytearray(content)
        changed[place] ^= 1 << (place % 8)
        (run / "manifest.json").write_bytes(changed)
        with pytest.raises(CheckpointError):
            open_checkpoint(run)


def test_a_shard_of_another_checkpoint_is_not_read(run):
    step = list_steps(run)[-1]
    other = step / "weights" / "shard-00002-model-00001-of-00001.safetensors"
    shutil.copy(step / "weights" / FIRST_SHARD, other)
    with pytest.raises(CheckpointError, match=r"is not in manifest\.json: it belongs to another checkpoint") as caught:
        load(step)
    assert str(other) in caught.value.message


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "metrics.jsonl"])
def test_missing_file_is_named(run, name):
    (run / name).unlink()
    with pytest.raises(CheckpointError, match="is missing") as caught:
        load(run)
    assert str(run / name) in caught.value.message


def test_folder_without_a_manifest_is_not_ours(run):
    shutil.rmtree(run / "checkpoints")
    (run / "manifest.json").unlink()
    with pytest.raises(CheckpointError, match=r"is not a patchpad checkpoint: it has no manifest\.json"):
        load(run)


def test_foreign_folders_files_and_nothing_at_all_are_errors(tmp_path):
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    with pytest.raises(CheckpointError, match="is not a patchpad checkpoint"):
        load(foreign)
    (foreign / "config.json").write_text('{"model_type": "llama"}')
    save_file({"weight": torch.zeros(2)}, foreign / "model.safetensors")
    with pytest.raises(CheckpointError, match="is not a patchpad checkpoint"):
        load(foreign)
    for content in ("[]", "{", '"text"', "{}", '{"format_version": 3}', '{"format_version": 3, "files": {}}'):
        (foreign / "manifest.json").write_text(content)
        with pytest.raises(CheckpointError, match=r"manifest\.json"):
            load(foreign)
    for missing in (tmp_path / "missing", foreign / "config.json"):
        with pytest.raises(CheckpointError, match="no run is at"):
            load(missing)


def test_bundled_names_the_shipped_model_unless_a_folder_has_that_name(tmp_path, monkeypatch, run):
    monkeypatch.chdir(tmp_path)
    assert load("bundled").state_dict().keys() == load().state_dict().keys()
    shutil.copytree(run, tmp_path / "bundled")
    assert load("bundled").config == load(run).config != load().config


def test_truncated_weights_are_found_even_with_a_fitting_checksum(run):
    file = run / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="was altered or is incomplete"):
        load(run)
    sign_again(run)
    with pytest.raises(CheckpointError, match=r"cannot load .*model\.safetensors"):
        load(run)


def test_weights_of_another_size_do_not_fit(run):
    tensors = load_file(run / "model.safetensors")
    tensors.pop(next(iter(tensors)))
    save_file(tensors, run / "model.safetensors")
    sign_again(run)
    with pytest.raises(CheckpointError, match=r"cannot load .*Missing key") as caught:
        load(run)
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(("key", "value"), [("format_version", 4), ("licence", "MIT")])
def test_config_of_another_version_is_said_to_be_one(run, key, value):
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps({**config, key: value}))
    sign_again(run)
    with pytest.raises(CheckpointError, match="is of another version of patchpad") as caught:
        load(run)
    assert key in caught.value.message
    assert "version that wrote it" in caught.value.hint


@pytest.mark.parametrize(
    ("version", "hint"),
    [
        (2, "Use the version of patchpad that wrote it, or train again with this one."),
        (4, "Install a newer version of patchpad."),
        (None, "Use another checkpoint of the run, or copy it again."),
    ],
)
def test_manifest_of_another_version_says_what_to_do(run, version, hint):
    content = json.loads((run / "manifest.json").read_text())
    (run / "manifest.json").write_text(json.dumps({**content, "format_version": version}))
    with pytest.raises(
        CheckpointError, match=f"has the format_version {version}; this version of patchpad reads 3"
    ) as caught:
        load(run)
    assert caught.value.hint == hint


def test_optimizer_state_of_another_model_is_refused(run, tools):
    shutil.rmtree(run / "checkpoints" / "step-6")
    (run / "manifest.json").unlink()
    step = list_steps(run)[-1]
    shard = step / "optimizer" / FIRST_SHARD
    tensors = {name: tensor for name, tensor in load_file(shard).items() if "trunk" not in name}
    save_file(tensors, shard)
    sign_again(step)
    with pytest.raises(CheckpointError, match=r"cannot load .*optimizer: `trunk.*` is missing"):
        trainer.resume(run, progress=tools.Hook())


def test_weights_are_read_where_files_cannot_be_mapped(run, monkeypatch):
    """An error of the system, as safetensors passes it on."""
    expected = load(run).state_dict()

    def refuse(path):
        raise OSError(errno.ENODEV, "No such device")

    monkeypatch.setattr(checkpoint, "load_file", refuse)
    monkeypatch.setattr(tensor_folders.mmap, "mmap", lambda *_, **__: refuse(""))
    for folder in (run, list_steps(run)[-1]):
        found = load(folder).state_dict()
        assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_files_that_others_put_beside_a_run_may_change(run):
    (run / "notes.txt").write_text("first")
    manifest.sign(run)
    (run / "notes.txt").write_text("second")
    load(run)


@pytest.mark.parametrize("keep", [0, 1, 2, 9])
def test_only_the_newest_checkpoints_are_kept(tmp_path, text, tools, keep):
    config = tools.config(steps=7, checkpoint_every=2, keep_checkpoints=keep)
    trainer.train(config, data=text, out=tmp_path / "run", progress=tools.Hook())
    expected = ["step-2", "step-4", "step-6", "step-7"]
    assert [step.name for step in list_steps(tmp_path / "run")] == expected[-keep:]
    for step in list_steps(tmp_path / "run"):
        load(step)


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left on device"), SafetensorError("I/O error: No space left on device")]
)
def test_full_disk_leaves_the_checkpoint_before_and_says_how_to_go_on(tmp_path, text, tools, monkeypatch, error):
    config = tools.config(steps=8, checkpoint_every=3, keep_checkpoints=1)
    trainer.train(config, data=text, out=tmp_path / "straight", progress=tools.Hook())
    out = tmp_path / "run"

    def fill_the_disk():
        def full(*_, **__):
            raise error

        for _ in range(6000):
            if (out / "checkpoints" / "step-3").exists():  # it is written while training goes on
                break
            time.sleep(0.01)
        monkeypatch.setattr(safetensors.torch, "save", full)

    caught = tools.train_until_error(config, tools.Hook(5, fill_the_disk), CheckpointError, data=text, out=out)
    assert "No space left on device" in caught.message
    assert f"{out / 'checkpoints' / 'step-3'} is intact" in caught.message
    assert caught.hint == f"Free some space, then run: patchpad train --resume {out}"
    assert [path.name for path in (out / "checkpoints").iterdir()] == ["step-3"]
    monkeypatch.undo()
    load(out)
    trainer.resume(out, progress=tools.Hook())
    assert tools.losses(out) == tools.losses(tmp_path / "straight")


def test_full_disk_at_the_first_checkpoint_does_not_promise_a_resume(tmp_path, text, tools, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(safetensors.torch, "save", full)
    caught = tools.train_until_error(
        tools.config(steps=2), tools.Hook(), CheckpointError, data=text, out=tmp_path / "run"
    )
    assert "no earlier checkpoint exists" in caught.message
    assert caught.hint == "Free some space, then train into a new folder."


@pytest.mark.parametrize("error", [RuntimeError("cut off"), KeyboardInterrupt()])
def test_any_error_while_saving_leaves_no_temporary_folder(tmp_path, text, tools, monkeypatch, error):
    def stop(*_, **__):
        raise error

    monkeypatch.setattr(step_folders, "write_manifest", stop)
    tools.train_until_error(tools.config(steps=2), tools.Hook(), type(error), data=text, out=tmp_path / "run")
    assert list((tmp_path / "run" / "checkpoints").iterdir()) == []


@pytest.mark.skipif(os.name == "nt", reason="Windows has no umask")
@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_every_file_of_a_run_follows_the_umask(tmp_path, text, tools, mask, mode):
    before = os.umask(mask)
    try:
        trainer.train(tools.config(steps=1), data=text, out=tmp_path / "run", progress=tools.Hook())
    finally:
        os.umask(before)
    found = {file.name: file.stat().st_mode & 0o777 for file in (tmp_path / "run").rglob("*") if file.is_file()}
    assert found == dict.fromkeys({Path(name).name for name in STEP_FILES | RUN_FILES}, mode)


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="the name of an open file is read from /proc")
def test_a_step_is_on_the_disk_before_it_has_its_name_and_its_name_before_older_steps_go(
    tmp_path, text, tools, monkeypatch
):
    events = []
    fsync, replace, rmtree = os.fsync, os.replace, shutil.rmtree

    def note_fsync(descriptor):
        name = Path(os.readlink(f"/proc/self/fd/{descriptor}")).name
        events.append(("sync", name.removesuffix(f".{os.getpid()}.tmp").removeprefix(".")))
        fsync(descriptor)

    def note_replace(source, target):
        replace(source, target)
        events.append(("rename", Path(target).name))

    def note_rmtree(folder, **options):
        rmtree(folder, **options)
        events.append(("remove", Path(folder).name))

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(os, "replace", note_replace)
    monkeypatch.setattr(shutil, "rmtree", note_rmtree)
    config = tools.config(steps=2, checkpoint_every=1, keep_checkpoints=1)
    trainer.train(config, data=text, out=tmp_path / "run", progress=tools.Hook())
    renamed = events.index(("rename", "step-2"))
    for name in PLAIN_STEP_FILES:
        synced = [place for place, event in enumerate(events[:renamed]) if event == ("sync", name)]
        assert ("rename", name) in events[synced[-1] : renamed]
    since_the_step_before = events[events.index(("rename", "step-1")) : renamed]
    assert since_the_step_before.count(("sync", FIRST_SHARD)) == 2
    assert {("sync", "weights"), ("sync", "optimizer")} <= set(since_the_step_before)
    assert events[renamed - 1] == ("sync", "step-2"), "the folder, when all its files have their names"
    assert events[renamed + 1] == ("sync", "checkpoints")
    assert events.index(("remove", "step-1")) > renamed + 1
    assert events[-1] == ("sync", "run")


def test_full_disk_at_the_very_end_is_an_error_too(tmp_path, text, tools, monkeypatch):
    original = release.save_file

    def full_for_the_run_itself(tensors, path):
        if Path(path).parent == tmp_path / "run":
            raise OSError(errno.ENOSPC, "No space left on device")
        original(tensors, path)

    monkeypatch.setattr(release, "save_file", full_for_the_run_itself)
    config = tools.config(steps=2)
    caught = tools.train_until_error(config, tools.Hook(), CheckpointError, data=text, out=tmp_path / "run")
    assert "its newest checkpoint is intact" in caught.message
    assert not (tmp_path / "run" / "manifest.json").exists()
    monkeypatch.undo()
    load(tmp_path / "run")
    trainer.resume(tmp_path / "run", progress=tools.Hook())
    assert (tmp_path / "run" / "manifest.json").exists()


def test_metrics_that_cannot_be_written_do_not_end_a_run(tmp_path, text, tools, monkeypatch, caplog):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(metrics, "write_atomically", full)
    run = trainer.train(tools.config(steps=2), data=text, out=tmp_path / "run", progress=tools.Hook()).path
    assert "cannot write" in caplog.text
    assert [line["step"] for line in tools.losses(run)] == [1, 2]


@pytest.mark.parametrize("writes_before_it_fails", [0, 1, 2])
def test_a_calibration_that_stops_anywhere_leaves_a_run_that_loads_and_can_be_calibrated(
    finished, tmp_path, monkeypatch, writes_before_it_fails
):
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    row = dict.fromkeys(ROW_KEYS, 0.5)
    table = Calibration(rows=(row,), text_sha256="x")
    release.store_calibration(run, table)
    left = [writes_before_it_fails]

    def write(path, content):
        if not left[0]:
            raise OSError(28, "No space left on device")
        left[0] -= 1
        write_atomically(path, content)

    with monkeypatch.context() as patched:
        for module in (release, manifest):
            patched.setattr(module, "write_atomically", write)
        with pytest.raises(OSError, match="No space left"):
            release.store_calibration(run, Calibration(rows=(row,), text_sha256="y"))
    found = load(run).calibration
    assert found is not None
    assert found.text_sha256 == ("y" if writes_before_it_fails == 2 else "x")
    release.store_calibration(open_checkpoint(run).path, table)
    assert load(run).calibration == table


def test_a_device_that_is_unknown_or_absent_is_named(finished):
    with pytest.raises(ConfigError, match="device is 'zzz'; allowed: auto, cpu"):
        load(finished, device="zzz")
    with pytest.raises(ConfigError, match="device is 'cuda:77', but this machine has none"):
        load(finished, device="cuda:77")
