"""Patch pooling: the bytes of an open patch become the input of a slot."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from patchpad.config import ModelConfig
from patchpad.model.block import RMSNorm
from patchpad.patching.layout import PatchLayout


class PatchPooling(nn.Module):
    """Cross-attention from the mean of the open patch's byte states to exactly those states.

    Each head has a query of its own and mixes whole byte states, so a patch has `pooling_heads` pooling queries, whose
    results, heads x byte_dim features, go to the trunk's width. A learned bias per head and distance from the slot's
    newest byte tells the bytes of a patch apart; without it their order would be lost.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        dim, heads = config.byte_dim, config.pooling_heads
        self.num_heads = heads
        self.norm = RMSNorm(dim)
        self.query = nn.Linear(dim, heads * dim, bias=False)
        self.distance_bias = nn.Parameter(torch.empty(heads, config.patchifier.longest_patch + 1))
        self.out = nn.Linear(heads * dim, config.trunk_dim, bias=False)
        self.mean_out = nn.Linear(dim, config.trunk_dim, bias=False)

    def pool(
        self, newest_first: Float[Tensor, "slot distance byte_dim"], is_pooled: Bool[Tensor, "slot distance"]
    ) -> Float[Tensor, "slot trunk_dim"]:
        """Pools gathered byte states; entry d of a slot lies d bytes before its newest byte."""
        states = self.norm(newest_first).masked_fill(~is_pooled[..., None], 0.0)
        mean = states.sum(dim=1) / is_pooled.sum(dim=1, keepdim=True)
        query = self.query(mean).unflatten(-1, (self.num_heads, -1))
        scores = query @ states.transpose(1, 2) * states.shape[-1] ** -0.5
        scores = scores + self.distance_bias[:, : states.shape[1]]
        weights = scores.masked_fill(~is_pooled[:, None], -torch.inf).float().softmax(dim=-1).to(states.dtype)
        return self.mean_out(mean) + self.out((weights @ states).flatten(1))

    def forward(
        self, byte_states: Float[Tensor, "batch byte byte_dim"], layout: PatchLayout
    ) -> Float[Tensor, "slot trunk_dim"]:
        """Pools every slot of a batch; commits and scratchpads share weights."""
        distance = torch.arange(layout.longest_slot, device=byte_states.device)
        is_pooled = distance < layout.slot_num_bytes[:, None]
        source = (layout.slot_byte[:, None] - distance).clamp_min(0)
        return self.pool(byte_states.flatten(0, 1)[source], is_pooled)
