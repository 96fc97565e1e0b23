"""Analytic cost of the baselines from a configuration alone, by the rules of `patchpad.cost`; torch-free.

A baseline's patches per byte are the entries of its trunk's cache: 1 for `byte`, tokens per byte for `bpe`, and one per
complete patch, the start of the document included, for `megabyte`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from patchpad.config import NUM_BYTE_VALUES, NUM_INPUT_IDS, VOCAB_SIZE, ModelConfig
from patchpad.cost.attention import mean_pairs, patch_pairs
from patchpad.cost.costs import DTYPE_BYTES, PartCost
from patchpad.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class BaselinePart:
    """Sizes of one part of a baseline."""

    weights: int = 0
    """Weights of linear layers."""
    others: int = 0
    """Embeddings, norms and learned vectors, which cost no FLOPs."""
    is_per_slot: bool = True
    """Runs once per entry of the trunk's cache; else once per byte."""
    attention_layers: int = 0
    dim: int = 0
    """Width of the attention layers."""


def baseline_parts(config: ModelConfig) -> dict[str, BaselinePart]:
    """Returns the parts of a baseline in the order in which data passes; their names are those of its submodules."""
    trunk = _transformer(config.trunk_layers, config.trunk_dim, config.trunk_hidden_dim, is_per_slot=True)
    if config.kind == "megabyte":
        size = config.patchifier.target_patch_size
        local = _transformer(config.decoder_layers, config.byte_dim, config.byte_hidden_dim, is_per_slot=False)
        return {
            "patch_embedding": BaselinePart(others=NUM_BYTE_VALUES * (config.trunk_dim // size) + config.trunk_dim),
            "trunk": trunk,
            "slices": BaselinePart(weights=config.trunk_dim // size * config.byte_dim),
            "local_model": BaselinePart(
                weights=local.weights + config.byte_dim * VOCAB_SIZE,
                others=local.others + (NUM_BYTE_VALUES + 1) * config.byte_dim,
                is_per_slot=False,
                attention_layers=local.attention_layers,
                dim=local.dim,
            ),
        }
    is_bpe = config.kind == "bpe"
    num_inputs = config.bpe_vocab_size + 1 if is_bpe else NUM_INPUT_IDS
    num_outcomes = config.bpe_vocab_size if is_bpe else VOCAB_SIZE
    return {
        "embedding": BaselinePart(others=num_inputs * config.trunk_dim),
        "trunk": trunk,
        "lm_head": BaselinePart(weights=config.trunk_dim * num_outcomes),
    }


def _transformer(num_layers: int, dim: int, ffn_dim: int, *, is_per_slot: bool) -> BaselinePart:
    """Query, key, value and output projections, then gate, up and down; two norms per block and a last one."""
    return BaselinePart(
        weights=num_layers * (4 * dim * dim + 3 * dim * ffn_dim),
        others=(2 * num_layers + 1) * dim,
        is_per_slot=is_per_slot,
        attention_layers=num_layers,
        dim=dim,
    )


def baseline_parameters(config: ModelConfig) -> dict[str, int]:
    """Returns the parameters of each part of a baseline."""
    return {name: part.weights + part.others for name, part in baseline_parts(config).items()}


def baseline_patches_per_byte(config: ModelConfig) -> float:
    """Returns the tokens or patches per byte of a baseline.

    Raises:
        ConfigError: bytes per token depend on the text, so they have to be given.
    """
    if config.kind == "bpe":
        raise ConfigError(
            "tokens per byte depend on the text for a bpe model; allowed: 1 or more bytes per token",
            hint="Pass --mean-patch-size, the bytes per token: 1 / patches_per_byte of `patchpad evaluate`.",
        )
    return 1.0 if config.kind == "byte" else 1 / config.patchifier.target_patch_size


def baseline_costs(
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
