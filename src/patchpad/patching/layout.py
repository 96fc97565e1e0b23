"""`PatchLayout`: the one object that carries a batch's index tensors."""

from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from patchpad.patching.documents import Documents
from patchpad.patching.patchifiers import bytes_since_end
from patchpad.shapes import ByteInts, ByteMask, SlotInts, SlotMask

TRUNK_BLOCK = 512
"""Slots of a row whose trunk attention is computed at once."""


@dataclass(frozen=True, kw_only=True)
class PatchLayout:
    """Patches and slots of a batch.

    Slots of all rows are packed along one axis in the order (row, byte), so the trunk's linear layers see no padding.
    Commits are a subset of the slots, in the same order. Because a document's commits are consecutive, the slots that
    a slot may see are a range of commits, and the slot itself.
    """

    documents: Documents
    patch_end_mask: ByteMask
    scratchpad_mask: ByteMask
    patch_index: ByteInts
    """k(n): patches closed in [start(n), n)."""
    newest_slot: ByteInts
    """1 + index of the newest slot of n's document at a position <= n; 0 before the first: the null context."""

    slot_byte: SlotInts
    """Position of the slot's newest byte in the flattened [batch * byte]."""
    slot_num_bytes: SlotInts
    """Positions pooled by the slot: the open patch so far, with the separator in a document's first patch."""
    slot_patch_index: SlotInts
    """Rotary position: k of the slot's newest byte, for commits and scratchpads alike."""
    slot_is_commit: SlotMask

    padded_slots: Int[Tensor, "batch row_slot"]
    """Slots row by row, for attention; unused places repeat slot 0."""
    slot_in_padded: SlotInts
    """Inverse of `padded_slots`, flattened."""
    padded_commits: Int[Tensor, "batch row_commit"]
    """Slot index of each row's commits; unused places repeat slot 0."""
    padded_visible_from: Int[Tensor, "batch row_slot"]
    """First commit, counted in the row, that each padded slot sees."""
    padded_visible_to: Int[Tensor, "batch row_slot"]
    """One past the last commit, counted in the row, that each padded slot sees; equal to the first in unused places."""
    block_commits: tuple[tuple[int, int], ...]
    """For each block of TRUNK_BLOCK padded slots: the range of row commits that any of them sees."""
    longest_slot: int
    """Largest `slot_num_bytes`, 0 without slots."""

    @property
    def num_slots(self) -> int:
        """Trunk calls of the batch."""
        return self.slot_byte.shape[0]

    @property
    def patch_lag(self) -> ByteInts:
        """Bytes since the newest trunk output that n may read; before the first slot, since the document's start."""
        positions = torch.arange(self.newest_slot.shape[1], device=self.newest_slot.device)
        covered = torch.cat([self.slot_byte.new_zeros(1), self.slot_byte])[self.newest_slot] % len(positions)
        return positions - torch.where(self.newest_slot > 0, covered, self.documents.start)

    @staticmethod
    def build(documents: Documents, patch_end_mask: ByteMask, scratchpad_mask: ByteMask) -> "PatchLayout":
        """Lays out the slots for decided patch ends and scratchpads."""
        batch, length = patch_end_mask.shape
        slot_mask = patch_end_mask | scratchpad_mask
        row_offset = torch.arange(batch, device=slot_mask.device)[:, None] * length
        flat_start = (documents.start + row_offset).flatten()

        slots_through = slot_mask.flatten().cumsum(0)
        ends_before = _exclusive_cumsum(patch_end_mask)
        slots_before_document = _exclusive_cumsum(slot_mask)[flat_start]
        newest = torch.where(slots_through > slots_before_document, slots_through, 0)
        patch_index = ends_before - ends_before[flat_start]

        slot_byte = slot_mask.flatten().nonzero().squeeze(1)
        start_at_slot = flat_start[slot_byte]
        open_bytes = bytes_since_end(patch_end_mask, documents)
        # The separator belongs to a document's first patch, so that patch pools one position more.
        num_bytes = (open_bytes + (patch_index.view(batch, length) == 0)).flatten()[slot_byte]
        is_commit = patch_end_mask.flatten()[slot_byte]
        patch_index_at_slot = patch_index[slot_byte]

        slot_row = slot_byte // length
        padded_slots, slot_in_padded = _pad(torch.arange(len(slot_byte), device=slot_byte.device), slot_row, batch)
        padded_commits, _ = _pad(is_commit.nonzero().squeeze(1), slot_row[is_commit], batch)
        # A document's commits are consecutive: slot r sees those with k_c < k_r, its document's first k_r commits.
        from_in_row = ends_before[start_at_slot] - ends_before[slot_row * length]
        visible = torch.zeros(2, padded_slots.numel(), dtype=torch.long, device=slot_byte.device)
        visible[0, slot_in_padded] = from_in_row
        visible[1, slot_in_padded] = from_in_row + patch_index_at_slot
        visible_from, visible_to = visible.view(2, batch, -1).unbind()
        return PatchLayout(
            documents=documents,
            patch_end_mask=patch_end_mask,
            scratchpad_mask=scratchpad_mask,
            patch_index=patch_index.view(batch, length),
            newest_slot=newest.view(batch, length),
            slot_byte=slot_byte,
            slot_num_bytes=num_bytes,
            slot_patch_index=patch_index_at_slot,
            slot_is_commit=is_commit,
            padded_slots=padded_slots,
            slot_in_padded=slot_in_padded,
            padded_commits=padded_commits,
            padded_visible_from=visible_from,
            padded_visible_to=visible_to,
            block_commits=_block_ranges(visible_from, visible_to),
            longest_slot=int(num_bytes.max()) if len(num_bytes) else 0,
        )


def _exclusive_cumsum(mask: ByteMask) -> Int[Tensor, " position"]:
    flat = mask.flatten()
    return flat.cumsum(0) - flat.long()


def _pad(items: Tensor, rows: Tensor, batch: int) -> tuple[Tensor, Tensor]:
    """Lays packed items, sorted by row, out as [batch, longest row]; also returns each one's flattened place."""
    counts = torch.bincount(rows, minlength=batch)
    width = int(counts.max())
    first = counts.cumsum(0) - counts
    place = rows * width + torch.arange(len(rows), device=rows.device) - first[rows]
    padded = torch.zeros(batch * width, dtype=torch.long, device=rows.device)
    padded[place] = items
    return padded.view(batch, width), place


def _block_ranges(visible_from: Tensor, visible_to: Tensor) -> tuple[tuple[int, int], ...]:
    """Range of commits that each block of slots needs; a block that sees none gets an empty range."""
    ranges = []
    for block in range(0, visible_from.shape[1], TRUNK_BLOCK):
        first, last = visible_from[:, block : block + TRUNK_BLOCK], visible_to[:, block : block + TRUNK_BLOCK]
        sees_any = last > first
        high = int(last.max())
        low = int(torch.where(sees_any, first, high).min())
        ranges.append((low, max(low, high)))
    return tuple(ranges)
