"""Helpers for tests of patchpad and of code built on it: tiny models whose decisions are not fragile."""

from patchpad.testing.baselines import BASELINE_KINDS, ids_of, sharp_baseline, tiny_baseline_config
from patchpad.testing.models import (
    ALL_OPTIONS,
    OPTIONS,
    as_row,
    blank_state,
    random_documents,
    safe_threshold,
    settle_patches,
    sharp_model,
    state_bytes,
    thresholds_to_try,
    tiny_model_config,
    tolerance,
)
from patchpad.testing.plugins import check_patchifier, check_trigger
from patchpad.testing.stepping import assert_steps_equal_pass, batch_of, ragged_packed_rows, step_through
from patchpad.testing.tokens import tiny_source_tokens, tiny_tokenizer_json

__all__ = [
    "ALL_OPTIONS",
    "BASELINE_KINDS",
    "OPTIONS",
    "as_row",
    "assert_steps_equal_pass",
    "batch_of",
    "blank_state",
    "check_patchifier",
    "check_trigger",
    "ids_of",
    "ragged_packed_rows",
    "random_documents",
    "safe_threshold",
    "settle_patches",
    "sharp_baseline",
    "sharp_model",
    "state_bytes",
    "step_through",
    "thresholds_to_try",
    "tiny_baseline_config",
    "tiny_model_config",
    "tiny_source_tokens",
    "tiny_tokenizer_json",
    "tolerance",
]
