"""Patches that are tokens of the trunk's source: the trunk reads what it was trained on."""

import math

import pytest
import torch
from torch.nn import functional as F

from patchpad.config import SEPARATOR
from patchpad.patching import OpenPiece
from patchpad.testing import (
    as_row,
    batch_of,
    random_documents,
    sharp_model,
    thresholds_to_try,
    tiny_model_config,
    tiny_source_tokens,
    tolerance,
)

TEXTS = [b"The cat doesn't sit on the mat; it's in the hat, and they'll", "naïve café, 日本語 の\n\n  x".encode()]


@pytest.fixture(scope="module")
def model():
    return sharp_model(tiny_model_config("tokens", "entropy", max_patch_size=24))


def tokens_of(model, text: bytes) -> list[int]:
    """The tokens of a text that are committed by its end, the one that begins it first."""
    tokens, piece = [model.source_tokens.begin], OpenPiece()
    for value in text:
        committed, piece = model.source_tokens.advance(piece, value)
        tokens += committed
    assert model.source_tokens.text_of(tokens) + piece.text == text
    return tokens


def plain_pass(model, tokens: list[int]) -> torch.Tensor:
    """The trunk as the source is: each token sees those before it."""

    def attend(layer, query, key, value):
        query, key, value = (part.transpose(0, 1) for part in (query, key, value))
        return F.scaled_dot_product_attention(query, key, value, is_causal=True).transpose(0, 1)

    return model.trunk(model.patch_pooling.embedding(torch.tensor(tokens)), torch.arange(len(tokens)), attend)


@pytest.mark.parametrize("threshold", [math.inf, -math.inf])
def test_commits_are_what_the_trunk_makes_of_the_tokens_of_the_text(model, threshold):
    outputs = []
    handle = model.trunk.register_forward_hook(lambda module, inputs, output: outputs.append(output))
    with torch.no_grad():
        layout = model(torch.tensor([as_row(*TEXTS)]), threshold).layout
        handle.remove()
        expected = torch.cat([plain_pass(model, tokens_of(model, text)) for text in TEXTS])
    assert layout.room.commits == len(expected)
    assert float((outputs[0][: len(expected)] - expected).abs().max()) <= tolerance(expected)


def test_a_scratchpad_over_one_token_is_what_the_commit_of_that_token_will_be(model):
    outputs = []
    handle = model.trunk.register_forward_hook(lambda module, inputs, output: outputs.append(output))
    with torch.no_grad():
        output = model(torch.tensor([as_row(TEXTS[0])]), -math.inf)
    handle.remove()
    layout, tokens = output.layout, output.facts.tokens
    open_token, commits, newest = (
        tokens.open_token[0].tolist(),
        tokens.num_commits[0].tolist(),
        layout.newest_commit[0].tolist(),
    )
    compared = 0
    for byte in range(1, len(open_token) - 1):
        commit = newest[byte + 1] - 1
        if open_token[byte] >= 0 and commits[byte + 1] == 1 and int(tokens.commit_tokens[commit]) == open_token[byte]:
            scratchpad = int(layout.newest_slot[0, byte]) - 1
            assert not layout.slot_is_commit[scratchpad]
            assert layout.slot_is_commit[commit]
            difference = float((outputs[0][scratchpad] - outputs[0][commit]).abs().max())
            assert difference <= tolerance(outputs[0][commit])
            compared += 1
    assert compared > 5


def test_scratchpads_embed_the_open_token_and_fire_over_no_other_text(model):
    ids = torch.tensor([as_row(*random_documents(3, [60, 20]))])
    inputs = []
    handle = model.trunk.register_forward_hook(lambda module, given, output: inputs.append(given[0]))
    with torch.no_grad():
        output = model(ids, -math.inf)
    handle.remove()
    layout, tokens = output.layout, output.facts.tokens
    several = (tokens.open_bytes > 0) & (tokens.open_token < 0)
    assert int(several.sum()) > 3
    assert torch.equal(layout.scratchpad_mask, tokens.open_token >= 0)
    assert torch.equal(layout.may_fire, layout.scratchpad_mask)
    scratchpads = tokens.open_token.flatten()[layout.slot_byte[layout.room.commits :]]
    assert torch.equal(inputs[0][layout.room.commits :], model.patch_pooling.embedding.weight[scratchpads])


def test_random_bytes_and_packed_rows_have_a_slot_for_every_token(model):
    rows = [as_row(*random_documents(5, [50, 0, 9])), [SEPARATOR, SEPARATOR], as_row(bytes(range(256)))]
    threshold = thresholds_to_try(model, batch_of(rows))[0]
    with torch.no_grad():
        layout = model(batch_of(rows), threshold).layout
    for row, ids in enumerate(rows):
        texts = bytes(value if value < SEPARATOR else 0 for value in ids[1:])
        documents, start = [], 0
        for place, value in enumerate(ids[1:]):
            if value == SEPARATOR:
                documents.append(texts[start:place])
                start = place + 1
        documents.append(texts[start:])
        assert int(layout.commits_at[row].sum()) == sum(len(tokens_of(model, text)) for text in documents)


def test_longer_text_than_the_longest_stays_open_for_no_more_bytes():
    model = sharp_model(tiny_model_config("tokens", "never", max_patch_size=9))
    assert model.source_tokens is tiny_source_tokens(9)
    with torch.no_grad():
        layout = model(torch.tensor([as_row(b" " * 100)])).layout
    assert int(layout.open_bytes.max()) == 9
    assert int(layout.patch_lag.max()) <= 9
