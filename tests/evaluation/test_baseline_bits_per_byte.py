"""Bits per byte of the baselines: every byte of every window counts once, and the rates are what was computed."""

import math

import numpy as np
import pytest

import patchpad
from patchpad.data import Corpus, cut_windows
from patchpad.evaluation.bits_per_byte import evaluate, score
from patchpad.testing import BASELINE_KINDS, ids_of, random_documents, sharp_baseline

DOCUMENTS = random_documents(3, [1, 63, 64, 65, 7, 192, 150, 2])
TOTAL = sum(map(len, DOCUMENTS))


def corpus_of(documents) -> Corpus:
    arrays = tuple(np.frombuffer(document, dtype=np.uint8) for document in documents)
    return Corpus(arrays, tuple(map(str, range(len(arrays)))))


@pytest.fixture(scope="module", params=BASELINE_KINDS)
def model(request):
    return sharp_baseline(request.param)


@pytest.mark.parametrize("overlap", [0, 1, 17, 63])
def test_every_byte_is_counted_once_whatever_the_overlap(model, overlap):
    (point,) = evaluate(model, corpus_of(DOCUMENTS), limit_bytes=0, overlap_bytes=overlap)
    assert point.num_bytes == TOTAL
    assert 0 < point.bits_per_byte < 60


def test_the_figure_is_the_sum_of_the_single_nats(model):
    (point,) = evaluate(model, corpus_of(DOCUMENTS), limit_bytes=0)
    nats = [score(model, document) for document in DOCUMENTS]
    assert [len(one) for one in nats] == list(map(len, DOCUMENTS))
    total = sum(float(one.astype(np.float64).sum()) for one in nats)
    assert point.bits_per_byte == pytest.approx(total / (math.log(2) * TOTAL), rel=1e-5)


def test_rates_are_those_of_the_windows(model):
    (point,) = evaluate(model, corpus_of(DOCUMENTS), limit_bytes=0)
    windows = cut_windows(corpus_of(DOCUMENTS), 64)
    size, calls = model.config.patchifier.target_patch_size, 0
    for index in range(len(windows)):
        document, begin = DOCUMENTS[windows.bounds.document[index]], int(windows.bounds.begin[index])
        data = document[begin : begin + int(windows.bounds.num_bytes[index])]
        ids = ids_of(model, data)[: None if windows.bounds.is_last[index] else -1]
        calls += len(ids) if model.config.kind != "megabyte" else (len(ids) - 1) // size + 1
    assert point.scratchpad_threshold_nats == math.inf
    assert point.scratchpads_per_byte == 0
    assert point.patches_per_byte == point.trunk_calls_per_byte == calls / TOTAL
    per_entry = 2 * 4 * model.config.trunk_layers * model.config.trunk_dim
    assert point.trunk_cache_bytes_per_byte == pytest.approx(per_entry * calls / TOTAL)
    assert point.flops_per_byte > 0


def test_full_windows_call_the_trunk_once_per_byte_or_once_per_patch():
    corpus = corpus_of([random_documents(1, [64 * 5])[0]])
    windows = cut_windows(corpus, 64)
    windows = windows.select(np.arange(4))
    rates = {kind: evaluate(sharp_baseline(kind), windows)[0].trunk_calls_per_byte for kind in BASELINE_KINDS}
    assert rates["byte"] == 1
    assert rates["megabyte"] == 1 / 4
    assert 0.3 < rates["bpe"] < 1


def test_nats_of_bpe_are_zero_inside_tokens_and_add_up_to_the_text():
    model = sharp_baseline("bpe")
    text = random_documents(9, [60])[0]
    nats = patchpad.score(model, text)
    ends = np.cumsum([len(model.tokens.bytes_of[token]) for token in model.tokens.encode(text)]) - 1
    assert 5 < len(ends) < 60
    assert np.flatnonzero(nats).tolist() == ends.tolist()


def test_overlap_gives_bpe_more_context_and_no_token_is_counted_twice():
    model = sharp_baseline("bpe")
    document = b"the same words again and again, " * 8
    points = [evaluate(model, corpus_of([document]), limit_bytes=0, overlap_bytes=o)[0] for o in (0, 32)]
    assert points[0].num_bytes == points[1].num_bytes == len(document)
    assert points[0].bits_per_byte != points[1].bits_per_byte
