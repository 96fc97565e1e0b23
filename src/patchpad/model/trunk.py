"""The trunk: the large causal Transformer over slots. Called global transformer in BLT and main network in H-Net."""

import torch
from jaxtyping import Bool, Float, Int
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
            config.ffn_dim(dim),
            config.rotary_base,
            config.trunk_kv_heads,
        )
        self.norm = RMSNorm(dim)
        self.scratchpad_type = nn.Parameter(torch.zeros(dim)) if config.slot_type_embedding else None
        """Added to the inputs of scratchpads, so that the trunk can tell a draft from a finished patch."""

    def forward(
        self,
        slot_inputs: Float[Tensor, "slot trunk_dim"],
        patch_index: Int[Tensor, " slot"],
        is_commit: Bool[Tensor, " slot"],
        attend: Attend,
    ) -> Float[Tensor, "slot trunk_dim"]:
        """Runs the trunk on slots; `attend` decides what each slot sees."""
        if self.scratchpad_type is not None:
            slot_inputs = slot_inputs + torch.where(is_commit[:, None], 0.0, self.scratchpad_type).to(slot_inputs.dtype)
        return self.norm(self.stack(slot_inputs, patch_index, attend))
