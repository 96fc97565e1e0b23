"""Int8 weights: products as exact as fp32, parity of passes and steps, decisions, copies, and what is refused."""

import copy
import math
import os
import pickle
import subprocess
import sys
from contextlib import nullcontext

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import patchpad
from patchpad.data.bundled_text import bundled_excerpt
from patchpad.errors import ConfigError
from patchpad.evaluation.bits_per_byte import evaluate
from patchpad.inference.compiled import compiled_kernels
from patchpad.inference.draft_rule import LEAST_TRUNK_PARAMETERS, has_large_trunk
from patchpad.inference.patch_stepper import PatchStepper
from patchpad.model import int8
from patchpad.model.int8 import Int8Linear, num_parameters, use_int8
from patchpad.model.weights import Linear, PreciseLinear
from patchpad.testing import (
    as_row,
    assert_steps_equal_pass,
    batch_of,
    ragged_packed_rows,
    sharp_model,
    thresholds_to_try,
    tiny_baseline_config,
    tiny_model_config,
)

KINDS = ("int8", "int8-all")
TOLERANCE = 1e-6
"""Of a product, relative to the largest one of its row."""


def random_layer(seed: int, largest_digit: int) -> tuple[Int8Linear, torch.Tensor]:
    """Returns a layer and inputs of several rows, one of them zeros and one with an outlier."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(33, 70, generator=generator) * torch.rand(33, 1, generator=generator)
    inputs = torch.randn(6, 70, generator=generator) * 10 ** torch.linspace(-6, 6, 6)[:, None]
    inputs[1] = 0
    inputs[2, 5] = 1000 * inputs[2].abs().max()
    return Int8Linear(weight, largest_digit), inputs


@pytest.mark.parametrize("largest_digit", [127, 63])
@given(seed=st.integers(0, 9_999))
def test_products_are_those_of_the_rounded_weights_as_exactly_as_in_fp32(largest_digit, seed):
    layer, inputs = random_layer(seed, largest_digit)
    expected = inputs.double() @ layer.dequantised().double().T
    errors = (layer(inputs) - expected).abs().amax(dim=1) / expected.abs().amax(dim=1).clamp_min(1e-30)
    assert float(errors.max()) <= TOLERANCE


@given(seed=st.integers(0, 9_999))
def test_a_row_does_not_depend_on_the_rows_beside_it(seed):
    layer, inputs = random_layer(seed, 127)
    alone = torch.cat([layer(row[None]) for row in inputs])
    assert torch.equal(layer(inputs), alone)
    assert torch.equal(layer(inputs.view(2, 3, -1)).flatten(0, 1), alone)


def test_weights_are_rounded_by_at_most_half_a_step_of_their_own_output():
    weight = torch.randn(5, 40) * torch.tensor([1e-3, 1.0, 50.0, 0.0, 2.0])[:, None]
    rounding = (Int8Linear(weight).dequantised() - weight).abs().amax(dim=1)
    assert bool((rounding <= weight.abs().amax(dim=1) / 127 * 0.5001).all())


def test_no_rows_give_no_rows():
    assert Int8Linear(torch.randn(5, 8))(torch.zeros(0, 8)).shape == (0, 5)


COMBINATIONS = [
    ("int8", "fixed", "entropy", {}),
    ("int8-all", "spacebyte", "entropy", {}),
    ("int8-all", "entropy", "entropy", {}),
    ("int8-all", "hnet", "entropy", {}),
    ("int8", "tokens", "ending_entropy", {"source_head": "tied"}),
    ("int8-all", "tokens", "ending_entropy", {"source_head": "own"}),
]


@pytest.mark.unchecked
@pytest.mark.parametrize(("kind", "patchifier", "trigger", "options"), COMBINATIONS)
@given(seed=st.integers(0, 9_999), lengths=st.lists(st.integers(0, 30), min_size=1, max_size=2), data=st.data())
def test_one_pass_equals_prefill_and_steps_with_int8_weights(kind, patchifier, trigger, options, seed, lengths, data):
    model = use_int8(sharp_model(tiny_model_config(patchifier, trigger, **options), seed=seed % 5), kind)
    rows, first = ragged_packed_rows(seed, lengths)
    splits = [data.draw(st.integers(0, length)) for length in first]
    for threshold in thresholds_to_try(model, batch_of(rows)):
        assert_steps_equal_pass(model, rows, splits, threshold)


@pytest.mark.unchecked
@pytest.mark.parametrize("digits", [3, 1])
def test_parity_in_a_model_of_real_size_needs_more_than_one_digit(monkeypatch, digits):
    monkeypatch.setattr(int8, "NUM_DIGITS", {127: digits, 63: digits + (digits > 1)})
    model = patchpad.load(weights="int8")
    row = as_row(b"It is a truth universally acknowledged, that a single man in possession of a good fortune")
    with nullcontext() if digits > 1 else pytest.raises(AssertionError):
        assert_steps_equal_pass(model, [row], [20], -math.inf)


@pytest.mark.compile
def test_compiled_steps_equal_the_pass_of_the_same_quantised_model():
    model = use_int8(sharp_model(tiny_model_config("fixed")), "int8-all")
    rows, first = ragged_packed_rows(2, [20, 13])
    kernels = compiled_kernels(backend="aot_eager")
    for threshold in thresholds_to_try(model, batch_of(rows)):
        assert_steps_equal_pass(model, rows, first, threshold, PatchStepper(model, kernels))
    assert kernels.refresh.compiled.compiled is not None
    assert not kernels.refresh.compiled.gave_way


@pytest.mark.compile
@pytest.mark.slow
def test_inductor_compiles_steps_with_int8_weights():
    model = use_int8(sharp_model(tiny_model_config("fixed")))
    rows, first = ragged_packed_rows(2, [20, 13])
    kernels = compiled_kernels()
    assert_steps_equal_pass(model, rows, first, -math.inf, PatchStepper(model, kernels))
    assert not kernels.refresh.compiled.gave_way


def test_int8_leaves_entropies_and_so_patches_and_scratchpads_as_they_are():
    plain = patchpad.load()
    quantised = patchpad.load(weights="int8")
    ids = torch.tensor([[256, *b"It is a truth universally acknowledged, that a single man in possession of a"]])
    with torch.no_grad():
        one, other = plain(ids), quantised(ids)
    assert torch.equal(one.entropy_nats, other.entropy_nats)
    assert torch.equal(one.layout.slot_byte, other.layout.slot_byte)
    assert not torch.equal(one.logits, other.logits)


@pytest.mark.unchecked
@pytest.mark.parametrize("kind", KINDS)
def test_bits_per_byte_stay_within_a_tenth_of_a_percent(kind):
    corpus = bundled_excerpt().corpus
    plain, quantised = (
        evaluate(patchpad.load(weights=weights), corpus, limit_bytes=4000)[0] for weights in ("fp32", kind)
    )
    assert quantised.bits_per_byte == pytest.approx(plain.bits_per_byte, rel=1e-3)
    assert quantised.bits_per_byte != plain.bits_per_byte


def test_int8_quantises_the_trunk_and_int8_all_the_local_parts_too():
    for kind, local in (("int8", Linear), ("int8-all", Int8Linear)):
        model = use_int8(sharp_model(tiny_model_config("fixed")), kind)
        assert model.weights == kind
        assert type(model.trunk.stack.blocks[0].ffn_down) is Int8Linear
        assert type(model.context_to_bytes.projection) is Int8Linear
        assert type(model.local_encoder.stack.blocks[0].ffn_down) is local
        assert type(model.local_decoder.lm_head) is PreciseLinear


@pytest.mark.parametrize("kind", ["byte", "megabyte"])
def test_baselines_step_with_int8_weights(kind):
    model = use_int8(patchpad.model.build.build_model(tiny_baseline_config(kind)).eval(), "int8-all")
    assert isinstance(patchpad.generate(model, "abc", max_new_bytes=5, temperature=0.0), str)


def test_int8_weights_take_a_quarter_of_the_memory_and_still_count_as_parameters():
    plain, quantised = (patchpad.load(weights=weights) for weights in ("fp32", "int8"))
    sizes = [sum(tensor.nbytes for tensor in one.trunk.state_dict().values()) for one in (plain, quantised)]
    assert sizes[1] < 0.27 * sizes[0]
    assert num_parameters(quantised) == num_parameters(plain)


def test_drafts_are_tried_for_a_large_trunk_with_int8_weights(monkeypatch):
    model = use_int8(sharp_model(tiny_model_config("fixed")))
    assert not has_large_trunk(model)
    monkeypatch.setattr("patchpad.inference.draft_rule.LEAST_TRUNK_PARAMETERS", num_parameters(model.trunk))
    assert has_large_trunk(model)
    assert sum(one.numel() for one in model.trunk.parameters()) < num_parameters(model.trunk) < LEAST_TRUNK_PARAMETERS


def test_copies_and_pickles_predict_the_same():
    layer, inputs = random_layer(0, 127)
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert other.layer != layer.layer
        assert torch.equal(other(inputs), layer(inputs))


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (lambda model: model.train(), "cannot be trained; allowed: inference"),
        (lambda model: model.to("meta"), "cannot be moved to meta; allowed: cpu"),
        (lambda model: model.load_state_dict({}), "cannot take other weights"),
    ],
)
def test_what_needs_fp32_weights_is_refused_and_changes_nothing(task, message):
    model = use_int8(sharp_model(tiny_model_config("fixed")))
    ids = torch.tensor([[256, *b"some text"]])
    with torch.no_grad():
        before = model(ids).logits
        with pytest.raises(ConfigError, match=message):
            task(model)
        assert torch.equal(model(ids).logits, before)
    assert not any(module.training for module in model.modules())


def test_a_cast_leaves_scales_in_fp32():
    layer, inputs = random_layer(0, 127)
    before = layer(inputs)
    assert torch.equal(layer.bfloat16()(inputs), before)
    assert layer(inputs.bfloat16()).dtype == torch.bfloat16


@pytest.mark.unchecked
def test_unknown_weights_and_other_devices_are_refused_before_anything_is_read():
    with pytest.raises(ConfigError, match="weights is 'int4'; allowed: fp32, int8, int8-all"):
        patchpad.load("no/such/run", weights="int4")
    with pytest.raises(ConfigError, match="weights is 'int8' with the device meta; allowed there: fp32"):
        patchpad.load("no/such/run", device=torch.device("meta"), weights="int8")


def test_a_torch_without_int8_products_is_told(monkeypatch):
    def missing(*arguments: object) -> None:
        raise AttributeError("'_OpNamespace' 'onednn' object has no attribute 'qlinear_prepack'")

    monkeypatch.setattr(int8, "PackedWeights", missing)
    int8._largest_digit.cache_clear()
    try:
        with pytest.raises(ConfigError, match=r"need oneDNN's int8 products, and this torch .*qlinear_prepack"):
            patchpad.load(weights="int8")
    finally:
        int8._largest_digit.cache_clear()


@pytest.mark.skipif(sys.platform != "linux", reason="a variable of oneDNN that holds on Linux on x86")
@pytest.mark.slow
def test_digits_are_smaller_where_a_processor_adds_up_large_ones_wrongly():
    program = (
        "import torch; from patchpad.model.int8 import Int8Linear; torch.manual_seed(0); "
        "layer = Int8Linear(torch.full((16, 64), 127.0)); inputs = torch.full((2, 64), 3.0); "
        "print(layer.largest_digit, float((layer(inputs) - inputs @ layer.dequantised().T).abs().max()))"
    )
    environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2"}
    found = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    largest, error = found.stdout.split()
    assert int(largest) in (63, 127)  # other processors may be exact with AVX2, too
    assert float(error) <= 0.1
