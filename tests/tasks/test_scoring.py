"""Likelihoods of continuations: those of a full pass, whatever else is scored beside them, for every kind of model."""

import math
import random

import pytest
import torch

from patchpad.errors import InputError, TrainingError
from patchpad.registry import PATCHIFIERS
from patchpad.tasks.scoring import Request, Scorer
from patchpad.testing import (
    BASELINE_KINDS,
    as_row,
    ids_of,
    random_documents,
    settle_patches,
    sharp_baseline,
    sharp_model,
    tiny_model_config,
)

CONTEXT_BYTES = 64
WITHIN_NATS = 1e-4


@pytest.fixture(scope="module", params=[*PATCHIFIERS, *BASELINE_KINDS])
def model(request):
    if request.param in BASELINE_KINDS:
        return sharp_baseline(request.param)
    found = sharp_model(tiny_model_config(request.param, "entropy"))
    settle_patches(found, torch.tensor([as_row(*random_documents(5, [300]))]))
    return found


def row_of(model, text: bytes) -> list[int]:
    """A document as ids of the model, a separator before it."""
    return as_row(text) if model.config.kind == "patch" else ids_of(model, text)


def requests_of(seed: int, count: int) -> list[Request]:
    """Requests of many lengths; two thirds share their context with others."""
    source = random.Random(seed)
    contexts = [text[: source.randrange(50)] for text in random_documents(seed, [50] * count)]
    texts = random_documents(seed + 1, [source.randrange(1, 14) for _ in range(count)])
    return [Request(contexts[index - index % 3], text) for index, text in enumerate(texts)]


def likelihood_of(model, context: bytes, continuation: bytes) -> tuple[float, bool]:
    """ln p of a continuation by one plain full pass, and whether each id is the most likely one."""
    given, more = row_of(model, context), row_of(model, continuation)[1:]
    ids = torch.tensor([given + more])
    with torch.no_grad():
        log_p = model(ids).logits[0].double().log_softmax(dim=-1)
    places = range(len(given) - 1, len(given) + len(more) - 1)
    total = sum(float(log_p[place, value]) for place, value in zip(places, more, strict=True))
    return total, all(int(log_p[place].argmax()) == value for place, value in zip(places, more, strict=True))


def assert_equal(found, expected):
    assert [one.num_cut_bytes for one in found] == [one.num_cut_bytes for one in expected]
    assert [one.num_bytes for one in found] == [one.num_bytes for one in expected]
    for one, other in zip(found, expected, strict=True):
        assert one.log_likelihood_nats == pytest.approx(other.log_likelihood_nats, abs=WITHIN_NATS)


def test_a_score_is_the_likelihood_of_the_continuation_alone(model):
    requests = [*requests_of(3, 12), Request(b"", b"a"), Request(b"", b"some text"), Request(b"x", b"y")]
    for request, scored in zip(requests, Scorer(model).score(requests), strict=True):
        expected, is_greedy = likelihood_of(model, request.context, request.continuation)
        assert scored.log_likelihood_nats == pytest.approx(expected, abs=WITHIN_NATS)
        assert scored.is_greedy == is_greedy
        assert (scored.num_cut_bytes, scored.num_bytes) == (0, len(request.continuation))


@pytest.mark.unchecked
def test_scores_depend_neither_on_the_batch_nor_on_the_order(model):
    requests = [*requests_of(7, 10), Request(b"c" * 70, b"cut on the left"), Request(b"", b"longer" * 30)]
    scorer = Scorer(model)
    together = scorer.score(requests)
    order = list(range(len(requests)))
    random.Random(1).shuffle(order)
    shuffled = scorer.score([requests[place] for place in order])
    assert_equal([shuffled[order.index(place)] for place in range(len(requests))], together)
    assert_equal(Scorer(model, batch_positions=1).score(requests), together)
    assert_equal([scorer.score([request])[0] for request in requests], together)


@pytest.mark.unchecked
@pytest.mark.parametrize("batch_positions", [16_384, 40])
def test_what_is_shared_is_read_once_and_changes_no_score(model, batch_positions):
    shots, other, *contexts = random_documents(11, [24, 30, 9, 0, 14])
    requests = [
        Request(before + context, continuation, shared=len(before))
        for before in (shots, other, b"")
        for context in contexts
        for continuation in (b" A", b" B", b"x", b"a longer one", b"a longer two")
    ]
    requests.append(Request(shots + b"only one follows this", b" and is it", shared=len(shots)))
    requests.append(Request(b"y" * 60 + contexts[0], b"cut on the left", shared=60))
    scorer, alone = Scorer(model, batch_positions=batch_positions), Scorer(model)
    assert_equal(scorer.score(requests), [alone.score([request])[0] for request in requests])
    found, expected = scorer.compute().to_dict(), alone.compute().to_dict()
    assert found.pop("bytes_read") < 0.5 * expected.pop("bytes_read") == 0.5 * expected["bytes_in_requests"]
    assert found == pytest.approx(expected)


@pytest.mark.unchecked
def test_each_shared_byte_is_read_once():
    model = sharp_model(tiny_model_config("spacebyte", "entropy"))
    scorer = Scorer(model)
    scorer.score([Request(b"shots" + context, text, 5) for context in (b"one", b"three") for text in (b"ab", b"cde")])
    assert scorer.compute().bytes_read == 1 + 5 + (3 + 5) + 2 * (1 + 2)  # of a continuation, all but the last byte
    assert scorer.compute().bytes_in_requests == 2 * (8 + 10) + 2 * 5


@pytest.mark.unchecked
def test_the_most_likely_continuation_is_greedy_and_no_other(model):
    context = b"hello wor"
    text = b""
    for _ in range(5):
        with torch.no_grad():
            logits = model(torch.tensor([row_of(model, context) + row_of(model, text)[1:]])).logits[0, -1].clone()
        logits[256] = -math.inf
        text += model.bytes_of(int(logits.argmax()))
        if model.config.kind == "bpe":
            break  # further tokens could join with this one
    other = bytes([text[0] ^ 1]) + text[1:]
    best, worse = Scorer(model).score([Request(context, text), Request(context, other)])
    assert best.is_greedy == likelihood_of(model, context, text)[1]
    assert not worse.is_greedy


@pytest.mark.unchecked
def test_what_does_not_fit_is_cut_on_the_left_and_counted(model):
    context, continuation = random_documents(2, [100, 20])
    (scored,) = Scorer(model).score([Request(context, continuation)])
    assert scored.num_cut_bytes == 120 - CONTEXT_BYTES
    kept = context[-(CONTEXT_BYTES - 20) :]
    assert scored.log_likelihood_nats == pytest.approx(likelihood_of(model, kept, continuation)[0], abs=WITHIN_NATS)
    fitting, longer = Scorer(model).score([Request(context[:44], continuation), Request(context[:45], continuation)])
    assert (fitting.num_cut_bytes, longer.num_cut_bytes) == (0, 1)


@pytest.mark.unchecked
def test_a_continuation_longer_than_the_context_is_scored_in_windows_that_start_anew(model):
    text = random_documents(4, [150])[0]
    (scored,) = Scorer(model).score([Request(b"lost", text)])
    windows = [text[:64], text[64:128], text[128:]]
    expected = sum(likelihood_of(model, b"", window)[0] for window in windows)
    assert scored.log_likelihood_nats == pytest.approx(expected, rel=1e-6)
    assert (scored.num_bytes, scored.num_cut_bytes) == (150, 4 + 128)


def test_a_scratchpad_threshold_is_the_one_that_is_used():
    model = sharp_model(tiny_model_config("spacebyte", "entropy"))
    requests = requests_of(9, 6)
    scorers = {threshold: Scorer(model, scratchpad_threshold_nats=threshold) for threshold in (math.inf, -math.inf)}
    totals = {threshold: sum(one.log_likelihood_nats for one in s.score(requests)) for threshold, s in scorers.items()}
    assert totals[math.inf] != pytest.approx(totals[-math.inf])
    rates = {threshold: scorer.compute() for threshold, scorer in scorers.items()}
    assert rates[math.inf].scratchpads_per_byte == 0
    assert rates[-math.inf].trunk_calls_per_byte == 1
    assert rates[math.inf].patches_per_byte == rates[-math.inf].patches_per_byte


def test_a_bpe_model_scores_the_tokens_of_the_continuation_by_itself():
    model = sharp_baseline("bpe")
    joined = next(token for token in model.tokens.bytes_of[257:] if len(token) == 2)
    assert len(model.tokens.encode(joined)) == 1
    (scored,) = Scorer(model).score([Request(joined[:1], joined[1:])])
    assert scored.log_likelihood_nats == pytest.approx(likelihood_of(model, joined[:1], joined[1:])[0], abs=WITHIN_NATS)


def test_the_mode_of_the_model_is_restored():
    model = sharp_model(tiny_model_config()).train()
    Scorer(model).score([Request(b"a", b"b")])
    assert model.training
    assert Scorer(model).score([]) == []


@pytest.mark.unchecked
def test_wrong_requests_are_refused_with_what_is_allowed():
    with pytest.raises(InputError, match="the continuation is empty"):
        Request(b"abc", b"")
    with pytest.raises(InputError, match="continuation is of type str; allowed: bytes"):
        Request(b"abc", "d")
    for shared in (-1, 4):
        with pytest.raises(InputError, match=f"shared is {shared} with a context of 3 bytes; allowed: 0 to its length"):
            Request(b"abc", b"d", shared)
    with pytest.raises(InputError, match="batch_positions is 0; allowed: 1 or more"):
        Scorer(sharp_model(tiny_model_config()), batch_positions=0)
    with pytest.raises(InputError, match="takes no scratchpad threshold in nats"):
        Scorer(sharp_baseline("byte"), scratchpad_threshold_nats=1.5)


def test_weights_that_are_not_finite_score_nothing():
    model = sharp_model(tiny_model_config())
    with torch.no_grad():
        model.local_decoder.lm_head.weight.fill_(math.nan)
    with pytest.raises(TrainingError, match="predicts nan or inf"):
        Scorer(model).score([Request(b"a", b"b")])
