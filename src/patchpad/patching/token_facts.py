"""`TokenFacts`: which tokens of the source are committed at each position, and what is open after them.

They follow from the bytes alone and are found on the host.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from patchpad.config import PADDING, SEPARATOR
from patchpad.patching.source_tokens import SourceTokens
from patchpad.patching.vocabulary_trie import DEAD, VocabularyTrie
from patchpad.shapes import ByteIds


@dataclass(frozen=True, kw_only=True)
class TokenFacts:
    """Tokens of a batch, all int64: [batch, byte] for whole rows, [batch] in a step. Padding has none of it."""

    num_commits: Tensor
    """Tokens committed at the position; at a separator one, the token that begins a document."""
    open_bytes: Tensor
    """Bytes of the open text after these commits: 0 at separators, else at least 1."""
    node: Tensor
    """Node of the open text in the vocabulary's trie; the root at separators, DEAD if no token begins with it."""
    draft: Tensor
    """The one token that the open text is; -1 where it is several or none."""
    commit_tokens: Int[Tensor, " commit"]
    """The committed tokens, packed in the order (row, byte, commit)."""


def facts_of_rows(tokens: SourceTokens, trie: VocabularyTrie, byte_ids: ByteIds) -> TokenFacts:
    """Returns the facts of whole rows, on the device of the ids; each document is read from its separator on.

    Args:
        tokens: of the source.
        trie: of its vocabulary.
        byte_ids: rows that begin with a separator.
    """
    walk = _Walk(tokens, trie)
    for row in byte_ids.tolist():
        open_text = b""
        for value in row:
            open_text = walk.read(open_text, value)
    return walk.facts(tuple(byte_ids.shape), byte_ids.device)


def facts_of_step(
    tokens: SourceTokens, trie: VocabularyTrie, open_texts: Sequence[bytes], ids: Sequence[int]
) -> tuple[TokenFacts, list[bytes]]:
    """Returns the facts of one more position of each row, on the CPU, and the open texts after it.

    Args:
        tokens: of the source.
        trie: of its vocabulary.
        open_texts: of each row before this position; b"" before a separator, or as it was, which makes no difference.
        ids: the id that each row reads.
    """
    walk = _Walk(tokens, trie)
    after = [walk.read(open_text, value) for open_text, value in zip(open_texts, ids, strict=True)]
    return walk.facts((len(ids),), torch.device("cpu")), after


class _Walk:
    """Collects the facts of positions in the order in which they are read."""

    def __init__(self, tokens: SourceTokens, trie: VocabularyTrie) -> None:
        self._tokens = tokens
        self._trie = trie
        self._num_commits: list[int] = []
        self._open_bytes: list[int] = []
        self._nodes: list[int] = []
        self._drafts: list[int] = []
        self._commits: list[int] = []

    def read(self, open_text: bytes, value: int) -> bytes:
        """Notes the facts of one position and returns the open text after it."""
        if value < SEPARATOR:
            committed, open_text = self._tokens.advance(open_text, value)
            draft = self._tokens.draft(open_text)
        else:
            committed, open_text, draft = (self._tokens.begin,) if value == SEPARATOR else (), b"", ()
        self._num_commits.append(len(committed))
        self._open_bytes.append(len(open_text))
        self._nodes.append(DEAD if value == PADDING else self._trie.node_of(open_text))
        self._drafts.append(draft[0] if len(draft) == 1 else -1)
        self._commits += committed
        return open_text

    def facts(self, shape: tuple[int, ...], device: torch.device) -> TokenFacts:
        """Returns what was noted, in the given shape."""
        lists = (self._num_commits, self._open_bytes, self._nodes, self._drafts)
        packed = torch.tensor(lists, dtype=torch.int64).reshape(len(lists), *shape).to(device)
        return TokenFacts(
            num_commits=packed[0],
            open_bytes=packed[1],
            node=packed[2],
            draft=packed[3],
            commit_tokens=torch.tensor(self._commits, dtype=torch.int64).to(device),
        )


__all__ = ["TokenFacts", "facts_of_rows", "facts_of_step"]
