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

    Most patchifiers close a patch at its last byte: at most one commit at a byte, which covers it, or else a
    scratchpad. With `tokens`, several may become known at one byte, and they end before it; a scratchpad at the same
    byte then comes after them, and is the newest slot.

    Each kind may have more places than slots, see `room`. A place without a slot sees only itself, and nothing reads
    it.
    """

    documents: Documents
    commits_at: ByteInts
    """Commits at each byte."""
    scratchpad_mask: ByteMask
    patch_index: ByteInts
    """k(n): patches closed in [start(n), n)."""
    open_bytes: ByteInts
    """Bytes of the open patch up to and including n, the separator not counted; with `tokens`, after n's commits."""
    may_fire: ByteMask
    """Where a scratchpad may fire, see `Decisions.may_fire`; nowhere in padding."""
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
    """Positions pooled by the slot: the open patch so far, with the separator in a document's first patch. None with
    `tokens`, whose slots embed a token."""
    slot_patch_index: SlotInts
    """Rotary position: commits of the document before the slot. For all but the further commits at one byte, and the
    scratchpads beside these, it is k of the slot's byte."""
    slot_is_used: SlotMask
    """Where the place has a slot."""
    visible_from: SlotInts
    """Index of the first commit that each slot sees besides itself."""
    visible_to: SlotInts
    """One past the last; equal to the first where none is seen."""
    longest_slot: int
    """At least the largest `slot_num_bytes`; where the layout is exact, just that: 0 without slots."""

    @property
    def patch_end_mask(self) -> ByteMask:
        """Where patches end."""
        return self.commits_at > 0

    @property
    def newest_commit(self) -> ByteInts:
        """1 + index of the newest commit of n's document at a position <= n; 0 before the first."""
        commits_through = self.commits_at.flatten().cumsum(0).view_as(self.commits_at).clamp_max(self.room.commits)
        return torch.where(self.patch_index + self.commits_at > 0, commits_through, 0)

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
        commits_at: ByteInts,
        scratchpad_mask: ByteMask,
        *,
        may_fire: ByteMask,
        uncovered_bytes: ByteInts | None = None,
        room: SlotRoom | None = None,
        longest_slot: int | None = None,
        trunk_window: int | None = None,
    ) -> "PatchLayout":
        """Lays out the slots for decided patch ends and scratchpads.

        Args:
            documents: of the batch.
            commits_at: commits at each byte: 0 or 1, and several only with `uncovered_bytes`.
            scratchpad_mask: where scratchpads fire; where commits cover their own byte, beside none.
            may_fire: where scratchpads might have fired.
            uncovered_bytes: bytes up to and including n that no commit at or before n covers. None where a commit
                covers all that is open.
            room: places for slots; None for as many as there are slots, which are counted: one read from the device.
            longest_slot: most positions that a slot can pool. Needed with a room, else found.
            trunk_window: newest commits of its document that a slot sees; None for all.
        """
        has_commit = commits_at > 0
        slot_mask = has_commit | scratchpad_mask

        commits_through, scratchpads_through = (part.flatten().cumsum(0) for part in (commits_at, scratchpad_mask))
        num_commits, num_scratchpads = commits_through[-1], scratchpads_through[-1]
        commits_before = commits_through - commits_at.flatten()
        commits_before_document = commits_before[_flat(documents.start)]
        patch_index = (commits_before - commits_before_document).view_as(commits_at)
        if uncovered_bytes is None:
            open_bytes = bytes_since_end(has_commit, documents)
            # The separator belongs to a document's first patch, so that patch pools one position more.
            num_pooled = open_bytes + (patch_index == 0)
        else:
            open_bytes, num_pooled = uncovered_bytes, torch.zeros_like(uncovered_bytes)

        is_exact = room is None
        if room is None:
            longest = torch.where(slot_mask, num_pooled, 0).max()
            commits, scratchpads, longest_slot = torch.stack((num_commits, num_scratchpads, longest)).tolist()
            room = SlotRoom(commits=commits, scratchpads=scratchpads)
        assert longest_slot is not None
        places = torch.arange(room.slots, device=slot_mask.device)
        is_commit = places < room.commits
        slot_is_used = places < torch.where(is_commit, num_commits, room.commits + num_scratchpads)
        slot_byte = torch.cat(
            [
                torch.searchsorted(through, torch.arange(count, device=places.device), right=True)
                for through, count in ((commits_through, room.commits), (scratchpads_through, room.scratchpads))
            ]
        )
        slot_byte = torch.where(slot_is_used, slot_byte, 0)
        nth_of_byte = torch.where(is_commit, places - commits_before[slot_byte], commits_at.flatten()[slot_byte])
        slot_patch_index = patch_index.flatten()[slot_byte] + torch.where(slot_is_used, nth_of_byte, 0)

        place = torch.where(scratchpad_mask.flatten(), room.commits + scratchpads_through, commits_through)
        last_place = torch.where(scratchpad_mask.flatten(), room.slots, room.commits)
        place = torch.where(place <= last_place, place, room.slots)
        uncovered = None if uncovered_bytes is None else torch.where(scratchpad_mask, 0, uncovered_bytes)
        newest_slot, patch_lag = _newest_slots(documents, slot_mask, place, uncovered)
        before_document = commits_before_document[slot_byte]
        unseen = 0 if trunk_window is None else (slot_patch_index - trunk_window).clamp_min(0)
        return PatchLayout(
            documents=documents,
            commits_at=commits_at,
            scratchpad_mask=scratchpad_mask,
            patch_index=patch_index,
            open_bytes=open_bytes,
            may_fire=may_fire,
            newest_slot=newest_slot,
            patch_lag=patch_lag,
            room=room,
            is_exact=is_exact,
            overflows=(num_commits > room.commits) | (num_scratchpads > room.scratchpads),
            num_commits=num_commits,
            num_scratchpads=num_scratchpads,
            slot_byte=slot_byte,
            slot_num_bytes=num_pooled.flatten()[slot_byte],
            slot_patch_index=slot_patch_index,
            slot_is_used=slot_is_used,
            visible_from=(before_document + unseen).clamp_max(room.commits),
            visible_to=(before_document + slot_patch_index).clamp_max(room.commits),
            longest_slot=longest_slot,
        )


@dataclass(frozen=True, kw_only=True)
class RowSlots:
    """The slots of each row side by side, padded to the longest row; only those that are used."""

    slots: Int[Tensor, "batch row_slot"]
    """Index of each slot, in the order of the bytes; unused places repeat slot 0."""
    place: SlotInts
    """Inverse of `slots`, flattened; 0 for what is not a slot."""
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
        batch, length = layout.commits_at.shape
        used = layout.slot_is_used.nonzero()[:, 0]
        # Stable: of one byte, commits stay in their order, and the scratchpad, packed behind them all, comes last.
        order = used[layout.slot_byte[used].argsort(stable=True)]
        row = layout.slot_byte[order] // length
        slots, found = _pad(order, row, batch)
        place = torch.zeros_like(layout.slot_byte)
        place[order] = found
        num_commits = min(int(layout.num_commits), layout.room.commits)
        commits_row = layout.slot_byte[:num_commits] // length
        commits, _ = _pad(torch.arange(num_commits, device=row.device), commits_row, batch)
        commits_in_row = layout.commits_at.sum(dim=1)
        before = (commits_in_row.cumsum(0) - commits_in_row)[row]
        visible = torch.zeros(2, slots.numel(), dtype=torch.long, device=row.device)
        for part, seen in zip(visible, (layout.visible_from, layout.visible_to), strict=True):
            part[found] = (seen[order] - before).clamp(0, commits.shape[1])  # beyond, where the layout overflows
        visible_from, visible_to = visible.view(2, batch, -1).unbind()
        return RowSlots(
            slots=slots,
            place=place,
            commits=commits,
            visible_from=visible_from,
            visible_to=visible_to,
            block_commits=_block_ranges(visible_from, visible_to),
        )


def _flat(columns: ByteInts) -> Int[Tensor, " position"]:
    """Returns places in the flattened [batch * byte] of columns of each row."""
    batch, length = columns.shape
    row_start = torch.arange(0, batch * length, length, device=columns.device)
    return (columns + row_start[:, None]).flatten()


def newest_place(mask: ByteMask, columns: Int[Tensor, " byte"] | None = None) -> ByteInts:
    """Returns the newest column up to each one at which a row's mask is true; -1 before the first.

    Args:
        mask: of a batch.
        columns: numbers of its columns, where the caller has them already.
    """
    if columns is None:
        columns = torch.arange(mask.shape[1], device=mask.device)
    return torch.where(mask, columns, -1).cummax(dim=1).values


def _newest_slots(
    documents: Documents, slot_mask: ByteMask, place: Int[Tensor, " position"], uncovered: ByteInts | None
) -> tuple[ByteInts, ByteInts]:
    """Returns `newest_slot` and `patch_lag` of a layout.

    Args:
        documents: of the batch.
        slot_mask: bytes with slots.
        place: 1 + index of the newest slot at each of these bytes.
        uncovered: bytes up to and including its own that this slot does not cover; None for none.
    """
    positions = torch.arange(slot_mask.shape[1], device=slot_mask.device)
    newest_byte = newest_place(slot_mask, positions)
    has_slot = newest_byte >= documents.start
    at_newest = _flat(newest_byte.clamp_min(0))
    newest_slot = torch.where(has_slot, place[at_newest].view_as(newest_byte), 0)
    if uncovered is not None:
        newest_byte = newest_byte - uncovered.flatten()[at_newest].view_as(newest_byte)
    return newest_slot, positions - torch.where(has_slot, newest_byte, documents.start)


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
