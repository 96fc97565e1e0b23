"""Peak memory of training on CUDA from a configuration alone; torch-free.

Counted is what a pass keeps for its backward pass, operation by operation, when nothing is fused: linear layers and
attention in bf16, residual streams, norms and LM heads in fp32. A compiled pass keeps less. What the allocator and the
CUDA context take in addition is not counted; `USABLE` leaves room for it.
"""

import math
from dataclasses import dataclass, replace
from typing import Any

from patchpad.config import VOCAB_SIZE, Config, ModelConfig
from patchpad.cost.baselines import baseline_parts
from patchpad.cost.costs import DTYPE_BYTES
from patchpad.cost.patch_model import num_additions
from patchpad.cost.rates import check_rates, default_rates
from patchpad.cost.whole_model import count_parameters

GIB = 2**30
GPU_GIB = 80.0
"""Memory of the GPU that the large presets are made for."""
USABLE = 0.9
"""Share of a GPU's memory that tensors may take; the rest is the context's, the compiler's and the allocator's."""

FULL, HALF = DTYPE_BYTES["float32"], DTYPE_BYTES["bfloat16"]
INDEX = 8
"""Bytes of an int64, which every index is."""
BLOCK = 128
"""Positions and slots are padded to multiples of it on CUDA."""
SPARE = 1.05
"""Places for the patch model's slots over those that the scheduled rates give; patches of a fixed size need none."""
LEAST_SLOTS = 4096
"""With fewer in a pass, reading weights and adding up gradients takes the trunk longer than checkpointing does."""
INDICES_PER_POSITION = 16
"""Documents, patches and slots of each position: the tensors of a `PatchLayout`, and what they were decided from."""


@dataclass(frozen=True, kw_only=True)
class TrainingMemory:
    """Bytes of the tensors that are there at the peak of a training step."""

    weights: int
    """Parameters, in fp32."""
    gradients: int
    """In fp32: those of the step's earlier passes are there while a further pass runs."""
    optimizer: int
    """AdamW's two moments, in fp32."""
    activations: int
    """What a pass keeps for its backward pass, the bf16 copies of weights included, and the largest that it needs for
    a moment."""

    @property
    def peak_bytes(self) -> int:
        """All of it."""
        return self.weights + self.gradients + self.optimizer + self.activations

    @property
    def peak_gib(self) -> float:
        """All of it in GiB."""
        return self.peak_bytes / GIB

    def fits(self, gib: float = GPU_GIB) -> bool:
        """Whether a GPU of so much memory can train like this."""
        return self.peak_gib <= USABLE * gib

    def to_dict(self) -> dict[str, Any]:
        """Returns the entry `training_memory` in the JSON of `patchpad cost`."""
        return {
            "weights_bytes": self.weights,
            "gradients_bytes": self.gradients,
            "optimizer_bytes": self.optimizer,
            "activations_bytes": self.activations,
            "peak_bytes": self.peak_bytes,
        }


def training_memory(
    config: Config, *, patches_per_byte: float | None = None, scratchpads_per_byte: float | None = None
) -> TrainingMemory:
    """Returns what training takes with `train.batch_rows` rows of `model.context_bytes` on CUDA.

    Args:
        config: sizes, rows, and whether trunk blocks are computed again.
        patches_per_byte: default: what the configuration aims at.
        scratchpads_per_byte: the same.

    Raises:
        ConfigError: a rate that cannot be, or that depends on the text and is not given.
    """
    model = config.model
    patches, scratchpads = default_rates(
        config, patches_per_byte=patches_per_byte, scratchpads_per_byte=scratchpads_per_byte
    )
    check_rates(model.context_bytes, patches, scratchpads, 1.0, "float32", is_measured=False)
    positions = config.train.batch_rows * _padded(model.context_bytes + 1)
    recomputes = config.train.activation_checkpointing
    if model.kind == "patch":
        spread = config.train.threshold_spread  # of rows whose rates are uniform between 0 and the most
        scratchpads = (1 - spread) * scratchpads + spread * (1 - patches) / 2
        commits = _padded((1.0 if model.patchifier.kind == "fixed" else SPARE) * patches * positions)
        slots = min(positions, commits + _padded(SPARE * scratchpads * positions))
        activations = _patch_model(model, positions, min(positions, commits), slots, recomputes)
    else:
        activations = _baseline(model, positions, _padded(patches * positions), recomputes)
    parameters = sum(count_parameters(model).values())
    return TrainingMemory(
        weights=FULL * parameters,
        gradients=FULL * parameters,
        optimizer=2 * FULL * parameters,
        activations=activations + HALF * parameters,
    )


def fitted(
    config: Config,
    gib: float = GPU_GIB,
    *,
    patches_per_byte: float | None = None,
    scratchpads_per_byte: float | None = None,
) -> Config | None:
    """Returns the configuration with passes that a GPU can make; None if it cannot make any.

    The rows of an optimizer step stay what they are: `batch_rows` is halved as often as needed, and
    `accumulation_steps` rises. Where that would leave the trunk too few slots, or is not enough, the trunk's blocks are
    computed again.

    Args:
        config: the rows to begin with.
        gib: memory of the GPU.
        patches_per_byte: default: what the configuration aims at.
        scratchpads_per_byte: the same.

    Raises:
        ConfigError: as `training_memory`.
    """
    rates = default_rates(config, patches_per_byte=patches_per_byte, scratchpads_per_byte=scratchpads_per_byte)
    train = config.train
    step_rows = train.batch_rows * train.accumulation_steps
    choices = [train.batch_rows]
    while choices[-1] > 1:  # halves, as long as they are whole, and then one row
        choices.append(1 if choices[-1] % 2 else choices[-1] // 2)
    enough = [rows for rows in choices if sum(rates) * rows * config.model.context_bytes >= LEAST_SLOTS]
    for recomputes, several in ((False, enough or choices[:1]), (True, choices)):
        for rows in several:
            chosen = replace(
                train, batch_rows=rows, accumulation_steps=step_rows // rows, activation_checkpointing=recomputes
            )
            found = replace(config, train=chosen)
            memory = training_memory(found, patches_per_byte=rates[0], scratchpads_per_byte=rates[1])
            if memory.fits(gib):
                return found
    return None


def _patch_model(model: ModelConfig, positions: int, commits: int, slots: int, recomputes: bool) -> int:
    dim, trunk_dim, ffn_dim = model.byte_dim, model.trunk_dim, model.ffn_dim(model.trunk_dim)
    local_block = _block(dim, dim, model.ffn_dim(dim), model.byte_heads)
    head = _lm_head(dim, VOCAB_SIZE)
    encoder = FULL * dim + model.encoder_layers * local_block + 2 * INDEX * len(model.ngram_sizes)
    entropy_head = model.entropy_head_layers * local_block + head if model.reads_entropy else 0
    decoder = model.decoder_layers * (local_block + FULL * dim + INDEX) + head
    indices = INDEX * INDICES_PER_POSITION

    trunk_block = _block(trunk_dim, model.trunk_kv_dim, ffn_dim, model.trunk_heads)
    context = HALF * (trunk_dim + num_additions(model) * dim)
    pooling = (FULL + HALF) * dim
    if model.pools_bytes:
        longest, heads = model.patchifier.longest_patch + 1, model.pooling_heads
        pooling = longest * (INDEX + HALF * dim) + 2 * HALF * heads * dim + (2 * HALF + 2 * FULL) * heads * longest
    before = positions * (encoder + entropy_head + indices) + slots * pooling
    after = positions * decoder + slots * context
    if model.patchifier.kind == "hnet":  # what each sweep of the smoothing over commits begins with
        after += commits * FULL * trunk_dim * (2 + math.ceil(math.log2(commits)))
    stack = _trunk(model, trunk_block, recomputes) * slots
    # The largest for a moment: gradients of the logits, or those of a block of the trunk.
    at_loss = before + stack + after + 2 * FULL * VOCAB_SIZE * positions
    in_trunk = before + stack + slots * (trunk_block + _block_gradients(trunk_dim, ffn_dim)) if recomputes else 0
    return max(at_loss, in_trunk)


def _baseline(model: ModelConfig, positions: int, slots: int, recomputes: bool) -> int:
    trunk_dim, ffn_dim = model.trunk_dim, model.ffn_dim(model.trunk_dim)
    trunk_block = _block(trunk_dim, trunk_dim, ffn_dim, model.trunk_heads)
    stack = _trunk(model, trunk_block, recomputes) * slots
    if model.kind == "megabyte":
        dim = model.byte_dim
        local_block = _block(dim, dim, model.ffn_dim(dim), model.byte_heads)
        after = positions * (model.decoder_layers * local_block + 2 * FULL * dim + _lm_head(dim, VOCAB_SIZE))
        outcomes = VOCAB_SIZE * positions
    else:
        vocab = baseline_parts(model)["lm_head"].weights // trunk_dim
        after, outcomes = slots * _lm_head(trunk_dim, vocab), vocab * slots
    at_loss = stack + after + 2 * FULL * outcomes
    in_trunk = stack + slots * (trunk_block + _block_gradients(trunk_dim, ffn_dim)) if recomputes else 0
    return max(at_loss, in_trunk) + positions * INDEX * INDICES_PER_POSITION


def _trunk(model: ModelConfig, block: int, recomputes: bool) -> int:
    """Bytes that the trunk keeps per slot: of each block its input, and all else unless that is computed again."""
    return FULL * model.trunk_dim + model.trunk_layers * (FULL * model.trunk_dim if recomputes else block)


def _block(dim: int, kv_dim: int, ffn_dim: int, heads: int) -> int:
    """Bytes that a block keeps per position."""
    project = HALF * dim + HALF * (dim + 2 * kv_dim) + HALF * (dim + kv_dim)  # normed, all heads, those turned
    attention = 2 * HALF * dim + FULL * heads  # mixed, and the same side by side; the log of the sum of weights
    angles = 2 * HALF * (dim // heads)
    feed_forward = HALF * dim + HALF * (2 * ffn_dim + ffn_dim + ffn_dim)  # normed, gate and up, silu, product
    return project + attention + angles + feed_forward + 2 * FULL * dim  # the residual stream after each half


def _block_gradients(dim: int, ffn_dim: int) -> int:
    """Largest sum of gradients per position inside the backward pass of a block."""
    return HALF * 4 * ffn_dim + FULL * dim


def _lm_head(dim: int, vocab: int) -> int:
    """Bytes per position: what is normed, the logits, and their log of the softmax."""
    return FULL * dim + 2 * FULL * vocab


def _padded(count: int | float) -> int:
    return math.ceil(count / BLOCK) * BLOCK
