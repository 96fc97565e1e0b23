"""The models that the benchmarks measure: 16-byte patches and the entropy trigger, at three sizes."""

from dataclasses import replace

from patchpad.config import ModelConfig, PatchifierConfig, TriggerConfig, load_config
from patchpad.cost import count_parameters

SCRATCHPADS_PER_BYTE = 3 / 16

MEASURED_PARTS: dict[str, int] = {
    "byte_dim": 64,
    "ngram_vocab_size": 0,
    "encoder_layers": 1,
    "entropy_head_layers": 2,
    "decoder_layers": 1,
    "context_lags": 1,
}
"""Those of the results in results/: the defaults of the time."""
SHIPPED = ModelConfig(window_bytes=8, context_bytes=2048)
"""The model that comes with the package, trained: today's default parts."""
TRAINED_SIZES = ("6.6M", "4.2M")
"""Sizes at which the shipped model is measured beside peers: all its parameters, and those without embeddings."""
SIZES = {
    **dict.fromkeys(TRAINED_SIZES, SHIPPED),
    "3M": ModelConfig(trunk_layers=3, **MEASURED_PARTS),
    "20M": ModelConfig(trunk_dim=512, trunk_heads=8, trunk_layers=6, **{**MEASURED_PARTS, "byte_dim": 128}),
    "100M": replace(
        load_config("100m-fixed16-entropy").model,
        ngram_vocab_size=0,
        encoder_layers=1,
        entropy_head_layers=2,
        context_lags=1,
    ),
}
PRESET_SIZES = ("350m", "1b")
"""Presets, as they are."""


def plain_patches(config: ModelConfig, patch_size: int) -> ModelConfig:
    """Returns the same sizes with fixed patches and no scratchpads, so without an entropy head."""
    patchifier = PatchifierConfig(kind="fixed", target_patch_size=patch_size)
    return replace(config, patchifier=patchifier, trigger=TriggerConfig(kind="never"))


def num_params(config: ModelConfig) -> int:
    """Returns the parameters of a configuration."""
    return sum(count_parameters(config).values())
