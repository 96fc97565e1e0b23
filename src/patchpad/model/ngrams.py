"""Hashed n-gram embeddings (BLT, Pagnoni et al. 2024): what the last bytes spell, looked up in tables."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from patchpad.config import ModelConfig
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
        hashes = rolling_hashes(recent[..., : self.num_recent])
        places = [
            hashes[size - 1] % self.vocab_size + number * self.vocab_size for number, size in enumerate(self.sizes)
        ]
        together = torch.stack(places, dim=-1)
        summed = F.embedding_bag(together.flatten(0, -2), self.tables.weight, mode="sum")
        return summed.unflatten(0, together.shape[:-1])


def rolling_hashes(recent: Int[Tensor, "*where recent"]) -> list[Int[Tensor, "*where"]]:
    """Returns the hash, from 0 to below 2^63, of the newest 1, 2, 3, ... ids.

    The polynomial is id_0 + id_1 BASE + id_2 BASE^2 ... in wrapping int64, id_0 the newest; each n adds a term to that
    of n - 1. Its high half is folded in, because a remainder by a power of two would see the low bits alone.
    """
    polynomial = torch.zeros_like(recent[..., 0])
    power = 1
    hashes = []
    for distance in range(recent.shape[-1]):
        polynomial = polynomial + recent[..., distance] * _as_int64(power)
        power *= BASE
        hashes.append((polynomial ^ (polynomial >> 32)) & 0x7FFFFFFFFFFFFFFF)
    return hashes


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
