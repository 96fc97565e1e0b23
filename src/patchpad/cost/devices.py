"""The devices that a model is to be trained on, and how they share it; torch-free."""

from dataclasses import dataclass
from typing import Literal

from patchpad.cost.costs import DTYPE_BYTES
from patchpad.errors import ConfigError

Parallel = Literal["auto", "ddp", "fsdp", "hsdp"]
PARALLEL: tuple[Parallel, ...] = ("auto", "ddp", "fsdp", "hsdp")
MEMORY_GIB = {"cuda": 80.0, "cpu": 16.0}
"""Memory of a device where none is given: of the GPU that the large presets are made for, and of a laptop."""
USABLE = 0.9
"""Share of a device's memory that tensors may take; the rest is the context's, the compiler's and the allocator's."""
GIB = 2**30
STATE_BYTES = 4 * DTYPE_BYTES["float32"]
"""Of a parameter: its weight, its gradient and two moments."""
REPLICATED_SHARE = 0.5
"""Share of a device's memory that these may take before they are sharded."""


def fits_replicated(num_params: int, device_bytes: int | float) -> bool:
    """Whether weights, gradients and moments leave enough of a device's memory to be held by every rank."""
    return STATE_BYTES * num_params <= REPLICATED_SHARE * device_bytes


@dataclass(frozen=True, kw_only=True)
class Devices:
    """Equal devices, one rank on each."""

    kind: Literal["cuda", "cpu"] = "cuda"
    """Linear layers and attention compute in bf16 on CUDA; a CPU computes in fp32."""
    count: int = 1
    memory_gib: int | float | None = None
    """Of each device; None for `MEMORY_GIB`. Ranks that share a CPU's memory have only their part of it."""
    parallel: str = "auto"
    """One of `PARALLEL`. `ddp`: each device holds the whole model. `fsdp`: each holds a shard of it. `hsdp`: each group
    of `shard_ranks` holds one copy. `auto`: `ddp` while weights, gradients and moments take at most half of the memory,
    else `fsdp`."""
    shard_ranks: int | None = None
    """Devices that share one copy under `hsdp`."""

    def __post_init__(self) -> None:
        """Checks what does not go together.

        Raises:
            ConfigError: a number that cannot be, or one that does not fit the others.
        """
        if self.count < 1:
            raise ConfigError(f"devices is {self.count}; allowed: 1 or more", hint="Change --devices.")
        if self.memory_gib is not None and not 0 < self.memory_gib < float("inf"):
            raise ConfigError(
                f"device_memory_gib is {self.memory_gib}; allowed: a number above 0", hint="Change --device-memory-gib."
            )
        if self.parallel not in PARALLEL:
            raise ConfigError(
                f"parallel is {self.parallel!r}; allowed: {', '.join(PARALLEL)}", hint="Change --parallel."
            )
        if self.parallel == "hsdp" and (
            self.shard_ranks is None or self.shard_ranks < 1 or self.count % self.shard_ranks != 0
        ):
            raise ConfigError(
                f"shard_ranks is {self.shard_ranks} for {self.count} devices; allowed with hsdp: a divisor of "
                f"{self.count}",
                hint="Change --shard-ranks, for example to the devices of a node.",
            )

    @property
    def device_gib(self) -> int | float:
        """Memory of each device."""
        return MEMORY_GIB[self.kind] if self.memory_gib is None else self.memory_gib

    @property
    def usable_bytes(self) -> int | float:
        """Bytes that the tensors on a device may take."""
        return USABLE * self.device_gib * GIB

    def way(self, num_params: int) -> str | None:
        """Returns how a model of so many parameters is shared: `ddp`, `fsdp` or `hsdp`; None on one device."""
        if self.count == 1:
            return None
        if self.parallel != "auto":
            return self.parallel
        return "ddp" if fits_replicated(num_params, self.device_gib * GIB) else "fsdp"

    def num_shards(self, num_params: int) -> int:
        """Returns the devices that one copy of a model of so many parameters is cut into."""
        way = self.way(num_params)
        if way == "hsdp":
            assert self.shard_ranks is not None
            return self.shard_ranks
        return self.count if way == "fsdp" else 1


__all__ = ["GIB", "MEMORY_GIB", "PARALLEL", "USABLE", "Devices", "Parallel", "fits_replicated"]
