"""Prompts that were read before, or are read in pieces, give what they give when they are read alone in one pass."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from patchpad.inference.engine import Engine, Request
from patchpad.inference.joining import Prefix
from patchpad.inference.sampling import Sampling
from patchpad.inference.stepping import prefill
from patchpad.serving.prefixes import LEAST_SHARED_BYTES, StoredPrefixes, size_of
from patchpad.testing import (
    ALL_OPTIONS,
    BASELINE_KINDS,
    random_documents,
    sharp_baseline,
    sharp_model,
    tiny_model_config,
    tolerance,
)

MANY_BYTES = 2**30


@pytest.fixture(
    scope="module",
    params=["fixed-entropy", "all options", "hnet-stride", "tokens-entropy", *BASELINE_KINDS],
)
def model(request):
    if request.param in BASELINE_KINDS:
        return sharp_baseline(request.param, seed=3)
    patchifier, trigger, options = {
        "fixed-entropy": ("fixed", "entropy", {}),
        "all options": ("spacebyte", "entropy", ALL_OPTIONS),
        "hnet-stride": ("hnet", "stride", {}),
        "tokens-entropy": ("tokens", "entropy", {"source_head": "tied"}),
    }[request.param]
    return sharp_model(tiny_model_config(patchifier, trigger, **options), seed=3)


def request_of(model, prompt, *, number=0, new_bytes=12, threshold=None):
    sampling = (Sampling(temperature=0.0), Sampling(temperature=0.9))[number % 2]
    threshold = float(model.scratchpad_threshold_nats) if threshold is None else threshold
    return Request(prompt=prompt, max_new_bytes=new_bytes, threshold=threshold, sampling=sampling, seed=number)


def run(engine, requests):
    rows = engine.submit(requests)
    while not engine.is_done:
        engine.advance()
    return [(row.data, row.stop_reason, row.trunk_calls, row.trunk_cache_entries) for row in rows]


def alone(model, request):
    return run(Engine(model), [request])[0]


def family(seed, lengths):
    """Returns prompts of which many begin alike, and some are equal."""
    first, second = random_documents(seed, [120, 90])
    return [(first, first, second, first[:40] + second)[number % 4][:length] for number, length in enumerate(lengths)]


@given(
    lengths=st.lists(st.integers(0, 110), min_size=3, max_size=9),
    batch_rows=st.integers(1, 5),
    piece_bytes=st.sampled_from([None, 3, 20]),
    max_bytes=st.sampled_from([None, 0, 60_000, MANY_BYTES]),
    seed=st.integers(0, 1000),
    draft=st.sampled_from(["off", 3, 16]),
)
def test_rows_give_what_they_give_alone(model, lengths, batch_rows, piece_bytes, max_bytes, seed, draft):
    draft = draft if model.config.kind == "patch" else "off"
    prefixes = None if max_bytes is None else StoredPrefixes(max_bytes)
    engine = Engine(model, batch_rows=batch_rows, piece_bytes=piece_bytes, prefixes=prefixes, draft=draft)
    thresholds = (None, math.inf)
    requests = [
        request_of(model, prompt, number=number, threshold=thresholds[number % 5 == 4])
        for number, prompt in enumerate(family(seed, lengths))
    ]
    assert run(engine, requests) == [alone(model, request) for request in requests]


def counted_prefills(engine):
    """Returns the prompts that the engine prefills, as it goes."""
    seen, plain = [], engine.stepper.prefill
    engine.stepper.prefill = lambda prompts, thresholds: seen.extend(prompts) or plain(prompts, thresholds)
    return seen


@pytest.mark.unchecked
def test_rows_that_share_prompt_and_threshold_are_prefilled_once(model):
    prefixes = StoredPrefixes(MANY_BYTES)
    engine = Engine(model, batch_rows=3, prefixes=prefixes)
    seen = counted_prefills(engine)
    requests = [request_of(model, b"the same prompt", number=number) for number in range(5)]
    other = request_of(model, b"the same prompt", threshold=-math.inf)
    found = run(engine, [*requests, other])
    assert seen == [b"the same prompt"] * 2  # once for each threshold
    assert prefixes.num_hits == 4
    assert found == [alone(model, request) for request in [*requests, other]]


@pytest.mark.unchecked
def test_a_longer_prompt_goes_on_from_the_longest_stored_beginning(model):
    if model.config.kind == "bpe":
        pytest.skip("tokens of a beginning are not the beginning of the tokens")
    text = random_documents(8, [100])[0]
    prefixes = StoredPrefixes(MANY_BYTES)
    engine = Engine(model, prefixes=prefixes)
    for length in (30, 60):
        run(engine, [request_of(model, text[:length])])
    seen, extended = counted_prefills(engine), []
    plain = engine.stepper.extend
    engine.stepper.extend = lambda state, ids, threshold: extended.extend(ids) or plain(state, ids, threshold)
    request = request_of(model, text)
    assert run(engine, [request]) == [alone(model, request)]
    assert (seen, extended) == ([], [list(text[60:])])
    assert prefixes.num_hits == 2


@pytest.mark.unchecked
def test_other_rows_go_on_while_a_long_prompt_is_read(model):
    engine = Engine(model, piece_bytes=10)
    (running,) = engine.submit([request_of(model, b"first", new_bytes=40)])
    engine.advance()
    extended, plain = [], engine.stepper.extend
    engine.stepper.extend = lambda state, ids, threshold: extended.append(len(ids[0])) or plain(state, ids, threshold)
    request = request_of(model, random_documents(2, [95])[0])
    (late,) = engine.submit([request])
    before, steps = len(running.data), 0
    while not late.data and late.stop_reason is None:
        engine.advance()
        steps += 1
    num_ids = len(engine.stepper.encode(request.prompt))
    assert extended == [10] * (num_ids // 10) + [num_ids % 10] * (num_ids % 10 > 0)
    assert steps == len(extended) > 2
    assert len(running.data) > before + 2 or running.stop_reason is not None
    while not engine.is_done:
        engine.advance()
    assert (late.data, late.stop_reason, late.trunk_calls, late.trunk_cache_entries) == alone(model, request)


def test_a_row_that_is_cancelled_while_its_prompt_is_read_is_gone(model):
    engine = Engine(model, piece_bytes=3)
    (row, other) = engine.submit([request_of(model, b"x" * 100), request_of(model, b"y")])
    engine.advance()
    assert engine.next_to_join is row
    engine.cancel(row)
    while not engine.is_done:
        engine.advance()
    assert row.data == b""
    assert other.stop_reason is not None


def stored(model, prompt, threshold=1.0):
    logits, state = prefill(model, [prompt], scratchpad_threshold_nats=threshold)
    return Prefix(prompt=prompt, state=state, logits=logits)


def found(prefixes, model, prompt):
    return prefixes.find(prompt, float(model.scratchpad_threshold_nats), is_whole=True)


@pytest.fixture(scope="module")
def small():
    return sharp_model(tiny_model_config("fixed", "entropy"), seed=3)


def test_what_was_not_used_for_longest_makes_room(small):
    prompts = [bytes([65 + number]) * 20 for number in range(3)]
    prefixes = [stored(small, prompt) for prompt in prompts]
    kept = StoredPrefixes(size_of(prefixes[0]) * 2)
    kept.store(1.0, prefixes[0])
    kept.store(1.0, prefixes[1])
    kept.find(prompts[0], 1.0, is_whole=True)
    kept.store(1.0, prefixes[2])
    assert [kept.find(prompt, 1.0, is_whole=True) is not None for prompt in prompts] == [True, False, True]
    assert kept.num_bytes == 2 * size_of(prefixes[0]) <= kept.max_bytes
    kept.store(1.0, prefixes[2])  # again
    assert (len(kept), kept.num_bytes) == (2, 2 * size_of(prefixes[0]))


def test_only_a_beginning_at_the_same_threshold_that_is_long_enough_is_found(small):
    kept = StoredPrefixes(MANY_BYTES)
    text = b"0123456789" * 4
    for length in (LEAST_SHARED_BYTES - 1, LEAST_SHARED_BYTES, 30):
        kept.store(1.0, stored(small, text[:length]))
    assert kept.find(text, 1.0, is_whole=False).prompt == text[:30]
    assert kept.find(text[:29], 1.0, is_whole=False).prompt == text[:LEAST_SHARED_BYTES]
    assert kept.find(text[: LEAST_SHARED_BYTES - 1], 1.0, is_whole=False).prompt == text[: LEAST_SHARED_BYTES - 1]
    assert kept.find(text[: LEAST_SHARED_BYTES - 1] + b"x", 1.0, is_whole=False) is None
    assert kept.find(text, 1.0, is_whole=True) is None
    assert kept.find(text, 2.0, is_whole=False) is None
    assert kept.find(b"", 1.0, is_whole=False) is None


def test_a_stored_state_takes_no_more_than_its_prompt_needs(small):
    prefixes = StoredPrefixes(MANY_BYTES)
    engine = Engine(small, prefixes=prefixes)
    run(engine, [request_of(small, b"short"), request_of(small, b"x" * 600)])
    short, long = (found(prefixes, small, prompt) for prompt in (b"short", b"x" * 600))
    assert short.state.trunk.capacity < 5
    assert long.state.trunk.capacity > 600 / 5
    assert size_of(short) < size_of(long)


@pytest.mark.unchecked
def test_what_is_stored_is_not_written_into(small):
    prefixes = StoredPrefixes(MANY_BYTES)
    engine = Engine(small, prefixes=prefixes)
    text = random_documents(3, [60])[0]
    run(engine, [request_of(small, text[:40])])
    kept = found(prefixes, small, text[:40])
    before = [tensor.clone() for tensor in (*kept.state.tensors(), kept.logits)]
    run(engine, [request_of(small, text[:40], new_bytes=50), request_of(small, text)])
    run(engine, [request_of(small, text[:40], new_bytes=50)])
    after = [*kept.state.tensors(), kept.logits]
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))
    logits, _ = prefill(small, [text[:40]])
    assert float((kept.logits - logits).abs().max()) <= tolerance(logits)
