"""Step folders that several ranks write and read: sharded or not, and by another number of ranks than wrote them."""

import errno
import os
import shutil
from pathlib import Path

import pytest
import safetensors.torch
import torch
import torch.distributed as dist
from torch import Tensor

from patchpad.config import Config
from patchpad.errors import CheckpointError
from patchpad.files import strict_json
from patchpad.model.build import build_model
from patchpad.testing.models import tiny_model_config
from patchpad.testing.ranks import run_ranks
from patchpad.training.averaging import AveragedWeights
from patchpad.training.checkpoint import Checkpoint, check, list_steps, load, newest_step, open_checkpoint
from patchpad.training.optimizer import build_optimizer, load_optimizer, optimizer_tensors
from patchpad.training.release import release
from patchpad.training.saver import StepSaver
from patchpad.training.step_folders import StepContent
from patchpad.training.tensor_folders import load_tensors, tensor_sizes

pytestmark = [
    pytest.mark.distributed,
    pytest.mark.skipif(os.name == "nt", reason="Windows has no limit of a process's files"),
]

CONFIG = Config(model=tiny_model_config())
FOLDERS = ("weights", "optimizer", "averaged")


class Training:
    """A model, its optimizer and averages, all made from one seed, sharded or on every rank whole."""

    def __init__(self, *, is_sharded: bool) -> None:
        from torch.distributed.fsdp import fully_shard

        self.model = build_model(CONFIG.model, seed=1)
        if is_sharded:
            fully_shard(self.model.trunk)
            fully_shard(self.model)
        self.optimizer = build_optimizer(self.model, CONFIG.train)
        self.averages = AveragedWeights(self.model, 0.9)

    def make_a_step(self) -> None:
        """As if it had trained: what it finds follows from names and sizes alone."""
        for number, parameter in enumerate(self.model.parameters()):
            parameter.grad = torch.sin(torch.arange(parameter.numel()) + number).view_as(parameter)
        self.optimizer.step()
        self.averages.update(3)

    def content(self) -> StepContent:
        tensors = (self.model.state_dict(), optimizer_tensors(self.model, self.optimizer), self.averages.tensors)
        files = {"config.json": strict_json(CONFIG.to_dict()), "trainer.json": "{}"}
        return StepContent(step=3, tensors=dict(zip(FOLDERS, tensors, strict=True)), files=files)

    def restore(self, checkpoint: Checkpoint) -> None:
        load_optimizer(checkpoint.path / "optimizer", self.model, self.optimizer)
        checkpoint.load_weights(self.model)
        checkpoint.load_averaged(self.averages.tensors)


def pass_on(source: Path, out: Path, is_sharded: bool) -> None:
    """What each rank does: reads a run that others have saved, and saves it again in the background."""
    group = dist.new_group(backend="gloo")
    training = Training(is_sharded=is_sharded)
    training.restore(check(newest_step(source), rank=dist.get_rank(), num_ranks=dist.get_world_size()))
    with StepSaver(out, CONFIG.train, torch.device("cpu"), group) as saver:
        saver.save(training.content())
        for parameter in training.model.parameters():
            parameter.data.zero_()


def fail_on_rank_1(source: Path, out: Path) -> str:
    """Lets one rank fail to write in the second save, and returns the message of this rank."""
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    group = dist.new_group(backend="gloo")
    training = Training(is_sharded=True)
    training.restore(open_checkpoint(source))
    saver = StepSaver(out, CONFIG.train, torch.device("cpu"), group)
    saver.save(training.content())
    saver.wait()
    if dist.get_rank() == 1:  # files of this process cannot grow beyond it, as if the disk were full
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    content = training.content()
    saver.save(StepContent(step=4, tensors=content.tensors, files=content.files))
    try:
        saver.wait()
    except CheckpointError as error:
        return error.message
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    return "saved"


def find_in_turns(source: Path) -> str:
    """Returns what this rank finds wrong with a checkpoint when all hash a part of it."""
    try:
        check(newest_step(source), rank=dist.get_rank(), num_ranks=dist.get_world_size())
    except CheckpointError as error:
        return error.message
    return ""


def two_ranks(folder: Path) -> tuple[str, str]:
    pass_on(folder / "one", folder / "two-sharded", True)
    pass_on(folder / "one", folder / "two-whole", False)
    message = fail_on_rank_1(folder / "one", folder / "full")
    return message, find_in_turns(folder / "damaged")


def four_ranks(folder: Path) -> None:
    pass_on(folder / "two-sharded", folder / "four-sharded", True)
    pass_on(folder / "four-sharded", folder / "four-whole", False)


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> tuple[Path, list[tuple[str, str]]]:
    """A run saved by one process, and what 2 and 4 ranks have made of it; with what the two ranks have said."""
    folder = tmp_path_factory.mktemp("ranks")
    training = Training(is_sharded=False)
    training.make_a_step()
    with StepSaver(folder / "one", CONFIG.train, torch.device("cpu")) as saver:
        saver.save(training.content())
    shutil.copytree(folder / "one", folder / "damaged")
    (shard,) = (folder / "damaged" / "checkpoints" / "step-3" / "weights").iterdir()
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    said = run_ranks(2, two_ranks, folder)
    run_ranks(4, four_ranks, folder)
    return folder, said


def tensors_of(run: Path, name: str) -> dict[str, Tensor]:
    folder = run / "checkpoints" / "step-3" / name
    tensors = {key: torch.empty(size) for key, size in tensor_sizes(folder).items()}
    load_tensors(folder, tensors)
    return tensors


@pytest.mark.parametrize("name", ["two-sharded", "two-whole", "four-sharded", "four-whole"])
def test_ranks_save_what_one_process_has_saved_whatever_number_saved_it_before(runs, name):
    folder, _ = runs
    for part in FOLDERS:
        expected, found = tensors_of(folder / "one", part), tensors_of(folder / name, part)
        assert expected.keys() == found.keys()
        assert all(torch.equal(expected[key], found[key]) for key in expected)
    one, ranks = load(folder / "one").state_dict(), load(folder / name).state_dict()
    assert all(torch.equal(one[key], ranks[key]) for key in one)
    if not (folder / f"released-{name}").exists():
        release(folder / name, folder / f"released-{name}", averaged=True)


def test_each_rank_writes_its_share_and_what_all_have_is_written_once(runs):
    folder, _ = runs
    for name, num_ranks in (("two-sharded", 2), ("two-whole", 2), ("four-sharded", 4), ("four-whole", 4)):
        shards = sorted((folder / name / "checkpoints" / "step-3" / "weights").iterdir())
        assert len(shards) == num_ranks
        contents = [safetensors.torch.load_file(shard) for shard in shards]
        sizes = [sum(tensor.numel() for tensor in content.values()) for content in contents]
        expected = sum(tensor.numel() for tensor in load(folder / "one").state_dict().values())
        assert sum(sizes) == expected
        assert "whole" in name or max(sizes) < 1.1 * expected / num_ranks


def test_nothing_but_safetensors_json_and_lines_is_written(runs):
    folder, _ = runs
    files = [file for file in folder.rglob("*") if file.is_file()]
    assert {file.suffix for file in files} == {".safetensors", ".json"}
    assert not [file for file in files if file.name.startswith(".")]


def test_a_full_disk_on_one_rank_is_told_on_all_and_leaves_the_step_before(runs):
    folder, said = runs
    messages = {message for message, _ in said}
    (message,) = messages
    assert f"rank 1: [Errno {errno.EFBIG}] {os.strerror(errno.EFBIG)}" in message
    assert f"{folder / 'full' / 'checkpoints' / 'step-3'} is intact" in message
    assert [path.name for path in (folder / "full" / "checkpoints").iterdir()] == ["step-3"]
    load(folder / "full")


def test_a_flipped_byte_is_found_by_the_rank_that_reads_it(runs):
    _, said = runs
    found = [message for _, message in said if message]
    assert len(found) == 1
    assert "was altered or is incomplete" in found[0]


@pytest.mark.parametrize("name", ["two-sharded", "four-whole"])
def test_a_missing_shard_is_named_with_and_without_a_fitting_manifest(runs, tmp_path, name):
    shutil.copytree(runs[0] / name, tmp_path / "run")
    (step,) = list_steps(tmp_path / "run")
    shard = sorted((step / "weights").iterdir())[1]
    shard.unlink()
    with pytest.raises(CheckpointError, match="is missing") as caught:
        load(step)
    assert str(shard) in caught.value.message
    model = build_model(CONFIG.model)
    with pytest.raises(CheckpointError, match=r"a shard of .* is missing|`.*` is missing|has the shape"):
        load_tensors(step / "weights", model.state_dict())
