"""Hashed n-gram embeddings (BLT, Pagnoni et al. 2024): what the last bytes spell, looked up in tables."""

from functools import cache
from itertools import accumulate

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from patchpad.config import ModelConfig
from patchpad.model.precision import plain_defaults
from patchpad.model.weights import Embedding
from patchpad.shapes import ByteIds, ByteInts

BASE = 0x5851F42D4C957F2D
"""Odd base of the polynomial; its powers are taken modulo 2^64."""


class NgramEmbedding(nn.Module):
    """A table for each n: the sum of table_n[hash(last n ids) mod V], left-padded with zeros.

    The tables stand in one embedding. Entries start with variance 1 / number of tables, so that their sum has that of
    the byte embedding.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.sizes = config.ngram_sizes
        self.vocab_size = config.ngram_vocab_size
        self.num_recent = max(self.sizes)
        self.tables = Embedding(len(self.sizes) * self.vocab_size, config.byte_dim, std=len(self.sizes) ** -0.5)

    def forward(self, recent: Int[Tensor, "*where recent"]) -> Float[Tensor, "*where byte_dim"]:
        """Returns the sum over the tables, from the newest ids, newest first; those beyond `num_recent` are ignored."""
        places = self._of_sizes(rolling_hashes(recent[..., : self.num_recent])) % self.vocab_size
        places = places + torch.arange(0, len(self.sizes) * self.vocab_size, self.vocab_size, device=places.device)
        summed = F.embedding_bag(places.flatten(0, -2), self.tables.weight, mode="sum")
        return summed.unflatten(0, places.shape[:-1])

    def _of_sizes(self, hashes: Int[Tensor, "*where recent"]) -> Int[Tensor, "*where table"]:
        first, last = self.sizes[0], self.sizes[-1]
        if list(self.sizes) == list(range(first, last + 1)):
            return hashes[..., first - 1 : last]
        return torch.stack([hashes[..., size - 1] for size in self.sizes], dim=-1)


@cache
def _powers(count: int, device: torch.device) -> Int[Tensor, " recent"]:
    """Returns BASE^0, BASE^1, ... in wrapping int64. It is not a buffer: `Module.type` would make it a float."""
    with plain_defaults():
        powers = torch.tensor([_as_int64(pow(BASE, exponent, 2**64)) for exponent in range(count)])
    return powers.to(device)


def rolling_hashes(recent: Int[Tensor, "*where recent"]) -> Int[Tensor, "*where recent"]:
    """Returns the hash, from 0 to below 2^63, of the newest 1, 2, 3, ... ids.

    The polynomial is id_0 + id_1 BASE + id_2 BASE^2 ... in wrapping int64, id_0 the newest; each n adds a term to that
    of n - 1. Its high half is folded in, because a remainder by a power of two would see the low bits alone.
    """
    count = recent.shape[-1]
    if torch.compiler.is_compiling():  # these become a part of other kernels, unlike `cumsum`
        terms = [recent[..., power] * _as_int64(pow(BASE, power, 2**64)) for power in range(count)]
        polynomials = torch.stack(list(accumulate(terms)), dim=-1)
    else:
        polynomials = (recent * _powers(count, recent.device)).cumsum(-1)
    return (polynomials ^ (polynomials >> 32)) & 0x7FFFFFFFFFFFFFFF


def _as_int64(value: int) -> int:
    value %= 2**64
    return value - 2**64 if value >= 2**63 else value


def recent_ids(byte_ids: ByteIds, offset: ByteInts, count: int) -> Int[Tensor, "batch byte recent"]:
    """Returns each position's newest ids, newest first; zeros before its document's separator.

    Args:
        byte_ids: ids of whole rows.
        offset: n - start(n).
        count: ids for each position, its own included.
    """
    ids = [torch.where(offset >= distance, byte_ids.roll(distance, dims=1), 0) for distance in range(count)]
    return torch.stack(ids, dim=-1)


__all__ = ["NgramEmbedding", "recent_ids", "rolling_hashes"]
