"""Which attention a full pass takes, and how it goes on where FlexAttention fails."""

import logging

import pytest
import torch
from torch.nn.attention import flex_attention as torch_flex

from patchpad.errors import ConfigError
from patchpad.model import back_ends, flex_attention, visibility
from patchpad.model.attention import SlotAttention, WindowAttention
from patchpad.model.back_ends import attention_back_end, slot_attention, window_attentions
from patchpad.model.flex_attention import FlexSlotAttention, FlexWindowAttention
from patchpad.model.fused_attention import FusedSlotAttention
from patchpad.patching import Documents
from patchpad.testing import as_row, random_documents, sharp_model, tiny_model_config, tolerance


def some_ids() -> torch.Tensor:
    return torch.tensor([as_row(*random_documents(1, [60, 31]))])


def test_only_the_masks_of_the_chosen_back_end_are_built(monkeypatch):
    monkeypatch.setattr(torch_flex, "_FLEX_ATTENTION_DISABLE_COMPILE_DEBUG", True)  # as it is, without a warning
    model, ids = sharp_model(tiny_model_config("spacebyte", "entropy")), some_ids()

    def unwanted(*_, **__):
        raise AssertionError("built for nothing")

    for name, owner, attribute in (
        ("flex", visibility.Window, "build"),
        ("flex", SlotAttention, "__init__"),
        ("reference", flex_attention, "block_mask_of_ranges"),
        ("auto", flex_attention, "block_mask_of_ranges"),
    ):
        with monkeypatch.context() as patch, torch.no_grad(), attention_back_end(name):
            patch.setattr(owner, attribute, unwanted)
            model(ids, 1.5)


def test_back_ends_are_chosen_by_device_and_by_name(monkeypatch):
    documents = Documents.locate(some_ids())
    layout = sharp_model(tiny_model_config("spacebyte", "never"))(some_ids()).layout
    assert isinstance(window_attentions(documents, (6,))[0], WindowAttention)
    assert isinstance(slot_attention(layout), FusedSlotAttention)
    with attention_back_end("flex"):
        assert isinstance(window_attentions(documents, (6,))[0], FlexWindowAttention)
        with attention_back_end("reference"):
            assert isinstance(window_attentions(documents, (6,))[0], WindowAttention)
        assert isinstance(slot_attention(layout), FlexSlotAttention)
    with pytest.raises(ConfigError, match="auto, reference, flex"), attention_back_end("fast"):
        pass
    assert back_ends._takes_flex(torch.device("cuda"))
    monkeypatch.setattr(flex_attention, "_has_given_up", True)
    assert not back_ends._takes_flex(torch.device("cuda"))


def test_where_it_fails_the_reference_goes_on_after_one_warning(monkeypatch, caplog):
    def fails(query, key):
        raise NotImplementedError("no such kernel\non this card")

    model, ids = sharp_model(tiny_model_config("spacebyte", "entropy")), some_ids()
    expected = model(ids, 1.5, keep_activations=True)
    monkeypatch.setattr(flex_attention, "_kernel", fails)
    monkeypatch.setattr(flex_attention, "_has_given_up", False)
    monkeypatch.setattr(back_ends, "_takes_flex", lambda device: not flex_attention.has_given_up())
    with caplog.at_level(logging.WARNING):
        outputs = [model(ids, 1.5, keep_activations=True) for _ in range(2)]
    for output in outputs:
        assert float((output.logits - expected.logits).detach().abs().max()) <= tolerance(expected.logits)
        assert len(output.activations.encoder) == len(expected.activations.encoder)
        assert len(output.activations.trunk) == len(expected.activations.trunk)
    (record,) = caplog.records
    assert "no such kernel" in record.message
    assert "slower" in record.message
    with pytest.raises(NotImplementedError):
        FlexSlotAttention(expected.layout)(0, *torch.zeros(3, expected.layout.room.slots, 1, 16))


def test_too_large_a_batch_is_no_reason_to_give_up(monkeypatch):
    def fails(query, key):
        raise torch.OutOfMemoryError

    monkeypatch.setattr(flex_attention, "_kernel", fails)
    monkeypatch.setattr(back_ends, "_takes_flex", lambda device: True)
    with pytest.raises(torch.OutOfMemoryError):
        sharp_model(tiny_model_config("spacebyte", "never"))(some_ids())
    assert not flex_attention.has_given_up()
