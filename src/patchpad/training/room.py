"""How many places for slots a training pass gets on CUDA, where shapes must not follow from what a batch decides.

A pass whose slots do not fit is repeated with more places. There are few sizes, a ladder, since the whole pass is
compiled once for each.
"""

import math
from collections import deque

from patchpad.config import Config, TrainConfig
from patchpad.cost.rates import default_rates, most_scratchpads
from patchpad.errors import ConfigError
from patchpad.patching import SlotRoom

MULTIPLE = 128
"""Places come in multiples of this: FlexAttention's kernels are then compiled without checks at the ends of blocks."""
FACTORS = (1.05, 1.2, 1.5, 2.0, 3.0)
"""Sizes on the ladder, over the slots that are scheduled; above them is one with a place at every position."""
REMEMBERED_PASSES = 50
"""Passes whose slots decide the next one's room."""
SHARE_HELD = 0.9
"""Share of these passes that the room must hold. Room that is seldom needed would cost more than a repeated pass."""


class Rooms:
    """Chooses each pass's room from a ladder by the slots of the passes before it.

    Args:
        ladder: rooms, small to large; the last one holds any batch.
    """

    def __init__(self, ladder: list[SlotRoom]) -> None:
        self.ladder = ladder
        self._needed: deque[int] = deque(maxlen=REMEMBERED_PASSES)
        """The lowest rung that would have held each of the last passes."""

    @property
    def next(self) -> SlotRoom:
        """The room to begin the next pass with: the smallest that held most of the last ones."""
        if not self._needed:
            return self.ladder[0]
        return self.ladder[sorted(self._needed)[math.ceil(SHARE_HELD * len(self._needed)) - 1]]

    def holding(self, num_commits: int, num_scratchpads: int) -> SlotRoom:
        """Returns the smallest room that holds so many slots."""
        return self.ladder[self._rung(num_commits, num_scratchpads)]

    def note(self, num_commits: int, num_scratchpads: int) -> None:
        """Takes note of the slots of a pass, whatever its room was."""
        self._needed.append(self._rung(num_commits, num_scratchpads))

    def _rung(self, num_commits: int, num_scratchpads: int) -> int:
        return next(number for number, room in enumerate(self.ladder) if holds(room, num_commits, num_scratchpads))


def holds(room: SlotRoom, num_commits: int, num_scratchpads: int) -> bool:
    """Whether a room has a place for each of so many slots."""
    return num_commits <= room.commits and num_scratchpads <= room.scratchpads


def room_ladder(config: Config, rows: int, width: int) -> list[SlotRoom]:
    """Returns the rooms for batches of a run, small to large.

    Args:
        config: of the run; its rates are those that are scheduled.
        rows: of a batch.
        width: positions of a row.
    """
    positions, patchifier = rows * width, config.model.patchifier
    row_bytes = min(width - 1, config.model.context_bytes)  # rates are per byte: separators and padding need no room
    num_bytes, most_commits = rows * row_bytes, positions
    if patchifier.kind == "fixed":
        most_commits = rows * (row_bytes // patchifier.target_patch_size)
    patches, scratchpads = scheduled_rates(config)
    ladder = [
        SlotRoom(
            commits=_rounded_up(max(1, min(most_commits, factor * patches * num_bytes))),
            scratchpads=_rounded_up(min(positions, factor * scratchpads * num_bytes)),
        )
        for factor in FACTORS
    ]
    ladder.append(SlotRoom(commits=_rounded_up(max(1, most_commits)), scratchpads=_rounded_up(positions)))
    return list(dict.fromkeys(ladder))


def scheduled_rates(config: Config) -> tuple[float, float]:
    """Returns the patches and scratchpads per byte that training aims at, or a guess where they depend on the text."""
    try:
        patches, scratchpads = default_rates(config)
    except ConfigError:
        guess = TrainConfig.scratchpads_per_byte
        assert guess is not None
        patches, scratchpads = default_rates(config, scratchpads_per_byte=guess)
    spread = config.train.threshold_spread
    return patches, (1 - spread) * scratchpads + spread * most_scratchpads(config.model, patches) / 2


def _rounded_up(places: int | float) -> int:
    return MULTIPLE * math.ceil(places / MULTIPLE)
