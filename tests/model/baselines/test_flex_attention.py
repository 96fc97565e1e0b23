"""FlexAttention gives what the reference gives, in the baselines too."""

import logging

import pytest
import torch
from torch.nn.attention import flex_attention as torch_flex

from patchpad.config import SEPARATOR
from patchpad.model import back_ends, flex_attention
from patchpad.model.back_ends import attention_back_end, document_attention
from patchpad.model.document_attention import DocumentAttention
from patchpad.model.flex_attention import FlexWindowAttention
from patchpad.patching import Documents
from patchpad.testing import BASELINE_KINDS, ids_of, random_documents, sharp_baseline, tolerance

GRADIENT_TOLERANCE = 1e-4
"""Allowed difference of two fp32 gradients of a parameter, times its largest entry."""
every_kind = pytest.mark.parametrize("kind", BASELINE_KINDS)


@pytest.fixture
def unfused(monkeypatch):
    """Lets FlexAttention run as it is: without the compiler and its warning, and with gradients."""
    monkeypatch.setattr(torch_flex, "_FLEX_ATTENTION_DISABLE_COMPILE_DEBUG", True)
    monkeypatch.setattr(torch_flex, "_validate_device", lambda *_: None)


def ragged_batch(model, longest: int = 300) -> torch.Tensor:
    """Several documents a row over more than one block, an empty one, and a row that has nothing but a separator."""
    first, second = random_documents(1, [longest // 2, 0, longest // 4]), random_documents(2, [17, longest, 9])
    rows = [ids_of(model, *first), [SEPARATOR], ids_of(model, *second)]
    ids = torch.full((len(rows), max(map(len, rows))), model.padding_id)
    for row, values in zip(ids, rows, strict=True):
        row[: len(values)] = torch.tensor(values)
    return ids


def test_each_position_sees_its_document_up_to_itself():
    documents = Documents.locate(ragged_batch(sharp_baseline("byte"), 1200))
    length = documents.start.shape[1]
    with attention_back_end("flex"):
        attention = document_attention(documents.start)
    assert isinstance(attention, FlexWindowAttention)
    mask = attention.window.block_mask
    assert int(mask.full_kv_num_blocks.max()) > 1
    rows, places, keys = torch.arange(len(documents.start)), torch.arange(length), torch.arange(length)
    found = mask.mask_mod(rows[:, None, None], 0, places[:, None], keys)
    number = (documents.offset == 0).cumsum(1)
    expected = (number[:, :, None] == number[:, None, :]) & (keys <= places[:, None])
    assert torch.equal(found, expected)
    assert torch.equal(mask.to_dense()[:, 0].bool(), seen_blocks(expected, mask.shape[-1]))


def seen_blocks(visible: torch.Tensor, padded_length: int) -> torch.Tensor:
    """Which blocks of keys any query of a block sees."""
    length = visible.shape[-1]
    padded = torch.zeros(len(visible), padded_length, padded_length, dtype=torch.bool)
    padded[:, :length, :length] = visible
    block = flex_attention.BLOCK
    return padded.unflatten(2, (-1, block)).unflatten(1, (-1, block)).any(4).any(2)


def outputs_and_gradients(model, ids, back_end: str):
    model.zero_grad()
    with attention_back_end(back_end):
        output = model(ids, keep_activations=True)
    logits = output.logits.masked_fill(~output.logits.isfinite(), 0)[~output.documents.is_padding]
    logits.log_softmax(-1).square().mean().backward()
    return output, logits.detach(), {name: part.grad for name, part in model.named_parameters()}


@every_kind
def test_logits_gradients_and_kept_keys_are_those_of_the_reference(unfused, monkeypatch, kind):
    model = sharp_baseline(kind)
    ids = ragged_batch(model)
    expected, expected_logits, expected_gradients = outputs_and_gradients(model, ids, "reference")
    monkeypatch.setattr(DocumentAttention, "__init__", lambda *_, **__: pytest.fail("the reference is built"))
    output, logits, gradients = outputs_and_gradients(model, ids, "flex")
    assert float((logits - expected_logits).abs().max()) <= tolerance(expected_logits)
    for name, part in expected_gradients.items():
        difference = float((gradients[name] - part).abs().max())
        assert difference <= GRADIENT_TOLERANCE * (float(part.abs().max()) + 0.01), name
    assert len(output.trunk) == len(expected.trunk) == model.config.trunk_layers
    assert len(output.local) == len(expected.local)
    for pair, expected_pair in zip(output.trunk + output.local, expected.trunk + expected.local, strict=True):
        torch.testing.assert_close(pair, expected_pair, rtol=1e-4, atol=1e-4)


@every_kind
def test_where_it_fails_the_reference_goes_on_after_one_warning(monkeypatch, caplog, kind):
    def fails(query, key):
        raise NotImplementedError("no such kernel")

    model = sharp_baseline(kind)
    ids = ragged_batch(model)
    with torch.no_grad():
        expected = model(ids).logits
        monkeypatch.setattr(flex_attention, "_kernel", fails)
        monkeypatch.setattr(flex_attention, "_has_given_up", False)
        monkeypatch.setattr(back_ends, "_takes_flex", lambda device: not flex_attention.has_given_up())
        with caplog.at_level(logging.WARNING):
            found = [model(ids).logits for _ in range(2)]
    assert "no such kernel" in caplog.text
    assert len(caplog.records) == 1
    for logits in found:
        torch.testing.assert_close(logits, expected, rtol=0, atol=tolerance(expected[expected.isfinite()]))


@pytest.mark.gpu
@pytest.mark.filterwarnings("default")  # what PyTorch's compiler warns about is not this package's to fix
@every_kind
def test_on_cuda_logits_and_gradients_are_those_of_the_reference(kind):
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    model = sharp_baseline(kind)
    ids = ragged_batch(model).to("cuda")
    model = model.to("cuda")
    _, expected, expected_gradients = outputs_and_gradients(model, ids, "reference")
    _, logits, gradients = outputs_and_gradients(model, ids, "auto")
    assert not flex_attention.has_given_up()
    assert float((logits - expected).abs().max()) <= tolerance(expected)
    for name, part in expected_gradients.items():
        difference = float((gradients[name] - part).abs().max())
        assert difference <= GRADIENT_TOLERANCE * (float(part.abs().max()) + 0.01), name
