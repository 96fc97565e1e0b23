"""What a model costs, part by part and in sum: the results of `patchpad.cost.cost`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
"""Bytes of a cached value, by its type."""


@dataclass(frozen=True, kw_only=True)
class PartCost:
    """Cost of one part of the model; the keys are those of `Cost`."""

    num_params: int
    linear_flops_per_byte: float
    attention_flops_per_byte: float
    trunk_cache_bytes_per_byte: float = 0.0
    local_cache_bytes: int = 0

    @property
    def flops_per_byte(self) -> float:
        """Forward FLOPs per byte, linear and attention."""
        return self.linear_flops_per_byte + self.attention_flops_per_byte

    def to_dict(self) -> dict[str, Any]:
        """Returns one entry of `parts` in the JSON of `patchpad cost`."""
        return {
            "num_params": self.num_params,
            "flops_per_byte": self.flops_per_byte,
            "linear_flops_per_byte": self.linear_flops_per_byte,
            "attention_flops_per_byte": self.attention_flops_per_byte,
            "trunk_cache_bytes_per_byte": self.trunk_cache_bytes_per_byte,
            "local_cache_bytes": self.local_cache_bytes,
        }


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Cost of a model at given rates of patches and scratchpads."""

    parts: Mapping[str, PartCost]
    """Keyed by `patch_model.PARTS` or `baselines.baseline_parts`; a part that a model does not have is all zeros."""
    patches_per_byte: float
    scratchpads_per_byte: float
    context_bytes: int
    """Bytes of the document that attention is averaged over."""
    cache_dtype: str

    @property
    def num_params(self) -> int:
        """Parameters of the whole model."""
        return sum(part.num_params for part in self.parts.values())

    @property
    def linear_flops_per_byte(self) -> float:
        """Forward FLOPs per byte in linear layers."""
        return sum(part.linear_flops_per_byte for part in self.parts.values())

    @property
    def attention_flops_per_byte(self) -> float:
        """Forward FLOPs per byte over visible query-key pairs."""
        return sum(part.attention_flops_per_byte for part in self.parts.values())

    @property
    def flops_per_byte(self) -> float:
        """Forward FLOPs per byte."""
        return self.linear_flops_per_byte + self.attention_flops_per_byte

    @property
    def training_flops_per_byte(self) -> float:
        """FLOPs per byte of a training step: the backward pass costs twice the forward pass."""
        return 3 * self.flops_per_byte

    @property
    def checkpointed_training_flops_per_byte(self) -> float:
        """The same where `train.activation_checkpointing` lets the trunk compute its forward pass again."""
        return self.training_flops_per_byte + self.parts["trunk"].flops_per_byte

    @property
    def trunk_calls_per_byte(self) -> float:
        """Patches and scratchpads per byte."""
        return self.patches_per_byte + self.scratchpads_per_byte

    @property
    def trunk_cache_bytes_per_byte(self) -> float:
        """Persistent trunk keys and values, in bytes per byte of context; scratchpads leave nothing there."""
        return sum(part.trunk_cache_bytes_per_byte for part in self.parts.values())

    @property
    def local_cache_bytes(self) -> int:
        """Keys and values of the local layers, and what is kept of the open patch and the newest slot.

        Constant, in bytes per row.
        """
        return sum(part.local_cache_bytes for part in self.parts.values())

    @property
    def row_cache_bytes(self) -> int | float:
        """All caches of a row whose document has filled its context."""
        return self.trunk_cache_bytes_per_byte * self.context_bytes + self.local_cache_bytes

    def to_dict(self) -> dict[str, Any]:
        """Returns the JSON of `patchpad cost`."""
        return {
            "num_params": self.num_params,
            "flops_per_byte": self.flops_per_byte,
            "linear_flops_per_byte": self.linear_flops_per_byte,
            "attention_flops_per_byte": self.attention_flops_per_byte,
            "training_flops_per_byte": self.training_flops_per_byte,
            "checkpointed_training_flops_per_byte": self.checkpointed_training_flops_per_byte,
            "trunk_cache_bytes_per_byte": self.trunk_cache_bytes_per_byte,
            "local_cache_bytes": self.local_cache_bytes,
            "row_cache_bytes": self.row_cache_bytes,
            "cache_dtype": self.cache_dtype,
            "patches_per_byte": self.patches_per_byte,
            "scratchpads_per_byte": self.scratchpads_per_byte,
            "trunk_calls_per_byte": self.trunk_calls_per_byte,
            "context_bytes": self.context_bytes,
            "parts": {name: part.to_dict() for name, part in self.parts.items()},
        }
