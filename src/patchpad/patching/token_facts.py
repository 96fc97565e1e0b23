"""`TokenFacts`: which tokens of the source are committed at each position, and what is open after them.

They follow from the bytes alone and are found on the host.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from patchpad.config import PADDING, SEPARATOR
from patchpad.patching.source_tokens import OpenPiece, SourceTokens
from patchpad.patching.vocabulary_trie import DEAD, ROOT, VocabularyTrie
from patchpad.shapes import ByteIds


@dataclass(frozen=True, kw_only=True)
class TokenFacts:
    """Tokens of a batch, all int64: [batch, byte] for whole rows, [batch] in a step. Padding has none of it."""

    num_commits: Tensor
    """Tokens committed at the position; at a separator one, the token that begins a document."""
    open_bytes: Tensor
    """Bytes of the open text after these commits: 0 at separators, else at least 1."""
    piece_bytes: Tensor
    """Bytes of the open piece after these commits: those of the open text, and committed ones before them."""
    node: Tensor
    """Node of the open text in the vocabulary's trie; the root at separators, DEAD if no token begins with it."""
    open_token: Tensor
    """The one token that the open text is; -1 where it is several or none."""
    commit_tokens: Int[Tensor, " commit"]
    """The committed tokens, packed in the order (row, byte, commit)."""

    def to(self, device: torch.device) -> "TokenFacts":
        """Returns the facts on a device."""
        return TokenFacts(**{name: part.to(device) for name, part in vars(self).items()})


def facts_of_rows(tokens: SourceTokens, trie: VocabularyTrie, byte_ids: ByteIds) -> TokenFacts:
    """Returns the facts of whole rows, on the device of the ids; each document is read from its separator on.

    Args:
        tokens: of the source.
        trie: of its vocabulary.
        byte_ids: rows that begin with a separator.
    """
    walk = _Walk(tokens, trie)
    for row in byte_ids.tolist():
        walk.read(OpenPiece(), row)
    return walk.facts(tuple(byte_ids.shape), byte_ids.device)


def facts_of_step(
    tokens: SourceTokens, trie: VocabularyTrie, pieces: Sequence[OpenPiece], ids: Sequence[int]
) -> tuple[TokenFacts, list[OpenPiece]]:
    """Returns the facts of one more position of each row, on the CPU, and the open pieces after it.

    Args:
        tokens: of the source.
        trie: of its vocabulary.
        pieces: open in each row before this position; before a separator it makes no difference which.
        ids: the id that each row reads.
    """
    walk = _Walk(tokens, trie)
    after = [walk.read(piece, (value,)) for piece, value in zip(pieces, ids, strict=True)]
    return walk.facts((len(ids),), torch.device("cpu")), after


def facts_of_span(
    tokens: SourceTokens, trie: VocabularyTrie, pieces: Sequence[OpenPiece], next_ids: Sequence[Sequence[int]]
) -> TokenFacts:
    """Returns the facts of many more positions of each row, on the CPU: [row, width], padded to the longest row.

    Args:
        tokens: of the source.
        trie: of its vocabulary.
        pieces: open in each row before these positions.
        next_ids: the ids that each row reads.
    """
    walk, width = _Walk(tokens, trie), max(map(len, next_ids))
    for piece, ids in zip(pieces, next_ids, strict=True):
        walk.read(piece, (*ids, *[PADDING] * (width - len(ids))))
    return walk.facts((len(next_ids), width), torch.device("cpu"))


class _Walk:
    """Collects the facts of positions in the order in which they are read."""

    def __init__(self, tokens: SourceTokens, trie: VocabularyTrie) -> None:
        self._tokens = tokens
        self._trie = trie
        self._at: list[int] = []
        """Numbers of each position: commits, bytes of the open text and of its piece, the text's node and token."""
        self._commits: list[int] = []

    def read(self, piece: OpenPiece, ids: Iterable[int]) -> OpenPiece:
        """Notes the facts of consecutive positions of a row and returns the open piece after them.

        Args:
            piece: open before the first of them.
            ids: what is read there.
        """
        advance, open_of, node_of = self._tokens.advance, self._tokens.open_tokens, self._trie.node_of
        note, commits = self._at.extend, self._commits
        for value in ids:
            if value < SEPARATOR:
                committed, piece = advance(piece, value)
                if committed:
                    commits += committed
                tokens, text = open_of(piece), piece.text
                token = tokens[0] if len(tokens) == 1 else -1
                note((len(committed), len(text), len(piece.data), node_of(text), token))
            elif value == SEPARATOR:
                piece = OpenPiece()
                commits.append(self._tokens.begin)
                note((1, 0, 0, ROOT, -1))
            else:
                piece = OpenPiece()
                note((0, 0, 0, DEAD, -1))
        return piece

    def facts(self, shape: tuple[int, ...], device: torch.device) -> TokenFacts:
        """Returns what was noted, in the given shape."""
        columns = np.fromiter(self._at, dtype=np.int64, count=len(self._at)).reshape(-1, 5).T.copy()
        num_commits, open_bytes, piece_bytes, node, open_token = torch.from_numpy(columns).reshape(5, *shape).to(device)
        return TokenFacts(
            num_commits=num_commits,
            open_bytes=open_bytes,
            piece_bytes=piece_bytes,
            node=node,
            open_token=open_token,
            commit_tokens=torch.tensor(self._commits, dtype=torch.int64).to(device),
        )


__all__ = ["TokenFacts", "facts_of_rows", "facts_of_span", "facts_of_step"]
