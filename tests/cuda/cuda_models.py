"""Models of the guards: small, but with more bytes than a block of FlexAttention has."""

from dataclasses import replace
from importlib import resources
from typing import cast

import torch
from pretended_cuda import Record

from patchpad.config import Config, ModelConfig, PatchifierConfig, PatchifierKind, TriggerConfig, TriggerKind
from patchpad.model.byte_lm import ByteLM

TEXT = str(resources.files("patchpad") / "data" / "bundled" / "austen_validation.jsonl.xz")
CASES = [
    ("fixed", "entropy"),
    ("spacebyte", "entropy_jump"),
    ("entropy", "entropy"),
    ("hnet", "entropy"),
    ("fixed", "never"),
]
"""Every kind of patchifier, and triggers that do and do not read entropies."""


def small_config(patchifier: str = "fixed", trigger: str = "entropy", **options) -> ModelConfig:
    return ModelConfig(
        **{
            "byte_dim": 32,
            "byte_heads": 2,
            "window_bytes": 16,
            "encoder_layers": 1,
            "entropy_head_layers": 1,
            "decoder_layers": 1,
            "trunk_dim": 64,
            "trunk_heads": 4,
            "trunk_layers": 2,
            "context_bytes": 256,
            "ngram_vocab_size": 100,
            "patchifier": PatchifierConfig(
                kind=cast(PatchifierKind, patchifier),
                target_patch_size=6,
                max_patch_size=None if patchifier == "fixed" else 16,
            ),
            "trigger": TriggerConfig(kind=cast(TriggerKind, trigger)),
            **options,
        }
    )


def never_ending(config: ModelConfig, *, seed: int = 0) -> ByteLM:
    """Returns a model with uneven predictions and entropies that never ends a document."""
    model = ByteLM(config, seed=seed).eval()
    with torch.no_grad():
        head = model.local_decoder.lm_head.weight
        head.mul_(20)
        head[256] = head[:256].mean(0)
        if model.entropy_head is not None:
            model.entropy_head.lm_head.weight.mul_(30)
    return model


def run_config(model: ModelConfig, device: str = "cuda", **options) -> Config:
    """Returns the configuration of a run of three steps, without saving and validating in between."""
    config = Config(model=model)
    options = {"batch_rows": 2, "validate_every": 0, "checkpoint_every": 0, "log_every": 1, "steps": 3, **options}
    return replace(
        config,
        train=replace(config.train, device=device, validation_bytes=600, **options),
        data=replace(config.data, paths=(TEXT,)),
    )


class PhasePerStep:
    """Progress that counts each step of a run apart."""

    def __init__(self, record: Record) -> None:
        self.record = record

    def update(self, step: int, total: int, line: dict[str, object]) -> None:
        self.record.begin_phase(f"step {step + 1}")
