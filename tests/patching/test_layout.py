"""The layout of patches and slots beside the definitions of the method, spelled out with loops."""

import random
from dataclasses import dataclass, field

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from patchpad.config import PADDING, SEPARATOR
from patchpad.patching import Documents, PatchLayout, SlotRoom
from patchpad.testing import as_row, batch_of


@dataclass
class Slot:
    byte: int
    document: tuple[int, int]
    index: int
    """Commits of the document before it."""
    is_commit: bool
    covered: int
    """Last position that it covers."""


@dataclass
class Drawn:
    """A batch with several commits at some bytes, which end before them, and what follows by the definitions."""

    ids: torch.Tensor
    commits_at: torch.Tensor
    uncovered: torch.Tensor
    scratchpads: torch.Tensor
    slots: list[Slot] = field(default_factory=list)
    """In the order of the bytes: of one byte, its commits and then its scratchpad."""

    @staticmethod
    def of(seed: int, lengths: list[int]) -> "Drawn":
        source = random.Random(seed)
        rows = [as_row(bytes(lengths[0])), as_row(*map(bytes, lengths)), [SEPARATOR]]
        ids = batch_of(rows)
        drawn = Drawn(ids, *(torch.zeros_like(ids) for _ in range(2)), torch.zeros_like(ids, dtype=torch.bool))
        for row, values in enumerate(ids.tolist()):
            start = open_bytes = index = 0
            for n, value in enumerate(values):
                if value == PADDING:
                    break
                if value == SEPARATOR:
                    start, open_bytes, index, count = n, 0, 0, 1
                else:
                    open_bytes += 1
                    covered = source.randrange(open_bytes) if source.random() < 0.4 else 0
                    count = source.randint(1, covered) if covered else 0
                    open_bytes -= covered
                at, document = row * ids.shape[1] + n, (row, start)
                for _ in range(count):
                    drawn.slots.append(Slot(at, document, index, True, at - open_bytes))
                    index += 1
                if value != SEPARATOR and source.random() < 0.3:
                    drawn.scratchpads[row, n] = True
                    drawn.slots.append(Slot(at, document, index, False, at))
                drawn.commits_at[row, n], drawn.uncovered[row, n] = count, open_bytes
        return drawn

    def layout(self, room: SlotRoom | None = None) -> PatchLayout:
        return PatchLayout.build(
            Documents.locate(self.ids),
            self.commits_at,
            self.scratchpads,
            may_fire=self.scratchpads,
            uncovered_bytes=self.uncovered,
            room=room,
            longest_slot=None if room is None else 99,
        )

    def packed(self) -> list[Slot]:
        """Commits, then scratchpads."""
        return sorted(self.slots, key=lambda slot: not slot.is_commit)


lengths_of_documents = st.lists(st.integers(0, 25), min_size=1, max_size=3)


@pytest.mark.parametrize("spare", [None, 0, 6])
@given(seed=st.integers(0, 10_000), lengths=lengths_of_documents)
def test_several_commits_at_a_byte_and_a_scratchpad_beside_them_are_laid_out_by_the_definitions(spare, seed, lengths):
    drawn = Drawn.of(seed, lengths)
    slots = drawn.packed()
    num_commits = sum(slot.is_commit for slot in slots)
    num_scratchpads = len(slots) - num_commits
    room = None if spare is None else SlotRoom(commits=num_commits + spare, scratchpads=num_scratchpads + spare)
    layout = drawn.layout(room)
    assert not layout.overflows
    assert (layout.num_commits, layout.num_scratchpads) == (num_commits, num_scratchpads)
    used = layout.slot_is_used.nonzero().flatten()
    assert used.tolist() == [*range(num_commits), *(layout.room.commits + place for place in range(num_scratchpads))]
    assert layout.slot_byte[used].tolist() == [slot.byte for slot in slots]
    assert layout.slot_patch_index[used].tolist() == [slot.index for slot in slots]
    assert not layout.slot_num_bytes.any()  # slots of tokens pool nothing
    if spare is None:
        assert layout.longest_slot == 0
    for place, slot in zip(used.tolist(), slots, strict=True):
        seen = range(int(layout.visible_from[place]), int(layout.visible_to[place]))
        earlier = (c.is_commit and c.document == slot.document and c.index < slot.index for c in slots)
        assert list(seen) == [number for number, is_seen in enumerate(earlier) if is_seen]


@given(seed=st.integers(0, 10_000), lengths=lengths_of_documents)
def test_a_byte_reads_the_last_slot_and_knows_how_far_back_it_reaches(seed, lengths):
    drawn = Drawn.of(seed, lengths)
    layout, packed = drawn.layout(), drawn.packed()
    starts, width = layout.documents.start.flatten().tolist(), drawn.ids.shape[1]
    for at, value in enumerate(drawn.ids.flatten().tolist()):
        if value == PADDING:
            continue
        document = (at // width, starts[at])
        before = [slot for slot in drawn.slots if slot.document == document and slot.byte <= at]
        assert layout.newest_slot.flatten()[at] == packed.index(before[-1]) + 1
        assert layout.patch_lag.flatten()[at] == at - before[-1].covered
        commits = [slot for slot in before if slot.is_commit]
        assert layout.newest_commit.flatten()[at] == packed.index(commits[-1]) + 1
        assert layout.patch_index.flatten()[at] == sum(slot.byte < at for slot in commits)


@given(seed=st.integers(0, 10_000), lengths=lengths_of_documents)
def test_slots_of_a_row_lie_in_the_order_of_its_bytes_and_see_its_own_commits(seed, lengths):
    drawn = Drawn.of(seed, lengths)
    layout, packed, width = drawn.layout(), drawn.packed(), drawn.ids.shape[1]
    for row in range(len(drawn.ids)):
        own = [slot for slot in drawn.slots if slot.byte // width == row]
        assert [packed[place] for place in layout.rows.slots[row, : len(own)].tolist()] == own
        commits = [slot for slot in own if slot.is_commit]
        assert [packed[place] for place in layout.rows.commits[row, : len(commits)].tolist()] == commits
        for place, slot in enumerate(own):
            seen = commits[int(layout.rows.visible_from[row, place]) : int(layout.rows.visible_to[row, place])]
            assert seen == [c for c in commits if c.document == slot.document and c.index < slot.index]
            assert layout.rows.place[packed.index(slot)] == row * layout.rows.slots.shape[1] + place


def test_a_document_without_commits_reads_the_null_context_and_has_no_newest_commit():
    ids = torch.tensor([as_row(b"abc", b"de")])
    commits_at = torch.tensor([[0, 0, 1, 0, 0, 0, 0]])
    nowhere = torch.zeros_like(ids, dtype=torch.bool)
    layout = PatchLayout.build(Documents.locate(ids), commits_at, nowhere, may_fire=nowhere)
    assert layout.newest_slot.tolist() == layout.newest_commit.tolist() == [[0, 0, 1, 1, 0, 0, 0]]
    assert layout.patch_lag.tolist() == [[0, 1, 0, 1, 0, 1, 2]]
    assert layout.open_bytes.tolist() == [[0, 1, 2, 1, 0, 1, 2]]
