"""Baselines generate through the same engine: rows alone and together, limits, stop strings, UTF-8."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import patchpad
from patchpad.inference.engine import Engine, Request
from patchpad.inference.sampling import Sampling
from patchpad.model.build import build_model
from patchpad.testing import BASELINE_KINDS, ids_of, random_documents, sharp_baseline, tiny_baseline_config

every_kind = pytest.mark.parametrize("kind", BASELINE_KINDS)


@pytest.fixture(scope="module", params=BASELINE_KINDS)
def model(request):
    return sharp_baseline(request.param, seed=3)


@pytest.fixture(scope="module")
def long_tokens():
    """A bpe model of which every prediction is a long token: `日本語` or `hello world`."""
    model = build_model(tiny_baseline_config("bpe", bpe_vocab_size=330)).eval()
    model.prepare([np.frombuffer("日本語日本語 helloworld helloworld ".encode() * 30, dtype=np.uint8)])
    wanted = [model.tokens.encode(text.encode()) for text in ("日本語", " helloworld")]
    assert [len(one) for one in wanted] == [1, 1]
    model.predict = lambda states: forced(states, model.config.bpe_vocab_size, [one[0] for one in wanted])
    return model


def forced(states: torch.Tensor, num_outcomes: int, tokens: list[int]) -> torch.Tensor:
    logits = torch.full((*states.shape[:-1], num_outcomes), -torch.inf)
    logits[..., tokens] = 0.0
    return logits


def facts(row):
    return bytes(row.data), row.stop_reason, row.trunk_calls, row.trunk_cache_entries


def run(engine, requests):
    rows = engine.submit(requests)
    while not engine.is_done:
        engine.advance()
    return rows


@given(
    lengths=st.lists(st.integers(0, 60), min_size=1, max_size=7),
    batch_rows=st.integers(1, 4),
    seed=st.integers(0, 1000),
)
def test_rows_that_join_and_leave_give_what_they_give_alone(model, lengths, batch_rows, seed):
    requests = [
        Request(
            prompt=prompt,
            max_new_bytes=3 + 5 * (number % 4),
            threshold=float(model.scratchpad_threshold_nats),
            sampling=Sampling(temperature=float(number % 2), top_p=0.95),
            seed=number,
        )
        for number, prompt in enumerate(random_documents(seed, lengths))
    ]
    together = run(Engine(model, batch_rows=batch_rows), requests)
    alone = [run(Engine(model), [one])[0] for one in requests]
    assert [facts(row) for row in together] == [facts(row) for row in alone]


def test_greedy_generation_takes_the_likeliest_next_id_of_the_full_pass(model):
    prompt = b"It was"
    completion = patchpad.complete(model, [prompt], max_new_bytes=25, temperature=0.0)[0]
    ids, data = ids_of(model, prompt), b""
    with torch.no_grad():
        while len(data) < 25:
            best = int(model(torch.tensor([ids])).logits[0, -1].argmax())
            piece = model.bytes_of(best)
            if piece is None:
                break
            ids.append(best)
            data += piece
    assert completion.data == data[:25]
    size = model.config.patchifier.target_patch_size
    read = len(ids) if completion.stop_reason == "end" else len(ids) - 1  # nothing reads the last id
    assert completion.trunk_calls == (read if model.config.kind != "megabyte" else (read - 1) // size + 1)
    assert completion.trunk_cache_entries == completion.trunk_calls


@pytest.mark.parametrize("limit", [0, 1, 7, 8, 20])
def test_the_limit_of_bytes_is_exact_inside_a_token(long_tokens, limit):
    completions = patchpad.complete(long_tokens, ["a", "b", "c"], max_new_bytes=limit, temperature=1.0)
    assert [len(completion.data) for completion in completions] == [limit] * 3
    assert {completion.stop_reason for completion in completions} == {"length"}


def test_a_stop_string_inside_a_token_ends_the_row_before_it(long_tokens):
    completion = patchpad.complete(long_tokens, ["a"], max_new_bytes=500, temperature=1.0, stop="wor")[0]
    assert completion.stop_reason == "stop"
    assert completion.data.endswith(b" hello")
    across = patchpad.complete(long_tokens, ["a"], max_new_bytes=500, temperature=1.0, stop="d hello")[0]
    assert across.stop_reason == "stop"
    assert across.data.endswith(b" helloworl")
    longest = patchpad.complete(long_tokens, ["a"], max_new_bytes=500, temperature=1.0, stop=["l", "hel", "el"])[0]
    assert longest.data.endswith(b" ")


def test_a_stream_of_tokens_never_splits_a_character_and_adds_up(long_tokens):
    for limit in (40, 41, 43):
        stream = patchpad.stream(long_tokens, "a", max_new_bytes=limit, temperature=1.0, stop="XYZ")
        pieces = list(stream)
        assert all(pieces)
        assert "".join(pieces) == stream.completion.text
        assert "�" not in "".join(pieces[:-1])
        assert len(stream.completion.data) == limit


def test_a_row_ends_where_the_model_ends_the_document():
    model = build_model(tiny_baseline_config("bpe")).eval()
    model.prepare([np.frombuffer(b"text", dtype=np.uint8)])
    model.predict = lambda states: forced(states, model.config.bpe_vocab_size, [256])
    completion = patchpad.complete(model, ["abc"], max_new_bytes=9)[0]
    assert (completion.data, completion.stop_reason) == (b"", "end")


def test_ten_copies_of_a_prompt_give_ten_identical_outputs(model):
    for options in ({"temperature": 0.0}, {"temperature": 1.0, "seed": [5] * 10}):
        completions = patchpad.complete(model, ["It was the"] * 10, max_new_bytes=40, **options)
        assert len(set(completions)) == 1
