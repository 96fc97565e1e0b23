"""Tiny models with uneven entropies, irregular documents, and thresholds that rounding cannot flip."""

import math
import random
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor

from patchpad.config import (
    SEPARATOR,
    ModelConfig,
    PatchifierConfig,
    PatchifierKind,
    TriggerConfig,
    TriggerKind,
)
from patchpad.inference.cache import LocalCache, TrunkCache
from patchpad.inference.patch_state import NUM_COUNTS, DecodingState, longest_slot, num_recent
from patchpad.inference.row_state import RowState
from patchpad.model.byte_lm import ByteLM
from patchpad.patching.patchifiers import ScoringPatchifier
from patchpad.testing.tokens import tiny_source_tokens

RELATIVE_TOLERANCE = 1e-5
"""Allowed difference of two fp32 computations of the same logits, times max(1, largest |logit|)."""
MARGIN = 1e-4
"""Least distance of a threshold from every observed score."""

OPTIONS: dict[str, dict[str, Any]] = {
    "grouped queries": {"trunk_heads": 6, "trunk_kv_heads": 2},
    "a trunk with values of its own": {"trunk_ffn_dim": 40, "trunk_rotary_base": 500.0, "trunk_norm_epsilon": 1e-3},
    "no n-grams": {"ngram_vocab_size": 0},
    "head without layers": {"entropy_head_layers": 0},
    "one context for every lag": {"context_lags": 1},
    "a context for few lags": {"context_lags": 3},
    "a window of the trunk": {"trunk_window_patches": 3},
    "windows": {"encoder_window_bytes": 3, "entropy_head_window_bytes": 8, "decoder_window_bytes": 5},
}
"""Other choices than those of `tiny_model_config`, as further sizes for it."""
ALL_OPTIONS = {
    key: value
    for name, sizes in OPTIONS.items()
    for key, value in sizes.items()
    if name not in ("no n-grams", "head without layers", "one context for every lag")
}
"""Those that can go together, in one."""


def tolerance(logits: Tensor) -> float:
    """Returns the absolute tolerance for fp32 logits."""
    return RELATIVE_TOLERANCE * max(1.0, float(logits.detach().abs().max()))


def tiny_model_config(
    patchifier: str = "fixed", trigger: str = "entropy", *, patch_size: int = 5, max_patch_size: int = 7, **sizes: Any
) -> ModelConfig:
    """Returns a configuration with every part present and no two sizes equal by accident."""
    values: dict[str, Any] = {
        "byte_dim": 16,
        "byte_heads": 2,
        "window_bytes": 6,
        "encoder_layers": 2,
        "entropy_head_layers": 1,
        "decoder_layers": 2,
        "pooling_heads": 2,
        "trunk_dim": 24,
        "trunk_heads": 3,
        "trunk_layers": 2,
        "context_bytes": 64,
        "patchifier": PatchifierConfig(
            kind=cast(PatchifierKind, patchifier),
            target_patch_size=patch_size,
            max_patch_size=max_patch_size,
            num_token_ids=tiny_source_tokens(max_patch_size).num_ids if patchifier == "tokens" else None,
        ),
        "trigger": TriggerConfig(kind=cast(TriggerKind, trigger), stride=2),
    }
    if sizes.get("kind", "patch") == "patch":  # a baseline has no n-grams
        values["ngram_vocab_size"] = 50
    return ModelConfig(**{**values, **sizes})


def sharp_model(config: ModelConfig, *, seed: int = 0) -> ByteLM:
    """Returns a model in eval mode whose predictions and entropies vary strongly from byte to byte."""
    model = ByteLM(config, seed=seed).eval()
    if config.patchifier.commits_tokens:
        model.use_source_tokens(tiny_source_tokens(config.patchifier.longest_patch))
    with torch.no_grad():
        model.local_decoder.lm_head.weight.mul_(40)
        if model.entropy_head is not None:
            model.entropy_head.lm_head.weight.mul_(40)
        model.context_to_bytes.projection.weight.mul_(2)
        if model.routing is not None:  # away from the identity, so that probabilities spread
            generator = torch.Generator().manual_seed(seed)
            model.routing.query.weight.copy_(torch.randn(model.routing.query.weight.shape, generator=generator))
    return model


def settle_patches(model: ByteLM, byte_ids: Tensor, *, share_ending: float = 0.2) -> None:
    """Puts the threshold of an `entropy` or `hnet` patchifier where rounding cannot flip an end in these ids.

    Args:
        model: changed in place; other patchifiers are left alone.
        byte_ids: ids that will be compared.
        share_ending: share of the bytes that should end a patch.
    """
    if not isinstance(model.patchifier, ScoringPatchifier):
        return
    with torch.no_grad():
        output = model(byte_ids, math.inf)
    scores = model.patch_end_scores(output)
    if len(scores) > 1:
        model.patch_threshold.fill_(safe_threshold(scores, share_ending))


def safe_threshold(scores: Tensor, share_above: float) -> float:
    """Returns a threshold near the given quantile that lies at least MARGIN away from every score.

    Args:
        scores: observed scores, any shape.
        share_above: share of the scores that should lie above.
    """
    ordered = scores.detach().double().flatten().sort(descending=True).values
    gaps = ordered[:-1] - ordered[1:]
    wide = (gaps > 2 * MARGIN).nonzero().flatten()
    if len(wide) == 0:
        return float(ordered[0]) + 1.0
    nearest = wide[(wide + 1 - share_above * len(ordered)).abs().argmin()]
    return float(ordered[nearest] + ordered[nearest + 1]) / 2


def thresholds_to_try(model: ByteLM, byte_ids: Tensor) -> list[float | None]:
    """Settles patches, then returns scratchpad thresholds: a safe one in the middle of the scores, +inf and -inf.

    For triggers without nats the first is None, which stands for their own.
    """
    settle_patches(model, byte_ids)
    if not model.takes_threshold_in_nats:
        return [None, math.inf, -math.inf]
    with torch.no_grad():
        scores = model.eligible_scores(model(byte_ids, math.inf))
    return [safe_threshold(scores, 0.4), math.inf, -math.inf]


def blank_state(model: ByteLM, rows: int, capacity: int) -> DecodingState:
    """Returns a state of zeros on the model's device, with the types that a prefill gives it.

    Args:
        model: gives sizes and device.
        rows: of the state.
        capacity: places of a row in the trunk's cache.
    """
    config, device = model.config, model.device
    product = torch.bfloat16 if device.type == "cuda" else torch.float32

    def zeros(*shape: int, dtype: torch.dtype = product) -> Tensor:
        return torch.zeros(rows, *shape, dtype=dtype, device=device)

    def local(layers: int, window: int) -> LocalCache:
        shape = (window, config.byte_heads, config.byte_dim // config.byte_heads)
        return LocalCache(*([zeros(*shape) for _ in range(layers)] for _ in range(2)))

    num_floats = (model.entropy_head is not None) + (model.routing is not None)
    trunk_heads = config.trunk_kv_heads or config.trunk_heads
    trunk_shape = (trunk_heads, capacity, config.trunk_dim // config.trunk_heads)
    has_head_layers = model.entropy_head is not None and config.entropy_head_layers > 0
    head = model.source_head
    return DecodingState(
        ints=zeros(NUM_COUNTS + num_recent(model), dtype=torch.int64),
        floats=zeros(num_floats, dtype=torch.float32),
        most_patches=0,
        trunk=TrunkCache(*([zeros(*trunk_shape) for _ in range(config.trunk_layers)] for _ in range(2))),
        encoder=local(config.encoder_layers, config.encoder_window),
        entropy_head=local(config.entropy_head_layers, config.entropy_head_window) if has_head_layers else None,
        decoder=local(config.decoder_layers, config.decoder_window),
        byte_states=zeros(longest_slot(model) + 1, config.byte_dim, dtype=torch.float32),
        contexts=zeros(2, model.context_to_bytes.num_additions, config.byte_dim),
        smoothed=None if model.routing is None else zeros(2, config.trunk_dim, dtype=torch.float32),
        masses=None if head is None else zeros(2, 2, head.num_masses, dtype=torch.float64),
        trunk_window=config.trunk_window_patches,
    )


def state_bytes(state: RowState) -> tuple[int, int]:
    """Returns the bytes of a state's tensors: keys and values of the trunk's cache, and everything else."""
    trunk = sum(part.nbytes for part in (*state.trunk.keys, *state.trunk.values))
    return trunk, sum(tensor.nbytes for tensor in state.tensors()) - trunk


def random_documents(seed: int, lengths: Sequence[int]) -> list[bytes]:
    """Returns irregular documents: words, runs of one byte, digits, UTF-8 and raw bytes."""
    source = random.Random(seed)
    documents = []
    for length in lengths:
        text = bytearray()
        while len(text) < length:
            kind = source.randrange(6)
            if kind == 0:
                text += bytes([source.randrange(256)]) * source.randrange(1, 12)
            elif kind == 1:
                text += source.randbytes(source.randrange(1, 9))
            elif kind == 2:
                text += source.choice(["é", "日本語", "שלום", "🙂"]).encode()
            else:
                letters = "".join(source.choice("abcdefgh") for _ in range(source.randrange(1, 11)))
                text += letters.encode() + source.choice([b" ", b", ", b"\n", b""])
        documents.append(bytes(text[:length]))
    return documents


def as_row(*documents: bytes) -> list[int]:
    """Returns documents packed into one row of ids, a separator before each."""
    return [value for document in documents for value in (SEPARATOR, *document)]
