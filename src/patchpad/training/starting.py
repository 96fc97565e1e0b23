"""From what a launcher and the configuration say to the ranks of a run."""

import gc
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist

from patchpad.config import Config, TrainConfig
from patchpad.cost import count_parameters
from patchpad.cost.devices import fits_replicated
from patchpad.device import select_device
from patchpad.errors import ConfigError
from patchpad.launcher import Place, launched_place
from patchpad.training.parallel import TIMEOUT, Parallel, Ranks

logger = logging.getLogger(__name__)


@contextmanager
def joined() -> Iterator[Parallel]:
    """Joins the ranks that a launcher has started, or that are in torch's process group already.

    Of errors inside, the rank that fails first raises its own; see `Parallel.reporting`. What has used the group, such
    as a trainer, must not outlive the context where it ends well. Torch's wrapper of replicated weights would free the
    group with Python's lock held, and wait for ever for a thread of the group that needs the lock.

    Raises:
        OtherRankError: another rank has failed, and says why.
        LostRankError: another rank has ended without a word.
    """
    place, device = launched_place(), torch.device("cpu")
    if place.num_ranks == 1:
        yield Parallel(device)
        return
    if place.rank != 0:
        logging.getLogger("patchpad").setLevel(logging.ERROR)
    owns_group = not dist.is_initialized()
    if owns_group:
        _join(place)
    ranks = Ranks(device, place)
    with ranks.reporting():
        yield ranks
    if owns_group:  # a group that has lost a rank could not be left
        gc.collect()  # the wrapper is part of a circle of references
        dist.destroy_process_group()


def start_parallel(config: Config) -> Parallel:
    """Returns this rank and the others for a run, once they are joined; one process needs no joining.

    Raises:
        ConfigError: a device that a rank lacks, or ranks that cannot share one copy of the weights.
    """
    place = launched_place()
    if place.num_ranks == 1:
        return Parallel(select_device(config.train.device))
    device = device_of_rank(config.train.device, place)
    kind = config.train.parallel
    if kind == "auto":
        sizes = [0] * place.num_ranks
        dist.all_gather_object(sizes, _device_bytes(device, place))  # decided alike, be the ranks' devices unlike
        num_params = sum(count_parameters(config.model).values())
        kind = "ddp" if fits_replicated(num_params, min(sizes)) else "fsdp"
    if kind == "ddp":
        from patchpad.training.replicated import ReplicatedRanks

        logger.info("%d ranks, each with all weights", place.num_ranks)
        return ReplicatedRanks(device, place)
    from patchpad.training.sharded import ShardedRanks

    shard_ranks = place.num_ranks if kind == "fsdp" else ranks_of_copy(config.train, place)
    logger.info("%d ranks, of which %d share the weights", place.num_ranks, shard_ranks)
    return ShardedRanks(device, place, shard_ranks=shard_ranks)


def device_of_rank(name: str, place: Place) -> torch.device:
    """Returns the device of one of several ranks: each GPU of a node serves the rank of its number.

    Raises:
        ConfigError: a device that cannot be shared, or that this machine lacks.
    """
    device = torch.device("cpu") if name == "cpu" else select_device(name)
    if name.startswith("cuda:") or name == "mps":
        raise ConfigError(
            f"device is {name!r} with {place.num_ranks} ranks; allowed: auto, cpu, or cuda, where each rank has a GPU",
            hint="Change --device.",
        )
    if device.type != "cuda":
        return torch.device("cpu")
    count = torch.cuda.device_count()
    if place.local_rank >= count:
        raise ConfigError(
            f"{place.num_local_ranks} ranks run on this machine, which has {count} GPUs; allowed: one rank for each",
            hint=f"Start {count} ranks on it, as with: torchrun --nproc-per-node {count}",
        )
    device = torch.device("cuda", place.local_rank)
    torch.cuda.set_device(device)
    return device


def _join(place: Place) -> None:
    """Joins torch's process group."""
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    if place.address is None:
        dist.init_process_group(backend, timeout=TIMEOUT)  # by the variables of torchrun
        return
    where = f"tcp://{place.address}:{place.port}"
    dist.init_process_group(backend, init_method=where, rank=place.rank, world_size=place.num_ranks, timeout=TIMEOUT)


def ranks_of_copy(train: TrainConfig, place: Place) -> int:
    """Returns how many ranks hold one copy of the weights together, where there are several copies.

    Raises:
        ConfigError: the number of ranks is not a multiple of it.
    """
    size = train.shard_ranks or place.num_local_ranks
    if place.num_ranks % size:
        raise ConfigError(
            f"train.shard_ranks is {size} with {place.num_ranks} ranks; allowed: a number that divides the ranks",
            hint="Change --train.shard_ranks, or the number of ranks.",
        )
    return size


def _device_bytes(device: torch.device, place: Place) -> int:
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // place.num_local_ranks
