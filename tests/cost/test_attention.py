"""Pairs of local layers are those of the documents that are read, however short."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from patchpad.config import ModelConfig, PatchifierConfig
from patchpad.cost import cost
from patchpad.cost.attention import mean_pairs, patch_pairs, window_pairs
from patchpad.data import Corpus, cut_windows
from patchpad.errors import ConfigError
from patchpad.evaluation.bits_per_byte import evaluate, predictions
from patchpad.evaluation.breakdown import measure
from patchpad.inspection.inspection import inspect
from patchpad.model.build import build_model
from patchpad.model.visibility import Window
from patchpad.patching import Documents

SMALL = ModelConfig(
    byte_dim=32, byte_heads=2, window_bytes=512, encoder_window_bytes=20, ngram_vocab_size=0, entropy_head_layers=1,
    pooling_heads=2, trunk_dim=64, trunk_heads=2, trunk_layers=1, context_bytes=1024,
    patchifier=PatchifierConfig(target_patch_size=8),
)  # fmt: skip
BASELINE = replace(
    ModelConfig(kind="byte", trunk_dim=64, trunk_heads=2, trunk_layers=1), context_bytes=1024,
    patchifier=SMALL.patchifier, byte_dim=32, byte_heads=2,
)  # fmt: skip


@given(st.lists(st.integers(1, 70), min_size=1, max_size=9), st.integers(1, 80))
def test_closed_forms_are_sums_over_positions(lengths, size):
    num_positions = sum(lengths)
    in_window = sum(min(size, n + 1) for length in lengths for n in range(length))
    in_patch = sum(n % size + 1 for length in lengths for n in range(length))
    assert mean_pairs(lambda length: window_pairs(size, length), lengths) == in_window / num_positions
    assert mean_pairs(lambda length: patch_pairs(size, length), lengths) == in_patch / num_positions


def short_documents(num: int = 40, context_bytes: int = 1024):
    """Documents of about 60 bytes, and one that is cut into three windows."""
    generator = np.random.default_rng(0)
    lengths = [*generator.integers(1, 120, num), 2 * context_bytes + 7]
    documents = tuple(generator.integers(97, 123, length).astype(np.uint8) for length in lengths)
    return cut_windows(Corpus(documents, tuple(map(str, range(len(documents))))), context_bytes)


def test_flops_of_local_windows_in_short_documents_are_those_of_the_mask():
    model, windows = build_model(SMALL), short_documents()
    (point,) = evaluate(model, windows, scratchpad_threshold_nats=1.5, limit_bytes=0)
    num_bytes, pairs = int(windows.bounds.num_bytes.sum()), {"encoder": 0, "others": 0}
    slots = {"commits": 0, "scratchpads": 0, "pairs": 0, "pooled": 0, "positions": 0}
    for batch, predicted in predictions(model, windows, 1.5):
        documents = Documents.locate(batch.byte_ids)
        for name, window_bytes in (("encoder", 20), ("others", 512)):
            bias = Window.build(documents, window_bytes).bias
            seen = (bias.reshape(len(batch.byte_ids), -1, bias.shape[-1])[:, : batch.byte_ids.shape[1]] == 0).sum(-1)
            pairs[name] += int(seen[~documents.is_padding].sum())
        found = (predicted.num_commits, predicted.num_scratchpads, predicted.trunk_pairs, predicted.pooled_positions)
        for key, value in zip(slots, (*found, predicted.num_positions), strict=True):
            slots[key] += int(value)
    num_slots = slots["commits"] + slots["scratchpads"]
    rates: dict[str, Any] = {
        "patches_per_byte": slots["commits"] / num_bytes,
        "scratchpads_per_byte": slots["scratchpads"] / num_bytes,
        "trunk_pairs_per_slot": slots["pairs"] / num_slots,
        "pooled_bytes_per_slot": slots["pooled"] / num_slots,
        "positions_per_byte": slots["positions"] / num_bytes,
    }
    averaged = cost(SMALL, context_bytes=1024, **rates)
    local = ("local_encoder", "entropy_head", "local_decoder")
    without_local = averaged.flops_per_byte - sum(averaged.parts[part].attention_flops_per_byte for part in local)
    width = 4 * SMALL.byte_dim / num_bytes
    expected = without_local + width * (2 * pairs["encoder"] + (1 + 2) * pairs["others"])
    assert point.flops_per_byte == pytest.approx(expected, rel=1e-9)
    assert averaged.flops_per_byte > 1.05 * expected, "the mean over the context is not what is read"


def test_measure_and_inspect_count_as_evaluate_does():
    torch.manual_seed(0)
    model, windows = build_model(SMALL), short_documents()
    points = {point["at"]: point["flops_per_byte"] for point in measure(model, windows, [0.125])["points"]}
    never, always = evaluate(model, windows, scratchpad_threshold_nats=[np.inf, -np.inf], limit_bytes=0)
    assert points["never"] == never.flops_per_byte
    assert points["always"] == always.flops_per_byte
    text = bytes(range(97, 123)) * 2
    whole = cut_windows(Corpus((np.frombuffer(text, dtype=np.uint8),), ("text",)), 1024)
    assert inspect(model, text).point.flops_per_byte == evaluate(model, whole)[0].flops_per_byte


def test_megabyte_counts_the_pairs_of_the_patches_of_short_documents():
    config, windows = replace(BASELINE, kind="megabyte", decoder_layers=2), short_documents()
    (point,) = evaluate(build_model(config), windows, limit_bytes=0)
    lengths = windows.bounds.num_positions.tolist()
    rates: dict[str, Any] = {"patches_per_byte": point.patches_per_byte, "scratchpads_per_byte": 0.0}
    rates["positions_per_byte"] = sum(lengths) / int(windows.bounds.num_bytes.sum())
    exact = cost(config, context_bytes=1024, document_positions=lengths, **rates)
    pairs = sum(n % 8 + 1 for length in lengths for n in range(length)) / int(windows.bounds.num_bytes.sum())
    assert exact.parts["local_model"].attention_flops_per_byte == pytest.approx(4 * 2 * pairs * 32)
    trunk = exact.parts["trunk"].attention_flops_per_byte
    assert 0 < point.flops_per_byte - (exact.flops_per_byte - trunk) < trunk


@pytest.mark.parametrize("wrong", [[], [5, 0]])
def test_documents_that_cannot_be_are_refused(wrong):
    with pytest.raises(ConfigError, match="document_positions is empty or holds 0"):
        cost(SMALL, context_bytes=64, patches_per_byte=1 / 8, scratchpads_per_byte=0.0, document_positions=wrong)
