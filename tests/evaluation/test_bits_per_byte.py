"""Bits per byte: every byte counts once, and the figure is the naive one, window by window."""

import math
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from patchpad.config import SEPARATOR
from patchpad.data import Corpus, cut_windows
from patchpad.errors import ConfigError, DataError, InputError
from patchpad.evaluation import bits_per_byte
from patchpad.evaluation.bits_per_byte import evaluate, score
from patchpad.testing import random_documents, safe_threshold, sharp_model, tiny_model_config

CONTEXT = 64
RELATIVE_TOLERANCE = 1e-5
"""Of sums of nats: packed rows and single windows are fp32 computations of the same numbers in another order."""
POINT_KEYS = {
    "scratchpad_threshold_nats",
    "bits_per_byte",
    "num_bytes",
    "scratchpads_per_byte",
    "patches_per_byte",
    "trunk_calls_per_byte",
    "flops_per_byte",
    "trunk_cache_bytes_per_byte",
}


@pytest.fixture(scope="module")
def model():
    return sharp_model(tiny_model_config(context_bytes=CONTEXT))


@pytest.fixture(scope="module")
def threshold(model):
    """A threshold in the midst of the model's entropies that rounding cannot flip on the documents below."""
    ids = [[SEPARATOR, *window] for document in DOCUMENTS for window in pieces(document) if window]
    with torch.no_grad():
        scores = [model.eligible_scores(model(row, math.inf)) for row in (torch.tensor([window]) for window in ids)]
    return safe_threshold(torch.cat(scores), 0.4)


def pieces(document: bytes, context: int = CONTEXT) -> list[bytes]:
    return [document[begin : begin + context] for begin in range(0, len(document), context)]


DOCUMENTS = random_documents(3, [1, CONTEXT - 1, CONTEXT, CONTEXT + 1, 7, 3 * CONTEXT, 150, 2])


def corpus_of(documents) -> Corpus:
    arrays = tuple(np.frombuffer(document, dtype=np.uint8) for document in documents)
    return Corpus(arrays, tuple(map(str, range(len(arrays)))))


def naive_nats(model, inputs: bytes, targets: bytes, threshold) -> list[float]:
    """-ln p of `targets`, the last bytes of `inputs`, from one pass over one window."""
    ids = torch.tensor([[SEPARATOR, *inputs]])
    with torch.no_grad():
        log_p = torch.log_softmax(model(ids, threshold).logits[0].double(), dim=-1)
    first = len(inputs) - len(targets)
    return [-float(log_p[first + place, value]) for place, value in enumerate(targets)]


def naive_bits_per_byte(model, documents, threshold, context=CONTEXT, overlap=0) -> float:
    nats: list[float] = []
    for document in documents:
        nats += naive_nats(model, document[:context], document[:context], threshold)
        for end in range(context, len(document), context - overlap):
            begin, stop = end - overlap, min(end - overlap + context, len(document))
            nats += naive_nats(model, document[begin:stop], document[end:stop], threshold)
    assert len(nats) == sum(map(len, documents))
    return sum(nats) / (math.log(2) * len(nats))


def test_points_have_exactly_the_keys_promised_and_come_in_the_given_order(model, threshold):
    thresholds = [math.inf, threshold, -math.inf]
    points = evaluate(model, corpus_of(DOCUMENTS), scratchpad_threshold_nats=thresholds, limit_bytes=0)
    assert [set(point.to_dict()) for point in points] == [POINT_KEYS] * 3
    assert [point.scratchpad_threshold_nats for point in points] == thresholds
    plain, some, full = points
    assert plain.scratchpads_per_byte == 0 < some.scratchpads_per_byte < full.scratchpads_per_byte
    for point in points:
        assert point.trunk_calls_per_byte == pytest.approx(point.patches_per_byte + point.scratchpads_per_byte)
        assert point.patches_per_byte == plain.patches_per_byte
        assert point.trunk_cache_bytes_per_byte == plain.trunk_cache_bytes_per_byte
    assert plain.flops_per_byte < some.flops_per_byte < full.flops_per_byte
    assert len({point.bits_per_byte for point in points}) == 3


@pytest.mark.parametrize("length", [1, 2, CONTEXT - 1, CONTEXT, CONTEXT + 1, 2 * CONTEXT, 2 * CONTEXT + 1, 1000])
def test_num_bytes_is_the_size_of_the_file(tmp_path, model, length):
    (tmp_path / "text").write_bytes(random_documents(length, [length])[0])
    for overlap in (0, 20):
        (point,) = evaluate(model, tmp_path / "text", limit_bytes=0, overlap_bytes=overlap)
        assert point.num_bytes == length
        assert 0 < point.bits_per_byte < math.inf


def test_num_bytes_of_a_folder_is_the_size_of_its_files(tmp_path, model):
    for number, document in enumerate(DOCUMENTS):
        (tmp_path / f"{number}.txt").write_bytes(document)
    (point,) = evaluate(model, str(tmp_path), limit_bytes=0)
    assert point.num_bytes == sum(map(len, DOCUMENTS))
    assert point == evaluate(model, [tmp_path], limit_bytes=0)[0]


@pytest.mark.parametrize("overlap", [0, 1, 30, CONTEXT - 1])
def test_bits_per_byte_equal_a_naive_computation_window_by_window(model, threshold, overlap):
    documents = DOCUMENTS if overlap < CONTEXT - 1 else DOCUMENTS[:4]
    thresholds = [math.inf, threshold, -math.inf] if overlap == 0 else [math.inf, -math.inf]
    points = evaluate(
        model,
        corpus_of(documents),
        scratchpad_threshold_nats=thresholds,
        limit_bytes=0,
        overlap_bytes=overlap,
    )
    for point in points:
        expected = naive_bits_per_byte(model, documents, point.scratchpad_threshold_nats, overlap=overlap)
        assert point.bits_per_byte == pytest.approx(expected, rel=RELATIVE_TOLERANCE)
        assert point.num_bytes == sum(map(len, documents))


@pytest.mark.parametrize(("patchifier", "trigger"), [("spacebyte", "random"), ("fixed", "stride"), ("fixed", "always")])
def test_other_triggers_are_measured_at_their_own_threshold(patchifier, trigger):
    model = sharp_model(tiny_model_config(patchifier, trigger, context_bytes=CONTEXT))
    (point,) = evaluate(model, corpus_of(DOCUMENTS), limit_bytes=0)
    expected = naive_bits_per_byte(model, DOCUMENTS, None)
    assert point.bits_per_byte == pytest.approx(expected, rel=RELATIVE_TOLERANCE)


def test_rates_count_what_the_trunk_did_in_each_window(model):
    num_commits = num_positions = 0
    for document in DOCUMENTS:
        windows = pieces(document)
        for number, window in enumerate(windows):
            inputs = window if number + 1 == len(windows) else window[:-1]
            with torch.no_grad():
                layout = model(torch.tensor([[SEPARATOR, *inputs]]), -math.inf).layout
            num_commits += int(layout.slot_is_commit.sum())
            num_positions += len(inputs) + 1
    size = sum(map(len, DOCUMENTS))
    (point,) = evaluate(model, corpus_of(DOCUMENTS), scratchpad_threshold_nats=-math.inf, limit_bytes=0)
    assert point.patches_per_byte == num_commits / size
    assert point.trunk_calls_per_byte == num_positions / size, "-inf runs the trunk at every position"


@given(st.lists(st.integers(1, 130), min_size=1, max_size=5), st.integers(0, 99))
def test_evaluation_is_the_sum_over_documents(lengths, seed):
    model = sharp_model(tiny_model_config(trigger="stride", context_bytes=CONTEXT))
    documents = random_documents(seed, lengths)
    (together,) = evaluate(model, corpus_of(documents), limit_bytes=0)
    alone = [evaluate(model, corpus_of([document]), limit_bytes=0)[0] for document in documents]
    assert together.num_bytes == sum(point.num_bytes for point in alone) == sum(lengths)
    bits = sum(point.bits_per_byte * point.num_bytes for point in alone)
    assert together.bits_per_byte * together.num_bytes == pytest.approx(bits, rel=RELATIVE_TOLERANCE)


def test_overlap_changes_no_byte_of_the_first_windows(model):
    """With more context the later bytes have other nats; those of a document within one window keep theirs."""
    short = [document for document in DOCUMENTS if len(document) <= CONTEXT]
    first = evaluate(model, corpus_of(short), scratchpad_threshold_nats=math.inf, limit_bytes=0)
    overlapping = evaluate(model, corpus_of(short), scratchpad_threshold_nats=math.inf, limit_bytes=0, overlap_bytes=30)
    assert first == overlapping


def test_flops_per_byte_include_what_an_overlap_repeats_and_the_trunk_rates_stay_those_of_the_bytes_read(model):
    """A document of 3 windows; with half of each repeated it takes 5, each as dear as before."""
    corpus = corpus_of([random_documents(4, [3 * CONTEXT])[0]])
    plain, overlapping = (
        evaluate(model, corpus, scratchpad_threshold_nats=-math.inf, limit_bytes=0, overlap_bytes=overlap)[0]
        for overlap in (0, CONTEXT // 2)
    )
    assert plain.num_bytes == overlapping.num_bytes == 3 * CONTEXT
    ratio = overlapping.flops_per_byte / plain.flops_per_byte
    assert ratio == pytest.approx(5 / 3, rel=0.01)  # the last window alone reads its last byte, one position of many
    for point in (plain, overlapping):
        assert point.trunk_calls_per_byte == pytest.approx(1, abs=0.01)
        assert point.trunk_calls_per_byte == pytest.approx(point.patches_per_byte + point.scratchpads_per_byte)
    assert overlapping.trunk_cache_bytes_per_byte == pytest.approx(plain.trunk_cache_bytes_per_byte, rel=0.05)


def test_limit_takes_windows_from_all_documents(model, monkeypatch):
    corpus = corpus_of(random_documents(5, [10 * CONTEXT] * 12))
    seen: Counter = Counter()
    original = bits_per_byte.evaluation_batches

    def spy(windows, **options):
        seen.update(windows.bounds.document.tolist())
        return original(windows, **options)

    monkeypatch.setattr(bits_per_byte, "evaluation_batches", spy)
    (point,) = evaluate(model, corpus, limit_bytes=24 * CONTEXT)
    assert point.num_bytes == 24 * CONTEXT
    assert seen == dict.fromkeys(range(12), 2)
    assert evaluate(model, corpus, limit_bytes=1)[0].num_bytes == CONTEXT
    assert evaluate(model, corpus, limit_bytes=0)[0].num_bytes == corpus.num_bytes


def test_limited_evaluation_is_that_of_its_windows(model):
    windows = cut_windows(corpus_of(DOCUMENTS), CONTEXT)
    for limit in (0, 200):
        expected = evaluate(model, windows.limit(limit), limit_bytes=0)
        assert evaluate(model, corpus_of(DOCUMENTS), limit_bytes=limit) == expected


def test_batch_size_does_not_matter(model, monkeypatch):
    (expected,) = evaluate(model, corpus_of(DOCUMENTS), scratchpad_threshold_nats=math.inf, limit_bytes=0)
    monkeypatch.setattr(bits_per_byte, "ROW_BATCH_BYTES", 1)
    (found,) = evaluate(model, corpus_of(DOCUMENTS), scratchpad_threshold_nats=math.inf, limit_bytes=0)
    assert found.bits_per_byte == pytest.approx(expected.bits_per_byte, rel=RELATIVE_TOLERANCE)
    assert found.patches_per_byte == expected.patches_per_byte


@pytest.mark.parametrize("length", [1, CONTEXT, CONTEXT + 1, 500])
def test_scores_of_bytes_sum_to_the_same_nats(model, threshold, length):
    text = random_documents(length, [length])[0]
    for given_threshold in (None, math.inf, -math.inf):
        nats = score(model, text, scratchpad_threshold_nats=given_threshold)
        assert nats.shape == (length,)
        assert nats.dtype == np.float32
        (point,) = evaluate(model, corpus_of([text]), scratchpad_threshold_nats=given_threshold, limit_bytes=0)
        bits = float(nats.astype(np.float64).sum()) / math.log(2)
        assert bits == pytest.approx(point.bits_per_byte * length, rel=RELATIVE_TOLERANCE)


def test_scores_are_those_of_single_bytes_in_their_order(model):
    text = random_documents(8, [100])[0]
    expected = [nats for window in pieces(text) for nats in naive_nats(model, window, window, math.inf)]
    found = score(model, text, scratchpad_threshold_nats=math.inf)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_score_takes_text_as_utf8_and_nothing_at_all(model):
    np.testing.assert_array_equal(score(model, "größer 🙂"), score(model, "größer 🙂".encode()))
    assert score(model, "").shape == (0,)
    assert score(model, b"").shape == (0,)


def test_evaluation_leaves_the_mode_of_the_model_alone(model):
    model.train()
    try:
        evaluate(model, corpus_of(DOCUMENTS[:1]))
        assert model.training
    finally:
        model.eval()
    evaluate(model, corpus_of(DOCUMENTS[:1]))
    assert not model.training


def test_wrong_arguments_are_errors(model, tmp_path):
    corpus = corpus_of(DOCUMENTS)
    with pytest.raises(InputError, match="scratchpad_threshold_nats is nan"):
        evaluate(model, corpus, scratchpad_threshold_nats=math.nan)
    with pytest.raises(InputError, match="limit_bytes is -1; allowed: 0 for all"):
        evaluate(model, corpus, limit_bytes=-1)
    with pytest.raises(ConfigError, match=f"overlap is {CONTEXT} with windows of {CONTEXT} bytes"):
        evaluate(model, corpus, overlap_bytes=CONTEXT)
    with pytest.raises(DataError, match="no file is at"):
        evaluate(model, tmp_path / "missing")
    stride = sharp_model(tiny_model_config(trigger="stride"))
    with pytest.raises(InputError, match="takes no threshold in nats"):
        evaluate(stride, corpus, scratchpad_threshold_nats=1.5)


@pytest.mark.unchecked
@pytest.mark.parametrize("wrong", ["abc", "1.5", [1.0, "x"], [[1.0], [1.0, 2.0]], pytest.param(10**400, id="huge"), 1j])
def test_a_threshold_that_is_no_number_is_an_input_error(model, wrong):
    with pytest.raises(InputError, match="allowed: None, a number of nats, inf or -inf, or a list of these"):
        evaluate(model, corpus_of(DOCUMENTS), scratchpad_threshold_nats=wrong)


@pytest.mark.unchecked
def test_thresholds_in_a_table_are_an_input_error(model):
    with pytest.raises(InputError, match=r"scratchpad_threshold_nats has the shape \[1, 2\]; allowed: None, a number"):
        evaluate(model, corpus_of(DOCUMENTS), scratchpad_threshold_nats=[[1, 2]])


@pytest.mark.parametrize("kind", [list, tuple, np.array, torch.tensor])
def test_thresholds_may_be_numbers_of_any_kind(model, kind):
    found = evaluate(model, corpus_of(DOCUMENTS[:2]), scratchpad_threshold_nats=kind([1.5, -math.inf]))
    assert [point.scratchpad_threshold_nats for point in found] == [1.5, -math.inf]
    (alone,) = evaluate(model, corpus_of(DOCUMENTS[:2]), scratchpad_threshold_nats=kind([1.5])[0])
    assert alone == found[0]


def test_zero_bytes_count_like_any_other(model):
    zeros = bytes(150)
    (point,) = evaluate(model, corpus_of([zeros]), scratchpad_threshold_nats=math.inf, limit_bytes=0)
    assert point.num_bytes == 150
    assert point.bits_per_byte == pytest.approx(naive_bits_per_byte(model, [zeros], math.inf), rel=RELATIVE_TOLERANCE)
