"""Functions on several ranks: their results, and what is raised where one of them fails."""

import os
from dataclasses import dataclass

import pytest
import torch
import torch.distributed as dist

from patchpad.errors import DataError
from patchpad.testing.ranks import run_ranks

pytestmark = pytest.mark.distributed


@dataclass
class Found:
    rank: int
    environment: list[str]
    total: float
    num_threads: int


def find(factor):
    total = torch.full((), float(dist.get_rank() + 1))
    dist.all_reduce(total)
    environment = [os.environ[name] for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE")]
    return Found(dist.get_rank(), environment, factor * float(total), torch.get_num_threads())


def fail_on_rank_1(how):
    if dist.get_rank() == 1:
        if how == "dies":
            os._exit(9)
        raise DataError("text.txt is gone", hint="Bring it back.")
    dist.barrier()


def test_each_rank_returns_its_result_in_a_group_of_all():
    assert run_ranks(2, find, 10) == [
        Found(rank=rank, environment=[str(rank), str(rank), "2", "2"], total=30.0, num_threads=1) for rank in range(2)
    ]


def test_the_first_error_is_raised_with_its_rank_while_others_wait():
    with pytest.raises(DataError, match=r"text\.txt is gone") as caught:
        run_ranks(2, fail_on_rank_1, "raises")
    assert caught.value.hint == "Bring it back."
    assert caught.value.__notes__[0].startswith("on rank 1 of 2:\nTraceback")


def test_a_rank_that_dies_is_named():
    with pytest.raises(ChildProcessError, match="rank 1 ended with exit code 9"):
        run_ranks(2, fail_on_rank_1, "dies")


def wait_for_ever():
    if dist.get_rank() == 0:
        dist.barrier()


def test_ranks_that_wait_for_ever_are_ended():
    with pytest.raises(TimeoutError, match=r"ranks \[0\] took over 2 s"):
        run_ranks(2, wait_for_ever, seconds=2.0)
