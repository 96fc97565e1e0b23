"""The local encoder: bytes to byte states."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from patchpad.config import NUM_INPUT_IDS, ModelConfig
from patchpad.model.attention import Attend
from patchpad.model.block import Stack
from patchpad.model.ngrams import NgramEmbedding, recent_ids
from patchpad.model.weights import Embedding, Linear


class OpenToken(nn.Module):
    """Tells bytes which token of the source the open text is, with `tokens` patches: the token's embedding, projected.

    So the local parts know a word as the source does, before the trunk has read it.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.projection = Linear(config.trunk_dim, config.byte_dim)

    def forward(
        self,
        byte_states: Float[Tensor, "*where byte_dim"],
        token: Int[Tensor, "*where"],
        embedding: Embedding,
    ) -> Float[Tensor, "*where byte_dim"]:
        """Returns the byte states with what their open tokens add.

        Args:
            byte_states: of the encoder.
            token: that the open text is; -1 where it is several or none.
            embedding: of tokens.
        """
        known = self.projection(F.rms_norm(embedding(token.clamp_min(0)), (embedding.embedding_dim,)))
        return byte_states + torch.where((token >= 0)[..., None], known, 0.0)


class LocalEncoder(nn.Module):
    """Byte embedding, with n-gram embeddings if any, then causal layers with a window that crosses patch ends."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        dim = config.byte_dim
        self.embedding = Embedding(NUM_INPUT_IDS, dim)
        self.ngrams = NgramEmbedding(config) if config.ngram_vocab_size else None
        self.open_token = OpenToken(config) if config.patchifier.commits_tokens else None
        self.stack = Stack(config.encoder_layers, dim, config.byte_heads, config.byte_hidden_dim, config.rotary_base)

    def forward(
        self,
        byte_ids: Int[Tensor, "*where"],
        positions: Int[Tensor, "*where"],
        attend: Attend,
        recent: Int[Tensor, "*where recent"] | None = None,
    ) -> Float[Tensor, "*where byte_dim"]:
        """Encodes bytes.

        Args:
            byte_ids: 0..257.
            positions: n - start(n).
            attend: back end of the sliding window.
            recent: the newest ids at each position, newest first, for n-gram embeddings; found in `byte_ids` where
                these are whole rows.
        """
        embedded = self.embedding(byte_ids)
        if self.ngrams is not None:
            recent = recent_ids(byte_ids, positions, self.ngrams.num_recent) if recent is None else recent
            embedded = embedded + self.ngrams(recent)
        return self.stack(embedded, positions, attend)
