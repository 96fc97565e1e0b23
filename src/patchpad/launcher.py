"""Which of several processes this one is, by the variables of the launcher that started it. Torch-free."""

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from patchpad.errors import ConfigError, OtherRankError, PatchpadError


@dataclass(frozen=True, kw_only=True)
class Place:
    """A process among those that a launcher started for one run."""

    rank: int
    num_ranks: int
    local_rank: int
    """Among the ranks of its node."""
    num_local_ranks: int
    address: str | None = None
    """Host of rank 0, where the launcher does not give it to torch itself."""
    port: int | None = None
    """On that host."""

    @property
    def is_main(self) -> bool:
        """Whether it is the one that logs, shows progress and prints."""
        return self.rank == 0


ALONE = Place(rank=0, num_ranks=1, local_rank=0, num_local_ranks=1)
FIRST_PORT, NUM_PORTS = 20_000, 10_000
"""Ports on which ranks under SLURM meet: one follows from the number of the job, so that two jobs on a node differ."""


def launched_place(environment: Mapping[str, str] = os.environ) -> Place:
    """Returns this process's place; `ALONE` where no launcher started several.

    `torchrun` sets RANK and WORLD_SIZE. SLURM's `srun` sets numbers of its own; a batch script that SLURM runs by
    itself is not a rank, whatever its job asked for.

    Raises:
        ConfigError: variables of a launcher that are missing or contradict each other.
    """
    size = environment.get("WORLD_SIZE", "").strip()
    if size.isdecimal() and int(size) > 1:
        return _of_variables(
            environment, rank="RANK", size="WORLD_SIZE", local_rank="LOCAL_RANK", local_size="LOCAL_WORLD_SIZE"
        )
    if environment.get("SLURM_STEP_NUM_TASKS", "1").strip() not in ("", "1"):
        return _of_slurm(environment)
    return ALONE


@contextmanager
def told_once(place: Place) -> Iterator[None]:
    """Lets one rank of each node say what is wrong with the options, which all of them have alike."""
    try:
        yield
    except PatchpadError as error:
        if place.local_rank:
            raise OtherRankError(error.message, exit_code=error.exit_code) from error
        raise


def require_one_process() -> None:
    """Refuses several processes that a launcher started, for what each of them would do alone.

    Raises:
        ConfigError: there are several.
    """
    size = launched_place().num_ranks
    if size > 1:
        raise ConfigError(
            f"a launcher such as torchrun or srun started {size} processes; allowed: one",
            hint="Start this command without it: only `patchpad train` can share its work.",
        )


def _of_variables(environment: Mapping[str, str], *, rank: str, size: str, local_rank: str, local_size: str) -> Place:
    num_ranks = _number(environment, size)
    number = _number(environment, rank)
    place = Place(
        rank=number,
        num_ranks=num_ranks,
        local_rank=_number(environment, local_rank, number),
        num_local_ranks=_number(environment, local_size, num_ranks),
    )
    if place.rank >= num_ranks or place.local_rank >= place.num_local_ranks:
        raise ConfigError(
            f"{rank} is {place.rank} of {size} {num_ranks}, and {local_rank} {place.local_rank} of {local_size} "
            f"{place.num_local_ranks}; allowed: ranks below the number of ranks",
            hint="Start the ranks with torchrun or srun, which set these variables.",
        )
    return place


def _of_slurm(environment: Mapping[str, str]) -> Place:
    num_ranks = _number(environment, "SLURM_STEP_NUM_TASKS")
    tasks = environment.get("SLURM_STEP_TASKS_PER_NODE", "")
    return Place(
        rank=_number(environment, "SLURM_PROCID"),
        num_ranks=num_ranks,
        local_rank=_number(environment, "SLURM_LOCALID"),
        num_local_ranks=_tasks_of_node(tasks, _number(environment, "SLURM_NODEID", 0)) or num_ranks,
        address=environment.get("MASTER_ADDR") or first_host(environment.get("SLURM_STEP_NODELIST", "")),
        port=_number(environment, "MASTER_PORT", FIRST_PORT + _number(environment, "SLURM_JOB_ID", 0) % NUM_PORTS),
    )


def first_host(hosts: str) -> str:
    """Returns the first name of a list in SLURM's way of writing: `gpu[07-09,12],cpu1` begins with `gpu07`."""
    match = re.match(r"([^,\[]*)(?:\[(\d+)[^\]]*\]([^,\[]*))?", hosts.strip())
    return "".join(part or "" for part in match.groups()) if match else ""


def _tasks_of_node(tasks: str, node: int) -> int | None:
    """Returns the tasks of a node from SLURM's list: `2(x3),1` are 2, 2, 2 and 1."""
    counts: list[int] = []
    for count, repeats in re.findall(r"(\d+)(?:\(x(\d+)\))?", tasks):
        counts.extend([int(count)] * int(repeats or 1))
    return counts[node] if node < len(counts) else None


def _number(environment: Mapping[str, str], name: str, default: int | None = None) -> int:
    text = environment.get(name, "").strip()
    if not text and default is not None:
        return default
    if not text.isascii() or not text.isdigit():
        raise ConfigError(
            f"{name} is {text!r} though a launcher has started several processes; allowed: a whole number from 0",
            hint="Start the ranks with torchrun or srun, which set it.",
        )
    return int(text)
