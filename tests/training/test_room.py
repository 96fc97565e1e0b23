"""Room for the slots of a pass on CUDA."""

import pytest

from patchpad.config import load_config
from patchpad.patching import SlotRoom
from patchpad.training.room import MULTIPLE, Rooms, room_ladder


def test_first_room_follows_from_bytes_and_spares_nothing_for_commits_of_fixed_patches():
    ladder = room_ladder(load_config("1b-fixed16-entropy"), rows=8, width=8320)
    assert ladder[0] == SlotRoom(commits=8 * 8192 // 16, scratchpads=101 * MULTIPLE)  # 1.05 x 12,288, rounded up
    assert ladder[-1] == SlotRoom(commits=8 * 8192 // 16, scratchpads=8 * 8320)


@pytest.mark.parametrize("name", ["tiny-fixed16-entropy", "tiny-entropy-entropy", "tiny-spacebyte-entropy"])
def test_last_room_holds_any_batch(name):
    rows, width = 2, 512
    config = load_config(name)
    last = room_ladder(config, rows=rows, width=width)[-1]
    row_bytes = min(width - 1, config.model.context_bytes)
    most = row_bytes // 16 if config.model.patchifier.kind == "fixed" else row_bytes
    assert last.commits >= rows * most
    assert last.scratchpads >= rows * width


def test_room_grows_after_passes_that_needed_more_and_shrinks_again():
    ladder = [SlotRoom(commits=128, scratchpads=128 * size) for size in (1, 2, 8)]
    rooms = Rooms(ladder)
    assert rooms.next == ladder[0]
    for _ in range(50):
        rooms.note(10, 200)
    assert rooms.next == ladder[1]
    for _ in range(50):
        rooms.note(10, 20)
    assert rooms.next == ladder[0]
