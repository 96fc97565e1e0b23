"""Context to bytes, and the local decoder that predicts the next byte."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from patchpad.config import VOCAB_SIZE, ModelConfig
from patchpad.model.attention import Attend
from patchpad.model.block import RMSNorm, Stack
from patchpad.model.weights import LM_HEAD_STD, DrawsWeights, Linear, PreciseLinear, draw_normal


class ContextToBytes(nn.Module, DrawsWeights):
    """Projects a slot's trunk output once for each addition that bytes may read.

    A byte's patch lag says how many bytes ago its slot was. The first decoder layer has a projection of its own for
    each lag up to `num_lags` - 1, further lags share the last: one trunk output predicts several bytes, and without it
    a byte could not tell which of them it is. The other layers' additions do not depend on the lag.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.num_lags = config.num_context_lags
        self.num_additions = self.num_lags + config.decoder_layers - 1
        self.null_context = nn.Parameter(torch.empty(config.trunk_dim))
        self.projection = Linear(config.trunk_dim, self.num_additions * config.byte_dim)

    def draw(self, generator: torch.Generator) -> None:
        """Draws the null context with unit variance, like a trunk output."""
        draw_normal(self.null_context, 1.0, generator)

    def forward(self, slot_outputs: Float[Tensor, "slot trunk_dim"]) -> Float[Tensor, "slot addition byte_dim"]:
        """Returns a slot's additions: first decoder layer, lag by lag, then the other layers."""
        return self.projection(slot_outputs).unflatten(-1, (self.num_additions, -1))

    def with_null(self, slot_outputs: Float[Tensor, "slot trunk_dim"]) -> Float[Tensor, "context addition byte_dim"]:
        """The same, with the null context as entry 0 before the slots."""
        return self(torch.cat((self.null_context[None].to(slot_outputs.dtype), slot_outputs)))

    def read(
        self,
        contexts: Float[Tensor, "*context addition byte_dim"],
        newest: tuple[Int[Tensor, "*where"], ...],
        lag: Int[Tensor, "*where"],
    ) -> Float[Tensor, "*where layer byte_dim"]:
        """Returns what each decoder layer adds to bytes.

        Args:
            contexts: what this module returned.
            newest: index of the entry of `contexts` that each byte reads.
            lag: bytes since that slot, or since the document's start for the null context.
        """
        if self.num_lags == 1:
            return contexts[newest]
        others = torch.arange(self.num_lags, self.num_additions, device=lag.device)
        first = lag.clamp(max=self.num_lags - 1)[..., None]
        additions = torch.cat((first, others.expand(*lag.shape, -1)), dim=-1)
        return contexts[(*(part[..., None] for part in newest), additions)]


class LocalDecoder(nn.Module):
    """Windowed causal layers over encoder states plus context, then the LM head."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        dim = config.byte_dim
        self.stack = Stack(config.decoder_layers, dim, config.byte_heads, config.byte_hidden_dim, config.rotary_base)
        self.norm = RMSNorm(dim)
        # One logit more is the gate between the source's head and this one; see `mixed_logits`.
        self.lm_head = PreciseLinear(dim, VOCAB_SIZE + config.has_source_head, std=LM_HEAD_STD)

    def forward(
        self,
        byte_states: Float[Tensor, "*where byte_dim"],
        contexts: Float[Tensor, "*where layer byte_dim"],
        positions: Int[Tensor, "*where"],
        attend: Attend,
    ) -> Float[Tensor, "*where vocab"]:
        """Returns logits of the next id at every position, and behind them the gate where there is a source head."""
        return self.lm_head(self.norm(self.stack(byte_states, positions, attend, additions=contexts)))
