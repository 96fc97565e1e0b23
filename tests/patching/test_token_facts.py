"""The facts of whole rows are those of stepping, and causal."""

import functools

import torch
from hypothesis import given
from hypothesis import strategies as st

from patchpad.config import PADDING, SEPARATOR
from patchpad.patching import OpenPiece, TokenFacts, VocabularyTrie, facts_of_rows, facts_of_span, facts_of_step
from patchpad.patching.vocabulary_trie import DEAD, ROOT
from patchpad.testing import as_row, tiny_source_tokens

DOCUMENTS = st.lists(
    st.one_of(st.binary(max_size=20), st.sampled_from(["the cat's end", "naïve 日本", "  \n x"]).map(str.encode)),
    min_size=1,
    max_size=3,
)
TOKENS = tiny_source_tokens
NAMES = ("num_commits", "open_bytes", "piece_bytes", "node", "open_token")


@functools.cache
def tiny_trie() -> VocabularyTrie:
    return VocabularyTrie(TOKENS().bytes_of)


def rows_of(rows: list[list[bytes]]) -> torch.Tensor:
    ids = [as_row(*documents) for documents in rows]
    longest = max(map(len, ids))
    return torch.tensor([row + [PADDING] * (longest - len(row)) for row in ids])


def commits_at(facts: TokenFacts) -> list[list[tuple[int, ...]]]:
    """The committed tokens of each position."""
    tokens = iter(facts.commit_tokens.tolist())
    counts = facts.num_commits.reshape(-1, facts.num_commits.shape[-1]).tolist()
    found = [[tuple(next(tokens) for _ in range(count)) for count in row] for row in counts]
    assert next(tokens, None) is None
    return found


@given(st.lists(DOCUMENTS, min_size=1, max_size=3))
def test_facts_of_rows_are_those_of_steps(rows):
    ids = rows_of(rows)
    facts = facts_of_rows(TOKENS(), tiny_trie(), ids)
    at = commits_at(facts)
    pieces = [OpenPiece()] * len(ids)
    for place in range(ids.shape[1]):
        step, pieces = facts_of_step(TOKENS(), tiny_trie(), pieces, ids[:, place].tolist())
        for name in NAMES:
            assert torch.equal(getattr(step, name), getattr(facts, name)[:, place]), name
            assert getattr(facts, name).dtype == torch.int64
        assert step.commit_tokens.tolist() == [token for row in at for token in row[place]]
        assert [len(piece.text) for piece in pieces] == step.open_bytes.tolist()
        assert [len(piece.data) for piece in pieces] == step.piece_bytes.tolist()


@given(DOCUMENTS)
def test_facts_are_those_of_the_definition(documents):
    ids = rows_of([documents, [b"x" * 70]])
    facts = facts_of_rows(TOKENS(), tiny_trie(), ids)
    commits, text, num_committed = commits_at(facts)[0], b"", 0
    for place, value in enumerate(ids[0].tolist()):
        count, node, token, in_piece = (
            int(part[0, place]) for part in (facts.open_bytes, facts.node, facts.open_token, facts.piece_bytes)
        )
        if value == SEPARATOR:
            assert (commits[place], count, node, token, in_piece) == ((TOKENS().begin,), 0, ROOT, -1, 0)
            text, num_committed = b"", 0
        elif value == PADDING:
            assert (commits[place], count, node, token, in_piece) == ((), 0, DEAD, -1, 0)
        else:
            text += bytes([value])
            num_committed += len(TOKENS().text_of(commits[place]))
            open_text, piece = text[num_committed:], OpenPiece(text[-in_piece:], in_piece - count)
            assert (count, node, open_text) == (len(open_text), tiny_trie().node_of(open_text), piece.text)
            exact = TOKENS().open_tokens(piece)
            assert token == (exact[0] if len(exact) == 1 else -1)
            assert token < 0 or TOKENS().text_of([token]) == open_text


@given(DOCUMENTS, st.integers(0, 1000))
def test_facts_of_a_prefix_are_those_of_the_whole(documents, cut):
    ids = rows_of([documents])
    cut = 1 + cut % ids.shape[1]
    whole, prefix = (facts_of_rows(TOKENS(), tiny_trie(), part) for part in (ids, ids[:, :cut]))
    for name in NAMES:
        assert torch.equal(getattr(prefix, name), getattr(whole, name)[:, :cut]), name
    assert prefix.commit_tokens.tolist() == whole.commit_tokens.tolist()[: len(prefix.commit_tokens)]


def test_facts_of_a_span_are_those_of_so_many_steps():
    tokens, trie = tiny_source_tokens(12), VocabularyTrie(tiny_source_tokens(12).bytes_of)
    pieces = [OpenPiece(b""), OpenPiece(b"th"), OpenPiece(b"zatz", 2)]
    next_ids = [list(b"the cat's"), [], list(b"t \xff\xc3\xa9x")]
    found = facts_of_span(tokens, trie, pieces, next_ids)
    commits = []
    for row, (piece, ids) in enumerate(zip(pieces, next_ids, strict=True)):
        for column, value in enumerate(ids):
            one, (piece,) = facts_of_step(tokens, trie, [piece], [value])
            for name in NAMES:
                assert getattr(found, name)[row, column] == getattr(one, name)[0], (row, column, name)
            commits += one.commit_tokens.tolist()
        assert found.num_commits[row, len(ids) :].tolist() == [0] * (9 - len(ids))
    assert found.commit_tokens.tolist() == commits
