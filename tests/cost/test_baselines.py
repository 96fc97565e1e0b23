"""The analytic cost of the baselines is that of the built models, as PyTorch counts it."""

import json
import subprocess
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from patchpad.config import SEPARATOR, Config, ModelConfig, PatchifierConfig
from patchpad.cost import Cost, cost, count_parameters, default_rates
from patchpad.cost.baselines import baseline_parts
from patchpad.data import Corpus, cut_windows
from patchpad.errors import ConfigError
from patchpad.evaluation.bits_per_byte import evaluate
from patchpad.model.build import build_model
from patchpad.model.document_attention import DocumentAttention
from patchpad.model.visibility import Window
from patchpad.testing import BASELINE_KINDS, sharp_baseline

NUM_POSITIONS = 768
"""More than a block of queries; a multiple of the patch size."""
SMALL = ModelConfig(
    kind="byte", byte_dim=32, byte_heads=2, decoder_layers=3, trunk_dim=96, trunk_heads=4, trunk_layers=2,
    bpe_vocab_size=300, patchifier=PatchifierConfig(target_patch_size=8), context_bytes=NUM_POSITIONS,
)  # fmt: skip
KEYS = {
    "num_params", "flops_per_byte", "linear_flops_per_byte", "attention_flops_per_byte", "training_flops_per_byte",
    "trunk_cache_bytes_per_byte", "local_cache_bytes", "row_cache_bytes", "cache_dtype", "patches_per_byte",
    "scratchpads_per_byte", "trunk_calls_per_byte", "context_bytes", "parts", "checkpointed_training_flops_per_byte",
}  # fmt: skip
every_kind = pytest.mark.parametrize("kind", BASELINE_KINDS)


def config_of(kind: Any, **sizes: Any) -> ModelConfig:
    return replace(SMALL, kind=kind, **sizes)


def exact_cost(kind: Any) -> Cost:
    """Cost per position of NUM_POSITIONS that are one document; for `bpe`, a token of one byte each."""
    patches = 1 / 8 if kind == "megabyte" else 1.0
    return cost(config_of(kind), context_bytes=NUM_POSITIONS, patches_per_byte=patches, scratchpads_per_byte=0.0)


def counted_flops(kind: Any, *, backward: bool = False) -> dict[str, tuple[int, int]]:
    """What PyTorch counts for two such documents, per part: in linear layers (mm) and in attention (bmm)."""
    model = build_model(config_of(kind))
    ids = torch.randint(0, 256, (2, NUM_POSITIONS), generator=torch.Generator().manual_seed(0))
    ids[:, 0] = SEPARATOR
    model.prepare([np.frombuffer(b"ab", dtype=np.uint8)])
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        logits = model(ids).logits
        if backward:
            logits.masked_fill(~logits.isfinite(), 0).sum().backward()
    name = type(model).__name__
    counts = {}
    for part in ["Global", *(f"{name}.{part}" for part in baseline_parts(model.config))]:
        by_operator = counter.get_flop_counts().get(part, {})
        assert set(by_operator) <= {torch.ops.aten.mm, torch.ops.aten.bmm}
        counts[part.rpartition(".")[2]] = (
            by_operator.get(torch.ops.aten.mm, 0),
            by_operator.get(torch.ops.aten.bmm, 0),
        )
    return counts


@every_kind
@pytest.mark.parametrize(
    "sizes",
    [{}, {"trunk_dim": 120, "trunk_heads": 5, "ffn_ratio": 3.1, "trunk_layers": 1}, {"trunk_ffn_dim": 50}],
)
def test_parameters_of_every_part_are_those_of_the_built_model(kind, sizes):
    config = config_of(kind, **sizes)
    model = build_model(config)
    counts = count_parameters(config)
    assert list(counts) == [name for name, _ in model.named_children()]
    for name, part in model.named_children():
        assert counts[name] == sum(p.numel() for p in part.parameters()), name
    assert sum(counts.values()) == sum(p.numel() for p in model.parameters())
    found = cost(config, context_bytes=9, patches_per_byte=0.5, scratchpads_per_byte=0.0)
    assert found.num_params == sum(counts.values())


@every_kind
def test_linear_flops_are_those_that_pytorch_counts(kind):
    costs, counted = exact_cost(kind), counted_flops(kind)
    for name, part in costs.parts.items():
        assert counted[name][0] == pytest.approx(part.linear_flops_per_byte * 2 * NUM_POSITIONS, rel=1e-9), name
    assert counted["Global"][0] == pytest.approx(costs.linear_flops_per_byte * 2 * NUM_POSITIONS, rel=1e-9)


@every_kind
def test_attention_flops_are_those_that_pytorch_counts_for_the_computed_pairs(kind):
    costs, counted = exact_cost(kind), counted_flops(kind)
    slots = NUM_POSITIONS // 8 if kind == "megabyte" else NUM_POSITIONS
    attention = DocumentAttention(torch.zeros(2, slots, dtype=torch.long))
    assert len(attention.blocks) == (1 if kind == "megabyte" else 3)
    computed = {"trunk": sum((last - first) * (last - low) for first, last, low in attention.blocks)}
    visible = {"trunk": sum(int(attention.visible(*block)[0].sum()) for block in attention.blocks)}
    assert visible["trunk"] == slots * (slots + 1) / 2
    if kind == "megabyte":
        from patchpad.patching import Documents

        positions = torch.arange(NUM_POSITIONS)[None]
        ids = torch.full((1, NUM_POSITIONS), 97)
        window = Window.build(replace(Documents.locate(ids), start=positions - positions % 8), 8)
        computed["local_model"] = window.bias.numel()
        visible["local_model"] = int((window.bias == 0).sum())
    for name, part in costs.parts.items():
        expected = part.attention_flops_per_byte * 2 * NUM_POSITIONS
        if name in visible:
            assert computed[name] > visible[name]
            expected *= computed[name] / visible[name]
        assert counted[name][1] == pytest.approx(expected, rel=1e-9), name


@every_kind
def test_training_flops_are_those_of_a_forward_and_a_backward_pass(kind):
    costs = exact_cost(kind)
    linear = counted_flops(kind, backward=True)["Global"][0]
    assert linear / (2 * NUM_POSITIONS) == pytest.approx(3 * costs.linear_flops_per_byte, rel=0.01)
    assert costs.training_flops_per_byte == 3 * costs.flops_per_byte


@every_kind
def test_measured_cost_of_full_windows_is_the_analytic_one(kind):
    config = config_of(kind, context_bytes=64)
    model = build_model(config)
    model.prepare([np.frombuffer(b"ab" * 200, dtype=np.uint8)])
    windows = cut_windows(Corpus((np.full(64 * 5, 7, dtype=np.uint8),), ("text",)), 64).select(np.arange(4))
    (point,) = evaluate(model, windows)
    expected = cost(config, context_bytes=64, patches_per_byte=point.patches_per_byte, scratchpads_per_byte=0.0)
    assert point.flops_per_byte == pytest.approx(expected.flops_per_byte, rel=1e-6)
    assert point.trunk_cache_bytes_per_byte == pytest.approx(expected.trunk_cache_bytes_per_byte)


@pytest.mark.parametrize(("dtype", "item_bytes"), [("float32", 4), ("bfloat16", 2)])
def test_cache_holds_every_position_of_the_trunk_and_one_patch_of_the_local_model(dtype, item_bytes):
    rates: dict[str, Any] = {"context_bytes": 512, "scratchpads_per_byte": 0.0, "dtype": dtype}
    per_entry = 2 * 2 * 96 * item_bytes  # layers x (key, value) x width
    byte = cost(config_of("byte"), patches_per_byte=1.0, **rates)
    assert (byte.trunk_cache_bytes_per_byte, byte.local_cache_bytes) == (per_entry, 0)
    bpe = cost(config_of("bpe"), patches_per_byte=0.3, **rates)
    assert (bpe.trunk_cache_bytes_per_byte, bpe.local_cache_bytes) == (pytest.approx(0.3 * per_entry), 0)
    megabyte = cost(config_of("megabyte"), patches_per_byte=1 / 8, **rates)
    assert megabyte.trunk_cache_bytes_per_byte == per_entry / 8
    assert megabyte.local_cache_bytes == 8 * 3 * 2 * 32 * item_bytes


@every_kind
def test_cached_keys_and_values_of_a_real_state_take_the_bytes_that_are_promised(kind):
    import patchpad

    model = sharp_baseline(kind)
    _, state = patchpad.prefill(model, [b"x" * 39])
    entries = int(state.num_patches)
    costs = cost(model.config, context_bytes=40, patches_per_byte=entries / 40, scratchpads_per_byte=0.0)
    kept = [part[:, :, :entries] for part in (*state.trunk.keys, *state.trunk.values)]
    assert sum(part.numel() * 4 for part in kept) == pytest.approx(costs.trunk_cache_bytes_per_byte * 40)
    if kind == "megabyte":
        assert 4 * sum(part.numel() for part in (*state.local.keys, *state.local.values)) == costs.local_cache_bytes


@every_kind
def test_json_has_the_keys_of_the_patch_model_and_parts_add_up(kind):
    values = json.loads(json.dumps(exact_cost(kind).to_dict(), allow_nan=False))
    assert set(values) == KEYS
    for key in ("num_params", "flops_per_byte", "trunk_cache_bytes_per_byte", "local_cache_bytes"):
        assert values[key] == pytest.approx(sum(part[key] for part in values["parts"].values())), key


def test_default_rates_are_those_of_the_kind_and_bpe_asks_for_its_own():
    assert default_rates(Config(model=config_of("byte"))) == (1.0, 0.0)
    assert default_rates(Config(model=config_of("megabyte"))) == (1 / 8, 0.0)
    with pytest.raises(ConfigError, match="depend on the text") as caught:
        default_rates(Config(model=config_of("bpe")))
    assert "--mean-patch-size" in caught.value.hint
    assert default_rates(Config(model=config_of("bpe")), patches_per_byte=0.25) == (0.25, 0.0)


@every_kind
def test_scratchpads_are_refused(kind):
    with pytest.raises(ConfigError, match=f"a `{kind}` model has no scratchpads"):
        cost(config_of(kind), context_bytes=64, patches_per_byte=0.5, scratchpads_per_byte=0.1)


def test_local_pairs_of_a_context_that_ends_inside_a_patch_are_the_mean_over_positions():
    config = config_of("megabyte")
    costs = cost(config, context_bytes=21, patches_per_byte=1 / 8, scratchpads_per_byte=0.0)
    pairs = sum(n % 8 + 1 for n in range(21)) / 21
    assert costs.parts["local_model"].attention_flops_per_byte == pytest.approx(4 * 3 * pairs * 32)


def test_cost_of_baselines_imports_no_torch():
    code = "import sys, patchpad.cost.baselines; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
