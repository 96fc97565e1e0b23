"""Analytic cost of a model from its configuration alone: parameters, FLOPs per byte and cache bytes; torch-free.

FLOPs are those of a forward pass, multiply and add counted as 2, matrix products only. Linear layers cost twice their
weights each time they run: once per byte in the local parts, once per slot in the rest. Attention is counted over
*visible* query-key pairs: 4 x pairs x width a layer, for scores and mixing. Embedding lookups, norms, activations and
softmax cost nothing here. What an implementation computes beside that, such as masked pairs of a block, is its own
affair and not in these numbers.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from patchpad.config import NATS_TRIGGERS, NUM_INPUT_IDS, VOCAB_SIZE, Config, ModelConfig
from patchpad.cost.attention import mean_pairs, patch_pairs, window_pairs
from patchpad.cost.baselines import baseline_parameters, baseline_parts, baseline_patches_per_byte
from patchpad.errors import ConfigError

PARTS = ("local_encoder", "entropy_head", "routing", "patch_pooling", "trunk", "context_to_bytes", "local_decoder")
"""Parts of the model in the order in which data passes; also the names of `ByteLM`'s submodules."""
DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
ID_BYTES = 8
"""Of an id that n-gram embeddings keep."""
RATE_TOLERANCE = 1e-9
"""Slack for rates that come out of a division."""


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
    """Keyed by `PARTS`, or by `baseline_parts`; a part that a model does not have is all zeros."""
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

    def to_dict(self) -> dict[str, Any]:
        """Returns the JSON of `patchpad cost`."""
        return {
            "num_params": self.num_params,
            "flops_per_byte": self.flops_per_byte,
            "linear_flops_per_byte": self.linear_flops_per_byte,
            "attention_flops_per_byte": self.attention_flops_per_byte,
            "training_flops_per_byte": self.training_flops_per_byte,
            "trunk_cache_bytes_per_byte": self.trunk_cache_bytes_per_byte,
            "local_cache_bytes": self.local_cache_bytes,
            "cache_dtype": self.cache_dtype,
            "patches_per_byte": self.patches_per_byte,
            "scratchpads_per_byte": self.scratchpads_per_byte,
            "trunk_calls_per_byte": self.trunk_calls_per_byte,
            "context_bytes": self.context_bytes,
            "parts": {name: part.to_dict() for name, part in self.parts.items()},
        }


def count_parameters(config: ModelConfig) -> dict[str, int]:
    """Returns the parameters of each of `PARTS`, 0 for a part that does not exist; of a baseline, of its own parts."""
    if config.kind != "patch":
        return baseline_parameters(config)
    weights, dim, trunk_dim = _matrix_weights(config), config.byte_dim, config.trunk_dim
    is_hnet = config.patchifier.kind == "hnet"
    others = {
        "local_encoder": (NUM_INPUT_IDS + _num_ngrams(config)) * dim + config.encoder_layers * 2 * dim,
        "entropy_head": config.entropy_head_layers * 2 * dim + dim if config.reads_entropy else 0,
        "routing": 0,
        "patch_pooling": dim if is_hnet else dim + config.pooling_heads * (config.patchifier.longest_patch + 1),
        "trunk": config.trunk_layers * 2 * trunk_dim + trunk_dim,
        "context_to_bytes": trunk_dim,
        "local_decoder": config.decoder_layers * 2 * dim + dim,
    }
    return {part: weights[part] + others[part] for part in PARTS}


def cost(
    config: ModelConfig,
    *,
    context_bytes: int,
    patches_per_byte: float,
    scratchpads_per_byte: float,
    trunk_pairs_per_slot: float | None = None,
    pooled_bytes_per_slot: float | None = None,
    positions_per_byte: float = 1.0,
    document_positions: Sequence[int] | None = None,
    dtype: str = "float32",
) -> Cost:
    """Computes what a model costs; the method's "Cost of one byte".

    Args:
        config: sizes of the model.
        context_bytes: positions of the document that attention is averaged over.
        patches_per_byte: committed patches per byte, above 0. A measured 0 (a text shorter than a patch) is accepted
            when both `_per_slot` figures are given.
        scratchpads_per_byte: scratchpads per byte.
        trunk_pairs_per_slot: measured mean of the slots that a slot sees, itself included; default: the mean for
            patches of equal size that fill the context, and slots spread evenly.
        pooled_bytes_per_slot: measured mean of the positions that a slot pools; default: the same assumption.
        positions_per_byte: measured positions over bytes, above 1 where separators are counted as positions beside
            the bytes. It scales the local parts, and allows as many scratchpads as there are positions.
        document_positions: measured positions of each document, separator included; the pairs of local layers are
            counted in these. Default: one document of `context_bytes`.
        dtype: type of the cached values, `float32`, `bfloat16` or `float16`.

    Raises:
        ConfigError: a rate, a context or a dtype that cannot be.
    """
    if config.kind != "patch" and scratchpads_per_byte != 0:
        raise ConfigError(
            f"scratchpads_per_byte is {scratchpads_per_byte}; allowed: 0, a `{config.kind}` model has no scratchpads",
            hint="Leave --scratchpads-per-byte out.",
        )
    is_measured = trunk_pairs_per_slot is not None and pooled_bytes_per_slot is not None
    _check(context_bytes, patches_per_byte, scratchpads_per_byte, positions_per_byte, dtype, is_measured)
    slots_per_byte = patches_per_byte + scratchpads_per_byte
    if trunk_pairs_per_slot is None:
        trunk_pairs_per_slot = 1 + _mean_earlier(patches_per_byte * context_bytes)
    documents = (context_bytes,) if document_positions is None else document_positions
    if config.kind != "patch":
        parts = _baseline_costs(config, patches_per_byte, trunk_pairs_per_slot, positions_per_byte, documents, dtype)
        return Cost(
            parts=parts,
            patches_per_byte=patches_per_byte,
            scratchpads_per_byte=scratchpads_per_byte,
            context_bytes=context_bytes,
            cache_dtype=dtype,
        )
    if pooled_bytes_per_slot is None:
        pooled_bytes_per_slot = _mean_pooled_bytes(patches_per_byte, scratchpads_per_byte, context_bytes)

    dim, item_bytes = config.byte_dim, DTYPE_BYTES[dtype]
    local_layers = {
        "local_encoder": config.encoder_layers,
        "entropy_head": config.entropy_head_layers if config.reads_entropy else 0,
        "local_decoder": config.decoder_layers,
    }
    windows = {
        "local_encoder": config.encoder_window,
        "entropy_head": config.entropy_head_window,
        "local_decoder": config.decoder_window,
    }
    pairs = {
        part: mean_pairs(partial(window_pairs, window), documents) * positions_per_byte
        for part, window in windows.items()
    }
    attention = {part: 4 * layers * pairs[part] * dim for part, layers in local_layers.items()}
    attention["trunk"] = 4 * config.trunk_layers * slots_per_byte * trunk_pairs_per_slot * config.trunk_dim
    is_hnet = config.patchifier.kind == "hnet"  # it selects a byte state where the others pool
    pooled_pairs = 0.0 if is_hnet else slots_per_byte * pooled_bytes_per_slot
    attention["patch_pooling"] = 4 * config.pooling_heads * pooled_pairs * dim

    local_cache = {part: windows[part] * 2 * dim * layers * item_bytes for part, layers in local_layers.items()}
    if config.ngram_vocab_size:
        local_cache["local_encoder"] += max(config.ngram_sizes) * ID_BYTES
    # The byte states of the open patch, with the separator before a document's first patch.
    local_cache["patch_pooling"] = (config.patchifier.longest_patch + 1) * dim * item_bytes
    # What the newest slot adds to bytes: one vector for each lag, and one for each further decoder layer.
    local_cache["context_to_bytes"] = _num_additions(config) * dim * item_bytes
    local_cache["routing"] = config.trunk_dim * item_bytes if is_hnet else 0  # the smoothed newest commit
    slot_cache = config.trunk_layers * 2 * config.trunk_kv_dim * item_bytes
    trunk_cache = {"trunk": patches_per_byte * slot_cache}

    weights, num_params = _matrix_weights(config), count_parameters(config)
    per_position = (*local_layers, "routing")
    runs_per_byte = {part: positions_per_byte if part in per_position else slots_per_byte for part in PARTS}
    parts = {
        part: PartCost(
            num_params=num_params[part],
            linear_flops_per_byte=2 * runs_per_byte[part] * weights[part],
            attention_flops_per_byte=attention.get(part, 0.0),
            trunk_cache_bytes_per_byte=trunk_cache.get(part, 0.0),
            local_cache_bytes=local_cache.get(part, 0),
        )
        for part in PARTS
    }
    return Cost(
        parts=parts,
        patches_per_byte=patches_per_byte,
        scratchpads_per_byte=scratchpads_per_byte,
        context_bytes=context_bytes,
        cache_dtype=dtype,
    )


def _baseline_costs(
    config: ModelConfig, slots: float, trunk_pairs: float, positions: float, documents: Sequence[int], dtype: str
) -> dict[str, PartCost]:
    """Returns the parts of a baseline; slots and positions are per byte, trunk pairs per slot."""
    item_bytes, patch_size = DTYPE_BYTES[dtype], config.patchifier.target_patch_size
    parts = {}
    for name, part in baseline_parts(config).items():
        runs = slots if part.is_per_slot else positions
        if name == "slices":  # the same small matrix for each byte of a patch, whether it will be read or not
            runs *= patch_size
        pairs = trunk_pairs if part.is_per_slot else mean_pairs(partial(patch_pairs, patch_size), documents)
        cached = 2 * part.attention_layers * part.dim * item_bytes
        parts[name] = PartCost(
            num_params=part.weights + part.others,
            linear_flops_per_byte=2 * runs * part.weights,
            attention_flops_per_byte=4 * part.attention_layers * runs * pairs * part.dim,
            trunk_cache_bytes_per_byte=slots * cached if part.is_per_slot else 0.0,
            local_cache_bytes=0 if part.is_per_slot else patch_size * cached,
        )
    return parts


def default_rates(
    config: Config, *, patches_per_byte: float | None = None, scratchpads_per_byte: float | None = None
) -> tuple[float, float]:
    """Returns the patches and scratchpads per byte that a configuration aims at, as far as they are not given.

    Patches have the target size. Scratchpads never fire at patch ends, so their rate is at most 1 - patches per byte.

    Raises:
        ConfigError: a rate depends on the text, so it has to be given.
    """
    if patches_per_byte is None:
        is_patch = config.model.kind == "patch"
        patches_per_byte = (
            1 / config.model.patchifier.target_patch_size if is_patch else baseline_patches_per_byte(config.model)
        )
    if scratchpads_per_byte is None:
        scratchpads_per_byte = _default_scratchpads_per_byte(config, patches_per_byte)
    return patches_per_byte, scratchpads_per_byte


def _default_scratchpads_per_byte(config: Config, patches_per_byte: float) -> float:
    patchifier, trigger = config.model.patchifier, config.model.trigger
    most = 1 - patches_per_byte
    rate: float | None = None
    if config.model.kind != "patch" or trigger.kind == "never" or most == 0:
        rate = 0.0
    elif trigger.kind == "always":
        rate = most
    elif trigger.kind == "random":
        rate = trigger.scratchpads_per_byte
    elif trigger.kind == "stride" and patchifier.kind == "fixed":
        # Multiples of the stride inside a patch; one that falls on its last byte is the commit.
        rate = ((patchifier.target_patch_size - 1) // trigger.stride) / patchifier.target_patch_size
    elif trigger.kind in NATS_TRIGGERS:
        rate = config.train.scratchpads_per_byte
    if rate is None:
        fixed = " at a fixed threshold" if trigger.kind in NATS_TRIGGERS else ""
        raise ConfigError(
            f"scratchpads_per_byte depends on the text for the trigger `{trigger.kind}`{fixed} with "
            f"`{patchifier.kind}` patches; allowed: a rate from 0 to {most:.6g}",
            hint="Pass --scratchpads-per-byte, as measured by `patchpad evaluate`.",
        )
    return min(rate, most)


def _matrix_weights(config: ModelConfig) -> dict[str, int]:
    """Returns the weights of each part's linear layers: all that costs FLOPs, whether used per byte or per slot."""
    dim, trunk_dim, heads = config.byte_dim, config.trunk_dim, config.pooling_heads
    local_block = _block_weights(config, dim, dim)
    trunk_block = _block_weights(config, trunk_dim, config.trunk_kv_dim)
    lm_head = dim * VOCAB_SIZE
    is_hnet = config.patchifier.kind == "hnet"
    return {
        "local_encoder": config.encoder_layers * local_block,
        "entropy_head": config.entropy_head_layers * local_block + lm_head if config.reads_entropy else 0,
        "routing": 2 * dim * dim if is_hnet else 0,
        "patch_pooling": dim * trunk_dim if is_hnet else dim * heads * dim + heads * dim * trunk_dim + dim * trunk_dim,
        "trunk": config.trunk_layers * trunk_block,
        "context_to_bytes": trunk_dim * _num_additions(config) * dim,
        "local_decoder": config.decoder_layers * local_block + lm_head,
    }


def _num_additions(config: ModelConfig) -> int:
    """Vectors of the local width that each slot is projected to."""
    return config.num_context_lags + config.decoder_layers - 1


def _num_ngrams(config: ModelConfig) -> int:
    """Entries of all tables of n-gram embeddings."""
    return len(config.ngram_sizes) * config.ngram_vocab_size


def _block_weights(config: ModelConfig, dim: int, kv_dim: int) -> int:
    """Query, key, value and output projections, then gate, up and down."""
    return 2 * dim * dim + 2 * dim * kv_dim + 3 * dim * config.ffn_dim(dim)


def _mean_earlier(num_patches: float) -> float:
    """Mean commits that an evenly placed slot sees, when a document holds `num_patches` patches of equal size.

    A slot in patch k sees k commits. The last patch may be a fraction, so with K = floor(num_patches) the mean is
    (0 + 1 + ... + K - 1 + (num_patches - K) K) / num_patches, which is (K - 1) / 2 for whole patches.
    """
    whole = math.floor(num_patches)
    return whole * (num_patches - (whole + 1) / 2) / num_patches if whole else 0.0


def _mean_pooled_bytes(patches_per_byte: float, scratchpads_per_byte: float, context_bytes: int) -> float:
    """Mean positions that a slot pools, for patches of equal size.

    A commit pools its patch. A scratchpad pools half of it on average: it ends before the last byte, and whether
    scratchpads are random, everywhere or at a stride that divides the patch, as many lie in one half as in the other.
    In a document's first patch the separator comes in addition.
    """
    patch_bytes = min(1 / patches_per_byte, context_bytes)
    weighted = patches_per_byte * patch_bytes + scratchpads_per_byte * patch_bytes / 2
    share_in_first_patch = 1 / max(1.0, patches_per_byte * context_bytes)
    return weighted / (patches_per_byte + scratchpads_per_byte) + share_in_first_patch


def _check(
    context_bytes: int, patches: float, scratchpads: float, positions: float, dtype: str, is_measured: bool
) -> None:
    if dtype not in DTYPE_BYTES:
        allowed = ", ".join(DTYPE_BYTES)
        raise ConfigError(f"the cache's dtype is {dtype!r}; allowed: {allowed}", hint="Choose one of these types.")
    if not 1 <= context_bytes < 2**63:
        raise ConfigError(
            f"context_bytes is {context_bytes}; allowed: an integer of at least 1, below 2^63",
            hint="Change --context.",
        )
    if not 1 <= positions < math.inf:
        raise ConfigError(f"positions_per_byte is {positions}; allowed: a number of at least 1")
    if not (0 < patches <= positions + RATE_TOLERANCE or (patches == 0 and is_measured)):
        raise ConfigError(
            f"patches_per_byte is {patches}; allowed: above 0, at most 1",
            hint="Change --mean-patch-size (1 or more bytes).",
        )
    most = positions - patches
    if not 0 <= scratchpads <= most + RATE_TOLERANCE:
        raise ConfigError(
            f"scratchpads_per_byte is {scratchpads} with {patches:.6g} patches per byte; allowed: 0 to {most:.6g} "
            "(no scratchpad where a patch ends)",
            hint="Change --scratchpads-per-byte, or --mean-patch-size.",
        )
