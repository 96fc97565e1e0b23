"""The fused trunk attention gives the values and gradients of the reference, whatever each slot sees."""

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from patchpad.model import fused_attention
from patchpad.model.attention import SlotAttention
from patchpad.model.back_ends import attention_back_end, slot_attention
from patchpad.model.fused_attention import Biases, FusedSlotAttention
from patchpad.patching.layout import TRUNK_BLOCK
from patchpad.registry import PATCHIFIERS
from patchpad.testing import as_row, batch_of, random_documents, sharp_model, thresholds_to_try, tiny_model_config

TOLERANCE = 1e-5
"""Of fp32, times max(1, largest value)."""


def layout_of(rows, threshold=-math.inf, **sizes):
    model = sharp_model(tiny_model_config("spacebyte", "entropy", **sizes))
    with torch.no_grad():
        return model(batch_of(rows), threshold).layout


def heads_of(layout, *, heads=3, kv_heads=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shapes = [(layout.room.slots, count, 8) for count in (heads, kv_heads, kv_heads)]
    return [torch.randn(shape, generator=generator, requires_grad=True) for shape in shapes]


def assert_equals_reference(layout, parts):
    outputs = [back_end(layout)(0, *parts) for back_end in (FusedSlotAttention, SlotAttention)]
    weights = torch.randn(outputs[0].shape, generator=torch.Generator().manual_seed(1))
    gradients = [torch.autograd.grad(output, parts, weights) for output in outputs]
    for fused, reference in zip((outputs[0], *gradients[0]), (outputs[1], *gradients[1]), strict=True):
        assert float((fused - reference).detach().abs().max()) <= TOLERANCE * max(
            1.0, float(reference.detach().abs().max())
        )


def test_a_cpu_takes_it_unless_the_reference_is_chosen():
    layout = layout_of([as_row(b"some words here")])
    assert isinstance(slot_attention(layout), FusedSlotAttention)
    with attention_back_end("reference"):
        assert isinstance(slot_attention(layout), SlotAttention)


@given(seed=st.integers(0, 999), lengths=st.lists(st.integers(0, 60), min_size=1, max_size=4))
def test_values_and_gradients_equal_those_of_the_reference_for_ragged_packed_rows(seed, lengths):
    documents = [random_documents(seed + number, [length, length // 2]) for number, length in enumerate(lengths)]
    rows = [as_row(*pair) for pair in documents]
    for threshold in (-math.inf, math.inf):
        layout = layout_of(rows, threshold)
        if layout.room.slots:
            assert_equals_reference(layout, heads_of(layout, seed=seed))


def test_grouped_queries_share_keys_and_values():
    layout = layout_of([as_row(*random_documents(2, [70, 40])), as_row(b"x")])
    assert_equals_reference(layout, heads_of(layout, heads=6, kv_heads=2))


@given(seed=st.integers(0, 999), lengths=st.lists(st.integers(0, 60), min_size=1, max_size=4))
def test_values_and_gradients_equal_those_of_the_reference_in_a_window_of_the_trunk(seed, lengths):
    rows = [as_row(*random_documents(seed + number, [length, 30])) for number, length in enumerate(lengths)]
    layout = layout_of(rows, trunk_window_patches=2)
    assert int((layout.visible_to - layout.visible_from).max()) == 2
    assert_equals_reference(layout, heads_of(layout, seed=seed))


@pytest.mark.parametrize("window", [None, 40])
def test_rows_of_several_blocks(window):
    long = as_row(*random_documents(5, [TRUNK_BLOCK + 300]))
    unbroken = as_row(b"a" * 900)  # 900 scratchpads before the first commits of the row's second document
    rows = [long, unbroken[:700] + as_row(b"and words after it")]
    layout = layout_of(rows, max_patch_size=2000, trunk_window_patches=window)
    assert len(layout.rows.block_commits) > 1
    assert_equals_reference(layout, heads_of(layout))


def test_a_block_in_which_no_slot_sees_a_commit():
    layout = layout_of([as_row(b"a" * (TRUNK_BLOCK + 90))], max_patch_size=2000)
    assert layout.rows.block_commits == ((0, 0), (0, 0))
    assert_equals_reference(layout, heads_of(layout))


@pytest.mark.parametrize(("patchifier", "trigger"), list(itertools.product(PATCHIFIERS, ["entropy", "stride"])))
def test_a_models_loss_and_gradients_equal_those_of_the_reference(patchifier, trigger):
    model = sharp_model(tiny_model_config(patchifier, trigger))
    ids = batch_of([as_row(*random_documents(3, [50, 20])), as_row(*random_documents(9, [33]))])
    for threshold in thresholds_to_try(model, ids):
        found = []
        for name in ("auto", "reference"):
            with attention_back_end(name):
                model.zero_grad()
                logits = model(ids, threshold).logits
                (logits.log_softmax(-1)[..., 97].mean()).backward()
            gradients = {key: part.grad.clone() for key, part in model.named_parameters() if part.grad is not None}
            found.append({"logits": logits.detach(), **gradients})
        assert found[0].keys() == found[1].keys()
        for name, reference in found[1].items():
            allowed = 3 * TOLERANCE * max(1.0, float(reference.abs().max()))
            assert float((found[0][name] - reference).abs().max()) <= allowed, (threshold, name)


@pytest.mark.unchecked
def test_gradients_equal_finite_differences_in_double_precision():
    layout = layout_of([as_row(b"ab cd ef"), as_row(b"gh")])
    parts = [part.detach().double().requires_grad_() for part in heads_of(layout)]
    assert torch.autograd.gradcheck(lambda *given: FusedSlotAttention(layout)(0, *given), parts)


def test_large_biases_are_made_anew_and_give_the_same(monkeypatch):
    layout = layout_of([as_row(b"some words of it " * 40), as_row(b"and others " * 9)])
    kept = Biases(layout, torch.float32)
    monkeypatch.setattr(fused_attention, "MOST_KEPT", 0)
    fresh = Biases(layout, torch.float32)
    assert len(layout.rows.block_commits) > 1
    for block in range(len(layout.rows.block_commits)):
        assert kept.of_block(block)[0] is kept.of_block(block)[0]
        assert fresh.of_block(block)[0] is not fresh.of_block(block)[0]
        for one, other in zip(kept.of_block(block), fresh.of_block(block), strict=True):
            assert torch.equal(one, other)
