"""Held-out text is whole documents or the end of one, about as much as was asked for, and none of it is trained on."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchpad.data import Corpus, split_corpus
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
def test_several_documents_are_split_whole_and_neither_side_is_empty(lengths, fraction):
    documents = [bytes([number]) * length for number, length in enumerate(lengths)]
    training, validation = split_corpus(corpus_of(*documents), fraction)
    assert training.documents
    assert validation.documents
    assert sorted(texts(training) + texts(validation)) == sorted(documents)
    assert sorted(training.names + validation.names) == sorted(corpus_of(*documents).names)
    again = split_corpus(corpus_of(*documents), fraction)
    assert [texts(part) for part in again] == [texts(training), texts(validation)]


def test_about_the_asked_share_of_many_documents_is_held_out():
    corpus = corpus_of(*(bytes([65 + number % 9]) * (50 + number % 13) for number in range(300)))
    _, validation = split_corpus(corpus, 0.1)
    assert 0.09 * corpus.num_bytes < validation.num_bytes < 0.12 * corpus.num_bytes
    order = [corpus.names.index(name) for name in validation.names]
    assert order == sorted(order)
    assert order != list(range(300 - len(order), 300))
