"""Which rank a process is, by the variables of torchrun and of SLURM."""

import pytest

from patchpad.errors import ConfigError
from patchpad.launcher import ALONE, first_host, launched_place

SLURM = {
    "SLURM_STEP_NUM_TASKS": "6",
    "SLURM_PROCID": "4",
    "SLURM_LOCALID": "1",
    "SLURM_NODEID": "2",
    "SLURM_STEP_TASKS_PER_NODE": "2(x2),1,1",
    "SLURM_STEP_NODELIST": "gpu[07-09],cpu1",
    "SLURM_JOB_ID": "123456",
}


def test_torchrun_gives_ranks_and_their_node():
    place = launched_place({"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4"})
    assert (place.rank, place.num_ranks, place.local_rank, place.num_local_ranks) == (5, 8, 1, 4)
    assert place.address is None
    assert not place.is_main


@pytest.mark.parametrize(
    "variables",
    [{}, {"WORLD_SIZE": "1", "RANK": "0"}, {"WORLD_SIZE": "one"}, {"SLURM_NTASKS": "8", "SLURM_PROCID": "0"}],
    ids=["none", "torchrun of one", "not a number", "a batch script of SLURM"],
)
def test_a_process_without_others_is_alone(variables):
    assert launched_place(variables) == ALONE


def test_srun_gives_ranks_and_where_they_meet():
    place = launched_place({**SLURM, "SLURM_NODEID": "1"})
    assert (place.rank, place.num_ranks, place.local_rank, place.num_local_ranks) == (4, 6, 1, 2)
    assert (place.address, place.port) == ("gpu07", 23456)
    assert launched_place(SLURM).num_local_ranks == 1
    given = launched_place({**SLURM, "MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "29500"})
    assert (given.address, given.port) == ("10.0.0.1", 29500)


@pytest.mark.parametrize(
    ("hosts", "first"),
    [("node1", "node1"), ("gpu[07-09,12],cpu1", "gpu07"), ("a-b[3,5-6]-ib", "a-b3-ib"), ("n1,n2", "n1"), ("", "")],
)
def test_first_host_of_a_list_of_slurm(hosts, first):
    assert first_host(hosts) == first


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"WORLD_SIZE": "2"}, "RANK is '' though a launcher has started several processes"),
        ({"WORLD_SIZE": "4", "RANK": "first"}, "RANK is 'first'"),
        ({"WORLD_SIZE": "2", "RANK": "2"}, "RANK is 2 of WORLD_SIZE 2"),
    ],
)
def test_wrong_variables_are_told(variables, message):
    with pytest.raises(ConfigError, match=message):
        launched_place(variables)
