"""A model may be cast, loaded and built whatever the caller's defaults are."""

import math

import pytest
import torch

import patchpad
from patchpad.model.block import RMSNorm, Rotary
from patchpad.model.build import build_model
from patchpad.registry import PATCHIFIERS
from patchpad.testing import as_row, random_documents, sharp_model, tiny_model_config

CASTS = {
    "bfloat16": lambda model: model.bfloat16(),
    "half": lambda model: model.half(),
    "to": lambda model: model.to(torch.bfloat16),
    "type": lambda model: model.type(torch.float16),
    "double": lambda model: model.double(),
}
TEXT = b"It was the best of times, it was the worst of times"


@pytest.mark.parametrize("cast", CASTS)
@pytest.mark.parametrize("patchifier", PATCHIFIERS)
def test_positions_and_thresholds_keep_their_precision_in_a_cast(patchifier, cast):
    model, plain = (sharp_model(tiny_model_config(patchifier, "entropy")) for _ in range(2))
    for one in (model, plain):
        one.store_threshold(1.2345678)
    CASTS[cast](model)
    assert {p.dtype for p in model.parameters()} != {torch.float32}
    buffers = dict(plain.named_buffers())
    assert len(buffers) >= 6
    for name, buffer in model.named_buffers():
        assert buffer.dtype in (torch.float32, torch.float64), name
        torch.testing.assert_close(buffer.float(), buffers[name], rtol=0, atol=0, equal_nan=True)


def test_far_positions_have_the_same_angles_after_a_cast():
    rotary = Rotary(16, 10000.0)
    expected = rotary(torch.arange(1000))
    for part, other in zip(expected, rotary.bfloat16()(torch.arange(1000)), strict=True):
        assert torch.equal(part, other)


@pytest.mark.unchecked
@pytest.mark.parametrize("cast", ["bfloat16", "half", "double"])
@pytest.mark.parametrize("patchifier", PATCHIFIERS)
def test_cast_models_score_step_and_complete(patchifier, cast):
    model = CASTS[cast](sharp_model(tiny_model_config(patchifier, "entropy")))
    assert math.isfinite(float(patchpad.score(model, TEXT).sum()))
    logits, state = patchpad.prefill(model, [TEXT[:9]])
    for value in TEXT[9:]:
        logits, state = patchpad.step(model, [value], state)
    assert bool(logits.isfinite().all())


def test_bundled_model_in_bfloat16_is_as_good_as_in_fp32():
    text = b"It is a truth universally acknowledged, that a single man in possession of a good fortune " * 8
    plain, cast = (float(patchpad.score(model, text).sum()) for model in (patchpad.load(), patchpad.load().bfloat16()))
    assert cast == pytest.approx(plain, rel=0.01)


@pytest.fixture(params=[torch.float64, torch.bfloat16, torch.float16], ids=str)
def default_dtype(request):
    before = torch.get_default_dtype()
    torch.set_default_dtype(request.param)
    yield request.param
    torch.set_default_dtype(before)


def test_another_default_type_changes_nothing(default_dtype):
    model = patchpad.load()
    built = build_model(tiny_model_config("hnet", "entropy"))
    assert torch.get_default_dtype() == default_dtype
    for one in (model, built):
        assert {part.dtype for part in (*one.parameters(), *one.buffers())} == {torch.float32}
    found = patchpad.score(model, TEXT)
    torch.set_default_dtype(torch.float32)
    assert found.tolist() == patchpad.score(patchpad.load(), TEXT).tolist()
    assert torch.equal(built.trunk.norm.weight, build_model(tiny_model_config("hnet", "entropy")).trunk.norm.weight)


def test_another_default_device_changes_nothing():
    expected = patchpad.score(patchpad.load(), TEXT, scratchpad_threshold_nats=math.inf)
    with torch.device("meta"):
        model = patchpad.load()
        found = patchpad.score(model, TEXT, scratchpad_threshold_nats=math.inf)
    assert model.device.type == "cpu"
    assert found.tolist() == expected.tolist()


def test_a_model_that_is_loaded_in_inference_mode_can_be_trained_after_it():
    with torch.inference_mode():
        model = patchpad.load()
    assert not any(part.is_inference() for part in (*model.parameters(), *model.buffers()))
    model(torch.tensor([as_row(*random_documents(1, [30]))])).logits.sum().backward()
    assert model.trunk.norm.weight.grad is not None


def test_a_norm_computes_in_the_type_of_its_input_whatever_that_of_its_gains():
    norm, states = RMSNorm(8), torch.randn(3, 8)
    plain = norm(states)
    assert torch.equal(norm.bfloat16()(states), plain)  # gains of 1 are exact; torch would warn of mixed types
