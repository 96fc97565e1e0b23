"""Tokens inside a word are committed as soon as nothing that follows can change them, and never before."""

import itertools
import json
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from patchpad.patching import OpenPiece, SourceTokens
from patchpad.patching.byte_level_bpe import BYTE_CHARACTERS, ByteLevelBpe
from patchpad.patching.certain_tokens import CertainTokens
from patchpad.testing import tiny_source_tokens, tiny_tokenizer_json

LONGEST_TOKEN = 5
CUT_FROM_FAR = r"ab(?=\p{L}{7})|\p{L}+|[^\p{L}]+"
"""Cuts "ab" off once seven more letters have come: that it may, no probe can show before."""


def tokenizer_json(merges: Iterable[tuple[str, str]], *, ignore_merges: bool = False, regex: str | None = None) -> str:
    """A tokenizer of every byte and of some merges."""
    content = json.loads(tiny_tokenizer_json())
    words = dict.fromkeys([*BYTE_CHARACTERS, *(a + b for a, b in merges)])
    model = content["model"]
    model.update(vocab={word: number for number, word in enumerate(words)}, ignore_merges=ignore_merges)
    model["merges"] = [list(pair) for pair in merges]
    content["added_tokens"] = []
    if regex is not None:
        split = {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": False}
        level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
        content["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [split, level]}
    return json.dumps(content)


@st.composite
def random_merges(draw, letters: str) -> list[tuple[str, str]]:
    """Merges of letters, and of what earlier merges have made, in any order and of at most LONGEST_TOKEN bytes."""
    words, merges = list(letters), []
    for _ in range(draw(st.integers(1, 9))):
        pair = draw(st.sampled_from(words)), draw(st.sampled_from(words))
        if len("".join(pair)) <= LONGEST_TOKEN and pair not in merges:
            merges.append(pair)
            words.append("".join(pair))
    return draw(st.permutations(merges)) if draw(st.booleans()) else merges


def words_of(letters: str, lengths: Iterable[int]) -> list[str]:
    return ["".join(word) for length in lengths for word in itertools.product(letters, repeat=length)]


def text_of(bpe: ByteLevelBpe, tokens: Iterable[int]) -> bytes:
    return b"".join(map(bpe.text_of, tokens))


def common_beginning(lists: Iterable[tuple[int, ...]]) -> tuple[int, ...]:
    return tuple(same[0] for same in itertools.takewhile(lambda same: len({*same}) == 1, zip(*lists, strict=False)))


def assert_exactly_what_all_futures_share(bpe: ByteLevelBpe, letters: str, longest: int) -> None:
    """Fails unless what is certain in each short word is what all its futures share, but for the newest byte.

    A word that a token begins with has no certain tokens, even where no merges lead to that token: that is allowed.
    """
    tokens, found = CertainTokens(bpe), 0
    following = words_of(letters, range(LONGEST_TOKEN))
    for word in words_of(letters, range(1, longest + 1)):
        certain = tokens.beyond(word, 0)
        shared = common_beginning(bpe.encode(word + more) for more in following)
        while shared and len(text_of(bpe, shared)) >= len(word):
            shared = shared[:-1]
        assert shared[: len(certain)] == certain, (word, certain, shared)
        if not any(data and data.startswith(word.encode()) for data in bpe.bytes_of):
            assert certain == shared, (word, certain, shared)
        for count in range(1, len(certain)):  # the first of them may have been known before
            assert tokens.beyond(word, len(text_of(bpe, certain[:count]))) == certain[count:]
        found += len(certain)
    assert found > 0


@pytest.mark.parametrize("ignore_merges", [False, True])
@settings(max_examples=20)
@given(merges=random_merges("ab"))
def test_tokens_are_certain_if_and_only_if_all_futures_share_them(ignore_merges, merges):
    bpe = ByteLevelBpe(tokenizer_json(merges, ignore_merges=ignore_merges))
    assert_exactly_what_all_futures_share(bpe, "ab", longest=6)


def read(tokens: SourceTokens, text: str) -> tuple[list[list[bytes]], OpenPiece]:
    """Returns the texts of the tokens that each byte commits, and the open piece at the end."""
    commits, piece = [], OpenPiece()
    for byte in text.encode():
        committed, piece = tokens.advance(piece, byte)
        commits.append([tokens.text_of([token]) for token in committed])
    return commits, piece


@pytest.mark.parametrize(
    ("text", "committed", "piece"),
    [
        ("name", [], OpenPiece(b"name")),  # a token itself
        ("namel", [b"name"], OpenPiece(b"namel", 4)),
        ("nameles", [b"name", b"l"], OpenPiece(b"nameles", 5)),
        ("nameless", [b"name", b"l", b"es"], OpenPiece(b"nameless", 7)),
        (" telep", [b" t", b"el", b"e"], OpenPiece(b" telep", 5)),
        ("xx\n", [b"x", b"x"], OpenPiece(b"\n")),
        ("1234", [b"12"], OpenPiece(b"1234", 2)),
        ("a   ", [b"a"], OpenPiece(b"   ")),  # whose last space a word would take
        ("a   x", [b"a", b"  ", b" "], OpenPiece(b" x", 1)),
    ],
)
def test_tokens_inside_a_word_are_committed_as_soon_as_they_are_certain(text, committed, piece):
    commits, found = read(tiny_source_tokens(), text)
    assert (list(itertools.chain(*commits)), found) == (committed, piece)


def test_what_stands_before_an_unfinished_character_is_committed_and_none_of_its_bytes():
    tokens = tiny_source_tokens()
    commits, piece = read(tokens, "xx日")
    assert commits == [[], [b"x"], [b"x"], [], [b"\xe6\x97"]]
    assert piece == OpenPiece("xx日".encode(), 4)


def test_a_word_that_is_a_token_without_merges_is_committed_as_that_one():
    """With `ignore_merges`, "abc" is the word's token, which "ab" must not be committed for."""
    content = json.loads(tokenizer_json([("a", "b"), ("c", "d")], ignore_merges=True))
    content["model"]["vocab"]["abcd"] = len(content["model"]["vocab"])
    tokens = SourceTokens.from_json(json.dumps(content), begin=0, ends=())
    assert read(tokens, "abcd ") == ([[], [], [], [], [b"abcd"]], OpenPiece(b" "))
    assert read(tokens, "abcde ") == ([[], [], [], [], [b"ab", b"cd"], [b"e"]], OpenPiece(b" "))
    assert read(tokens, "abcx") == ([[], [], [], [b"ab", b"c"]], OpenPiece(b"abcx", 3))
    assert [tokens.text_of([token]) for token in tokens.open_tokens(OpenPiece(b"xxabcd", 2))] == [b"ab", b"cd"]


def test_no_byte_is_lost_or_said_twice_where_a_rule_cuts_what_is_committed():
    tokens = SourceTokens.from_json(tokenizer_json([("b", "c"), ("d", "e")], regex=CUT_FROM_FAR), begin=0, ends=())
    text = "abcdefghijkl abcx"
    commits, piece = read(tokens, text)
    assert commits[:4] == [[], [b"a"], [], [b"bc"]]  # "bc" is not a token of "ab" and "cdefghi"
    assert b"".join(itertools.chain(*commits)) + piece.text == text.encode()
    assert tokens.text_of(tokens.open_tokens(piece)) == piece.text
    for end in range(len(text)):
        _, piece = read(tokens, text[:end])
        assert tokens.text_of(tokens.open_tokens(piece)) == piece.text
