"""Analytic cost of a model from its configuration alone: parameters, FLOPs per byte and cache bytes; torch-free.

FLOPs are those of a forward pass, multiply and add counted as 2, matrix products only. Linear layers cost twice their
weights each time they run: once per byte in the local parts, once per slot in the rest. Attention is counted over
*visible* query-key pairs: 4 x pairs x width a layer, for scores and mixing. Embedding lookups, norms, activations and
softmax cost nothing here. What an implementation computes beyond that, such as masked pairs of a block, is not
counted.
"""

import math
from collections.abc import Sequence

from patchpad.config import Config, ModelConfig
from patchpad.cost.attention import mean_earlier_patches, mean_pooled_bytes
from patchpad.cost.baselines import baseline_costs, baseline_parameters
from patchpad.cost.costs import Cost
from patchpad.cost.patch_model import patch_costs, patch_parameters
from patchpad.cost.rates import check_rates, default_rates
from patchpad.errors import ConfigError


def count_parameters(config: ModelConfig) -> dict[str, int]:
    """Returns the parameters of each of `PARTS`, 0 for a part that does not exist; of a baseline, of its own parts."""
    return patch_parameters(config) if config.kind == "patch" else baseline_parameters(config)


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
        ConfigError: a rate, a context, a document or a dtype that cannot be.
    """
    if config.kind != "patch" and scratchpads_per_byte != 0:
        raise ConfigError(
            f"scratchpads_per_byte is {scratchpads_per_byte}; allowed: 0, a `{config.kind}` model has no scratchpads",
            hint="Leave --scratchpads-per-byte out.",
        )
    is_measured = trunk_pairs_per_slot is not None and pooled_bytes_per_slot is not None
    check_rates(config, context_bytes, patches_per_byte, scratchpads_per_byte, positions_per_byte, dtype, is_measured)
    if trunk_pairs_per_slot is None:
        trunk_pairs_per_slot = 1 + mean_earlier_patches(patches_per_byte * context_bytes, config.trunk_window_patches)
    documents = (context_bytes,) if document_positions is None else document_positions
    if not len(documents) or min(documents) < 1:
        raise ConfigError(
            "document_positions is empty or holds 0; allowed: one document or more, of 1 position or more"
        )
    if config.kind == "patch":
        if pooled_bytes_per_slot is None:
            pooled_bytes_per_slot = mean_pooled_bytes(
                patches_per_byte,
                scratchpads_per_byte,
                context_bytes,
                commits_tokens=config.patchifier.commits_tokens,
            )
        parts = patch_costs(
            config,
            patches=patches_per_byte,
            cached_patches=min(patches_per_byte, (config.trunk_window_patches or math.inf) / context_bytes),
            scratchpads=scratchpads_per_byte,
            positions=positions_per_byte,
            trunk_pairs=trunk_pairs_per_slot,
            pooled_bytes=pooled_bytes_per_slot,
            documents=documents,
            dtype=dtype,
        )
    else:
        parts = baseline_costs(config, patches_per_byte, trunk_pairs_per_slot, positions_per_byte, documents, dtype)
    return Cost(
        parts=parts,
        patches_per_byte=patches_per_byte,
        scratchpads_per_byte=scratchpads_per_byte,
        context_bytes=context_bytes,
        cache_dtype=dtype,
    )


def scheduled_cost(config: Config, *, dtype: str = "float32") -> Cost:
    """Computes what a configuration's model costs at its own context, and at the rates that training aims at.

    Args:
        config: of a run.
        dtype: type of the cached values, see `cost`.

    Raises:
        ConfigError: rates that depend on the text, or a dtype that cannot be.
    """
    patches, scratchpads = default_rates(config)
    return cost(
        config.model,
        context_bytes=config.model.context_bytes,
        patches_per_byte=patches,
        scratchpads_per_byte=scratchpads,
        dtype=dtype,
    )
