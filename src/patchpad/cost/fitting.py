"""Settings with which a model's training fits the memory of devices; torch-free."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from patchpad.config import Config
from patchpad.cost.devices import Devices
from patchpad.cost.memory import ONE_GPU, TrainingMemory, training_memory
from patchpad.cost.rates import default_rates
from patchpad.cost.whole_model import count_parameters

LEAST_SLOTS = 4096
"""With fewer in a device's pass, reading weights and adding up gradients takes the trunk longer than checkpointing
does."""
MOST_DEVICES = 1 << 16
"""How many are tried at most."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A configuration on devices, and what it takes there."""

    config: Config
    devices: Devices
    memory: TrainingMemory

    @property
    def fits(self) -> bool:
        """Whether the devices have the memory."""
        return self.memory.fits(self.devices)

    @property
    def way(self) -> str | None:
        """How the devices share the model: `ddp`, `fsdp` or `hsdp`; None on one device."""
        return self.devices.way(sum(count_parameters(self.config.model).values()))

    def settings(self) -> dict[str, Any]:
        """Returns what of the configuration decides the memory, by the keys of `train`."""
        train = self.config.train
        return {key: getattr(train, key) for key in ("batch_rows", "accumulation_steps", "activation_checkpointing")}


def plan(
    config: Config,
    devices: Devices = ONE_GPU,
    *,
    patches_per_byte: float | None = None,
    scratchpads_per_byte: float | None = None,
) -> Plan:
    """Returns what a configuration takes as it is; arguments and errors are those of `training_memory`."""
    memory = training_memory(
        config, devices, patches_per_byte=patches_per_byte, scratchpads_per_byte=scratchpads_per_byte
    )
    return Plan(config=config, devices=devices, memory=memory)


def fitted(
    config: Config,
    devices: Devices = ONE_GPU,
    *,
    patches_per_byte: float | None = None,
    scratchpads_per_byte: float | None = None,
) -> Plan | None:
    """Returns settings that devices have the memory for; None if there are none.

    The rows of an optimizer step stay what they are: `batch_rows` is halved as often as needed, and
    `accumulation_steps` rises. Several devices begin with all rows of a step in one pass, one device with the rows that
    are configured. Where the rows that fit would leave the trunk too few slots, the model is sharded, and then the
    trunk's blocks are computed again; only then rows become fewer still.

    Args:
        config: the rows to begin with.
        devices: those to fit.
        patches_per_byte: default: what the configuration aims at.
        scratchpads_per_byte: the same.

    Raises:
        ConfigError: as `training_memory`.
    """
    patches, scratchpads = default_rates(
        config, patches_per_byte=patches_per_byte, scratchpads_per_byte=scratchpads_per_byte
    )
    train = config.train
    step_rows = train.batch_rows * train.accumulation_steps
    choices = _halves(train.batch_rows if devices.count == 1 else step_rows)
    row_slots = (patches + scratchpads) * config.model.context_bytes
    enough = [rows for rows in choices if rows * row_slots >= LEAST_SLOTS * devices.count] or choices[:1]
    for recomputes, several in ((False, enough), (True, choices)):
        for ways in _ways(config, devices):
            for rows in several:
                chosen = replace(
                    train, batch_rows=rows, accumulation_steps=step_rows // rows, activation_checkpointing=recomputes
                )
                found = plan(
                    replace(config, train=chosen), ways, patches_per_byte=patches, scratchpads_per_byte=scratchpads
                )
                if found.fits:
                    return found
    return None


def fewest_devices(
    config: Config,
    devices: Devices = ONE_GPU,
    *,
    patches_per_byte: float | None = None,
    scratchpads_per_byte: float | None = None,
) -> int | None:
    """Returns how many devices of a kind can train a model at all, as a power of two; None if none do.

    Each makes passes of one row, with trunk blocks computed again, and holds a shard. Arguments are those of `fitted`.
    """
    step_rows = config.train.batch_rows * config.train.accumulation_steps
    count = 1
    while count <= MOST_DEVICES:
        several = replace(devices, count=count, parallel="fsdp", shard_ranks=None)
        train = replace(
            config.train, batch_rows=count, accumulation_steps=max(1, step_rows // count), activation_checkpointing=True
        )
        found = plan(
            replace(config, train=train),
            several,
            patches_per_byte=patches_per_byte,
            scratchpads_per_byte=scratchpads_per_byte,
        )
        if found.fits:
            return count
        count *= 2
    return None


def _halves(rows: int) -> list[int]:
    """Returns rows, halved as long as they are whole, and then one row."""
    choices = [rows]
    while choices[-1] > 1:
        choices.append(1 if choices[-1] % 2 else choices[-1] // 2)
    return choices


def _ways(config: Config, devices: Devices) -> Iterator[Devices]:
    """Returns the devices as they are, then with more of the model sharded."""
    yield devices
    if devices.way(sum(count_parameters(config.model).values())) in ("ddp", "hsdp"):
        yield replace(devices, parallel="fsdp", shard_ranks=None)
