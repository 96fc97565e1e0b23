"""Whole runs of several ranks: metrics, checkpoints, going on with other ranks, errors and signals. All on gloo."""

import gc
import logging
import os
import signal
from unittest import mock

import pytest
import torch
import torch.distributed as dist
from torch import nn

from patchpad.errors import ConfigError, DataError, PatchpadError, TrainingInterrupted
from patchpad.testing.ranks import run_ranks
from patchpad.training import starting, trainer
from patchpad.training.checkpoint import load
from patchpad.training.starting import joined, start_parallel

pytestmark = pytest.mark.distributed

RUNS = {
    "ddp": {"parallel": "ddp", "checkpoint_every": 3, "averaged_decay": 0.9},
    "fsdp": {"parallel": "fsdp", "sample_every": 4, "sample_bytes": 4},
}
OPTIONS = {"steps": 6, "batch_rows": 3, "validate_every": 4, "validation_bytes": 0}


class Quiet:
    def update(self, step, total_steps, metrics):
        pass


class Stop(Quiet):
    """One rank gets a signal, as often as a terminal and a launcher send it."""

    def update(self, step, total_steps, metrics):
        if step == 3 and dist.get_rank() == 1:
            for _ in range(2):
                os.kill(os.getpid(), signal.SIGINT)


class Fail(Quiet):
    """One rank alone fails between two steps."""

    def update(self, step, total_steps, metrics):
        if step == 2 and dist.get_rank() == 1:
            raise DataError("text.txt is gone", hint="Bring it back.")


def named(error):
    """Returns what an error says, and on which rank, as every rank sees it."""
    return (type(error).__name__, error.message, error.exit_code)


def error_of(action):
    try:
        action()
    except PatchpadError as error:
        return named(error)
    return None


def fail_apart(parallel, error):
    with parallel.together():
        if parallel.rank == 1:
            raise error


def leave(config, text, folder):
    """Trains in a group that this rank joins and leaves; returns how many wrappers of weights lived when it left."""
    dist.destroy_process_group()
    leave_group, counts = dist.destroy_process_group, []

    def join(place):
        store = dist.FileStore(str(folder / "store"), place.num_ranks)
        dist.init_process_group("gloo", store=store, rank=place.rank, world_size=place.num_ranks)

    def count_and_leave():
        counts.append(sum(type(value) is nn.parallel.DistributedDataParallel for value in gc.get_objects()))
        leave_group()

    with mock.patch.object(starting, "_join", join), mock.patch.object(dist, "destroy_process_group", count_and_leave):
        trainer.train(config, data=text, out=folder / "left", progress=Quiet())
    return counts


def all_of_it(folder, text, configs, out_of_place):
    """What the ranks of these tests do, one after another."""
    found = {}
    for name, config in configs.items():
        run = trainer.train(config, data=text, out=folder / name, progress=Quiet())
        weights = run.model.state_dict()
        whole = {key: value.full_tensor() if hasattr(value, "full_tensor") else value for key, value in weights.items()}
        found[name] = {key: value.clone() for key, value in whole.items()}
    stopped = configs["ddp"]
    found["interrupted"] = error_of(lambda: trainer.train(stopped, data=text, out=folder / "stopped", progress=Stop()))
    resumed = trainer.resume(folder / "stopped", progress=Quiet())
    found["resumed"] = {key: value.clone() for key, value in resumed.model.state_dict().items()}
    found["not new"] = error_of(lambda: trainer.train(stopped, data=text, out=folder / "ddp", progress=Quiet()))
    found["lonely device"] = error_of(lambda: start_parallel(out_of_place))
    with joined() as parallel:
        found["together"] = error_of(lambda: fail_apart(parallel, DataError("no text")))
        found["other"] = parallel.exchange({"rank": parallel.rank})
        found["warns"] = logging.getLogger("patchpad.data").isEnabledFor(logging.WARNING)
        found["flags"] = parallel.any_of(parallel.rank == 1, False)
        found["gathered"] = parallel.gather(torch.full((1, 2), float(parallel.rank))).tolist()
    found["left"] = leave(stopped, text, folder)
    return found


@pytest.fixture(scope="module")
def alone(tmp_path_factory, text, tools):
    """The same runs by one process."""
    folder = tmp_path_factory.mktemp("alone")
    for name, options in RUNS.items():
        trainer.train(tools.config(**OPTIONS, **options), data=text, out=folder / name, progress=Quiet())
    return folder


@pytest.fixture(scope="module")
def ranks(tmp_path_factory, text, tools):
    """Folder of the runs of two ranks, and what each rank has found."""
    folder = tmp_path_factory.mktemp("ranks")
    configs = {name: tools.config(**OPTIONS, **options) for name, options in RUNS.items()}
    out_of_place = tools.config(parallel="hsdp", shard_ranks=4)
    return folder, run_ranks(2, all_of_it, folder, str(text), configs, out_of_place)


@pytest.mark.parametrize("name", list(RUNS))
def test_a_run_of_two_ranks_leaves_what_one_process_leaves(ranks, alone, tools, name):
    folder, (main, other) = ranks
    ours, theirs = (tools.losses(place / name) for place in (folder, alone))
    assert len(ours) == len(theirs) == 6
    for line, expected in zip(ours, theirs, strict=True):
        assert line.keys() == expected.keys()
        for key, value in expected.items():
            assert line[key] == pytest.approx(value, rel=1e-4, abs=1e-6), key
    assert sum("val/bpb" in line for line in ours) == 2
    assert load(folder / name).state_dict().keys() == load(alone / name).state_dict().keys()
    for key, value in load(folder / name).state_dict().items():
        assert torch.equal(value, main[name][key])
        assert torch.equal(value, other[name][key]), "both ranks hold the same weights"
    samples = [(place / name / "samples.jsonl").exists() for place in (folder, alone)]
    assert samples == [name == "fsdp"] * 2


def test_a_signal_on_one_rank_that_comes_twice_stops_all_after_one_save(ranks):
    main, other = ranks[1]
    message = "stopped at step 3 of 6; everything is saved"
    assert main["interrupted"] == ("TrainingInterrupted", message, TrainingInterrupted.exit_code)
    assert other["interrupted"] == ("OtherRankError", f"rank 0 has failed: {message}", 130)
    for key, value in main["ddp"].items():
        assert torch.equal(value, main["resumed"][key]), "to the last bit"


def test_one_rank_says_what_is_wrong(ranks):
    folder, (main, other) = ranks
    kind, message, code = main["not new"]
    assert (kind, code) == ("ConfigError", ConfigError.exit_code)
    assert message.startswith(f"{folder / 'ddp'} exists and is not empty")
    assert other["not new"] == ("OtherRankError", f"rank 0 has failed: {message}", code)
    assert main["together"] == ("OtherRankError", "rank 1 has failed: no text", 1)
    assert other["together"] == ("DataError", "no text", 1)
    assert main["lonely device"][1].startswith("train.shard_ranks is 4 with 2 ranks; allowed: a number that divides")
    assert [main["warns"], other["warns"]] == [True, False], "what all find in the text is told once"


def test_ranks_exchange_values(ranks):
    for found in ranks[1]:
        assert found["other"] == [{"rank": 0}, {"rank": 1}]
        assert found["flags"] == [True, False]
        assert found["gathered"] == [[0.0, 0.0], [1.0, 1.0]]


def test_what_uses_the_group_is_gone_before_it_is_left(ranks):
    assert [found["left"] for found in ranks[1]] == [[0], [0]], "or ranks wait for ever at their end, once in a while"


def train_and_fail(config, text, out):
    trainer.train(config, data=text, out=out, progress=Fail())


def test_the_error_of_one_rank_in_the_midst_of_training_ends_all(tmp_path, text, tools):
    config = tools.config(**OPTIONS, parallel="ddp")
    with pytest.raises(DataError, match=r"text\.txt is gone") as caught:
        run_ranks(2, train_and_fail, config, str(text), tmp_path / "run")
    assert caught.value.__notes__[0].startswith("on rank 1 of 2")
