"""What is kept of an open patch where scratchpads see earlier ones: transient, unlike the caches."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from patchpad.inference.layers import clone_layers, join_layers, select_rows
from patchpad.model.visibility import num_earlier_scratchpads
from patchpad.patching import PatchLayout


@dataclass
class ScratchpadCache:
    """Keys and values of the scratchpads of each row's open patch, oldest first, for trunks whose scratchpads see them.

    It is dropped when the patch ends or a document begins, so nothing of it outlives its patch.
    """

    keys: list[Float[Tensor, "batch place kv_head head_dim"]]
    values: list[Float[Tensor, "batch place kv_head head_dim"]]
    num_scratchpads: Int[Tensor, " batch"]

    @staticmethod
    def from_prefill(
        kept: list[tuple[Tensor, Tensor]], layout: PatchLayout, last_position: Int[Tensor, " batch"], capacity: int
    ) -> "ScratchpadCache":
        """Takes the scratchpads of the patches that a full pass leaves open.

        Args:
            kept: keys and values of each layer, each [slot, head, head_dim].
            layout: of the pass, whose rows hold one document each.
            last_position: position of each row's newest byte.
            capacity: most scratchpads of a patch.
        """
        rows = torch.arange(len(last_position), device=last_position.device)
        newest_slot = layout.newest_slot[rows, last_position] - 1
        has_slot = newest_slot >= 0
        slot = newest_slot[has_slot]
        is_open = layout.slot_patch_index[slot] == layout.patch_index[rows, last_position][has_slot]
        num_scratchpads = torch.zeros_like(newest_slot)
        num_scratchpads[has_slot] = torch.where(
            is_open & ~layout.slot_is_commit[slot], num_earlier_scratchpads(layout)[slot] + 1, 0
        )
        place = torch.arange(capacity, device=last_position.device)
        is_used = place < num_scratchpads[:, None]
        source = torch.where(is_used, (newest_slot - num_scratchpads + 1)[:, None] + place, 0)
        keys, values = (
            [torch.where(is_used[..., None, None], pair[part][source], 0.0) for pair in kept]
            if len(layout.slot_byte)
            else [pair[part].new_zeros(*is_used.shape, *pair[part].shape[1:]) for pair in kept]
            for part in (0, 1)
        )
        return ScratchpadCache(keys, values, num_scratchpads)

    def update(
        self, rows: Int[Tensor, " row"], kept: list[tuple[Tensor, Tensor]], is_commit: Bool[Tensor, " row"]
    ) -> None:
        """Appends the scratchpads of `rows`; where the slot is a commit, drops those of the patch instead."""
        place = self.num_scratchpads[rows]
        for layer, (key, value) in enumerate(kept):
            self.keys[layer][rows, place] = key
            self.values[layer][rows, place] = value
        # What a commit leaves is not counted.
        self.num_scratchpads[rows] = torch.where(is_commit, 0, place + 1)

    def clone(self) -> "ScratchpadCache":
        """Returns an independent copy."""
        keys, values = (clone_layers(part) for part in (self.keys, self.values))
        return ScratchpadCache(keys, values, self.num_scratchpads.clone())

    def select(self, rows: Int[Tensor, " row"]) -> "ScratchpadCache":
        """Returns a copy with the given rows."""
        keys, values = (select_rows(part, rows) for part in (self.keys, self.values))
        return ScratchpadCache(keys, values, self.num_scratchpads[rows])

    @staticmethod
    def join(caches: Sequence["ScratchpadCache"]) -> "ScratchpadCache":
        """Returns one cache with the rows of all."""
        return ScratchpadCache(
            join_layers([cache.keys for cache in caches]),
            join_layers([cache.values for cache in caches]),
            torch.cat([cache.num_scratchpads for cache in caches]),
        )
