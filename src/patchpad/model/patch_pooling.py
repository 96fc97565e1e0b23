"""Patch pooling: the bytes of an open patch become the input of a slot."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from patchpad.config import ModelConfig
from patchpad.model.block import RMSNorm
from patchpad.model.precision import in_product_type
from patchpad.model.weights import DrawsWeights, Linear
from patchpad.patching.layout import PatchLayout
from patchpad.shapes import ByteStates, SlotInts


class PatchPooling(nn.Module, DrawsWeights):
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
        self.query = Linear(dim, heads * dim)
        self.distance_bias = nn.Parameter(torch.empty(heads, config.patchifier.longest_patch + 1))
        self.out = Linear(heads * dim, config.trunk_dim)
        self.mean_out = Linear(dim, config.trunk_dim)

    @torch.no_grad()
    def draw(self, generator: torch.Generator) -> None:
        """Sets the distance biases: each head looks back less far than the one after it."""
        heads, distances = self.distance_bias.shape
        slopes = torch.tensor([2.0 ** (1 - 4 * head / heads) for head in range(heads)])
        self.distance_bias.copy_(-slopes[:, None] * torch.arange(distances))

    def pool(
        self, newest_first: Float[Tensor, "slot distance byte_dim"], is_pooled: Bool[Tensor, "slot distance"]
    ) -> Float[Tensor, "slot trunk_dim"]:
        """Pools gathered byte states; entry d of a slot lies d bytes before its newest byte."""
        return self._mix(self.norm(newest_first), is_pooled)

    def _mix(
        self, normed: Float[Tensor, "slot distance byte_dim"], is_pooled: Bool[Tensor, "slot distance"]
    ) -> Float[Tensor, "slot trunk_dim"]:
        is_other = ~is_pooled
        states = normed.masked_fill(is_other[..., None], 0.0)
        mean = states.sum(dim=1) / is_pooled.sum(dim=1, keepdim=True)
        query = self.query(mean).unflatten(-1, (self.num_heads, -1))
        scores = torch.bmm(query, states.transpose(1, 2)) * states.shape[-1] ** -0.5
        scores = scores + self.distance_bias[:, : states.shape[1]]
        weights = scores.masked_fill(is_other[:, None], -torch.inf).float().softmax(dim=-1).to(states.dtype)
        return self.mean_out(mean) + self.out(torch.bmm(weights, states).flatten(1))

    def forward(
        self, byte_states: Float[Tensor, "batch byte byte_dim"], layout: PatchLayout
    ) -> Float[Tensor, "slot trunk_dim"]:
        """Pools every slot of a batch; commits and scratchpads share weights."""
        return self.pool_slots(byte_states, layout.slot_byte, layout.slot_num_bytes, layout.longest_slot)

    def pool_slots(
        self, byte_states: Float[Tensor, "batch byte byte_dim"], slot_byte: SlotInts, num_bytes: SlotInts, longest: int
    ) -> Float[Tensor, "slot trunk_dim"]:
        """Pools slots.

        Args:
            byte_states: of whole rows.
            slot_byte: position of each slot's newest byte in the flattened [batch * byte].
            num_bytes: positions that each slot pools, at least 1.
            longest: at least the largest of these.
        """
        distance = torch.arange(longest, device=byte_states.device)
        is_pooled = distance < num_bytes[:, None]
        source = (slot_byte[:, None] - distance).clamp_min(0)
        normed = in_product_type(self.norm(byte_states))  # each byte once, though several slots may pool it
        return self._mix(normed.flatten(0, 1)[source], is_pooled)


class ByteProjection(nn.Module):
    """Projects a slot's newest byte state, in the place of pooling: for `hnet`, and where a patch is a single byte.

    The separator, which a document's first patch holds beside its first byte, is then read by scratchpads on it alone.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.norm = RMSNorm(config.byte_dim)
        self.out = Linear(config.byte_dim, config.trunk_dim)

    def pool(
        self, newest_first: Float[Tensor, "slot distance byte_dim"], is_pooled: Tensor
    ) -> Float[Tensor, "slot trunk_dim"]:
        """Projects the newest of gathered byte states."""
        return self.out(self.norm(newest_first[:, 0]))

    def forward(self, byte_states: ByteStates, layout: PatchLayout) -> Float[Tensor, "slot trunk_dim"]:
        """Projects every slot's newest byte state."""
        return self.out(self.norm(byte_states.flatten(0, 1)[layout.slot_byte]))
