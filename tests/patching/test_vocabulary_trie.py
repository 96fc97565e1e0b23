"""The trie's ranges hold just the tokens that begin with a text and go on with a byte."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from patchpad.patching import VocabularyTrie
from patchpad.patching.vocabulary_trie import DEAD, ROOT
from patchpad.testing import tiny_source_tokens

SMALL = st.lists(
    st.one_of(st.none(), st.binary(min_size=1, max_size=5), st.sampled_from([b"a", b"ab", b"abc", b"b", b"\xff\x00"])),
    max_size=30,
    unique_by=lambda data: data or object(),
)


def check(bytes_of: list[bytes | None]) -> None:
    trie = VocabularyTrie(bytes_of)
    texts = [data for data in bytes_of if data is not None]
    prefixes = {data[:length] for data in texts for length in range(len(data) + 1)} | {b""}
    nodes = {prefix: trie.node_of(prefix) for prefix in prefixes}
    assert sorted(nodes.values()) == list(range(1, trie.num_nodes))
    assert nodes[b""] == ROOT
    order = trie.order.tolist()
    assert [bytes_of[token] for token in order] == sorted(texts)
    for prefix, node in nodes.items():
        bounds = trie.bounds[node].tolist()
        exact = int(trie.exact[node])
        assert (bytes_of[order[exact]] if exact >= 0 else None) == (prefix if prefix in texts else None)
        going_on = {data[len(prefix)] for data in texts if data.startswith(prefix) and len(data) > len(prefix)}
        for byte in range(256):
            found = [bytes_of[token] for token in order[bounds[byte] : bounds[byte + 1]]]
            assert bool(found) == (byte in going_on)
            if found:
                longer = prefix + bytes([byte])
                assert found == [data for data in sorted(texts) if data.startswith(longer)]


@given(SMALL)
def test_ranges_are_the_tokens_that_begin_so(bytes_of):
    check(bytes_of)


def test_ranges_of_the_tiny_vocabulary_are_the_tokens_that_begin_so():
    check(tiny_source_tokens().bytes_of)


@given(SMALL, st.binary(max_size=6))
def test_a_text_that_no_token_begins_with_is_the_dead_node(bytes_of, text):
    trie = VocabularyTrie(bytes_of)
    begins = text == b"" or any(data is not None and data.startswith(text) for data in bytes_of)
    assert (trie.node_of(text) != DEAD) == begins


def test_the_dead_node_has_no_tokens():
    trie = VocabularyTrie(tiny_source_tokens().bytes_of)
    assert not trie.bounds[DEAD].any()
    assert int(trie.exact[DEAD]) == -1
    assert trie.bounds.dtype == torch.int32
    assert trie.bounds.shape == (trie.num_nodes, 257)
