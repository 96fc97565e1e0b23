"""The trunk in two passes: commits first, and then scratchpads, which are decided from the commits' predictions."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from patchpad.model.attention import Attend
from patchpad.model.back_ends import slot_attention
from patchpad.model.token_inputs import TokenInputs
from patchpad.model.trunk import Trunk
from patchpad.patching import Documents, PatchLayout, SlotRoom, TokenFacts


class NotedAttention:
    """Attends, and remembers each layer's keys and values.

    A layer may be computed again for its backward pass. What it gives then is the same, but holds what the layer made
    on the way there: noting that would keep the memory which computing it again is to save.
    """

    def __init__(self, attend: Attend) -> None:
        self._attend = attend
        self.layers: dict[int, tuple[Tensor, Tensor]] = {}

    def __call__(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Attends, and notes a layer when it comes first."""
        self.layers.setdefault(layer, (key, value))
        return self._attend(layer, query, key, value)


class ScratchpadAttention:
    """Attention of scratchpads alone, whose commits have been through the trunk.

    Args:
        attend: of all slots.
        commits: keys and values of each layer for the commits, which come before the scratchpads.
    """

    def __init__(self, attend: Attend, commits: dict[int, tuple[Tensor, Tensor]]) -> None:
        self._attend = attend
        self._commits = commits

    def __call__(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Attends. The commits ask nothing: what they get for queries of zeros is left out."""
        keys, values = self._commits[layer]
        asks_nothing = query.new_zeros(len(keys), *query.shape[1:])
        parts = ((asks_nothing, query), (keys, key), (values, value))
        return self._attend(layer, *map(torch.cat, parts))[len(keys) :]


@dataclass(frozen=True)
class CommitsFirst:
    """The commits of a batch once they have been through the trunk; of `tokens` patches, they follow from bytes alone.

    It takes as many trunk calls as one pass over all slots, and gives the same outputs.
    """

    layout: PatchLayout
    """Without scratchpads."""
    outputs: Float[Tensor, "commit trunk_dim"]
    layers: dict[int, tuple[Tensor, Tensor]]
    """Keys and values of each layer."""

    @staticmethod
    def run(
        trunk: Trunk,
        slot_inputs: TokenInputs,
        documents: Documents,
        tokens: TokenFacts,
        room: SlotRoom | None,
        trunk_window: int | None,
    ) -> "CommitsFirst":
        """Runs the commits.

        Args:
            trunk: of the model.
            slot_inputs: of the model.
            documents: of the batch.
            tokens: that are committed.
            room: of the whole pass.
            trunk_window: newest commits that each one sees; None for all.
        """
        nowhere = torch.zeros_like(documents.is_byte)
        layout = PatchLayout.build(
            documents,
            tokens.num_commits,
            nowhere,
            may_fire=nowhere,
            uncovered_bytes=tokens.open_bytes,
            room=None if room is None else SlotRoom(commits=room.commits, scratchpads=0),
            longest_slot=None if room is None else 0,
            trunk_window=trunk_window,
        )
        noted = NotedAttention(slot_attention(layout))
        outputs = trunk(slot_inputs(layout, tokens), layout.slot_patch_index, noted)
        return CommitsFirst(layout, outputs, noted.layers)

    def then_scratchpads(
        self, trunk: Trunk, slot_inputs: Float[Tensor, "slot trunk_dim"], layout: PatchLayout, attend: Attend
    ) -> Float[Tensor, "slot trunk_dim"]:
        """Runs the scratchpads, and returns the outputs of all slots.

        It runs without scratchpads too: other ranks may have some, and `attend` may have to keep the commits.

        Args:
            trunk: of the model.
            slot_inputs: of all slots.
            layout: with scratchpads.
            attend: of all slots.
        """
        first = layout.room.commits
        sees = ScratchpadAttention(attend, self.layers)
        return torch.cat((self.outputs, trunk(slot_inputs[first:], layout.slot_patch_index[first:], sees)))
