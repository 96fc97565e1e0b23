"""The trunk: the large causal Transformer over slots. Called global transformer in BLT and main network in H-Net."""

from jaxtyping import Float, Int
from torch import Tensor, nn

from patchpad.config import ModelConfig
from patchpad.model.attention import Attend
from patchpad.model.block import RMSNorm, Stack


class Trunk(nn.Module):
    """Transformer over packed slots, whose rotary positions are patch indices."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        dim = config.trunk_dim
        self.stack = Stack(
            config.trunk_layers,
            dim,
            config.trunk_heads,
            config.trunk_hidden_dim,
            config.trunk_base,
            config.trunk_kv_heads,
            norm_epsilon=config.trunk_norm_epsilon,
        )
        self.norm = RMSNorm(dim, config.trunk_norm_epsilon)

    def forward(
        self,
        slot_inputs: Float[Tensor, "slot trunk_dim"],
        patch_index: Int[Tensor, " slot"],
        attend: Attend,
    ) -> Float[Tensor, "slot trunk_dim"]:
        """Runs the trunk on slots; `attend` decides what each slot sees."""
        return self.norm(self.stack(slot_inputs, patch_index, attend))
