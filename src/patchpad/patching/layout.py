"""`PatchLayout`: the one object that carries a batch's index tensors."""

import functools
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from patchpad.patching.documents import Documents
from patchpad.patching.patchifiers import bytes_since_end
from patchpad.shapes import ByteInts, ByteMask, SlotInts, SlotMask

TRUNK_BLOCK = 512
"""Slots of a row whose trunk attention is computed at once."""


@dataclass(frozen=True, kw_only=True)
class SlotRoom:
    """How many places a batch has for slots. Its tensors take their shapes from it, not from what is decided."""

    commits: int
    scratchpads: int

    @property
    def slots(self) -> int:
        """All places."""
        return self.commits + self.scratchpads


@dataclass(frozen=True, kw_only=True)
class PatchLayout:
    """Patches and slots of a batch.

    Slots of all rows are packed along one axis, so the trunk's linear layers see no padding: first all commits, then
    all scratchpads, each in the order (row, byte). Because a document's commits are consecutive, the slots that a slot
    may see are a range of commits, and the slot itself.

    Each kind may have more places than slots, see `room`. A place without a slot sees only itself, and nothing reads
    it.
    """

    documents: Documents
    patch_end_mask: ByteMask
    scratchpad_mask: ByteMask
    patch_index: ByteInts
    """k(n): patches closed in [start(n), n)."""
    newest_slot: ByteInts
    """1 + index of the newest slot of n's document at a position <= n; 0 before the first: the null context."""
    patch_lag: ByteInts
    """Bytes since the newest trunk output that n may read; before the first slot, since the document's start."""

    room: SlotRoom
    is_exact: bool
    """Whether the room was made for these very slots, so that every place has one."""
    overflows: Bool[Tensor, ""]
    """Whether there are more slots than places. Then some are missing, and nothing of the pass may be used."""
    num_commits: Int[Tensor, ""]
    num_scratchpads: Int[Tensor, ""]
    slot_byte: SlotInts
    """Position of the slot's newest byte in the flattened [batch * byte]."""
    slot_num_bytes: SlotInts
    """Positions pooled by the slot: the open patch so far, with the separator in a document's first patch."""
    slot_patch_index: SlotInts
    """Rotary position: k of the slot's newest byte, for commits and scratchpads alike."""
    slot_is_used: SlotMask
    """Where the place has a slot."""
    visible_from: SlotInts
    """Index of the first commit that each slot sees besides itself."""
    visible_to: SlotInts
    """One past the last; equal to the first where none is seen."""
    longest_slot: int
    """At least the largest `slot_num_bytes`; where the layout is exact, just that: 0 without slots."""

    @property
    def num_slots(self) -> Int[Tensor, ""]:
        """Trunk calls of the batch."""
        return self.num_commits + self.num_scratchpads

    @property
    def slot_is_commit(self) -> SlotMask:
        """Where the slot is a commit."""
        places = torch.arange(self.room.slots, device=self.slot_byte.device)
        return self.slot_is_used & (places < self.room.commits)

    @functools.cached_property
    def rows(self) -> "RowSlots":
        """The slots row by row."""
        return RowSlots.of(self)

    @staticmethod
    def build(
        documents: Documents,
        patch_end_mask: ByteMask,
        scratchpad_mask: ByteMask,
        *,
        room: SlotRoom | None = None,
        longest_slot: int | None = None,
    ) -> "PatchLayout":
        """Lays out the slots for decided patch ends and scratchpads, which are at other bytes.

        Args:
            documents: of the batch.
            patch_end_mask: where patches end.
            scratchpad_mask: where scratchpads fire.
            room: places for slots; None for as many as there are slots, which are counted: one read from the device.
            longest_slot: most positions that a slot can pool. Needed with a room, else found.
        """
        length = patch_end_mask.shape[1]
        slot_mask = patch_end_mask | scratchpad_mask
        positions = torch.arange(length, device=slot_mask.device)
        flat_positions = torch.arange(slot_mask.numel(), device=slot_mask.device)
        flat_start = (documents.start + flat_positions.view_as(documents.start)[:, :1]).flatten()

        ends_through, scratchpads_through = (mask.flatten().cumsum(0) for mask in (patch_end_mask, scratchpad_mask))
        num_commits, num_scratchpads = ends_through[-1], scratchpads_through[-1]
        ends_before = ends_through - patch_end_mask.flatten().long()
        commits_before_document = ends_before[flat_start]
        patch_index = ends_before - commits_before_document
        # The separator belongs to a document's first patch, so that patch pools one position more.
        num_bytes = bytes_since_end(patch_end_mask, documents).flatten() + (patch_index == 0)

        is_exact = room is None
        if room is None:
            longest = torch.where(slot_mask.flatten(), num_bytes, 0).max()
            commits, scratchpads, longest_slot = torch.stack((num_commits, num_scratchpads, longest)).tolist()
            room = SlotRoom(commits=commits, scratchpads=scratchpads)
        assert longest_slot is not None
        place = torch.where(patch_end_mask.flatten(), ends_through - 1, room.commits + scratchpads_through - 1)
        last = torch.where(patch_end_mask.flatten(), room.commits, room.slots)
        place = torch.where(slot_mask.flatten() & (place < last), place, room.slots)
        slot_byte = flat_positions.new_zeros(room.slots + 1).scatter(0, place, flat_positions)[: room.slots]

        newest_byte = torch.where(slot_mask, positions, -1).cummax(dim=1).values
        has_slot = newest_byte >= documents.start
        newest_place = place[(newest_byte.clamp_min(0) + flat_positions.view_as(newest_byte)[:, :1]).flatten()]
        newest_slot = torch.where(has_slot, (newest_place.view_as(newest_byte) + 1).clamp_max(room.slots), 0)

        places = torch.arange(room.slots, device=slot_mask.device)
        counts = torch.where(places < room.commits, num_commits, room.commits + num_scratchpads)
        patch_index_at_slot = patch_index[slot_byte]
        visible_from = commits_before_document[slot_byte]
        visible_to = (visible_from + patch_index_at_slot).clamp_max(room.commits)
        return PatchLayout(
            documents=documents,
            patch_end_mask=patch_end_mask,
            scratchpad_mask=scratchpad_mask,
            patch_index=patch_index.view_as(newest_slot),
            newest_slot=newest_slot,
            patch_lag=positions - torch.where(has_slot, newest_byte, documents.start),
            room=room,
            is_exact=is_exact,
            overflows=(num_commits > room.commits) | (num_scratchpads > room.scratchpads),
            num_commits=num_commits,
            num_scratchpads=num_scratchpads,
            slot_byte=slot_byte,
            slot_num_bytes=num_bytes[slot_byte],
            slot_patch_index=patch_index_at_slot,
            slot_is_used=places < counts,
            visible_from=visible_from.clamp_max(room.commits),
            visible_to=visible_to,
            longest_slot=longest_slot,
        )


@dataclass(frozen=True, kw_only=True)
class RowSlots:
    """The slots of each row side by side, padded to the longest row; only those that are used."""

    slots: Int[Tensor, "batch row_slot"]
    """Index of each slot, in the order of the bytes; unused places repeat slot 0."""
    place: SlotInts
    """Inverse of `slots`, flattened; 0 for what is no slot."""
    commits: Int[Tensor, "batch row_commit"]
    """Index of each row's commits; unused places repeat slot 0."""
    visible_from: Int[Tensor, "batch row_slot"]
    """First commit, counted in the row, that each slot sees besides itself."""
    visible_to: Int[Tensor, "batch row_slot"]
    """One past the last, counted in the row; equal to the first in unused places."""
    block_commits: tuple[tuple[int, int], ...]
    """For each block of TRUNK_BLOCK slots: the range of row commits that any of them sees."""

    @staticmethod
    def of(layout: PatchLayout) -> "RowSlots":
        """Collects the slots of each row; reads a few numbers from the device."""
        batch, length = layout.patch_end_mask.shape
        slot_mask = layout.patch_end_mask | layout.scratchpad_mask
        order = layout.newest_slot[slot_mask] - 1
        row = layout.slot_byte[order] // length
        slots, found = _pad(order, row, batch)
        place = torch.zeros_like(layout.slot_byte)
        place[order] = found
        num_commits = int(layout.num_commits)
        commits_row = layout.slot_byte[:num_commits] // length
        commits, _ = _pad(torch.arange(num_commits, device=row.device), commits_row, batch)
        commits_in_row = layout.patch_end_mask.sum(dim=1)
        before = (commits_in_row.cumsum(0) - commits_in_row)[row]
        visible = torch.zeros(2, slots.numel(), dtype=torch.long, device=row.device)
        visible[0, found] = layout.visible_from[order] - before
        visible[1, found] = layout.visible_to[order] - before
        visible_from, visible_to = visible.view(2, batch, -1).unbind()
        return RowSlots(
            slots=slots,
            place=place,
            commits=commits,
            visible_from=visible_from,
            visible_to=visible_to,
            block_commits=_block_ranges(visible_from, visible_to),
        )


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
