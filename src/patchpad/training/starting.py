"""From what a launcher and the configuration say to the ranks of a run."""

import logging
import os

import torch
import torch.distributed as dist

from patchpad.config import Config, TrainConfig
from patchpad.cost import count_parameters
from patchpad.device import select_device
from patchpad.errors import ConfigError
from patchpad.launcher import Place, launched_place
from patchpad.training.parallel import TIMEOUT, Parallel, Ranks

logger = logging.getLogger(__name__)

TRAINING_BYTES_PER_PARAMETER = 16
"""Weight, gradient and two moments, in fp32."""
REPLICATED_SHARE = 0.5
"""Share of a device's memory that these may take before they are sharded."""


def start_parallel(config: Config) -> Parallel:
    """Joins the ranks that a launcher has started, or that torch's process group has already.

    Raises:
        ConfigError: a device that a rank lacks, or ranks that cannot share one copy of the weights.
    """
    place = launched_place()
    if place.num_ranks == 1:
        return Parallel(select_device(config.train.device))
    device = device_of_rank(config.train.device, place)
    owns_group = not dist.is_initialized()
    if owns_group:
        _join(device, place)
    if place.rank != 0:
        logging.getLogger("patchpad").setLevel(logging.WARNING)
    ranks = _ranks(config, device, place, owns_group=owns_group)
    logger.info("%d ranks, %s", place.num_ranks, ranks.description)
    return ranks


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


def _join(device: torch.device, place: Place) -> None:
    """Joins torch's process group."""
    backend = "gloo" if device.type == "cpu" else "cpu:gloo,cuda:nccl"
    if place.address is None:
        dist.init_process_group(backend, timeout=TIMEOUT)  # by the variables of torchrun
        return
    where = f"tcp://{place.address}:{place.port}"
    dist.init_process_group(backend, init_method=where, rank=place.rank, world_size=place.num_ranks, timeout=TIMEOUT)


def _ranks(config: Config, device: torch.device, place: Place, *, owns_group: bool) -> Ranks:
    kind = config.train.parallel
    if kind == "auto":
        sizes = [0] * place.num_ranks
        dist.all_gather_object(sizes, _device_bytes(device, place))  # decided alike, be the ranks' devices unlike
        kind = "ddp" if fits_replicated(config, min(sizes)) else "fsdp"
    if kind == "ddp":
        from patchpad.training.replicated import ReplicatedRanks

        return ReplicatedRanks(device, place, owns_group=owns_group)
    from patchpad.training.sharded import ShardedRanks

    shard_ranks = place.num_ranks if kind == "fsdp" else ranks_of_copy(config.train, place)
    return ShardedRanks(device, place, owns_group=owns_group, shard_ranks=shard_ranks)


def fits_replicated(config: Config, device_bytes: int) -> bool:
    """Whether weights, gradients and moments leave enough of a device's memory to be held by every rank."""
    needed = TRAINING_BYTES_PER_PARAMETER * sum(count_parameters(config.model).values())
    return needed <= REPLICATED_SHARE * device_bytes


def ranks_of_copy(train: TrainConfig, place: Place) -> int:
    """Returns how many ranks hold one copy of the weights together, where there are several copies.

    Raises:
        ConfigError: the number of ranks is no multiple of it.
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
