"""Windows: every byte is predicted exactly once and every end of a document exactly once."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchpad.config import SEPARATOR
from patchpad.data import Corpus, Windows, cut_windows
from patchpad.data.windows import IGNORED_TARGET
from patchpad.errors import ConfigError
from patchpad.testing.zeros import zero_corpus

lengths_of_documents = st.lists(st.integers(1, 70), min_size=1, max_size=6)
contexts = st.integers(1, 20)


def corpus_of_lengths(lengths) -> Corpus:
    """Documents of bytes that differ from place to place, zeros among them."""
    arrays = tuple((np.arange(length) * 7 + 3 * number).astype(np.uint8) for number, length in enumerate(lengths))
    return Corpus(arrays, tuple(map(str, range(len(arrays)))))


def read(windows: Windows, index: int) -> tuple[np.ndarray, np.ndarray]:
    """Input ids and targets of a window."""
    ids, targets = np.empty((2, windows.bounds.num_positions[index]), dtype=np.int64)
    windows.bounds.read(index, windows.corpus.documents, ids, targets)
    return ids, targets


def predictions(windows: Windows) -> Counter:
    """How often each (document, place) is counted; the place after the last byte stands for the end."""
    counted: Counter = Counter()
    for index in range(len(windows)):
        ids, targets = read(windows, index)
        document, begin = int(windows.bounds.document[index]), int(windows.bounds.begin[index])
        text = windows.corpus.documents[document]
        assert len(ids) == len(targets) == windows.bounds.num_positions[index]
        assert ids[0] == SEPARATOR
        assert (ids[1:] == text[begin : begin + len(ids) - 1]).all()
        for place, target in enumerate(targets.tolist(), start=begin):
            if target == IGNORED_TARGET:
                continue
            assert target == (SEPARATOR if place == len(text) else text[place])
            counted[document, place] += 1
    return counted


@given(lengths_of_documents, contexts, st.floats(0, 1, exclude_max=True))
def test_each_byte_is_predicted_exactly_once_and_each_end_once(lengths, context, overlap_share):
    overlap = int(overlap_share * context)
    windows = cut_windows(corpus_of_lengths(lengths), context, overlap)
    expected = {(number, place): 1 for number, length in enumerate(lengths) for place in range(length + 1)}
    assert predictions(windows) == expected
    assert int(windows.bounds.num_counted_bytes.sum()) == windows.num_counted_bytes == sum(lengths)
    assert windows.bounds.num_counted_bytes.min() >= 1
    assert windows.bounds.num_bytes.max() <= context
    assert windows.bounds.num_positions.max() <= context + 1


@given(lengths_of_documents, contexts, st.floats(0, 1, exclude_max=True))
def test_each_further_window_repeats_exactly_the_overlap(lengths, context, overlap_share):
    overlap = int(overlap_share * context)
    windows = cut_windows(corpus_of_lengths(lengths), context, overlap)
    for index in range(1, len(windows)):
        if windows.bounds.document[index] == windows.bounds.document[index - 1]:
            end_before = windows.bounds.begin[index - 1] + windows.bounds.num_bytes[index - 1]
            assert end_before - windows.bounds.begin[index] == overlap == windows.bounds.num_ignored[index]
            assert not windows.bounds.is_last[index - 1]
        else:
            assert windows.bounds.begin[index] == windows.bounds.num_ignored[index] == 0
            assert windows.bounds.is_last[index - 1]
    assert windows.bounds.is_last[-1]


@pytest.mark.parametrize(("length", "sizes"), [(1, [1]), (8, [8]), (9, [8, 1]), (16, [8, 8]), (17, [8, 8, 1])])
def test_windows_around_the_context_have_the_sizes_expected(length, sizes):
    windows = cut_windows(corpus_of_lengths([length]), 8)
    assert windows.bounds.num_bytes.tolist() == sizes
    assert windows.bounds.num_positions.tolist() == [*sizes[:-1], sizes[-1] + 1]


def test_one_byte_is_predicted_from_the_separator_and_then_its_end():
    ids, targets = read(cut_windows(Corpus((np.array([0], dtype=np.uint8),), ("zero",)), 4), 0)
    assert ids.tolist() == [SEPARATOR, 0]
    assert targets.tolist() == [0, SEPARATOR]


def test_reading_a_window_leaves_a_mapped_file_alone(tmp_path):
    (tmp_path / "file").write_bytes(b"abcdef")
    corpus = Corpus((np.memmap(tmp_path / "file", dtype=np.uint8, mode="r"),), ("file",))
    windows = cut_windows(corpus, 4, 2)
    ids, targets = read(windows, 1)
    assert ids.tolist() == [SEPARATOR, *b"cdef"]
    assert targets.tolist() == [IGNORED_TARGET, IGNORED_TARGET, *b"ef", SEPARATOR]
    assert (tmp_path / "file").read_bytes() == b"abcdef"


@pytest.mark.parametrize("overlap", [-1, 8, 9])
def test_overlap_that_leaves_no_new_byte_is_an_error(overlap):
    with pytest.raises(ConfigError, match=f"overlap is {overlap} with windows of 8 bytes; allowed: 0 to below"):
        cut_windows(corpus_of_lengths([5]), 8, overlap)


@given(lengths_of_documents, contexts, st.integers(1, 500))
def test_limit_keeps_whole_windows_in_order_and_never_none(lengths, context, limit):
    windows = cut_windows(corpus_of_lengths(lengths), context)
    limited = windows.limit(limit)
    assert 1 <= len(limited) <= len(windows)
    kept = [(int(d), int(b)) for d, b in zip(limited.bounds.document, limited.bounds.begin, strict=True)]
    every = [(int(d), int(b)) for d, b in zip(windows.bounds.document, windows.bounds.begin, strict=True)]
    assert sorted(set(kept)) == kept
    assert set(kept) <= set(every)
    if limit >= sum(lengths):
        assert len(limited) == len(windows)


def test_limit_spreads_over_all_documents_and_comes_close():
    windows = cut_windows(corpus_of_lengths([1000] * 40), 100)
    limited = windows.limit(10_000)
    assert int(limited.bounds.num_bytes.sum()) == 10_000
    per_document = np.bincount(limited.bounds.document, minlength=40)
    assert per_document.min() >= 2
    assert per_document.max() <= 3
    assert len(windows.limit(1)) == 1
    assert windows.limit(0) is windows


@pytest.mark.parametrize("share", [0.02, 0.1, 0.25, 0.4, 0.5, 0.51, 0.75, 0.9, 0.99])
@pytest.mark.parametrize("windows_per_document", [2, 3, 5, 8])
def test_limit_takes_each_place_of_documents_of_one_length_as_often(windows_per_document, share):
    windows = cut_windows(corpus_of_lengths([10 * windows_per_document] * (2_400 // windows_per_document)), 10)
    limited = windows.limit(round(share * 24_000))
    assert len(limited) == round(share * 2_400)
    taken = np.bincount(limited.bounds.begin // 10, minlength=windows_per_document)
    expected = len(limited) / windows_per_document
    assert np.abs(taken - expected).max() <= max(4, 0.1 * min(expected, (2_400 - len(limited)) / windows_per_document))


def test_negative_limit_is_an_error():
    with pytest.raises(ConfigError, match="limit_bytes is -5; allowed: 0 for all"):
        cut_windows(corpus_of_lengths([10]), 4).limit(-5)


def test_windows_as_a_corpus_hold_the_bytes_that_they_predict_in_order():
    corpus = corpus_of_lengths([23, 5])
    chosen = cut_windows(corpus, 10).select(np.array([0, 2, 3]))
    first, second = corpus.documents
    found = [document.tolist() for document in chosen.as_corpus().documents]
    assert found == [first[:10].tolist(), first[20:].tolist(), second.tolist()]


@given(lengths_of_documents, contexts, st.data())
def test_bytes_of_prompts_are_not_counted_and_windows_of_nothing_else_are_left_out(lengths, context, data):
    prompts = [data.draw(st.integers(0, length - 1)) for length in lengths]
    overlap = data.draw(st.integers(0, context - 1))
    plain = corpus_of_lengths(lengths)
    windows = cut_windows(Corpus(plain.documents, plain.names, np.array(prompts)), context, overlap)
    places = zip(lengths, prompts, strict=True)
    expected = {(n, place): 1 for n, (length, prompt) in enumerate(places) for place in range(prompt, length + 1)}
    assert predictions(windows) == expected
    assert int(windows.bounds.num_counted_bytes.sum()) == windows.num_counted_bytes == sum(lengths) - sum(prompts)
    assert (windows.bounds.num_counted_bytes + windows.bounds.is_last).min() >= 1


def test_few_windows_of_a_terabyte_are_chosen_from_its_lengths_alone():
    corpus = zero_corpus([2**40, 5, 2**38])
    chosen = cut_windows(corpus, 256).limit(256 * 1000)
    assert len(chosen) == 1000
    assert np.bincount(chosen.bounds.document).tolist() == [800, 0, 200]
    assert (np.diff(chosen.bounds.begin[:800]) > 2**28).all()


def test_the_windows_that_a_limit_chooses_stay_the_same_for_ever():
    """Published numbers are measured on them."""
    chosen = cut_windows(corpus_of_lengths([100, 7, 256, 31, 12, 90]), 16, 3)
    assert chosen.limit(120).numbers.tolist() == [3, 5, 8, 14, 17, 23, 26, 28, 35, 37]
    left_out = set(range(40)) - set(chosen.limit(400).numbers.tolist())
    assert sorted(left_out) == [4, 7, 10, 18, 21, 29, 32, 35]
