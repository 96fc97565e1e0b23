"""Runs of which a process is killed, at a step, while it saves, or at any moment: they go on to the same bits."""

import os
import random
import shutil
import signal
import threading
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from patchpad.config import Config
from patchpad.files import sha256_of
from patchpad.testing.ranks import run_ranks
from patchpad.training import step_folders, trainer
from patchpad.training.checkpoint import list_steps
from patchpad.training.manifest import CHECKPOINTS, TRAINER
from patchpad.training.tensor_folders import load_tensors, tensor_sizes

pytestmark = [
    pytest.mark.distributed,
    pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="Windows has no SIGKILL"),
]

AT_STEP, ON_WRITING, ON_RENAMING, AFTER = "at a step", "when the files are written", "before the renaming", "after"
"""Moments: a step of training, three of saving, and any, after some seconds."""


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class KillAt:
    """Progress that kills its process after a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def update(self, step: int, total_steps: int, metrics: dict) -> None:
        if step == self.step:
            kill()


def train_until_killed(
    config: Config, text: Path, out: Path, rank: int, moment: str, number: float
) -> tuple[float, int]:
    """Trains or goes on, and kills one rank; returns the seconds that it took, and the steps that were made before.

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
    began, steps = time.perf_counter(), list_steps(out)
    if steps:
        trainer.resume(out, progress=progress)
    else:
        trainer.train(config, data=text, out=out, progress=progress)
    return time.perf_counter() - began, len(steps)


def train_with_kills(num_ranks: int, config: Config, text: Path, out: Path, kills: list[tuple[int, str, float]]) -> int:
    """Trains to the end through all kills; returns how many of them came before the end."""
    killed = 0
    for rank, moment, number in kills:
        with suppress(ChildProcessError, RuntimeError):
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


def config_of(tools, num_ranks: int, steps: int) -> Config:
    config = tools.config("entropy", steps=steps, checkpoint_every=2, batch_rows=max(2, num_ranks), averaged_decay=0.5)
    return replace(config, train=replace(config.train, log_every=3))


def test_a_process_that_is_killed_at_a_step_and_while_it_saves_goes_on_to_the_same_bits(tmp_path, text, tools):
    config = config_of(tools, 1, steps=9)
    run_ranks(1, train_until_killed, config, text, tmp_path / "straight", -1, "", 0)
    kills = [(0, AT_STEP, 1), (0, ON_RENAMING, 1), (0, ON_WRITING, 1), (0, AT_STEP, 7)]
    assert train_with_kills(1, config, text, tmp_path / "killed", kills) == len(kills)
    assert_same(tmp_path / "straight", tmp_path / "killed", tools)


@pytest.mark.slow
def test_a_process_that_is_killed_at_twenty_moments_goes_on_to_the_same_bits(tmp_path, text, tools):
    config = config_of(tools, 1, steps=40)
    ((seconds, _),) = run_ranks(1, train_until_killed, config, text, tmp_path / "straight", -1, "", 0)
    source = random.Random(0)
    kills = [(0, AFTER, source.uniform(0, seconds / 4)) for _ in range(20)]
    assert train_with_kills(1, config, text, tmp_path / "killed", kills) > 5
    assert_same(tmp_path / "straight", tmp_path / "killed", tools)
    assert (list_steps(tmp_path / "killed")[-1] / TRAINER).exists()
