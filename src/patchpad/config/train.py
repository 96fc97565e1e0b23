"""Configuration of text and training."""

import math
from dataclasses import dataclass

from patchpad.config.checks import require, require_finite, require_positive, require_threshold


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Which text, and how it is split."""

    paths: tuple[str, ...] = ()
    """Files, globs or directories to train on; `--data` replaces them."""
    validation_paths: tuple[str, ...] = ()
    """Held-out files; empty: a part of `paths`, see `split_corpus`."""
    validation_fraction: float = 0.1
    """Share of the bytes held out when `validation_paths` is empty."""

    def __post_init__(self) -> None:
        fraction = self.validation_fraction
        require(0 < fraction < 1, f"validation_fraction is {fraction}", "a number between 0 and 1, both excluded")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """The optimizer's budget and the scratchpad threshold's schedule."""

    seed: int = 0
    """Sets initialisation and data order."""
    steps: int = 1000
    """Optimizer steps."""
    batch_rows: int = 4
    """Rows of `context_bytes` per forward pass."""
    accumulation_steps: int = 1
    """Forward passes per optimizer step, weighted by their target bytes."""
    learning_rate: float = 2e-3
    """Peak of the cosine schedule."""
    trunk_learning_rate_ratio: float = 1.0
    """Learning rate of patch pooling, trunk and context projection over that of the local parts; baselines: 1."""
    final_learning_rate_ratio: float = 0.1
    """Learning rate that the cosine approaches, over the peak; it would reach it one step after the last."""
    warmup_steps: int = 50
    """Steps of linear warm-up."""
    weight_decay: float = 0.1
    """AdamW's decay, on parameters of two or more dimensions: matrices of linear layers, embeddings, and the pooling's
    bias by distance. Norms and single vectors do not decay."""
    beta1: float = 0.9
    """AdamW's first moment decay."""
    beta2: float = 0.95
    """AdamW's second moment decay."""
    max_grad_norm: float = 1.0
    """Gradients are clipped to this norm."""
    entropy_head_weight: float = 0.1
    """Weight of the entropy head's cross-entropy, whose gradient reaches the encoder. At 1 the encoder serves the head
    more than trunk and decoder (`docs/log.md`)."""
    scratchpads_per_byte: float | None = 3 / 16
    """Rate that the threshold follows; None when `scratchpad_threshold_nats` is set."""
    scratchpad_threshold_nats: float | None = None
    """Fixed training threshold; None to follow `scratchpads_per_byte`."""
    patch_threshold_nats: float | None = None
    """For `entropy` patches: a fixed threshold; None to follow `patchifier.target_patch_size`."""
    threshold_frozen_fraction: float = 0.1
    """Followed thresholds are frozen for this last share of the steps."""
    threshold_spread: float = 0.0
    """Share of each step's rows that train at a rate of their own, uniform between 0 and the most possible; the others
    train at `scratchpads_per_byte`."""
    ratio_loss_weight: float = 0.03
    """For `hnet` patches: weight of the loss that pulls the share of boundaries towards 1 / `target_patch_size`."""
    validate_every: int = 250
    """Steps between validations; 0: only at the end."""
    validation_bytes: int = 100_000
    """Bytes per validation, spread over all held-out documents; 0: all."""
    checkpoint_every: int = 250
    """Steps between checkpoints; 0: only at the end and on interruption."""
    keep_checkpoints: int = 2
    """Newest checkpoints kept; 0: all."""
    log_every: int = 10
    """Steps between lines of `metrics.jsonl`."""
    compile: bool = False
    """Compile what lies between the attention layers, on a CPU with the C++ compiler that this needs."""
    device: str = "auto"
    """`auto`, `cpu`, `cuda`, `cuda:N` or `mps`."""

    def __post_init__(self) -> None:
        require_positive(self, "steps", "batch_rows", "accumulation_steps", "log_every")
        for name in (
            "warmup_steps",
            "validate_every",
            "validation_bytes",
            "checkpoint_every",
            "keep_checkpoints",
            "seed",
        ):
            value = getattr(self, name)
            require(value >= 0, f"{name} is {value}", "an integer of at least 0")
        require(self.seed < 2**63, f"seed is {self.seed}", "an integer from 0 to below 2^63")
        require_finite(self, "learning_rate", "weight_decay", "max_grad_norm", "entropy_head_weight")
        require_finite(self, "trunk_learning_rate_ratio")
        for name in ("learning_rate", "trunk_learning_rate_ratio", "max_grad_norm"):
            require(getattr(self, name) > 0, f"{name} is {getattr(self, name)}", "a number above 0")
        require(self.weight_decay >= 0, f"weight_decay is {self.weight_decay}", "a number of at least 0")
        for name in ("entropy_head_weight", "ratio_loss_weight"):
            value = getattr(self, name)
            require(math.isfinite(value) and value >= 0, f"{name} is {value}", "a number of at least 0")
        for name in ("beta1", "beta2"):
            require(0 <= getattr(self, name) < 1, f"{name} is {getattr(self, name)}", "a number from 0 to below 1")
        for name in ("final_learning_rate_ratio", "threshold_frozen_fraction", "threshold_spread"):
            require(0 <= getattr(self, name) <= 1, f"{name} is {getattr(self, name)}", "a number from 0 to 1")
        rate, threshold = self.scratchpads_per_byte, self.scratchpad_threshold_nats
        require(
            (rate is None) != (threshold is None),
            f"train.scratchpads_per_byte is {rate} and train.scratchpad_threshold_nats is {threshold}",
            "exactly one of the two; set the other to null",
        )
        if rate is not None:
            require(0 <= rate < 1, f"train.scratchpads_per_byte is {rate}", "a number from 0 to below 1")
        for name in ("scratchpad_threshold_nats", "patch_threshold_nats"):
            if getattr(self, name) is not None:
                require_threshold(f"train.{name}", getattr(self, name))
