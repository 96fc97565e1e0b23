"""Helpers for tests of patchpad and of code built on it: tiny models whose decisions are not fragile."""

from patchpad.testing.baselines import BASELINE_KINDS, ids_of, sharp_baseline, tiny_baseline_config
from patchpad.testing.models import (
    ALL_OPTIONS,
    OPTIONS,
    as_row,
    random_documents,
    safe_threshold,
    settle_patches,
    sharp_model,
    state_bytes,
    thresholds_to_try,
    tiny_model_config,
    tolerance,
)

__all__ = [
    "ALL_OPTIONS",
    "BASELINE_KINDS",
    "OPTIONS",
    "as_row",
    "ids_of",
    "random_documents",
    "safe_threshold",
    "settle_patches",
    "sharp_baseline",
    "sharp_model",
    "state_bytes",
    "thresholds_to_try",
    "tiny_baseline_config",
    "tiny_model_config",
    "tolerance",
]
