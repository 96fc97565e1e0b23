"""Bytes that a training pass keeps for its backward pass, operation by operation, when nothing is fused; torch-free.

On CUDA linear layers and attention are in bf16, residual streams, norms and LM heads in fp32. A compiled pass keeps
less. On a CPU all is in fp32, a norm keeps its result twice, and the attention of local layers keeps its weights.
"""

import math
from dataclasses import dataclass

from patchpad.config import VOCAB_SIZE, Config, ModelConfig
from patchpad.cost.baselines import baseline_parts
from patchpad.cost.costs import DTYPE_BYTES
from patchpad.cost.patch_model import num_additions
from patchpad.cost.rates import most_scratchpads

FULL, HALF = DTYPE_BYTES["float32"], DTYPE_BYTES["bfloat16"]
INDEX = 8
"""Bytes of an int64, which every index is."""
BLOCK = 128
"""Positions and slots are padded to multiples of it on CUDA."""
SPARE = 1.05
"""Places for the patch model's slots over those that the scheduled rates give; patches of a fixed size need none. On a
CPU slots are counted, and need none either."""
INDICES_PER_POSITION = 16
"""Documents, patches and slots of each position: the tensors of a `PatchLayout`, and what they were decided from."""
SMALLEST_WINDOW_BLOCK, LARGEST_WINDOW_BLOCK = 32, 256
"""Queries that a CPU's window attention takes at once; those of `patchpad.model.visibility`."""
DOCUMENT_BLOCK = 256
"""The same of a baseline's attention; that of `patchpad.model.document_attention`."""
TRUNK_BLOCK = 512
"""The same of a CPU's trunk attention; that of `patchpad.patching.layout`."""
MOST_KEPT_BIASES = 1 << 24
"""Numbers of that attention's biases up to which all are kept; see `patchpad.model.fused_attention`."""


@dataclass(frozen=True, kw_only=True)
class Pass:
    """Sizes of a forward pass on one device."""

    rows: int
    width: int
    """Positions of a row, padding included."""
    commits: int
    slots: int
    """Places for slots, commits among them."""
    on_cuda: bool
    recomputes: bool
    """Whether the trunk's blocks keep only their inputs."""

    @property
    def positions(self) -> int:
        """Of all rows."""
        return self.rows * self.width

    @staticmethod
    def of(config: Config, rows: int, patches: int | float, scratchpads: int | float, *, on_cuda: bool) -> "Pass":
        """Returns the pass of so many rows.

        Args:
            config: sizes, and whether trunk blocks are computed again.
            rows: of `model.context_bytes` each.
            patches: per byte.
            scratchpads: per byte, without the spread of `train.threshold_spread`.
            on_cuda: else on a CPU.
        """
        model = config.model
        padded, spare = (_padded, SPARE) if on_cuda else (math.ceil, 1.0)
        width = padded(model.context_bytes + 1)
        positions = rows * width
        if model.kind != "patch":
            commits = slots = padded(patches * positions)
        else:
            spread = config.train.threshold_spread  # of rows whose rates are uniform between 0 and the most
            scratchpads = (1 - spread) * scratchpads + spread * most_scratchpads(model, patches) / 2
            commits = padded((1.0 if model.patchifier.kind == "fixed" else spare) * patches * positions)
            most = positions + commits if model.patchifier.commits_tokens else positions
            slots = min(most, commits + padded(spare * scratchpads * positions))
        return Pass(
            rows=rows,
            width=width,
            commits=min(positions, commits),
            slots=slots,
            on_cuda=on_cuda,
            recomputes=config.train.activation_checkpointing,
        )


@dataclass(frozen=True, kw_only=True)
class Activations:
    """Bytes of what a pass keeps, and of what it needs for a moment, at three moments of the backward pass."""

    at_loss: int
    """At its beginning, with the gradients of the logits."""
    in_trunk: int
    """In the trunk's last block, with its gradients; first it is computed again, if that is so configured."""
    before_trunk: int
    """When it has left the trunk: what the parts before it keep."""

    @staticmethod
    def of(model: ModelConfig, sizes: Pass) -> "Activations":
        """Returns what a model keeps of a pass."""
        if model.kind != "patch":
            return _baseline(model, sizes)
        return _patch_model_on_cuda(model, sizes) if sizes.on_cuda else _patch_model_on_cpu(model, sizes)


def _patch_model_on_cuda(model: ModelConfig, sizes: Pass) -> Activations:
    dim, trunk_dim, ffn_dim = model.byte_dim, model.trunk_dim, model.trunk_hidden_dim
    local_block = _cuda_block(dim, dim, model.byte_hidden_dim, model.byte_heads)
    head = FULL * dim + 2 * FULL * VOCAB_SIZE
    encoder = FULL * dim + model.encoder_layers * local_block + 2 * INDEX * len(model.ngram_sizes)
    entropy_head = model.entropy_head_layers * local_block + head if model.reads_entropy else 0
    decoder = model.decoder_layers * (local_block + FULL * dim + INDEX) + head

    trunk_block = _cuda_block(trunk_dim, model.trunk_kv_dim, ffn_dim, model.trunk_heads)
    context = HALF * (trunk_dim + num_additions(model) * dim)
    pooling = (FULL + HALF) * dim
    if model.pools_bytes:
        longest, heads = model.patchifier.longest_patch + 1, model.pooling_heads
        pooling = longest * (INDEX + HALF * dim) + 2 * HALF * heads * dim + (2 * HALF + 2 * FULL) * heads * longest
    before = sizes.positions * (encoder + entropy_head + INDEX * INDICES_PER_POSITION) + sizes.slots * pooling
    after = sizes.positions * decoder + sizes.slots * context + _smoothing(model, sizes)
    return _moments(model, sizes, before, trunk_block, after, FULL * VOCAB_SIZE * sizes.positions)


def _patch_model_on_cpu(model: ModelConfig, sizes: Pass) -> Activations:
    dim, trunk_dim = model.byte_dim, model.trunk_dim
    windows = (model.encoder_window, model.entropy_head_window, model.decoder_window)
    encoder_block, head_block, decoder_block = (
        _cpu_block(dim, 0, model.byte_hidden_dim) + _window_attention(dim, model.byte_heads, window, sizes.width)
        for window in windows
    )
    head = FULL * (3 * dim + VOCAB_SIZE)
    angles = 2 * FULL * (dim // model.byte_heads)
    encoder = angles + model.encoder_layers * encoder_block + INDEX * len(model.ngram_sizes)
    entropy_head = angles + model.entropy_head_layers * head_block + head if model.reads_entropy else 0
    decoder = angles + model.decoder_layers * (decoder_block + INDEX) + head
    biases = sum(FULL * _span(window) * _padding(window, sizes.width) for window in set(windows))

    pooling, normed = 3 * FULL * dim, 0
    if model.pools_bytes:
        longest, heads = model.patchifier.longest_patch + 1, model.pooling_heads
        pooling = longest * (INDEX + FULL * dim) + FULL * (2 * heads * dim + heads * longest + dim)
        normed = FULL * dim
    routing = FULL * dim * 6 if model.patchifier.kind == "hnet" else 0
    confident = FULL * dim * model.decoder_layers if model.patchifier.kind == "hnet" else 0
    heads_and_values = model.trunk_dim + 2 * model.trunk_kv_dim + model.trunk_dim + model.trunk_kv_dim
    trunk_block = _cpu_block(trunk_dim, heads_and_values, model.trunk_hidden_dim) + 2 * FULL * model.trunk_heads
    before = sizes.positions * (encoder + entropy_head + normed + routing + biases + INDEX * INDICES_PER_POSITION)
    before += sizes.slots * pooling + _trunk_biases(sizes)
    after = sizes.positions * (decoder + confident) + sizes.slots * 2 * FULL * trunk_dim + _smoothing(model, sizes)
    return _moments(model, sizes, before, trunk_block, after, FULL * VOCAB_SIZE * sizes.positions)


def _baseline(model: ModelConfig, sizes: Pass) -> Activations:
    trunk_dim, ffn_dim, dim = model.trunk_dim, model.trunk_hidden_dim, model.byte_dim
    masks = 0.0
    if sizes.on_cuda:
        trunk_block = _cuda_block(trunk_dim, trunk_dim, ffn_dim, model.trunk_heads)
        local_block = _cuda_block(dim, dim, model.byte_hidden_dim, model.byte_heads)
        normed, logits, sliced = FULL, 2 * FULL, 0
    else:
        trunk_block = _cpu_block(trunk_dim, 6 * trunk_dim, ffn_dim) + FULL * model.trunk_heads
        window = _window_attention(dim, model.byte_heads, model.patchifier.target_patch_size, sizes.width)
        local_block = _cpu_block(dim, 0, model.byte_hidden_dim) + window
        normed, logits, sliced = 3 * FULL, FULL, 2 * FULL * trunk_dim
        masks = FULL * model.trunk_layers * sizes.rows * _document_pairs(sizes.slots / sizes.rows)
    if model.kind == "megabyte":
        outcomes = VOCAB_SIZE * sizes.positions
        after = sizes.positions * (model.decoder_layers * local_block + 3 * FULL * dim) + logits * outcomes
        after += sizes.slots * sliced
    else:
        outcomes = baseline_parts(model)["lm_head"].weights // trunk_dim * sizes.slots
        after = sizes.slots * normed * trunk_dim + logits * outcomes
    indices = INDEX * INDICES_PER_POSITION * sizes.positions
    return _moments(model, sizes, indices, trunk_block, after + masks, FULL * outcomes)


def _moments(
    model: ModelConfig,
    sizes: Pass,
    before: int | float,
    block: int | float,
    after: int | float,
    logit_bytes: int | float,
) -> Activations:
    """Returns the sums at each moment.

    Args:
        model: sizes.
        sizes: of the pass.
        before: bytes of all that runs before the trunk.
        block: bytes per slot of one block of the trunk.
        after: bytes of all that runs after the trunk.
        logit_bytes: of the logits.
    """
    trunk_dim, product = model.trunk_dim, HALF if sizes.on_cuda else FULL
    kept = FULL * trunk_dim if sizes.recomputes else block
    trunk = before + sizes.slots * (FULL * trunk_dim + model.trunk_layers * kept)
    of_block = (block if sizes.recomputes else 0) + product * 4 * model.trunk_hidden_dim + FULL * trunk_dim
    return Activations(
        at_loss=round(trunk + after + 2 * logit_bytes),
        in_trunk=round(trunk + sizes.slots * of_block),
        before_trunk=round(before),
    )


def _cuda_block(dim: int, kv_dim: int, ffn_dim: int, heads: int) -> int:
    """Bytes that a block keeps per position on CUDA."""
    project = HALF * dim + HALF * (dim + 2 * kv_dim) + HALF * (dim + kv_dim)  # normed, all heads, those turned
    attention = 2 * HALF * dim + FULL * heads  # mixed, and the same side by side; the log of the sum of weights
    angles = 2 * HALF * (dim // heads)
    feed_forward = HALF * dim + HALF * (2 * ffn_dim + ffn_dim + ffn_dim)  # normed, gate and up, silu, product
    return project + attention + angles + feed_forward + 2 * FULL * dim  # the residual stream after each half


def _cpu_block(dim: int, attended: int, ffn_dim: int) -> int:
    """Bytes that a block keeps per position on a CPU, without what its attention adds.

    Args:
        dim: width.
        attended: widths of the queries, keys and values that attention keeps as they are.
        ffn_dim: hidden width.
    """
    norms = 2 * 3 * dim  # the residual stream before each half, normed, and that times the gain
    return FULL * (norms + attended + dim + 4 * ffn_dim)  # mixed; gate and up, silu, product


def _window_attention(dim: int, heads: int, window: int, width: int) -> int | float:
    """Bytes per position of a CPU's window attention: scaled queries, keys twice, values, and the weights."""
    span, block = _span(window), _window_block(window)
    return FULL * _padding(window, width) * (dim * (1 + 3 * span / block) + heads * span)


def _window_block(window: int) -> int:
    return min(max(1 << (window - 1).bit_length(), SMALLEST_WINDOW_BLOCK), LARGEST_WINDOW_BLOCK)


def _span(window: int) -> int:
    """Keys that a block of queries sees."""
    return _window_block(window) + window - 1


def _padding(window: int, width: int) -> int | float:
    """Positions of whole blocks over those that are there."""
    block = _window_block(window)
    return math.ceil(width / block) * block / width


def _document_pairs(slots: float) -> int | float:
    """Places in the masks of a row's attention blocks, where the row is one document."""
    blocks = math.ceil(slots / DOCUMENT_BLOCK)
    return sum(
        (min(slots, last) - (last - DOCUMENT_BLOCK)) * min(slots, last)
        for last in range(DOCUMENT_BLOCK, blocks * DOCUMENT_BLOCK + 1, DOCUMENT_BLOCK)
    )


def _trunk_biases(sizes: Pass) -> int | float:
    """Bytes of the two biases of each block of a CPU's trunk attention, where every row is one document."""
    slots, commits = sizes.slots / sizes.rows, sizes.commits / sizes.rows
    seen = [commits * min(1.0, first / slots) for first in _ends(slots)]
    numbers = sizes.rows * TRUNK_BLOCK * sum(seen)
    if numbers > MOST_KEPT_BIASES:  # made anew for each block
        numbers = sizes.rows * TRUNK_BLOCK * commits
    return 2 * FULL * numbers


def _ends(slots: int | float) -> range:
    return range(TRUNK_BLOCK, math.ceil(slots / TRUNK_BLOCK) * TRUNK_BLOCK + 1, TRUNK_BLOCK)


def _smoothing(model: ModelConfig, sizes: Pass) -> int:
    """Bytes of what each sweep of the smoothing over an `hnet` model's commits begins with."""
    if model.patchifier.kind != "hnet":
        return 0
    return sizes.commits * FULL * model.trunk_dim * (2 + math.ceil(math.log2(max(2, sizes.commits))))


def _padded(count: int | float) -> int:
    return math.ceil(count / BLOCK) * BLOCK
