"""Compute beside quality: the rates of full passes over the requests, as `patchpad evaluate` counts them."""

import json
import math

import numpy as np
import pytest

import patchpad
from patchpad.data import Corpus, cut_windows
from patchpad.errors import InputError
from patchpad.tasks.compute import Compute
from patchpad.tasks.scoring import Request, Scorer
from patchpad.testing import BASELINE_KINDS, random_documents, sharp_baseline, sharp_model, tiny_model_config

RATES = ("patches_per_byte", "scratchpads_per_byte", "trunk_calls_per_byte", "flops_per_byte")


@pytest.fixture(scope="module", params=["fixed", "hnet", *BASELINE_KINDS])
def model(request):
    if request.param in BASELINE_KINDS:
        return sharp_baseline(request.param)
    return sharp_model(tiny_model_config(request.param, "entropy"))


def test_compute_is_what_evaluate_finds_for_the_same_windows(model):
    text = np.frombuffer(random_documents(6, [64 * 3])[0], dtype=np.uint8)
    windows = cut_windows(Corpus((text,), ("text",)), 64).select(np.arange(2))  # those that end no document
    (point,) = patchpad.evaluate(model, windows, limit_bytes=0)
    scorer = Scorer(model)
    scored = scorer.score([Request(b"", text[begin : begin + 64].tobytes()) for begin in (0, 64)])
    found = scorer.compute()
    for name in (*RATES, "trunk_cache_bytes_per_byte", "scratchpad_threshold_nats"):
        assert getattr(found, name) == pytest.approx(getattr(point, name), rel=1e-6), name
    assert -sum(one.log_likelihood_nats for one in scored) / 128 / math.log(2) == pytest.approx(
        point.bits_per_byte, rel=1e-5
    )


def test_rates_are_per_byte_of_the_requests_and_grow_with_nothing_but_them(model):
    scorer = Scorer(model)
    requests = [Request(b"a context of some bytes", b" and what follows"), Request(b"", b"alone")]
    scorer.score(requests)
    once = scorer.compute()
    assert (once.bytes_scored, once.bytes_in_requests) == (22, 45)
    scorer.score(requests)
    twice = scorer.compute()
    assert (twice.bytes_scored, twice.bytes_in_requests) == (44, 90)
    assert [getattr(twice, name) for name in RATES] == pytest.approx([getattr(once, name) for name in RATES])


def test_compute_survives_json(model):
    scorer = Scorer(model)
    scorer.score([Request(b"a", b"b")])
    found = scorer.compute()
    assert Compute.from_dict(json.loads(json.dumps(found.to_dict()))) == found


def test_nothing_scored_has_no_compute():
    with pytest.raises(InputError, match="nothing has been scored yet"):
        Scorer(sharp_model(tiny_model_config())).compute()


def test_compute_of_completions_counts_what_generation_did(model):
    prompts = [b"one two", b""]
    completions = patchpad.complete(model, prompts, max_new_bytes=9)
    found = Compute.of_completions(model, prompts, completions)
    num_bytes = 7 + sum(len(one.data) for one in completions)
    assert found.bytes_scored == num_bytes - 7
    assert found.bytes_read == found.bytes_in_requests == num_bytes
    assert found.trunk_calls_per_byte == pytest.approx(sum(one.trunk_calls for one in completions) / num_bytes)
    assert found.flops_per_byte > 0
    with pytest.raises(InputError, match="there are 2 completions and 1 prompts"):
        Compute.of_completions(model, prompts[:1], completions)
