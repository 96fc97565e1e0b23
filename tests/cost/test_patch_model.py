import json
import math
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import patchpad
from patchpad.config import NATS_TRIGGERS, SEPARATOR, Config, ModelConfig, PatchifierConfig, TrainConfig, TriggerConfig
from patchpad.cost import PARTS, Cost, cost, count_parameters, default_rates
from patchpad.errors import ConfigError
from patchpad.model import ByteLM, ByteLMOutput
from patchpad.model.back_ends import attention_back_end
from patchpad.model.visibility import Window, visible_commits
from patchpad.patching.layout import TRUNK_BLOCK
from patchpad.testing import sharp_model, tiny_model_config
from patchpad.testing.tokens import tiny_source_tokens

TRIGGER_KINDS = ("entropy", "never", "always", "random", "stride", "whitespace", "entropy_jump")
NUM_BYTES = 768
"""More than TRUNK_BLOCK, so that the trunk's attention takes two blocks where every byte is a slot."""
SMALL = ModelConfig(
    byte_dim=32,
    byte_heads=2,
    window_bytes=24,
    ngram_vocab_size=0,
    encoder_layers=2,
    entropy_head_layers=1,
    decoder_layers=3,
    pooling_heads=2,
    trunk_dim=96,
    trunk_heads=4,
    trunk_layers=2,
    patchifier=PatchifierConfig(target_patch_size=8),
)
OPTIONS = replace(
    SMALL, trunk_kv_heads=2, trunk_ffn_dim=50, ngram_vocab_size=30,
    ngram_sizes=(2, 4, 7), encoder_window_bytes=40, entropy_head_window_bytes=7, decoder_window_bytes=100,
)  # fmt: skip
SIZES = {
    "default": ModelConfig(),
    "small": SMALL,
    "ragged feed-forward, long patches": ModelConfig(
        byte_dim=48, byte_heads=3, pooling_heads=6, trunk_dim=120, trunk_heads=5, trunk_layers=1, ffn_ratio=3.1,
        patchifier=PatchifierConfig(kind="spacebyte", target_patch_size=6, max_patch_size=40),
    ),
    "byte model": ModelConfig(trunk_dim=64, patchifier=PatchifierConfig(target_patch_size=1)),
    "hnet": replace(SMALL, patchifier=PatchifierConfig(kind="hnet", target_patch_size=6)),
    "entropy patches": replace(SMALL, patchifier=PatchifierConfig(kind="entropy", target_patch_size=6)),
    "all options": OPTIONS,
}  # fmt: skip
TOKENS = tiny_source_tokens(max_bytes=20)
TOKEN_PATCHES = PatchifierConfig(kind="tokens", target_patch_size=4, max_patch_size=20, num_token_ids=TOKENS.num_ids)
SIZES["tokens"] = replace(SMALL, patchifier=TOKEN_PATCHES)
SIZES["tokens, source head tied"] = replace(SMALL, patchifier=TOKEN_PATCHES, source_head="tied")
SIZES["tokens, source head of its own"] = replace(SMALL, patchifier=TOKEN_PATCHES, source_head="own")
STRIDE = replace(SMALL, trigger=TriggerConfig(kind="stride", stride=2))
RUNS = {
    "stride": STRIDE,
    "never": replace(SMALL, trigger=TriggerConfig(kind="never")),
    "always": replace(SMALL, trigger=TriggerConfig(kind="always")),
    "entropy": SMALL,
    "spacebyte, random": replace(
        SMALL,
        patchifier=PatchifierConfig(kind="spacebyte", target_patch_size=6),
        trigger=TriggerConfig(kind="random", scratchpads_per_byte=0.25),
    ),
    "hnet, entropy": replace(SMALL, patchifier=PatchifierConfig(kind="hnet", target_patch_size=6)),
    "entropy, stride": replace(STRIDE, patchifier=PatchifierConfig(kind="entropy", target_patch_size=6)),
    "all options": OPTIONS,
}
WINDOWS = {
    "local_encoder": "encoder_window", "entropy_head": "entropy_head_window", "local_decoder": "decoder_window",
}  # fmt: skip


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Many tiny matrix products: threads that wait for each other make them ten times slower on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def one_document_per_row(num_rows: int = 2) -> torch.Tensor:
    """A separator and NUM_BYTES bytes of text-like ids in each row."""
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(ord("a"), ord("z"), (num_rows, NUM_BYTES + 1), generator=generator)
    ids[torch.rand(ids.shape, generator=generator) < 0.2] = ord(" ")
    ids[:, 0] = SEPARATOR
    return ids


def build(config: ModelConfig) -> ByteLM:
    """A fresh model; an entropy trigger fires at about every second position, as the stored threshold is the median."""
    model = ByteLM(config)
    if model.entropy_head is not None:
        entropies = model(one_document_per_row(), math.inf).entropy_nats
        assert entropies is not None
        if config.trigger.kind in NATS_TRIGGERS:
            model.store_threshold(float(entropies.median()))
        if config.patchifier.kind == "entropy":
            model.store_patch_threshold(float(entropies.quantile(0.8)))
    return model


def measured_cost(config: ModelConfig, output: ByteLMOutput, **measured: Any) -> Cost:
    """The cost at the rates of a real layout whose rows are one document each."""
    batch, length = output.layout.patch_index.shape
    num_commits = int(output.layout.slot_is_commit.sum())
    num_bytes = batch * (length - 1)
    return cost(
        config,
        context_bytes=length,
        patches_per_byte=num_commits / num_bytes,
        scratchpads_per_byte=(output.layout.room.slots - num_commits) / num_bytes,
        positions_per_byte=length / (length - 1),
        **measured,
    )


def visible_window_pairs(output: ByteLMOutput, window_bytes: int) -> int:
    """Query-key pairs that one local layer sees in the whole batch, counted in its mask."""
    batch, length = output.layout.patch_index.shape
    bias = Window.build(output.layout.documents, window_bytes).bias
    return int((bias.reshape(batch, -1, bias.shape[-1])[:, :length] == 0).sum())


def visible_trunk_pairs(output: ByteLMOutput) -> int:
    """Query-key pairs that one trunk layer sees in the whole batch, counted in its mask, each slot itself included."""
    layout = output.layout
    return layout.room.slots + sum(int(visible_commits(layout, i).sum()) for i in range(len(layout.rows.block_commits)))


def counted_flops(config: ModelConfig) -> tuple[ByteLMOutput, dict[str, tuple[int, int]]]:
    """Runs a model and returns, per part, what PyTorch counts in linear layers (mm) and in attention (bmm)."""
    model = build(config)
    # The counter sees nothing of fused attention.
    reference = attention_back_end("reference")
    with reference, torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        output = model(one_document_per_row())
    counts = {}
    for part in PARTS:
        by_operator = counter.get_flop_counts().get(f"ByteLM.{part}", {})
        assert set(by_operator) <= {torch.ops.aten.mm, torch.ops.aten.bmm}
        counts[part] = (by_operator.get(torch.ops.aten.mm, 0), by_operator.get(torch.ops.aten.bmm, 0))
    assert counter.get_total_flops() == sum(map(sum, counts.values()))
    return output, counts


@pytest.mark.parametrize("kind", TRIGGER_KINDS)
@pytest.mark.parametrize("size", SIZES)
def test_parameters_of_every_part_are_those_of_the_built_model(size: str, kind: Any) -> None:
    config = replace(SIZES[size], trigger=TriggerConfig(kind=kind))
    model = ByteLM(config)
    counts = count_parameters(config)
    assert tuple(counts) == PARTS
    for part in PARTS:
        module = getattr(model, part)
        assert counts[part] == (0 if module is None else sum(p.numel() for p in module.parameters())), part
    assert sum(counts.values()) == sum(p.numel() for p in model.parameters())
    assert (counts["entropy_head"] > 0) == (kind in NATS_TRIGGERS or config.patchifier.kind == "entropy")


@pytest.mark.parametrize("name", RUNS)
def test_linear_flops_are_those_that_pytorch_counts(name: str) -> None:
    output, counted = counted_flops(RUNS[name])
    costs = measured_cost(RUNS[name], output)
    num_bytes = 2 * NUM_BYTES
    for part in PARTS:
        # The null context is projected like a slot, once a batch.
        places = RUNS[name].num_context_lags + SMALL.decoder_layers - 1
        extra = 2 * SMALL.trunk_dim * places * SMALL.byte_dim if part == "context_to_bytes" else 0
        expected = costs.parts[part].linear_flops_per_byte * num_bytes + extra
        assert counted[part][0] == pytest.approx(expected, rel=1e-9), part
    total = sum(linear for linear, _ in counted.values())
    assert costs.linear_flops_per_byte * num_bytes == pytest.approx(total, rel=0.01)


@pytest.mark.parametrize("name", RUNS)
def test_attention_flops_are_those_that_pytorch_counts_for_the_computed_pairs(name: str) -> None:
    config = RUNS[name]
    output, counted = counted_flops(config)
    layout = output.layout
    batch, length = layout.patch_index.shape
    has_scratchpads = name != "never"
    assert (layout.room.slots > int(layout.slot_is_commit.sum())) == has_scratchpads
    assert (len(layout.rows.block_commits) > 1) == (name in ("always", "hnet, entropy"))

    # The trunk multiplies each block of slots with the range of commits that it needs; the slot itself is elementwise.
    width = layout.rows.slots.shape[1]
    rows = [min(TRUNK_BLOCK, width - first) for first in range(0, width, TRUNK_BLOCK)]
    ranges = [high - low for low, high in layout.rows.block_commits]
    trunk_pairs = batch * sum(slots * commits for slots, commits in zip(rows, ranges, strict=True))
    costs = measured_cost(
        config,
        output,
        trunk_pairs_per_slot=trunk_pairs / layout.room.slots,
        pooled_bytes_per_slot=float(layout.longest_slot),
    )
    # A local layer multiplies whole blocks of queries with the keys that any of them sees.
    for part in PARTS:
        expected = costs.parts[part].attention_flops_per_byte * 2 * NUM_BYTES
        if part in WINDOWS:
            window_bytes = getattr(config, WINDOWS[part])
            block = Window.build(layout.documents, window_bytes).block
            window_pairs = batch * -(-length // block) * block * (block + window_bytes - 1)
            computed_over_visible = window_pairs / visible_window_pairs(output, window_bytes)
            assert computed_over_visible > 1
            expected *= computed_over_visible
        assert counted[part][1] == pytest.approx(expected, rel=1e-9), part


def test_training_flops_are_those_of_a_forward_and_a_backward_pass() -> None:
    config = RUNS["entropy"]
    model = build(config)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        output = model(one_document_per_row())
        assert output.entropy_logits is not None
        (output.logits.sum() + output.entropy_logits.sum()).backward()
    linear = counter.get_flop_counts()["Global"][torch.ops.aten.mm]
    costs = measured_cost(config, output)
    assert linear / (2 * NUM_BYTES) == pytest.approx(3 * costs.linear_flops_per_byte, rel=0.01)
    assert costs.training_flops_per_byte == 3 * costs.flops_per_byte


@pytest.mark.parametrize("window_bytes", [1, 24, NUM_BYTES + 1, 2 * NUM_BYTES])
def test_local_attention_counts_the_pairs_of_the_mask(window_bytes: int) -> None:
    config = replace(STRIDE, window_bytes=window_bytes)
    output = ByteLM(config)(one_document_per_row())
    costs = measured_cost(config, output)
    pairs_per_byte = visible_window_pairs(output, window_bytes) / (2 * NUM_BYTES)
    for part, layers in (("local_encoder", config.encoder_layers), ("local_decoder", config.decoder_layers)):
        expected = 4 * layers * pairs_per_byte * config.byte_dim
        assert costs.parts[part].attention_flops_per_byte == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("stride", [1, 2, 4, 8])
def test_default_pairs_are_exact_for_whole_patches_and_a_stride_that_divides_them(stride: int) -> None:
    config = replace(SMALL, trigger=TriggerConfig(kind="stride", stride=stride))
    output = ByteLM(config)(one_document_per_row())
    layout = output.layout
    patches_per_byte, scratchpads_per_byte = default_rates(Config(model=config))
    costs = cost(
        config,
        context_bytes=NUM_BYTES,
        patches_per_byte=patches_per_byte,
        scratchpads_per_byte=scratchpads_per_byte,
    )
    assert costs.trunk_calls_per_byte * 2 * NUM_BYTES == layout.room.slots
    trunk_flops = 4 * config.trunk_layers * visible_trunk_pairs(output) * config.trunk_dim
    assert costs.parts["trunk"].attention_flops_per_byte * 2 * NUM_BYTES == pytest.approx(trunk_flops, rel=1e-9)
    pooling_flops = 4 * config.pooling_heads * int(layout.slot_num_bytes.sum()) * config.byte_dim
    assert costs.parts["patch_pooling"].attention_flops_per_byte * 2 * NUM_BYTES == pytest.approx(
        pooling_flops, rel=1e-9
    )


@pytest.mark.parametrize("name", ["always", "entropy", "spacebyte, random"])
def test_default_pairs_come_close_to_those_of_irregular_layouts(name: str) -> None:
    output = build(RUNS[name])(one_document_per_row())
    layout = output.layout
    assumed = measured_cost(RUNS[name], output)
    measured = measured_cost(
        RUNS[name],
        output,
        trunk_pairs_per_slot=visible_trunk_pairs(output) / layout.room.slots,
        pooled_bytes_per_slot=int(layout.slot_num_bytes.sum()) / layout.room.slots,
    )
    trunk = assumed.parts["trunk"].attention_flops_per_byte / measured.parts["trunk"].attention_flops_per_byte
    assert trunk == pytest.approx(1, abs=0.05)
    assert assumed.flops_per_byte == pytest.approx(measured.flops_per_byte, rel=0.02)


@pytest.mark.parametrize("num_positions", [3, 16, 40, 47])
def test_default_trunk_pairs_are_the_mean_over_positions_for_a_fraction_of_a_patch(num_positions: int) -> None:
    costs = cost(STRIDE, context_bytes=num_positions, patches_per_byte=1 / 8, scratchpads_per_byte=7 / 8)
    pairs = sum(n // 8 + 1 for n in range(num_positions)) / num_positions
    expected = 4 * STRIDE.trunk_layers * pairs * STRIDE.trunk_dim
    assert costs.parts["trunk"].attention_flops_per_byte == pytest.approx(expected, rel=1e-9)


def test_slots_of_a_context_shorter_than_a_patch_pool_no_more_than_the_context() -> None:
    costs = cost(STRIDE, context_bytes=4, patches_per_byte=1 / 8, scratchpads_per_byte=7 / 8)
    most = 4 * STRIDE.pooling_heads * 4 * STRIDE.byte_dim
    assert 0 < costs.parts["patch_pooling"].attention_flops_per_byte <= most


def test_scratchpads_cost_trunk_calls_but_no_cache() -> None:
    rates: dict[str, Any] = {"context_bytes": 1024, "patches_per_byte": 1 / 16}
    without = cost(SMALL, scratchpads_per_byte=0.0, **rates)
    dense = cost(SMALL, scratchpads_per_byte=15 / 16, **rates)
    assert dense.trunk_cache_bytes_per_byte == without.trunk_cache_bytes_per_byte > 0
    assert dense.local_cache_bytes == without.local_cache_bytes > 0
    for part in ("patch_pooling", "trunk", "context_to_bytes"):
        ratio = dense.parts[part].linear_flops_per_byte / without.parts[part].linear_flops_per_byte
        assert ratio == pytest.approx(16)
    for part in ("local_encoder", "entropy_head", "local_decoder"):
        assert dense.parts[part] == without.parts[part]


@pytest.mark.parametrize(("dtype", "item_bytes"), [("float32", 4), ("bfloat16", 2), ("float16", 2)])
def test_cache_holds_the_keys_and_values_of_commits_and_of_the_windows(dtype: str, item_bytes: int) -> None:
    costs = cost(SMALL, context_bytes=1024, patches_per_byte=1 / 8, scratchpads_per_byte=1 / 8, dtype=dtype)
    assert costs.trunk_cache_bytes_per_byte == 2 * 2 * 96 * item_bytes / 8  # layers x (key, value) x width
    assert costs.parts["trunk"].trunk_cache_bytes_per_byte == costs.trunk_cache_bytes_per_byte
    by_part = {name: part.local_cache_bytes for name, part in costs.parts.items()}
    per_layer = 24 * 2 * 32 * item_bytes  # window x (key, value) x width
    assert by_part == {
        "local_encoder": 2 * per_layer,
        "entropy_head": 1 * per_layer,
        "routing": 0,
        "patch_pooling": 9 * 32 * item_bytes,  # separator and 8 bytes
        "trunk": 0,
        "context_to_bytes": (8 + 2) * 32 * item_bytes,  # a vector for each lag, one for each further decoder layer
        "local_decoder": 3 * per_layer,
        "source_head": 0,
    }
    assert costs.local_cache_bytes == sum(by_part.values())
    plain = cost(RUNS["never"], context_bytes=1024, patches_per_byte=1 / 8, scratchpads_per_byte=0.0, dtype=dtype)
    assert costs.local_cache_bytes - plain.local_cache_bytes == per_layer


def test_options_change_what_is_cached() -> None:
    rates: dict[str, Any] = {"context_bytes": 1024, "patches_per_byte": 1 / 8, "scratchpads_per_byte": 1 / 8}
    costs = cost(OPTIONS, **rates)
    per_slot = 2 * 2 * 48 * 4  # layers x (key, value) x width of the key heads
    assert costs.trunk_cache_bytes_per_byte == per_slot / 8
    assert {name: part.local_cache_bytes for name, part in costs.parts.items()} == {
        "local_encoder": 2 * 40 * 2 * 32 * 4 + 7 * 8,  # windows, and the newest 7 ids
        "entropy_head": 7 * 2 * 32 * 4,
        "routing": 0,
        "patch_pooling": 9 * 32 * 4,
        "trunk": 0,
        "context_to_bytes": (8 + 2) * 32 * 4,
        "local_decoder": 3 * 100 * 2 * 32 * 4,
        "source_head": 0,
    }
    _, state = patchpad.prefill(ByteLM(OPTIONS), [b"some text"])
    num_bytes = 4 * sum(part.numel() for part in (*state.entropy_head.keys, *state.entropy_head.values))
    assert costs.parts["entropy_head"].local_cache_bytes == num_bytes
    assert sum(part[:, :, :1].numel() for part in (*state.trunk.keys, *state.trunk.values)) * 4 == per_slot
    assert state.context.numel() * 4 == costs.parts["context_to_bytes"].local_cache_bytes
    assert state.recent_ids.numel() * state.recent_ids.element_size() == 7 * 8


def test_a_source_head_keeps_the_masses_of_its_tokens() -> None:
    config = SIZES["tokens, source head tied"]
    model = ByteLM(config)
    model.use_source_tokens(TOKENS)
    _, state = patchpad.prefill(model, [b"some text"])
    costs = cost(config, context_bytes=64, patches_per_byte=1 / 4, scratchpads_per_byte=1 / 8)
    assert state.masses.shape[1] == 2  # turns
    num_bytes = state.masses[:, 0].numel() * state.masses.element_size()
    assert costs.parts["source_head"].local_cache_bytes == num_bytes
    without = cost(SIZES["tokens"], context_bytes=64, patches_per_byte=1 / 4, scratchpads_per_byte=1 / 8)
    gate = 2 * 32  # the decoder's further logit
    of_head = 2 * (1 / 4 + 1 / 8) * (TOKENS.num_ids - 256) * config.trunk_dim
    assert costs.flops_per_byte - without.flops_per_byte == pytest.approx(of_head + gate)


def test_cached_keys_and_values_of_a_real_pass_take_the_bytes_that_are_promised() -> None:
    output = ByteLM(STRIDE)(one_document_per_row(1), keep_activations=True)
    assert output.activations is not None
    kept = [tensor[output.layout.slot_is_commit] for pair in output.activations.trunk for tensor in pair]
    num_bytes = sum(tensor.numel() * tensor.element_size() for tensor in kept)
    costs = cost(STRIDE, context_bytes=NUM_BYTES, patches_per_byte=1 / 8, scratchpads_per_byte=3 / 8)
    assert costs.trunk_cache_bytes_per_byte * NUM_BYTES == num_bytes


def test_json_has_the_promised_keys_and_parts_add_up() -> None:
    costs = cost(SMALL, context_bytes=1024, patches_per_byte=1 / 8, scratchpads_per_byte=0.25, dtype="bfloat16")
    values = json.loads(json.dumps(costs.to_dict(), allow_nan=False))
    assert set(values) == {
        "num_params", "flops_per_byte", "linear_flops_per_byte", "attention_flops_per_byte", "training_flops_per_byte",
        "trunk_cache_bytes_per_byte", "local_cache_bytes", "row_cache_bytes", "cache_dtype", "patches_per_byte",
        "scratchpads_per_byte", "trunk_calls_per_byte", "context_bytes", "parts",
        "checkpointed_training_flops_per_byte",
    }  # fmt: skip
    assert tuple(values["parts"]) == PARTS
    for key in ("num_params", "flops_per_byte", "linear_flops_per_byte", "attention_flops_per_byte"):
        assert values[key] == pytest.approx(sum(part[key] for part in values["parts"].values())), key
        assert values[key] > 0
    for key in ("trunk_cache_bytes_per_byte", "local_cache_bytes"):
        assert values[key] == sum(part[key] for part in values["parts"].values()) > 0, key
    linear, attention = values["linear_flops_per_byte"], values["attention_flops_per_byte"]
    assert values["flops_per_byte"] == pytest.approx(linear + attention)
    assert values["training_flops_per_byte"] == pytest.approx(3 * values["flops_per_byte"])
    assert (values["cache_dtype"], values["context_bytes"], values["trunk_calls_per_byte"]) == ("bfloat16", 1024, 0.375)


def test_cost_imports_no_torch() -> None:
    code = "import sys, patchpad.cost; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("patch_size", [1, 5, 8, 16])
@pytest.mark.parametrize("kind", ["never", "always", "stride"])
def test_default_rates_are_those_of_a_real_layout(kind: Any, patch_size: int) -> None:
    patchifier = PatchifierConfig(target_patch_size=patch_size)
    config = replace(SMALL, patchifier=patchifier, trigger=TriggerConfig(kind=kind, stride=3))
    ids = one_document_per_row(1)[:, : 1 + NUM_BYTES // patch_size * patch_size]
    layout = ByteLM(config)(ids).layout
    num_bytes = ids.shape[1] - 1
    patches_per_byte, scratchpads_per_byte = default_rates(Config(model=config))
    assert patches_per_byte * num_bytes == pytest.approx(int(layout.patch_end_mask.sum()))
    # A rate is about bytes: the scratchpad that `always` issues at the separator is left out.
    assert scratchpads_per_byte * num_bytes == pytest.approx(int(layout.scratchpad_mask[:, 1:].sum()))


def test_default_rate_is_the_random_triggers_own_and_the_followed_one_for_entropies() -> None:
    def rates(kind: Any, patch_size: int = 16) -> tuple[float, float]:
        trigger = TriggerConfig(kind=kind, scratchpads_per_byte=0.3)
        model = ModelConfig(trigger=trigger, patchifier=PatchifierConfig(target_patch_size=patch_size))
        train = TrainConfig() if kind == "random" else TrainConfig(scratchpads_per_byte=0.2)
        return default_rates(Config(model=model, train=train))

    assert rates("random") == (1 / 16, 0.3)
    assert rates("entropy") == rates("entropy_jump") == (1 / 16, 0.2)
    # No scratchpad fires at a patch end, whatever rate is asked for.
    for kind in ("random", "entropy", "whitespace"):
        assert rates(kind, patch_size=1) == (1.0, 0.0)
    model = ModelConfig(patchifier=PatchifierConfig(target_patch_size=2))
    assert default_rates(Config(model=model, train=TrainConfig(scratchpads_per_byte=0.6))) == (0.5, 0.5)


def test_rates_that_are_given_stand_and_the_others_follow_from_them() -> None:
    always = Config(model=ModelConfig(trigger=TriggerConfig(kind="always")))
    assert default_rates(always, patches_per_byte=1 / 8) == (1 / 8, 7 / 8)
    assert default_rates(always, patches_per_byte=1.0) == (1.0, 0.0)
    spaces = Config(model=ModelConfig(trigger=TriggerConfig(kind="whitespace")))
    assert default_rates(spaces, scratchpads_per_byte=0.2) == (1 / 16, 0.2)
    assert default_rates(spaces, patches_per_byte=1.0) == (1.0, 0.0)


@pytest.mark.parametrize(
    ("kind", "patchifier", "message"),
    [
        ("entropy", "fixed", "for the trigger `entropy` at a fixed threshold with `fixed` patches"),
        ("entropy_jump", "fixed", "for the trigger `entropy_jump` at a fixed threshold with `fixed` patches"),
        ("whitespace", "fixed", "for the trigger `whitespace` with `fixed` patches"),
        ("stride", "spacebyte", "for the trigger `stride` with `spacebyte` patches"),
        ("whitespace", "entropy", "for the trigger `whitespace` with `entropy` patches"),
    ],
)
def test_rate_that_depends_on_the_text_has_to_be_given(kind: Any, patchifier: Any, message: str) -> None:
    model = ModelConfig(trigger=TriggerConfig(kind=kind), patchifier=PatchifierConfig(kind=patchifier))
    train = TrainConfig(scratchpads_per_byte=None, scratchpad_threshold_nats=1.5)
    if kind == "whitespace":  # a rate to follow is nothing to a trigger that follows none
        train = TrainConfig()
    with pytest.raises(ConfigError) as caught:
        default_rates(Config(model=model, train=train))
    assert (
        caught.value.message == f"scratchpads_per_byte depends on the text {message}; allowed: a rate from 0 to 0.9375"
    )
    assert "Pass --scratchpads-per-byte" in caught.value.hint


@pytest.mark.parametrize(
    ("wrong", "message", "hint"),
    [
        ({"patches_per_byte": 0.0}, "patches_per_byte is 0.0; allowed: above 0, at most 1", "--mean-patch-size"),
        ({"patches_per_byte": 1.1}, "patches_per_byte is 1.1; allowed: above 0, at most 1", "--mean-patch-size"),
        ({"patches_per_byte": math.nan}, "patches_per_byte is nan; allowed: above 0", "--mean-patch-size"),
        ({"scratchpads_per_byte": -0.1}, "scratchpads_per_byte is -0.1 with 0.125 patches", "--scratchpads-per-byte"),
        ({"scratchpads_per_byte": 0.9}, "allowed: 0 to 0.875 (no scratchpad where", "--scratchpads-per-byte"),
        ({"scratchpads_per_byte": math.nan}, "scratchpads_per_byte is nan", "--scratchpads-per-byte"),
        ({"context_bytes": 0}, "context_bytes is 0; allowed: an integer of at least 1", "--context"),
        ({"positions_per_byte": 0.9}, "positions_per_byte is 0.9; allowed: a number of at least 1", ""),
        ({"dtype": "int8"}, "dtype is 'int8'; allowed: float32, bfloat16, float16", "Choose one"),
    ],
)
def test_impossible_rate_is_an_error_that_names_value_and_range(wrong: dict[str, Any], message: str, hint: str) -> None:
    given: dict[str, Any] = {"context_bytes": 1024, "patches_per_byte": 1 / 8, "scratchpads_per_byte": 1 / 8, **wrong}
    with pytest.raises(ConfigError) as caught:
        cost(SMALL, **given)
    assert message in caught.value.message
    assert hint in caught.value.hint


def test_rates_at_the_edge_of_the_range_are_accepted() -> None:
    third = 1 / 3
    costs = cost(SMALL, context_bytes=1, patches_per_byte=third, scratchpads_per_byte=1 - third + 1e-10)
    assert costs.trunk_calls_per_byte == pytest.approx(1)
    assert cost(SMALL, context_bytes=9, patches_per_byte=1.0, scratchpads_per_byte=0.0).trunk_calls_per_byte == 1


def test_measured_text_shorter_than_a_patch_has_a_cost() -> None:
    rates: dict[str, Any] = {"context_bytes": 1024, "patches_per_byte": 0.0, "scratchpads_per_byte": 0.0}
    costs = cost(SMALL, trunk_pairs_per_slot=0.0, pooled_bytes_per_slot=0.0, **rates)
    assert costs.parts["trunk"].flops_per_byte == costs.trunk_cache_bytes_per_byte == 0
    assert costs.flops_per_byte > 0


def test_measured_scratchpads_may_include_those_at_separators() -> None:
    config = RUNS["always"]
    output = build(config)(one_document_per_row())
    costs = measured_cost(config, output)
    assert costs.trunk_calls_per_byte * NUM_BYTES == pytest.approx(NUM_BYTES + 1)
    rates = {"patches_per_byte": costs.patches_per_byte, "scratchpads_per_byte": costs.scratchpads_per_byte}
    with pytest.raises(ConfigError, match="no scratchpad where a patch ends"):
        cost(config, context_bytes=NUM_BYTES, **rates)


def test_tokens_are_looked_up_and_their_scratchpads_may_stand_at_every_byte() -> None:
    config = tiny_model_config("tokens", "always")
    model = sharp_model(config)
    by_part = count_parameters(config)
    for part in PARTS:
        module = getattr(model, part)
        assert by_part[part] == (0 if module is None else sum(weights.numel() for weights in module.parameters()))
    patches_per_byte, scratchpads_per_byte = default_rates(Config(model=config))
    assert (patches_per_byte, scratchpads_per_byte) == (1 / 5, 1.0)
    few, many = (
        cost(config, context_bytes=64, patches_per_byte=0.25, scratchpads_per_byte=rate) for rate in (0.0, 1.0)
    )
    assert many.trunk_calls_per_byte == 1.25
    assert few.parts["patch_pooling"].flops_per_byte == many.parts["patch_pooling"].flops_per_byte == 0
    assert many.trunk_cache_bytes_per_byte == few.trunk_cache_bytes_per_byte > 0
    with pytest.raises(ConfigError, match=r"allowed: 0 to 1 \(one at each byte"):
        cost(config, context_bytes=64, patches_per_byte=0.25, scratchpads_per_byte=1.1)
