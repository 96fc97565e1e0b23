"""Parameters, FLOPs and caches of the patch model's parts; torch-free. `patchpad.cost.cost` says what counts."""

from collections.abc import Sequence
from functools import partial

from patchpad.config import NUM_BYTE_VALUES, NUM_INPUT_IDS, PARTS, VOCAB_SIZE, ModelConfig
from patchpad.cost.attention import mean_pairs, window_pairs
from patchpad.cost.costs import DTYPE_BYTES, PartCost

ID_BYTES = 8
"""Of an id that n-gram embeddings keep."""
MASS_BYTES = 8
"""Of the mass of a token, in fp64."""


def patch_parameters(config: ModelConfig) -> dict[str, int]:
    """Returns the parameters of each of `PARTS`, 0 for a part that does not exist."""
    weights, dim, trunk_dim = _matrix_weights(config), config.byte_dim, config.trunk_dim
    num_ids = config.patchifier.num_token_ids or 0
    pooling_bias = config.pooling_heads * (config.patchifier.longest_patch + 1) if config.pools_bytes else 0
    others = {
        "local_encoder": (NUM_INPUT_IDS + _num_ngrams(config)) * dim + config.encoder_layers * 2 * dim,
        "entropy_head": config.entropy_head_layers * 2 * dim + dim if config.reads_entropy else 0,
        "routing": 0,
        "patch_pooling": num_ids * trunk_dim if config.patchifier.commits_tokens else dim + pooling_bias,
        "trunk": config.trunk_layers * 2 * trunk_dim + trunk_dim,
        "context_to_bytes": trunk_dim,
        "local_decoder": config.decoder_layers * 2 * dim + dim,
        "source_head": num_ids * trunk_dim if config.source_head == "own" else 0,
    }
    return {part: weights[part] + others[part] for part in PARTS}


def patch_costs(
    config: ModelConfig,
    *,
    patches: float,
    cached_patches: float,
    scratchpads: float,
    positions: float,
    trunk_pairs: float,
    pooled_bytes: float,
    documents: Sequence[int],
    dtype: str,
) -> dict[str, PartCost]:
    """Returns the cost of each of `PARTS`.

    Args:
        config: sizes of the model.
        patches: per byte.
        cached_patches: those of them that the trunk's cache keeps, per byte.
        scratchpads: per byte.
        positions: per byte, separators included.
        trunk_pairs: slots that a slot sees, itself included.
        pooled_bytes: positions that a slot pools.
        documents: positions of each document, in which the pairs of local layers are counted.
        dtype: of the cached values.
    """
    slots = patches + scratchpads
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
    pairs = {part: mean_pairs(partial(window_pairs, window), documents) * positions for part, window in windows.items()}
    attention = {part: 4 * layers * pairs[part] * dim for part, layers in local_layers.items()}
    attention["trunk"] = 4 * config.trunk_layers * slots * trunk_pairs * config.trunk_dim
    is_hnet = config.patchifier.kind == "hnet"
    pooled_pairs = slots * pooled_bytes if config.pools_bytes else 0.0
    attention["patch_pooling"] = 4 * config.pooling_heads * pooled_pairs * dim

    local_cache = {part: windows[part] * 2 * dim * layers * item_bytes for part, layers in local_layers.items()}
    # Newest ids: for n-grams, and with `tokens` patches for what was open before the newest byte.
    recent = max(config.ngram_sizes) if config.ngram_vocab_size else 0
    if config.patchifier.commits_tokens:
        recent = max(recent, config.patchifier.longest_patch + 1)
    local_cache["local_encoder"] += recent * ID_BYTES
    # The byte states of the open patch, with the separator before a document's first patch; of tokens, the newest one.
    num_states = 1 if config.patchifier.commits_tokens else config.patchifier.longest_patch + 1
    local_cache["patch_pooling"] = num_states * dim * item_bytes
    # What the newest slot adds to bytes: one vector for each lag, and one for each further decoder layer.
    local_cache["context_to_bytes"] = num_additions(config) * dim * item_bytes
    local_cache["routing"] = config.trunk_dim * item_bytes if is_hnet else 0  # the smoothed newest commit
    # The masses of tokens by the newest commit and by the newest scratchpad.
    local_cache["source_head"] = 2 * (_num_source_ids(config) + 1) * MASS_BYTES if config.has_source_head else 0
    slot_cache = config.trunk_layers * 2 * config.trunk_kv_dim * item_bytes
    trunk_cache = {"trunk": cached_patches * slot_cache}

    weights, num_params = _matrix_weights(config), patch_parameters(config)
    if config.has_source_head:
        weights["source_head"] = _num_source_ids(config) * config.trunk_dim
    per_position = (*local_layers, "routing")
    runs_per_byte = {part: positions if part in per_position else slots for part in PARTS}
    return {
        part: PartCost(
            num_params=num_params[part],
            linear_flops_per_byte=2 * runs_per_byte[part] * weights[part],
            attention_flops_per_byte=attention.get(part, 0.0),
            trunk_cache_bytes_per_byte=trunk_cache.get(part, 0.0),
            local_cache_bytes=local_cache.get(part, 0),
        )
        for part in PARTS
    }


def _matrix_weights(config: ModelConfig) -> dict[str, int]:
    """Returns the weights of each part's linear layers: all that costs FLOPs, whether used per byte or per slot."""
    dim, trunk_dim, heads = config.byte_dim, config.trunk_dim, config.pooling_heads
    local_block = block_weights(dim, dim, config.byte_hidden_dim)
    trunk_block = block_weights(trunk_dim, config.trunk_kv_dim, config.trunk_hidden_dim)
    lm_head = dim * VOCAB_SIZE
    is_hnet = config.patchifier.kind == "hnet"
    commits_tokens = config.patchifier.commits_tokens
    open_token = trunk_dim * dim if commits_tokens else 0
    pooling = 0 if commits_tokens else dim * trunk_dim  # tokens are looked up
    if config.pools_bytes:
        pooling += dim * heads * dim + heads * dim * trunk_dim
    return {
        "local_encoder": config.encoder_layers * local_block + open_token,
        "entropy_head": config.entropy_head_layers * local_block + lm_head if config.reads_entropy else 0,
        "routing": 2 * dim * dim if is_hnet else 0,
        "patch_pooling": pooling,
        "trunk": config.trunk_layers * trunk_block,
        "context_to_bytes": trunk_dim * num_additions(config) * dim,
        "local_decoder": config.decoder_layers * local_block + dim * (VOCAB_SIZE + config.has_source_head),
        "source_head": 0,
    }


def _num_source_ids(config: ModelConfig) -> int:
    """Tokens of the source itself, without those that stand for byte values."""
    return (config.patchifier.num_token_ids or NUM_BYTE_VALUES) - NUM_BYTE_VALUES


def num_additions(config: ModelConfig) -> int:
    """Vectors of the local width that each slot is projected to."""
    return config.num_context_lags + config.decoder_layers - 1


def _num_ngrams(config: ModelConfig) -> int:
    """Entries of all tables of n-gram embeddings."""
    return len(config.ngram_sizes) * config.ngram_vocab_size


def block_weights(dim: int, kv_dim: int, ffn_dim: int) -> int:
    """Query, key, value and output projections, then gate, up and down."""
    return 2 * dim * dim + 2 * dim * kv_dim + 3 * dim * ffn_dim
