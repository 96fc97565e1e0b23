"""Tokens are lossless on any bytes, the same for the same text, and bounded."""

import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchpad.errors import CheckpointError, MissingExtraError
from patchpad.model.baselines import bpe_tokens
from patchpad.model.baselines.bpe_tokens import BpeTokens
from patchpad.testing import random_documents

WORDS = (
    "It was the best of times, it was the worst of times — “größer” 日本語の文章。 été\n\n  12345 x\x00\x00y".encode()
)


def learn(*documents: bytes, vocab_size: int = 400) -> BpeTokens:
    return BpeTokens.learn([np.frombuffer(document, dtype=np.uint8) for document in documents], vocab_size)


@pytest.fixture(scope="module")
def tokens():
    return learn(WORDS * 4, *random_documents(0, [4000, 300]))


@given(data=st.binary(max_size=300) | st.text(max_size=100).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_any_bytes_come_back(tokens, data):
    encoded = tokens.encode(data)
    assert tokens.decode(encoded) == data
    assert 256 not in encoded
    assert all(0 <= token < len(tokens) for token in encoded)


@pytest.mark.parametrize("data", [b"", bytes(range(256)), bytes(500), b"\xff\xfe" * 60, WORDS, b"\xe2\x80", b" " * 200])
def test_odd_bytes_come_back(tokens, data):
    assert tokens.decode(tokens.encode(data)) == data


def test_the_first_tokens_are_the_bytes_and_the_separator_has_none(tokens):
    assert tokens.bytes_of[:256] == [bytes([value]) for value in range(256)]
    assert tokens.bytes_of[256] == b""
    assert all(len(piece) > 1 for piece in tokens.bytes_of[257:])
    assert len(set(tokens.bytes_of)) == len(tokens) == 400


def test_tokens_shorten_the_text_that_they_were_learned_from(tokens):
    assert len(tokens.encode(WORDS)) < 0.6 * len(WORDS)
    assert len(tokens.encode(b" the best of times")) <= 5


def test_punctuation_of_utf8_is_no_part_of_words_but_letters_are():
    tokens = learn("“ab”—ab—größer、größer。".encode() * 60, vocab_size=320)
    with_letters = [piece for piece in tokens.bytes_of if any(value in b"abgrer" for value in piece)]
    assert len(with_letters) > 6
    assert not [piece for piece in with_letters if b"\xe2\x80" in piece or b"\xe3\x80" in piece]
    assert "größer".encode() in tokens.bytes_of
    assert "”—".encode() in tokens.bytes_of


def test_learning_and_json_give_the_same_tokens_again(tokens):
    again = learn(WORDS * 4, *random_documents(0, [4000, 300]))
    assert again.to_json() == tokens.to_json()
    loaded = BpeTokens.from_json(tokens.to_json())
    assert loaded.bytes_of == tokens.bytes_of
    assert loaded.encode(WORDS) == tokens.encode(WORDS)


def test_a_vocabulary_of_bytes_alone_has_no_learned_token():
    tokens = learn(WORDS, vocab_size=257)
    assert len(tokens) == 257
    assert tokens.encode(b"abc\xff") == list(b"abc\xff")


@pytest.mark.parametrize("text", [bytes(9000), b"a" * 9000, b"ab" * 4000])
def test_text_without_spaces_gives_tokens_of_bounded_length(text):
    tokens = learn(text)
    assert max(map(len, tokens.bytes_of)) <= bpe_tokens.LONGEST_TOKEN
    assert len(tokens.encode(text)) < len(text) / 8
    assert tokens.decode(tokens.encode(text)) == text


def test_a_long_text_is_sampled_evenly(monkeypatch):
    monkeypatch.setattr(bpe_tokens, "SAMPLE_BYTES", 100)
    monkeypatch.setattr(bpe_tokens, "PIECE_BYTES", 10)
    document = np.frombuffer(b"".join(b"%010d" % number for number in range(100)), dtype=np.uint8)
    pieces = list(bpe_tokens._sample([document[:500], document[500:]]))
    assert pieces == [f"{number:010d}" for number in range(0, 100, 10)]
    assert len(list(bpe_tokens._sample([document[:95]]))) == 10


def test_without_the_library_the_error_names_the_pip_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(MissingExtraError) as caught:
        learn(b"text")
    assert 'pip install "patchpad[bpe]"' in caught.value.hint


def test_a_file_that_holds_no_tokens_is_refused():
    for text in ("", "{}", "no json"):
        with pytest.raises(CheckpointError, match="cannot read the tokens"):
            BpeTokens.from_json(text)
