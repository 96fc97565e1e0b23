"""Tiny baselines with uneven predictions, and the ids that each kind reads."""

import numpy as np
import torch

from patchpad.config import SEPARATOR, ModelConfig, ModelKind
from patchpad.model.baselines import Baseline, BpeTransformer
from patchpad.model.build import build_model
from patchpad.testing.models import random_documents, tiny_model_config

BASELINE_KINDS: tuple[ModelKind, ...] = ("byte", "bpe", "megabyte")


def tiny_baseline_config(kind: ModelKind, **sizes: int) -> ModelConfig:
    """Returns a configuration with no two sizes equal by accident."""
    return tiny_model_config("fixed", "never", patch_size=4, kind=kind, **{"bpe_vocab_size": 300, **sizes})


def sharp_baseline(kind: ModelKind, *, seed: int = 0, **sizes: int) -> Baseline:
    """Returns a baseline in eval mode whose predictions vary strongly; a bpe model has learned some tokens."""
    model = build_model(tiny_baseline_config(kind, **sizes), seed=seed).eval()
    assert isinstance(model, Baseline)
    model.prepare([np.frombuffer(document, dtype=np.uint8) for document in random_documents(77, [3000, 500])])
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("lm_head.weight"):
                parameter.mul_(40)
    return model


def ids_of(model: Baseline, *documents: bytes) -> list[int]:
    """Returns documents as one row of the ids that `model` reads, a separator before each."""
    encode = model.encode_prompt if isinstance(model, BpeTransformer) else list
    return [value for document in documents for value in (SEPARATOR, *encode(document))]
