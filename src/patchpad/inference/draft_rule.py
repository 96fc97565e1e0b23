"""Whether and how far rows draft: as the caller says, or as is measured to be fastest.

`auto` watches the engine's own work. It steps for a while, drafts for a while with each of a few limits on slots, and
goes on with what took the least time per byte. Batches of different sizes are watched apart. The choice is a function
of the measured numbers alone, `choose_arm`.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal
from weakref import WeakKeyDictionary

from patchpad.errors import GenerationError, integer_or_none
from patchpad.inference.drafting import DraftLimits
from patchpad.model.byte_lm import ByteLM
from patchpad.model.int8 import num_parameters
from patchpad.model.language_model import LanguageModel

DraftOption = int | Literal["auto", "off"]
Arm = DraftLimits | None
"""A way to go on: drafts within limits, or steps."""
MOST_DRAFT_BYTES = 64
"""Bytes of a draft that may be asked for."""
STEPS: Arm = None
ARMS: tuple[Arm, ...] = (
    STEPS,
    *(
        DraftLimits(most_bytes=most_bytes, most_slots=most_slots)
        for most_bytes, most_slots in ((16, 3), (16, None), (24, 5), (32, None))
    ),
)
"""What `auto` tries, in this order."""
WARM_UP_IDS = 16
"""Ids of each row that are not measured when an arm is new: memory is taken then. Most patches end within as many."""
COMPILED_WARM_UP_IDS = 64
"""The same where steps are compiled: a kernel that is compiled when it is first needed would look slow for long."""
TRIAL_IDS = 48
"""Ids of each row after which an arm's pace is known."""
HOPELESS = 1.25
"""Where the first drafts take so many times as long as steps, they are given up at once, and no others are tried."""
HOPELESS_IDS = 8
"""Ids of each row after which that is known."""
REMEMBERED_IDS = 4096
"""Ids of each row after which all that was measured counts half, so that in time every arm is tried again."""
LEAST_TRUNK_PARAMETERS = 10_000_000
"""`auto` never tries drafts with a smaller trunk: there the local parts, which drafts run twice, are most of the work.

With the shipped model, whose trunk has 3M, drafts took 1.3 times as long as steps on a CPU; with a trunk of 11M of the
same shape about as long, and with 25M and more less. Trials alone would find that out too, but at the price of a tenth
of the time of a text of 100 bytes, in each process and for each size of a batch.
"""


@dataclass(frozen=True)
class Tally:
    """What was measured of an arm.

    Ids are those of each row: one of a row that runs alone counts as much as one for each of several rows. A step of
    several rows takes little longer than one of a single row where drafts are of use, so batches that are watched
    together can be compared.
    """

    seconds: float = 0.0
    num_ids: float = 0.0
    num_seen: float = 0.0
    """Ids since the beginning, those that were not measured too."""

    @property
    def pace(self) -> float:
        """Seconds for an id of each row."""
        return self.seconds / self.num_ids


def choose_arm(tallies: Mapping[Arm, Tally]) -> Arm:
    """Returns how to go on: with the first arm that is not known yet, then with the fastest one.

    Args:
        tallies: of all arms, or of those that were used.
    """
    known: dict[Arm, float] = {}
    for arm in ARMS:
        tally = tallies.get(arm, Tally())
        if len(known) == 1 and tally.num_ids >= HOPELESS_IDS and tally.pace > HOPELESS * known[STEPS]:
            break
        if tally.num_ids < TRIAL_IDS:
            return arm
        known[arm] = tally.pace
    return min(known, key=lambda arm: known[arm])


class FixedDrafts:
    """Drafts as the caller says; see `MeasuredDrafts`.

    Args:
        arm: how, always.
    """

    def __init__(self, arm: Arm) -> None:
        self.arm = arm

    def limits(self, num_rows: int) -> Arm:
        """Returns how to go on."""
        return self.arm

    def clock(self) -> float:
        """Returns 0: nothing is measured."""
        return 0.0

    def note(self, num_rows: int, arm: Arm, seconds: float, num_ids: int) -> None:
        """Notes nothing."""


class MeasuredDrafts:
    """Drafts where they are faster.

    Args:
        warm_up_ids: of each row that are not measured when an arm is new.
    """

    def __init__(self, warm_up_ids: int = WARM_UP_IDS) -> None:
        self.warm_up_ids = warm_up_ids
        self.tallies: dict[int, dict[Arm, Tally]] = {}
        """By the number of rows, rounded up to a power of two. Several engines may share them."""

    def limits(self, num_rows: int) -> Arm:
        """Returns how to go on.

        Args:
            num_rows: that the batch has.
        """
        return choose_arm(self._of(num_rows))

    def clock(self) -> float:
        """Returns seconds since some moment."""
        return time.perf_counter()

    def note(self, num_rows: int, arm: Arm, seconds: float, num_ids: int) -> None:
        """Notes what a step or a round took.

        Args:
            num_rows: that the batch had.
            arm: that was used.
            seconds: that it took.
            num_ids: that it has chosen, of all rows.
        """
        tallies, ids_per_row = self._of(num_rows), num_ids / max(1, num_rows)
        tally = tallies[arm]
        is_warm = tally.num_seen >= self.warm_up_ids
        tallies[arm] = Tally(
            tally.seconds + seconds * is_warm, tally.num_ids + ids_per_row * is_warm, tally.num_seen + ids_per_row
        )
        if sum(one.num_ids for one in tallies.values()) >= REMEMBERED_IDS:
            for one, old in tallies.items():
                tallies[one] = Tally(old.seconds / 2, old.num_ids / 2, old.num_seen)

    def _of(self, num_rows: int) -> dict[Arm, Tally]:
        """Returns what is known; all arms are there from the beginning, as engines of other threads may look too."""
        return self.tallies.setdefault((max(1, num_rows) - 1).bit_length(), dict.fromkeys(ARMS, Tally()))


_MEASURED: "WeakKeyDictionary[LanguageModel, dict[bool, MeasuredDrafts]]" = WeakKeyDictionary()
"""What was measured of a model stays as long as the model does; compiled steps are measured apart."""


def draft_rule_for(model: LanguageModel, draft: DraftOption, *, compile: bool = False) -> FixedDrafts | MeasuredDrafts:
    """Returns the rule that an option means.

    Args:
        model: of any kind.
        draft: `off`, the most bytes of a draft, or `auto`.
        compile: whether steps are compiled.

    Raises:
        GenerationError: another option, or drafts that the model or its compiled steps cannot make.
    """
    num_bytes = integer_or_none(draft)
    allowed = f"auto, off, or a number of bytes from 1 to {MOST_DRAFT_BYTES}"
    if draft not in ("auto", "off") and (num_bytes is None or not 1 <= num_bytes <= MOST_DRAFT_BYTES):
        raise GenerationError(f"draft is {draft!r}; allowed: {allowed}")
    if draft == "off":
        return FixedDrafts(STEPS)
    has_graphs = compile and model.device.type == "cuda"
    if num_bytes is None:
        if not isinstance(model, ByteLM) or has_graphs or not has_large_trunk(model):
            return FixedDrafts(STEPS)
        rule = MeasuredDrafts(COMPILED_WARM_UP_IDS if compile else WARM_UP_IDS)
        return _MEASURED.setdefault(model, {}).setdefault(compile, rule)
    if not isinstance(model, ByteLM):
        raise GenerationError(
            f"draft is {num_bytes} with a `{model.config.kind}` model; allowed: auto or off",
            hint="Drafts take what a patch model has: local parts that can run ahead of the trunk.",
        )
    if has_graphs:
        raise GenerationError(
            f"draft is {num_bytes} with compiled steps on CUDA; allowed: auto or off", hint="Leave one of the two out."
        )
    return FixedDrafts(DraftLimits(most_bytes=num_bytes))


def has_large_trunk(model: ByteLM) -> bool:
    """Whether drafts are worth a try."""
    return num_parameters(model.trunk) >= LEAST_TRUNK_PARAMETERS


__all__ = ["DraftOption", "FixedDrafts", "MeasuredDrafts", "Tally", "choose_arm", "draft_rule_for"]
