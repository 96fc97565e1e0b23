"""Full causal attention inside each document of a row, computed in blocks of queries."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from patchpad.model.attention import KeepsKeysAndValues

QUERY_BLOCK = 256
"""Positions of a row whose attention is computed at once."""


class DocumentAttention(KeepsKeysAndValues):
    """Position n of a row sees j iff start(n) <= j <= n; cost is positions x document, in blocks.

    Args:
        start: first position that each position sees; in a row it never falls.
        keep: remember keys and values for a prefill.
    """

    def __init__(self, start: Int[Tensor, "batch position"], *, keep: bool = False) -> None:
        super().__init__(keep)
        self.start = start
        length = start.shape[1]
        lows = start[:, ::QUERY_BLOCK].amin(dim=0).tolist()
        self.blocks = [
            (first, min(first + QUERY_BLOCK, length), low)
            for first, low in zip(range(0, length, QUERY_BLOCK), lows, strict=True)
        ]
        """(first query, one past the last query and key, first key) of each block."""

    def visible(self, first: int, last: int, low: int) -> Bool[Tensor, "batch block_query block_key"]:
        """Returns which keys low .. last - 1 each query first .. last - 1 sees."""
        query = torch.arange(first, last, device=self.start.device)[:, None]
        key = torch.arange(low, last, device=self.start.device)
        return (key <= query) & (key >= self.start[:, first:last, None])

    def __call__(
        self,
        layer: int,
        query: Float[Tensor, "batch position head head_dim"],
        key: Float[Tensor, "batch position head head_dim"],
        value: Float[Tensor, "batch position head head_dim"],
    ) -> Float[Tensor, "batch position head head_dim"]:
        """Attends block by block; the masks are made anew each time, so that none of the whole row is ever held."""
        self.remember(key, value)
        queries, keys, values = (part.transpose(1, 2) for part in (query, key, value))
        mixed = [
            F.scaled_dot_product_attention(
                queries[:, :, first:last],
                keys[:, :, low:last],
                values[:, :, low:last],
                attn_mask=self.visible(first, last, low)[:, None],
            )
            for first, last, low in self.blocks
        ]
        return torch.cat(mixed, dim=2).transpose(1, 2)
