"""Inputs of slots whose commits are tokens of the model that the trunk was taken from, its source."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from patchpad.config import ModelConfig
from patchpad.model.patch_pooling import PatchPooling
from patchpad.model.weights import Embedding
from patchpad.patching.layout import PatchLayout
from patchpad.patching.token_facts import TokenFacts
from patchpad.shapes import ByteStates


class TokenInputs(nn.Module):
    """Embeds tokens as the source does: those committed, and an open text that is one token. Other texts are pooled.

    So a scratchpad over one token enters the trunk just as the commit of that token will; a trunk that was trained on
    tokens knows it. What it has never seen, an open text of several tokens, comes from the byte states. These get no
    gradient from there: with the trunk and this part frozen, no gradient has to pass through the trunk at all.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        assert config.patchifier.num_token_ids is not None
        self.embedding = Embedding(config.patchifier.num_token_ids, config.trunk_dim)
        self.pooling = PatchPooling(config)

    def pool(
        self, newest_first: Float[Tensor, "slot distance byte_dim"], is_pooled: Bool[Tensor, "slot distance"]
    ) -> Float[Tensor, "slot trunk_dim"]:
        """Pools gathered byte states; see `PatchPooling`."""
        return self.pooling.pool(newest_first, is_pooled)

    def either(
        self, token: Int[Tensor, " slot"], pooled: Float[Tensor, "slot trunk_dim"]
    ) -> Float[Tensor, "slot trunk_dim"]:
        """Returns the embedding of each token, and what was pooled where that is -1."""
        return torch.where((token >= 0)[:, None], self.embedding(token.clamp_min(0)), pooled)

    def forward(
        self, byte_states: ByteStates, layout: PatchLayout, tokens: TokenFacts
    ) -> Float[Tensor, "slot trunk_dim"]:
        """Returns the inputs of all slots of a batch: commits, then scratchpads."""
        room = layout.room
        commits = tokens.commit_tokens.new_zeros(room.commits)  # places without a commit read any token
        known = tokens.commit_tokens[: room.commits]
        commits[: len(known)] = known
        at, num_bytes = (part[room.commits :] for part in (layout.slot_byte, layout.slot_num_bytes))
        pooled = self.pooling.pool_slots(byte_states.detach(), at, num_bytes.clamp_min(1), max(1, layout.longest_slot))
        scratchpads = self.either(tokens.draft.flatten()[at], pooled)
        return torch.cat((self.embedding(commits), scratchpads))


__all__ = ["TokenInputs"]
