"""`VocabularyTrie`: which tokens begin with a text, and which of them go on with each byte."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from patchpad.config import NUM_BYTE_VALUES

DEAD = 0
"""The node of texts that no token begins with."""
ROOT = 1
"""The node of the empty text, which every token begins with."""


class VocabularyTrie:
    """The tokens of a vocabulary in the order of their bytes, and a node for each text that a token begins with.

    In that order, the tokens that begin with a text stand side by side: they are a range of ranks.

    Args:
        bytes_of: bytes of each token; those without, such as separators, are left out.
    """

    def __init__(self, bytes_of: Sequence[bytes | None]) -> None:
        ordered = sorted((data, token) for token, data in enumerate(bytes_of) if data)
        nodes: dict[bytes, int] = {b"": ROOT}
        parents, last_bytes, counts, first_ranks = [DEAD, DEAD], [0, 0], [0, len(ordered)], [0, 0]
        exact = [-1, -1]
        for rank, (data, _) in enumerate(ordered):
            node = ROOT
            for length in range(1, len(data) + 1):
                parent, node = node, nodes.setdefault(data[:length], len(counts))
                if node == len(counts):
                    parents.append(parent)
                    last_bytes.append(data[length - 1])
                    counts.append(0)
                    first_ranks.append(rank)
                    exact.append(-1)
                counts[node] += 1
            exact[node] = rank
        self._nodes = nodes
        edges = np.array(parents[2:], dtype=np.int64) * NUM_BYTE_VALUES + np.array(last_bytes[2:], dtype=np.int64)
        by_edge = np.argsort(edges)
        self._edges = torch.from_numpy(edges[by_edge])
        self._children = torch.from_numpy(by_edge + 2)
        bounds = np.zeros((len(counts), NUM_BYTE_VALUES + 1), dtype=np.int32)
        bounds[:, 0] = np.array(first_ranks) + (np.array(exact) >= 0)  # the exact token comes before the longer ones
        bounds[parents[2:], np.array(last_bytes[2:], dtype=np.int64) + 1] = counts[2:]
        np.cumsum(bounds, axis=1, out=bounds)
        self.bounds: Int[Tensor, "node 257"] = torch.from_numpy(bounds)
        """The tokens that begin with text(node) + byte b have the ranks bounds[node, b] to bounds[node, b + 1] - 1."""
        self.exact: Int[Tensor, " node"] = torch.tensor(exact, dtype=torch.int32)
        """Rank of the token that is exactly text(node); -1 if none is."""
        self.order: Int[Tensor, " rank"] = torch.tensor([token for _, token in ordered], dtype=torch.int64)
        """The token of each rank."""

    @property
    def num_nodes(self) -> int:
        """How many nodes there are, the dead one included."""
        return len(self.exact)

    def node_of(self, open_text: bytes) -> int:
        """Returns the node of a text; DEAD if no token begins with it."""
        return self._nodes.get(open_text, DEAD)

    def child(self, node: Int[Tensor, "*where"], byte: Int[Tensor, "*where"]) -> Int[Tensor, "*where"]:
        """Returns the nodes of texts with one more byte each; DEAD where no token begins so."""
        if len(self._edges) == 0:
            return torch.zeros_like(node)
        edge = node * NUM_BYTE_VALUES + byte
        place = torch.searchsorted(self._edges.to(edge.device), edge).clamp(max=len(self._edges) - 1)
        found = self._edges.to(edge.device)[place] == edge
        return torch.where(found, self._children.to(edge.device)[place], DEAD)


__all__ = ["DEAD", "ROOT", "VocabularyTrie"]
