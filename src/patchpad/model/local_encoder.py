"""The local encoder: bytes to byte states."""

from jaxtyping import Float, Int
from torch import Tensor, nn

from patchpad.config import NUM_INPUT_IDS, ModelConfig
from patchpad.model.attention import Attend
from patchpad.model.block import Stack


class LocalEncoder(nn.Module):
    """Byte embedding, then causal layers with a sliding window that crosses patch ends."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        dim = config.byte_dim
        self.embedding = nn.Embedding(NUM_INPUT_IDS, dim)
        self.stack = Stack(config.encoder_layers, dim, config.byte_heads, config.ffn_dim(dim), config.rotary_base)

    def forward(
        self, byte_ids: Int[Tensor, "*where"], positions: Int[Tensor, "*where"], attend: Attend
    ) -> Float[Tensor, "*where byte_dim"]:
        """Encodes bytes.

        Args:
            byte_ids: 0..257.
            positions: n - start(n).
            attend: back end of the sliding window.
        """
        return self.stack(self.embedding(byte_ids), positions, attend)
