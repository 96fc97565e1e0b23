"""Inputs of slots whose commits are tokens of the model that the trunk was taken from, its source."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from patchpad.config import ModelConfig
from patchpad.model.weights import Embedding
from patchpad.patching.layout import PatchLayout
from patchpad.patching.token_facts import TokenFacts


class TokenInputs(nn.Module):
    """Embeds tokens as the source does: those committed, and an open text that is one token.

    So a scratchpad enters the trunk just as the commit of its token will, and a trunk that was trained on tokens knows
    it. With the trunk and this part frozen, no gradient has to pass through the trunk at all.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        assert config.patchifier.num_token_ids is not None
        self.embedding = Embedding(config.patchifier.num_token_ids, config.trunk_dim)

    def forward(self, layout: PatchLayout, tokens: TokenFacts) -> Float[Tensor, "slot trunk_dim"]:
        """Returns the inputs of all slots of a batch: commits, then scratchpads."""
        room = layout.room
        commits = tokens.commit_tokens.new_zeros(room.commits)  # places without a commit read any token
        known = tokens.commit_tokens[: room.commits]
        commits[: len(known)] = known
        scratchpads = tokens.open_token.flatten()[layout.slot_byte[room.commits :]].clamp_min(
            0
        )  # and so without a scratchpad
        return self.embedding(torch.cat((commits, scratchpads)))


__all__ = ["TokenInputs"]
