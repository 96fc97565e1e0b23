"""Runs of which a process is killed, at a step, while it saves, or at any moment: they go on to the same bits."""

import os
import random
import shutil
import signal
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest
import torch

from patchpad.config import Config
from patchpad.errors import LostRankError, OtherRankError, PatchpadError, RunInUseError
from patchpad.files import sha256_of
from patchpad.run_lock import run_lock
from patchpad.testing.ranks import run_ranks
from patchpad.training import step_folders, trainer
from patchpad.training.checkpoint import list_steps
from patchpad.training.manifest import CHECKPOINTS
from patchpad.training.tensor_folders import load_tensors, tensor_sizes

pytestmark = [
    pytest.mark.distributed,
    pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="Windows has no SIGKILL"),
]

AT_STEP, ON_WRITING, ON_RENAMING, AFTER = "at a step", "when the files are written", "before the renaming", "after"
"""Moments: a step of training, three of saving, and any, after some seconds."""


LOSSES = (ChildProcessError, LostRankError, OtherRankError, RuntimeError)
"""What ranks end with when one of them is killed: it, the others, and those that were just joining it."""


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class KillAt:
    """Progress that kills its process after a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def update(self, step: int, total_steps: int, metrics: dict) -> None:
        if step == self.step:
            kill()


def train_until_killed(config: Config, text: Path, out: Path, rank: int, moment: str, number: float) -> float:
    """Trains or goes on, and kills one rank; returns the seconds that it took.

    Args:
        config: of the run.
        text: to train on.
        out: the run's folder.
        rank: that is killed; -1: none.
        moment: when.
        number: step or seconds; in saving, how many steps are saved before.
    """
    progress = KillAt(-1)
    if rank == int(os.environ["RANK"]):
        if moment == AT_STEP:
            progress = KillAt(int(number))
        elif moment == AFTER:
            threading.Thread(target=lambda: (time.sleep(number), kill()), daemon=True).start()
        else:
            name = {ON_WRITING: "_digests_of_rank", ON_RENAMING: "_finish"}[moment]
            original, calls = getattr(step_folders, name), []

            def kill_or_call(*given):
                if len(calls) == number:
                    kill()
                calls.append(given)
                return original(*given)

            setattr(step_folders, name, kill_or_call)
    began = time.perf_counter()
    if list_steps(out):
        trainer.resume(out, progress=progress)
    else:
        trainer.train(config, data=text, out=out, progress=progress)
    return time.perf_counter() - began


def train_with_kills(num_ranks: int, config: Config, text: Path, out: Path, kills: list[tuple[int, str, float]]) -> int:
    """Trains to the end through all kills; returns how many of them came before the end."""
    killed = 0
    for rank, moment, number in kills:
        with suppress(*LOSSES):
            run_ranks(num_ranks, train_until_killed, config, text, out, rank, moment, number)
            break
        killed += 1
        if not list_steps(out):  # as its message says: a new folder
            shutil.rmtree(out)
    run_ranks(num_ranks, train_until_killed, config, text, out, -1, "", 0)
    return killed


def tensors_of(folder: Path) -> dict[str, torch.Tensor]:
    tensors = {name: torch.empty(size) for name, size in tensor_sizes(folder).items()}
    load_tensors(folder, tensors)
    return tensors


def assert_same(straight: Path, killed: Path, tools) -> None:
    assert tools.losses(straight) == tools.losses(killed)
    assert sha256_of(straight / "model.safetensors") == sha256_of(killed / "model.safetensors")
    for folder in ("weights", "optimizer", "averaged"):
        expected, found = (tensors_of(list_steps(run)[-1] / folder) for run in (straight, killed))
        assert expected.keys() == found.keys()
        assert all(torch.equal(expected[name], found[name]) for name in expected), folder
    assert not list((killed / CHECKPOINTS).glob(".*")), "what was half-saved is gone"


def config_of(tools, num_ranks: int, steps: int, **train) -> Config:
    """With a row less than ranks, so that one of them has none in each step."""
    values = {
        "checkpoint_every": 2,
        "batch_rows": max(2, num_ranks - 1),
        "averaged_decay": 0.5,
        "log_every": 3,
        **train,
    }
    return tools.config("entropy", steps=steps, **values)


def train_straight(num_ranks: int, config: Config, text: Path, out: Path) -> float:
    """Trains without a kill; returns the seconds that it took."""
    return run_ranks(num_ranks, train_until_killed, config, text, out, -1, "", 0)[0]


def test_a_process_that_is_killed_at_a_step_and_while_it_saves_goes_on_to_the_same_bits(tmp_path, text, tools):
    config = config_of(tools, 1, steps=7)
    train_straight(1, config, text, tmp_path / "straight")
    kills = [(0, AT_STEP, 1), (0, ON_RENAMING, 1), (0, ON_WRITING, 1)]
    assert train_with_kills(1, config, text, tmp_path / "killed", kills) == len(kills)
    assert_same(tmp_path / "straight", tmp_path / "killed", tools)


@pytest.mark.parametrize("parallel", ["fsdp", pytest.param("ddp", marks=pytest.mark.slow)])
def test_ranks_of_which_one_is_killed_go_on_to_the_same_bits(tmp_path, text, tools, parallel):
    config = config_of(tools, 4, steps=5, parallel=parallel)
    train_straight(4, config, text, tmp_path / "straight")
    kills = [(2, ON_WRITING, 1), (3, AT_STEP, 5)]
    assert train_with_kills(4, config, text, tmp_path / "killed", kills) == len(kills)
    assert_same(tmp_path / "straight", tmp_path / "killed", tools)


def test_a_run_in_use_is_refused_to_ranks_too(tmp_path, text, tools):
    config = config_of(tools, 2, steps=3)
    with (
        run_lock(tmp_path / "run", "elsewhere"),
        pytest.raises(PatchpadError, match=r"run is in use by process .*\(elsewhere") as caught,
    ):
        train_straight(2, config, text, tmp_path / "run")
    assert isinstance(caught.value, RunInUseError | OtherRankError)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.parametrize(("num_ranks", "parallel"), [(1, "auto"), (4, "ddp"), (4, "fsdp")])
def test_ranks_that_are_killed_at_twenty_moments_go_on_to_the_same_bits(tmp_path, text, tools, num_ranks, parallel):
    config = config_of(tools, num_ranks, steps=40, parallel=parallel)
    seconds = train_straight(num_ranks, config, text, tmp_path / "straight")
    source = random.Random(num_ranks)
    kills = [(source.randrange(num_ranks), AFTER, source.uniform(0, seconds / 4)) for _ in range(20)]
    assert train_with_kills(num_ranks, config, text, tmp_path / "killed", kills) > 5
    assert_same(tmp_path / "straight", tmp_path / "killed", tools)


@pytest.mark.slow
def test_a_run_of_two_sharded_ranks_goes_on_as_one_process_and_as_four_whole_ones(tmp_path, text, tools):
    """To the same losses but for rounding: sums are taken in another order."""
    straight = config_of(tools, 2, steps=8, parallel="fsdp")
    train_straight(2, straight, text, tmp_path / "straight")
    expected = tools.losses(tmp_path / "straight")
    with suppress(*LOSSES):
        run_ranks(2, train_until_killed, straight, text, tmp_path / "two", 0, AT_STEP, 5)
    assert list_steps(tmp_path / "two")
    for num_ranks in (1, 4):
        out = tmp_path / f"{num_ranks}"
        shutil.copytree(tmp_path / "two", out)
        run_ranks(num_ranks, train_until_killed, straight, text, out, -1, "", 0)
        found = tools.losses(out)
        assert [line["step"] for line in found] == [line["step"] for line in expected]
        for line, other in zip(found, expected, strict=True):
            assert line["train/bpb"] == pytest.approx(other["train/bpb"], abs=1e-5)
