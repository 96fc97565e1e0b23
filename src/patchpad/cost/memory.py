"""Peak memory of training on each device, from a configuration alone; torch-free.

What the allocator and the CUDA context take in addition is not counted; `USABLE` leaves room for it.
"""

import math
from dataclasses import dataclass
from typing import Any

from patchpad.config import Config, ModelConfig
from patchpad.cost.activations import FULL, HALF, Activations, Pass
from patchpad.cost.devices import GIB, Devices
from patchpad.cost.patch_model import block_weights
from patchpad.cost.rates import check_rates, default_rates
from patchpad.cost.whole_model import count_parameters

ONE_GPU = Devices()


@dataclass(frozen=True, kw_only=True)
class TrainingMemory:
    """Bytes of tensors on one device in a training step."""

    weights: int
    """Parameters, in fp32; a shard of them under `fsdp` and `hsdp`, as of the next two."""
    gradients: int
    """Of what is trained, in fp32."""
    optimizer: int
    """AdamW's two moments, and averaged weights if there are any, in fp32."""
    activations: int
    """What a pass keeps for its backward pass, the bf16 copies of weights included, and the largest that it needs for
    a moment."""
    gathered: int
    """Weights that `fsdp` or `hsdp` has gathered from other devices, and gradients on their way."""
    peak_bytes: int
    """The most that is there at once: at most the sum of the others. In a step of one pass, gradients come while
    activations go."""

    @property
    def peak_gib(self) -> float:
        """The most that is there at once, in GiB."""
        return self.peak_bytes / GIB

    def fits(self, devices: Devices = ONE_GPU) -> bool:
        """Whether such a device can train like this."""
        return self.peak_bytes <= devices.usable_bytes

    def to_dict(self) -> dict[str, Any]:
        """Returns the sizes in the JSON of `patchpad cost`."""
        return {
            "weights_bytes": self.weights,
            "gradients_bytes": self.gradients,
            "optimizer_bytes": self.optimizer,
            "activations_bytes": self.activations,
            "gathered_bytes": self.gathered,
            "peak_bytes": self.peak_bytes,
        }


def training_memory(
    config: Config,
    devices: Devices = ONE_GPU,
    *,
    patches_per_byte: float | None = None,
    scratchpads_per_byte: float | None = None,
) -> TrainingMemory:
    """Returns what training takes on a device with its part of `train.batch_rows` rows of `model.context_bytes`.

    Args:
        config: sizes, rows, passes of a step, and whether trunk blocks are computed again.
        devices: that share the rows; the one with the most is counted.
        patches_per_byte: default: what the configuration aims at.
        scratchpads_per_byte: the same.

    Raises:
        ConfigError: a rate that cannot be, or that depends on the text and is not given.
    """
    model = config.model
    patches, scratchpads = default_rates(
        config, patches_per_byte=patches_per_byte, scratchpads_per_byte=scratchpads_per_byte
    )
    check_rates(model, model.context_bytes, patches, scratchpads, 1.0, "float32", is_measured=False)
    on_cuda = devices.kind == "cuda"
    rows = device_rows(config, devices)
    kept = Activations.of(model, Pass.of(config, rows, patches, scratchpads, on_cuda=on_cuda))
    by_part = count_parameters(model)
    parameters = sum(by_part.values())
    shards = devices.num_shards(parameters)
    frozen = sum(count for part, count in by_part.items() if part in config.train.frozen)
    weights = FULL * math.ceil(parameters / shards)
    gradients = FULL * math.ceil((parameters - frozen) / shards)
    optimizer = 2 * gradients + (0 if config.train.averaged_decay is None else weights)
    product = HALF if on_cuda else FULL  # the type in which blocks are gathered; the rest stays in fp32
    # Those of earlier passes; `ddp` has room for all of them throughout.
    earlier = gradients if config.train.accumulation_steps > 1 or devices.way(parameters) == "ddp" else 0
    groups = _groups(model, parameters) if shards > 1 else _Groups()
    rest = FULL * groups.root
    copies = HALF * (parameters if shards == 1 else groups.root) if on_cuda else 0  # that autocast makes
    in_backward = rest + product * 3 * groups.block + 2 * FULL * groups.block
    moments = [
        (kept.at_loss + copies, earlier, rest + product * 2 * groups.last),
        (kept.in_trunk + copies, earlier, in_backward),
        (kept.before_trunk, gradients, in_backward),
    ]
    return TrainingMemory(
        weights=weights,
        gradients=gradients,
        optimizer=optimizer,
        activations=max(kept.at_loss, kept.in_trunk) + copies,
        gathered=max(gathered for _, _, gathered in moments),
        peak_bytes=weights + optimizer + max(sum(moment) for moment in moments),
    )


def device_rows(config: Config, devices: Devices) -> int:
    """Returns the rows of a pass on the device that has the most of them."""
    return math.ceil(config.train.batch_rows / devices.count)


@dataclass(frozen=True, kw_only=True)
class _Groups:
    """Parameters that `fsdp` gathers at once."""

    block: int = 0
    """The largest group of those that are given up after use: a block of the trunk, or a local stack."""
    last: int = 0
    """The group that runs last."""
    root: int = 0
    """What belongs to no other group, gathered from the beginning of a pass to its end."""


def _groups(model: ModelConfig, parameters: int) -> _Groups:
    block = block_weights(model.trunk_dim, model.trunk_kv_dim, model.trunk_hidden_dim) + 2 * model.trunk_dim
    layers = {"encoder": model.encoder_layers, "decoder": model.decoder_layers, "head": 0}
    if model.kind != "patch":
        layers = {"decoder": model.decoder_layers if model.kind == "megabyte" else 0}
    elif model.reads_entropy:
        layers["head"] = model.entropy_head_layers
    local = {
        name: count * (block_weights(model.byte_dim, model.byte_dim, model.byte_hidden_dim) + 2 * model.byte_dim)
        for name, count in layers.items()
    }
    return _Groups(
        block=max(block, *local.values()),
        last=local["decoder"],
        root=parameters - model.trunk_layers * block - sum(local.values()),
    )
