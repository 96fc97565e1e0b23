"""Held-out text is whole documents or the end of one, about as much as was asked for, and none of it is trained on."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchpad.data import Corpus, split_corpus
from patchpad.data.documents import PackedDocuments
from patchpad.data.split import first_equals, is_in
from patchpad.errors import DataError


def texts(corpus: Corpus) -> list[bytes]:
    return [document.tobytes() for document in corpus.documents]


def corpus_of(*documents: bytes) -> Corpus:
    arrays = tuple(np.frombuffer(document, dtype=np.uint8) for document in documents)
    return Corpus(arrays, tuple(f"document {number}" for number in range(len(arrays))))


def test_single_document_gives_its_last_tenth_cut_at_a_line():
    lines = b"".join(b"line %03d\n" % number for number in range(200))
    training, validation = (texts(part) for part in split_corpus(corpus_of(lines), 0.1))
    assert training + validation == [lines[:1620], lines[1620:]]
    assert validation[0].startswith(b"line 180\n")
    shifted = b"x" * 27 + lines  # the last tenth begins inside a line, which stays whole in the training text
    training, validation = (texts(part) for part in split_corpus(corpus_of(shifted), 0.1))
    assert training[0] + validation[0] == shifted
    assert validation[0].startswith(b"line 180\n")


@pytest.mark.parametrize("end", [b"x", b"\n", b"\n]", b"\n1234"])
def test_single_document_without_a_line_near_its_last_tenth_is_cut_at_a_byte(end):
    text = b"a\n" + b"x" * (98 - len(end)) + end
    training, validation = (texts(part) for part in split_corpus(corpus_of(text), 0.1))
    assert training[0] + validation[0] == text
    assert len(validation[0]) == 10


def test_two_bytes_are_split_and_one_byte_is_an_error():
    assert [texts(part) for part in split_corpus(corpus_of(b"ab"), 0.1)] == [[b"a"], [b"b"]]
    assert [texts(part) for part in split_corpus(corpus_of(b"\n\n"), 0.9)] == [[b"\n"], [b"\n"]]
    with pytest.raises(DataError, match="holds 1 byte, too little to split"):
        split_corpus(corpus_of(b"a"), 0.1)


@given(st.lists(st.integers(1, 2000), min_size=2, max_size=40), st.floats(0.001, 0.999))
def test_about_as_much_as_asked_for_is_held_out_and_no_byte_is_lost(lengths, fraction):
    """Within the byte that a side has at least, and those of a document of one byte, which cannot be cut."""
    documents = [bytes([number]) * length for number, length in enumerate(lengths)]
    training, validation = split_corpus(corpus_of(*documents), fraction)
    assert training.num_bytes > 0
    assert sorted(b"".join(texts(training) + texts(validation))) == sorted(b"".join(documents))
    goal = fraction * sum(lengths)
    assert goal / 2 - 1 <= validation.num_bytes <= 2 * goal + 1
    if len(training.documents) + len(validation.documents) == len(documents):
        assert sorted([*training.names, *validation.names]) == sorted(corpus_of(*documents).names)
    else:
        assert len(training.documents) == len(documents)
        (end,) = texts(validation)
        largest = max(documents, key=len)
        assert largest.endswith(end)
        assert texts(training)[documents.index(largest)] + end == largest
    again = split_corpus(corpus_of(*documents), fraction)
    assert [texts(part) for part in again] == [texts(training), texts(validation)]


@pytest.mark.parametrize(
    ("lengths", "training", "held_out"),
    [
        ([50_000, 11], [44_999, 11], [5_001]),
        ([50_000, 40_000, 100], [40_990, 40_000, 100], [9_010]),
        ([1000, 1000, 1000], [700, 1000, 1000], [300]),
        ([100] * 6, [100] * 5, [100]),
        ([60, 1000], [1000], [60]),
    ],
)
def test_end_of_the_largest_document_is_held_out_only_where_whole_ones_are_far_too_small_or_large(
    lengths, training, held_out
):
    documents = [bytes([number]) * length for number, length in enumerate(lengths)]
    found = split_corpus(corpus_of(*documents), 0.1)
    assert sorted(len(text) for text in texts(found[0])) == sorted(training)
    assert [len(text) for text in texts(found[1])] == held_out


def test_end_of_the_largest_of_several_documents_begins_with_a_line():
    lines = b"".join(b"line %03d\n" % number for number in range(200))
    training, validation = split_corpus(corpus_of(b"short", lines, b"text"), 0.1)
    assert texts(training)[1] + texts(validation)[0] == lines
    assert texts(validation)[0].startswith(b"line ")
    assert training.names == ("document 0", "document 1", "document 2")
    assert validation.names == ("document 1",)


def test_documents_of_one_byte_are_split_whole():
    assert [texts(part) for part in split_corpus(corpus_of(b"a", b"b", b"a"), 0.1)] == [[b"a", b"a"], [b"b"]]
    with pytest.raises(DataError, match="holds 1 byte, too little to split"):
        split_corpus(corpus_of(b"a", b"a"), 0.1)
    training, validation = split_corpus(corpus_of(*[b"a"] * 60, b"b" * 50), 0.1)
    assert texts(training) == [b"a"] * 60 + [b"b" * 39]
    assert texts(validation) == [b"b" * 11]


@given(st.lists(st.integers(0, 9), min_size=2, max_size=60), st.floats(0.01, 0.9))
def test_equal_documents_never_stand_on_both_sides(kinds, fraction):
    kinds_of_text = [bytes([65 + kind]) * (5000 + kind % 3) + bytes([kind]) for kind in range(10)]
    documents = [kinds_of_text[kind] for kind in kinds]
    training, validation = split_corpus(corpus_of(*documents), fraction)
    assert training.documents
    assert validation.documents
    assert not set(texts(training)) & set(texts(validation))
    assert training.num_bytes + validation.num_bytes == sum(map(len, documents))
    begins = {text[:1] for text in texts(training)} & {text[:1] for text in texts(validation)}
    assert len(begins) <= 1, "those that are cut"
    for begin in begins:
        cut = {len(text) for text in texts(training) if text[:1] == begin}
        assert len(cut) == 1, "all of them at the same place"


def test_documents_that_differ_in_one_byte_are_not_equal():
    documents = [bytearray(5000) for _ in range(3)]
    documents[1][-1] = 1
    documents[2][0] = 1
    firsts = first_equals(corpus_of(*map(bytes, [*documents, documents[1]])).documents)
    assert firsts.tolist() == [0, 1, 2, 1]


def test_about_the_asked_share_of_many_documents_is_held_out():
    corpus = corpus_of(*(bytes([65 + number % 9]) * (50 + number % 13) for number in range(300)))
    _, validation = split_corpus(corpus, 0.1)
    assert 0.09 * corpus.num_bytes < validation.num_bytes < 0.12 * corpus.num_bytes
    order = [list(corpus.names).index(name) for name in validation.names]
    assert order == sorted(order)
    assert order != list(range(300 - len(order), 300))


def test_documents_are_cut_behind_their_prompts_alone():
    prompt, completion = b"question?\n" * 20, b"answer\n" * 20
    document = np.frombuffer(prompt + completion, dtype=np.uint8)
    training, validation = split_corpus(Corpus([document], ["a"], np.array([len(prompt)])), 0.9)
    assert texts(training)[0] + texts(validation)[0] == prompt + completion
    assert texts(validation)[0].startswith(b"answer")
    assert training.prompt_bytes.tolist() == [len(prompt)]
    assert len(training.documents[0]) > len(prompt)
    assert validation.prompt_bytes.tolist() == [0]
    with pytest.raises(DataError, match="holds 1 byte behind its prompt, too little"):
        split_corpus(Corpus([document], ["a"], np.array([len(document) - 1])), 0.1)


def test_documents_of_lengths_of_their_own_and_those_with_known_digests_are_not_read():
    """But for the few that the checks of types look at."""
    read = []

    class Counting(PackedDocuments):
        digests = None

        def read(self, index, begin, end):
            read.append(index)
            return np.zeros(1, dtype=np.uint8)

    begins = np.zeros(100, dtype=np.int64)
    content = np.zeros(0, dtype=np.uint8)
    assert first_equals(Counting(content, begins, np.arange(1, 101))).tolist() == list(range(100))
    known = Counting(content, begins, begins + 3)
    known.digests = np.arange(100, dtype=np.uint64) % 50
    assert first_equals(known).tolist() == [*range(50), *range(50)]
    assert len(read) < 10


def test_documents_that_equal_others_are_found_whatever_else_they_equal():
    documents = corpus_of(b"same", b"own", b"some", b"same", b"twice", b"twice").documents
    others = corpus_of(b"some", b"other", b"same", b"same").documents
    assert is_in(documents, others).tolist() == [True, False, True, True, False, False]
