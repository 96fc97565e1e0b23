"""Committed tokens and open text are the text, known in time, and the tokens are those of the tokenizer itself."""

import copy
import functools
import itertools
import json
import pickle
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from patchpad.errors import CheckpointError, InputError, MissingExtraError
from patchpad.patching import OpenPiece, SourceTokens
from patchpad.patching.byte_level_bpe import tokenizers_library
from patchpad.testing import tiny_source_tokens, tiny_tokenizer_json
from patchpad.testing.tokens import LACKS

LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
FROM_THE_RIGHT = r"\p{N}{1,3}(?=(?:\p{N}{3})*(?!\p{N}))|\p{L}+|[^\p{L}\p{N}]+"
"""Cuts digits by threes, counted from the right: "1234" is "1" and "234"."""
CONTRACTIONS_INSIDE = r"\p{L}+(?:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
"""Keeps "don't" whole, as GPT-4o's pattern does."""


def _pattern(regex: str) -> dict:
    split = {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": False}
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    return {"type": "Sequence", "pretokenizers": [split, level]}


GPT2 = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
CUTTERS = {
    "gpt2": GPT2,
    "gpt2 with single digits": {
        "type": "Sequence",
        "pretokenizers": [{"type": "Digits", "individual_digits": True}, GPT2],
    },
    "llama3": _pattern(LLAMA3),
    "digits from the right": _pattern(FROM_THE_RIGHT),
    "contractions inside": _pattern(CONTRACTIONS_INSIDE),
}
TEXTS = {
    "prose": "She said they'll go, hadn't they? It's “fine” — we've 12 o'clock's\nworth of it... The end.",
    "code": "def f(x):\n    if x  == 'lr':\n\t\treturn {'a': x[1:2]}  # it's 3.1\n\n\n    \nclass A:\r\n\r\n  pass\n",
    "scripts": "naïve Straße 日本語のテキスト。 שלום עולם, привет! ไทย हिन्दी नमस्ते 한국어 🙂👩‍👩‍👧 e\u0301\u00a0x",
    "digits": "1 12 123 1234 12345.678 1,000,000 x1y22z333 ٣٤٥ ²³",
    "spaces": "a  b   c\n\n\nd \n \n e\t\tf \r\n\r\n  g\u2003\u2003h\u0085\u0085i    ",
    "contractions": "'ll 'l 'le 'r 're 've 'vx ''s '''ll I'LL 'S '\u017f don't don'r don're x'll' 'l",
}
FOLLOWING = ["".join(part) for n in range(4) for part in itertools.product("le '1\n日", repeat=n)]
TRICKY = st.text("' \n\r\tlreveSdtm1234a!.é日\u0301\u00a0\u2003", max_size=40)


@functools.cache
def tokens_with(cutter: str) -> SourceTokens:
    content = json.loads(tiny_tokenizer_json())
    content["pre_tokenizer"] = CUTTERS[cutter]
    return SourceTokens.from_json(json.dumps(content), begin=0, ends=(0, 1), max_bytes=1000)


@functools.cache
def whole_encoder(cutter: str):
    """The library's own encoder, which drops bytes that it has no token for."""
    content = json.loads(tiny_tokenizer_json())
    content.update(pre_tokenizer=CUTTERS[cutter], added_tokens=[])
    return tokenizers_library("a test").Tokenizer.from_str(json.dumps(content))


def walk(tokens: SourceTokens, document: bytes) -> tuple[list[int], OpenPiece]:
    """Returns all that is committed, and the open piece, which is checked at every byte."""
    committed, piece = [], OpenPiece()
    for end, byte in enumerate(document, 1):
        added, piece = tokens.advance(piece, byte)
        committed += added
        assert tokens.text_of(committed) + piece.text == document[:end]
        assert 0 <= piece.num_committed < len(piece.data) <= tokens.longest()
        assert document[:end].endswith(piece.data)
        assert tokens.text_of(tokens.open_tokens(piece)) == piece.text
    return committed, piece


@given(st.one_of(st.binary(max_size=60), st.text(max_size=40).map(str.encode), TRICKY.map(str.encode)))
def test_tokens_and_open_text_are_the_text_at_every_byte(document):
    walk(tiny_source_tokens(), document)
    walk(tiny_source_tokens(4), document)


@given(st.lists(st.sampled_from([0x80, 0x9C, 0xC0, 0xC3, 0xE2, 0xED, 0xA0, 0xF0, 0x9F, 0xFF, 0x20, 0x61]), max_size=40))
def test_broken_characters_get_through_byte_by_byte(values):
    walk(tiny_source_tokens(), bytes(values))


def test_a_bad_byte_closes_what_was_before_and_is_a_token_of_its_own():
    tokens = tiny_source_tokens()
    committed, piece = walk(tokens, b"The \xe2\x80Q\xffx")
    assert [tokens.text_of([token]) for token in committed] == [b"The", b" ", b"\xe2", b"\x80", b"Q", b"\xff"]
    assert committed[-1] == len(tokens.bytes_of) + 0xFF
    assert piece == OpenPiece(b"x")


def test_an_unfinished_character_stays_open():
    tokens = tiny_source_tokens()
    text = "The 🙂"
    whole, _ = walk(tokens, b"The ")
    for end in range(5, 8):
        assert walk(tokens, text.encode()[:end]) == (whole, OpenPiece(text.encode()[3:end]))


def encoded(cutter: str, text: str) -> list[int]:
    return whole_encoder(cutter).encode(text, add_special_tokens=False).ids


def without_lacking(tokens: SourceTokens, ids: list[int]) -> list[int]:
    return [token for token in ids if token < len(tokens.bytes_of)]


@pytest.mark.parametrize("cutter", CUTTERS)
@pytest.mark.parametrize("kind", TEXTS)
def test_tokens_are_those_of_the_tokenizer_for_the_whole_text(cutter, kind):
    tokens = tokens_with(cutter)
    committed, piece = walk(tokens, TEXTS[kind].encode())
    assert without_lacking(tokens, [*committed, *tokens.open_tokens(piece)]) == encoded(cutter, TEXTS[kind])
    assert committed


@pytest.mark.parametrize("cutter", CUTTERS)
@given(text=TRICKY)
def test_tokens_of_tricky_texts_are_those_of_the_tokenizer(cutter, text):
    tokens = tokens_with(cutter)
    committed, piece = walk(tokens, text.encode())
    assert [*committed, *tokens.open_tokens(piece)] == encoded(cutter, text)
    pieces = whole_encoder(cutter).pre_tokenizer.pre_tokenize_str(text)
    piece_ends = {0, *itertools.accumulate(len(piece) for piece, _ in pieces)}
    piece = OpenPiece()
    for end, byte in enumerate(text.encode(), 1):
        _, piece = tokens.advance(piece, byte)
        assert end - len(piece.data) in piece_ends


@pytest.mark.parametrize("cutter", CUTTERS)
@settings(max_examples=10)
@given(text=TRICKY)
def test_what_is_committed_are_the_first_tokens_whatever_follows(cutter, text):
    committed, _ = walk(tokens_with(cutter), text.encode())
    for following in FOLLOWING:
        assert encoded(cutter, text + following)[: len(committed)] == committed


@pytest.mark.parametrize("cutter", CUTTERS)
@settings(max_examples=10)
@given(text=TRICKY, begun=st.sampled_from(["é", "\u043e", "—", "日", "🙂"]), kept=st.integers(1, 3))
def test_what_is_committed_before_an_unfinished_character_stays_whatever_it_becomes(cutter, text, begun, kept):
    data = begun.encode()
    begin = data[: min(kept, len(data) - 1)]
    committed, _ = walk(tokens_with(cutter), text.encode() + begin)
    for last in (0x80, 0x99, 0xBF):
        character = (begin + data[len(begin) : -1] + bytes([last])).decode()
        for following in FOLLOWING:
            assert encoded(cutter, text + character + following)[: len(committed)] == committed


@pytest.mark.parametrize(
    ("text", "opened"),
    [
        ("The cat", " cat"),
        ("it'", "'"),
        ("it'l", "'l"),
        ("it'll", "'ll"),
        ("it'la", "la"),
        ("it'r", "'r"),
        ("it's", "'s"),
        ("it'sa", "a"),
        ("a   ", "   "),
        ("a   b", " b"),
        ("a\n\n", "\n\n"),
        ("a\n\nb", "b"),
    ],
)
def test_the_open_piece_is_what_may_still_be_cut_otherwise(text, opened):
    assert walk(tiny_source_tokens(), text.encode())[1].data == opened.encode()


@pytest.mark.parametrize(
    ("cutter", "text", "opened"),
    [
        ("gpt2 with single digits", "x 12", "2"),
        ("llama3", "x1234", "4"),
        ("llama3", "x\n  \n", "\n  \n"),
        ("llama3", "x\n  ", "\n  "),
        ("digits from the right", "x12345", "12345"),
        ("contractions inside", "don'", "don'"),
        ("contractions inside", "don'a", "a"),
        ("contractions inside", "xyz'", "xyz'"),
    ],
)
def test_the_open_piece_of_other_patterns_is_what_may_still_be_cut_otherwise(cutter, text, opened):
    assert walk(tokens_with(cutter), text.encode())[1].data == opened.encode()


def test_a_text_that_never_ends_a_piece_is_committed_up_to_its_last_character():
    tokens = tiny_source_tokens(24)
    committed, piece = walk(tokens, "é".encode() * 13)
    assert tokens.text_of(committed) == "é".encode() * 12
    assert piece == OpenPiece("é".encode())
    committed, piece = walk(tokens, b"t" * 24 + "é".encode())
    assert (tokens.text_of(committed), piece) == (b"t" * 24, OpenPiece("é".encode()))
    committed, piece = walk(tokens, b" " * 24 + b"the")
    assert (tokens.text_of(committed), piece) == (b" " * 23, OpenPiece(b" the"))


def test_text_that_looks_like_a_separator_is_text():
    tokens = tiny_source_tokens(100)
    committed, piece = walk(tokens, b"the <|begin|> ")
    assert not {0, 1} & {*committed}
    assert tokens.bytes_of[:2] == [None, None]
    assert piece == OpenPiece(b" ")


def test_bytes_without_a_token_have_ids_of_their_own():
    tokens = tiny_source_tokens()
    for byte in range(256):
        (token,) = tokens.open_tokens(OpenPiece(bytes([byte])))
        assert (token == len(tokens.bytes_of) + byte) == (byte in LACKS)
        assert token < tokens.num_ids == len(tokens.bytes_of) + 256


def test_what_a_run_keeps_gives_the_same_tokens():
    tokens = tiny_source_tokens()
    text = TEXTS["prose"].encode()
    kept = tokens.to_json()
    for again in (SourceTokens.of_run(kept), pickle.loads(pickle.dumps(tokens)), copy.deepcopy(tokens)):
        assert walk(again, text) == walk(tokens, text)
        assert (again.begin, again.ends, again.longest(), again.to_json()) == (0, (0, 1), 24, kept)


def changed(**fields: object) -> str:
    """The tiny tokenizer with some of its fields as given; `model__x` is a field of its model."""
    content = json.loads(tiny_tokenizer_json())
    for name, value in fields.items():
        part, _, inner = name.partition("__")
        if inner:
            content[part][inner] = value
        else:
            content[part] = value
    return json.dumps(content)


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"model__type": "Unigram"}, "model.type = 'Unigram'; allowed: 'BPE'"),
        ({"model__byte_fallback": True}, "model.byte_fallback = True; allowed: False"),
        ({"model__end_of_word_suffix": "</w>"}, "model.end_of_word_suffix = '</w>'"),
        ({"model__dropout": 0.1}, "model.dropout = 0.1"),
        ({"model__vocab": {"a": 0, "▁the": 1}, "model__merges": []}, "model.vocab = '▁the'"),
        ({"normalizer": {"type": "NFC"}}, "normalizer = 'NFC'; allowed: None"),
        ({"pre_tokenizer": None}, "pre_tokenizer.type = None; allowed: ByteLevel"),
        ({"pre_tokenizer": {"type": "Metaspace"}}, "pre_tokenizer.type = 'Metaspace'"),
        ({"pre_tokenizer": {**GPT2, "add_prefix_space": True}}, "pre_tokenizer.add_prefix_space = True"),
        ({"pre_tokenizer": {"type": "Digits", "individual_digits": True}}, "pre_tokenizer.type = 'Digits'"),
        (
            {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "Split", "behavior": "Removed"}, GPT2]}},
            "pre_tokenizer.behavior of Split = 'Removed'",
        ),
        ({"model__merges": [["a", "no such token"]]}, "cannot read the tokenizer"),
        ({"model__merges": None}, "cannot read the tokenizer"),
        ({"model__vocab": ["a"]}, "cannot read the tokenizer"),
        ({"model": 3}, "cannot read the tokenizer"),
    ],
)
def test_another_kind_of_tokenizer_is_refused_by_the_name_of_its_field(fields, named):
    with pytest.raises(CheckpointError) as caught:
        SourceTokens.from_json(changed(**fields), begin=0, ends=())
    assert named in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda found: found["added_tokens"][0].update(id=10**12), r"'<\|begin\|>' has the id 1000000000000"),
        (lambda found: found["added_tokens"][0].update(id=-5), "has the id -5, which is not from 0 to"),
        (lambda found: found["model"]["vocab"].update(a=1.5), r"'a' has the id 1\.5"),
        (lambda found: found["model"]["vocab"].update(a=7), "two tokens of its vocabulary have the same id"),
        (lambda found: found["model"]["vocab"].clear(), "its vocabulary is empty"),
        (lambda found: found["model"]["merges"].insert(0, ["t", "zzz"]), "its merges name 'zzz', which is not one"),
        (lambda found: [found["model"]["vocab"].pop(key) for key in list(found["model"]["vocab"])[250:]], "its merges"),
    ],
)
def test_ids_and_merges_that_cannot_be_are_a_clear_error(damage, says):
    content = json.loads(tiny_tokenizer_json())
    damage(content)
    with pytest.raises(CheckpointError, match=says):
        SourceTokens.from_json(json.dumps(content), begin=0, ends=(0,))


@pytest.mark.parametrize("text", ["", "[]", "{", "{}", tiny_tokenizer_json()[:-40]])
def test_a_damaged_file_is_a_clear_error(text):
    with pytest.raises(CheckpointError, match="cannot read the tokenizer"):
        SourceTokens.from_json(text, begin=0, ends=())
    with pytest.raises(CheckpointError, match="cannot read the tokens of the source"):
        SourceTokens.of_run(text)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"begin": 9999, "ends": (0,)}, "begin has the token 9999; allowed: ids 0 to"),
        ({"begin": 0, "ends": (0, -1)}, "ends has the token -1"),
        ({"begin": 0, "ends": (), "max_bytes": 3}, "max_bytes is 3; allowed: 4 or more"),
    ],
)
def test_a_value_that_is_not_allowed_is_named(options, named):
    with pytest.raises(InputError) as caught:
        SourceTokens.from_json(tiny_tokenizer_json(), **options)
    assert named in caught.value.message


def test_without_the_library_the_error_names_the_pip_line(monkeypatch):
    kept = tiny_source_tokens().to_json()
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(MissingExtraError) as caught:
        SourceTokens.of_run(kept)
    assert 'pip install "patchpad[bpe]"' in caught.value.hint
