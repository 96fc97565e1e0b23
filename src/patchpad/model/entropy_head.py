"""The entropy head: how uncertain the next byte is, before the trunk is asked."""

from jaxtyping import Float, Int
from torch import Tensor, nn

from patchpad.config import VOCAB_SIZE, ModelConfig
from patchpad.model.attention import Attend
from patchpad.model.block import RMSNorm, Stack
from patchpad.model.weights import LM_HEAD_STD, PreciseLinear


class EntropyHead(nn.Module):
    """Further local layers on the encoder and an LM head, trained with next-id cross-entropy."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        dim = config.byte_dim
        self.stack = Stack(
            config.entropy_head_layers, dim, config.byte_heads, config.byte_hidden_dim, config.rotary_base
        )
        self.norm = RMSNorm(dim)
        self.lm_head = PreciseLinear(dim, VOCAB_SIZE, std=LM_HEAD_STD)

    def forward(
        self, byte_states: Float[Tensor, "*where byte_dim"], positions: Int[Tensor, "*where"], attend: Attend
    ) -> tuple[Float[Tensor, "*where vocab"], Float[Tensor, "*where"]]:
        """Returns logits of the next id, and their entropy in nats, detached and in fp32."""
        logits = self.lm_head(self.norm(self.stack(byte_states, positions, attend)))
        return logits, entropy_nats(logits.detach())


def entropy_nats(logits: Float[Tensor, "*where vocab"]) -> Float[Tensor, "*where"]:
    """Entropy of softmax(logits) in nats, in fp32."""
    log_probabilities = logits.float().log_softmax(dim=-1)
    return -(log_probabilities.exp() * log_probabilities).sum(dim=-1)
