"""Helpers for tests of patchpad and of code built on it: tiny models whose decisions are not fragile."""

from patchpad.testing.models import (
    ALL_OPTIONS,
    OPTIONS,
    as_row,
    random_documents,
    safe_threshold,
    settle_patches,
    sharp_model,
    thresholds_to_try,
    tiny_model_config,
    tolerance,
)

__all__ = [
    "ALL_OPTIONS",
    "OPTIONS",
    "as_row",
    "random_documents",
    "safe_threshold",
    "settle_patches",
    "sharp_model",
    "thresholds_to_try",
    "tiny_model_config",
    "tolerance",
]
