"""Context to bytes, and the local decoder that predicts the next byte."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from patchpad.config import VOCAB_SIZE, ModelConfig
from patchpad.model.attention import Attend
from patchpad.model.block import RMSNorm, Stack


class ContextToBytes(nn.Module):
    """Projects a slot's trunk output once for each local decoder layer."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.num_layers = config.decoder_layers
        self.null_context = nn.Parameter(torch.empty(config.trunk_dim))
        self.projection = nn.Linear(config.trunk_dim, config.decoder_layers * config.byte_dim, bias=False)

    def forward(self, slot_outputs: Float[Tensor, "slot trunk_dim"]) -> Float[Tensor, "slot layer byte_dim"]:
        """Returns the addition that each decoder layer makes to the bytes that read a slot."""
        return self.projection(slot_outputs).unflatten(-1, (self.num_layers, -1))

    def with_null(self, slot_outputs: Float[Tensor, "slot trunk_dim"]) -> Float[Tensor, "context layer byte_dim"]:
        """The same, with the null context as entry 0 before the slots."""
        return self(torch.cat((self.null_context[None].to(slot_outputs.dtype), slot_outputs)))


class LocalDecoder(nn.Module):
    """Windowed causal layers over encoder states plus context, then the LM head."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        dim = config.byte_dim
        self.stack = Stack(config.decoder_layers, dim, config.byte_heads, config.ffn_dim(dim), config.rotary_base)
        self.norm = RMSNorm(dim)
        self.lm_head = nn.Linear(dim, VOCAB_SIZE, bias=False)

    def forward(
        self,
        byte_states: Float[Tensor, "*where byte_dim"],
        contexts: Float[Tensor, "*where layer byte_dim"],
        positions: Int[Tensor, "*where"],
        attend: Attend,
    ) -> Float[Tensor, "*where vocab"]:
        """Returns logits of the next id at every position."""
        return self.lm_head(self.norm(self.stack(byte_states, positions, attend, additions=contexts)))
