"""Drafts: bytes that rows guess without the trunk, of which one pass of the trunk keeps those that are right.

A *draft* is a run of ids of one row. Its first one is chosen from logits that the row has, as in a step. The others are
guessed by the local parts alone, from the trunk output that the row has: the patch lag grows, also across patch ends.
Then one extension reads the drafts of all rows, and at each place the model chooses the next id as it would have in a
step: from the same logits, with the same random number. Ids stay as long as they are the ones that are chosen.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from patchpad.config import SEPARATOR
from patchpad.inference.patch_state import DecodingState
from patchpad.inference.patch_stepper import PatchStepper
from patchpad.inference.rows import Row
from patchpad.inference.sampling import Chosen, choose
from patchpad.inference.span import Extension
from patchpad.inference.transfers import on_device


@dataclass(frozen=True, kw_only=True)
class DraftLimits:
    """How far a row drafts."""

    most_bytes: int
    """Bytes of a draft; the first is not a guess."""
    most_slots: int | None = None
    """Slots that the draft of a row gives the trunk; None for any number."""


class Verified(NamedTuple):
    """What a pass made of drafts."""

    extension: Extension
    num_kept: list[int]
    """How many ids of each draft are right. At least the first is, where there is one."""
    trunk_calls: int
    """Slots that the trunk computed, those of wrong ids too."""


def choose_for(rows: Sequence[Row], logits: Float[Tensor, "row vocab"], ahead: Sequence[int] | None = None) -> Chosen:
    """Chooses ids for rows, with the random numbers that belong to their places in the rows.

    Args:
        rows: to choose for; one may come more than once.
        logits: of the ids.
        ahead: how many ids of the row come before each, of those that are not chosen for good; None for 0.
    """
    ahead = [0] * len(rows) if ahead is None else ahead
    samplings = [row.request.sampling for row in rows]
    draws = [
        row.draws[row.progress.num_chosen + further] if row.request.sampling.temperature > 0 else 0.0
        for row, further in zip(rows, ahead, strict=True)
    ]
    return choose(logits, samplings, draws)


@torch.inference_mode()
def draft(
    stepper: PatchStepper,
    state: DecodingState,
    places: Sequence[int],
    rows: Sequence[Row],
    first_ids: Sequence[int],
    limits: DraftLimits,
) -> list[list[int]]:
    """Drafts ids; the state stays as it is.

    Patch ends and scratchpads depend on bytes alone, so a draft knows its slots (with a source head it guesses some).
    A draft ends before a byte that would need a slot too many, and before a document's end. With a source head it ends
    with the first byte that commits tokens: what follows these, only the trunk can say.

    Args:
        stepper: of the model.
        state: of a batch.
        places: of the rows that draft, ascending.
        rows: these rows.
        first_ids: that were chosen for them.
        limits: how far they draft.

    Returns:
        The ids of each row that are to be read, the first one included; none where the first ends the document, or
        where it is the last byte that the row may have, which nothing reads.
    """
    device = stepper.model.device
    most = [min(limits.most_bytes, row.request.max_new_bytes - row.progress.num_bytes - 1) for row in rows]
    drafts = [[value] if room > 0 and value != SEPARATOR else [] for value, room in zip(first_ids, most, strict=True)]
    num_slots = [0] * len(rows)
    ahead_of_trunk = state.with_own_rings()
    going = [number for number, ids in enumerate(drafts) if ids]
    while going:
        at = on_device([places[number] for number in going], device, torch.int64)
        thresholds = on_device([rows[number].threshold for number in going], device, torch.float32)
        ids = on_device([drafts[number][-1] for number in going], device, torch.int64)
        stepper.read(ahead_of_trunk, at, ids, thresholds)
        still_going = []
        for number, new_slots, ends_draft in zip(going, *_slots_of_newest(stepper, ahead_of_trunk, at), strict=True):
            num_slots[number] += new_slots
            if limits.most_slots is not None and num_slots[number] > limits.most_slots:
                del drafts[number][max(1, len(drafts[number]) - 1) :]  # the first stays whatever it needs
            elif len(drafts[number]) < most[number] and not ends_draft:
                still_going.append(number)
        if not still_going:
            break
        logits = stepper.predict(
            ahead_of_trunk, on_device([places[number] for number in still_going], device, torch.int64)
        )
        chosen = choose_for(
            [rows[number] for number in still_going], logits, [len(drafts[number]) for number in still_going]
        )
        values, is_number = torch.stack((chosen.ids, chosen.is_number.long())).tolist()
        going = []
        for number, value, is_one in zip(still_going, values, is_number, strict=True):
            if is_one and value != SEPARATOR:
                drafts[number].append(value)
                going.append(number)
    return drafts


def _slots_of_newest(
    stepper: PatchStepper, state: DecodingState, at: Int[Tensor, " row"]
) -> tuple[list[int], list[bool]]:
    """Returns how many slots the newest ids of rows have, and whether drafts must end with these ids."""
    counts = state.patch_counts
    ends, fires = torch.stack((counts.ends_patch[at], counts.has_scratchpad[at])).tolist()
    num_slots = [one + other for one, other in zip(ends, fires, strict=True)]  # `tokens` may commit several: rare
    return num_slots, [stepper.model.source_head is not None and one == 1 for one in ends]


@torch.inference_mode()
def verify(
    stepper: PatchStepper,
    state: DecodingState,
    places: Sequence[int],
    rows: Sequence[Row],
    drafts: Sequence[Sequence[int]],
    thresholds: Float[Tensor, " batch"],
) -> Verified:
    """Reads drafts in one pass and finds how many ids of each are right.

    Args:
        stepper: of the model.
        state: of a batch, before the drafts; of it and of the extension's state use only one.
        places: of the rows that have drafted, ascending.
        rows: these rows.
        drafts: of these rows; some may be empty, but not all.
        thresholds: scratchpad threshold of every row of the state, in nats.
    """
    next_ids: list[Sequence[int]] = [()] * len(state.ints)
    for place, ids in zip(places, drafts, strict=True):
        next_ids[place] = ids
    extension = stepper.extend(state, next_ids, thresholds)
    owners = [row for row, ids in zip(rows, drafts, strict=True) for _ in ids]
    chosen = choose_for(owners, extension.logits, [ahead for ids in drafts for ahead in range(1, len(ids) + 1)])
    calls = (extension.num_commits + extension.num_scratchpads).sum()[None]
    *values, trunk_calls = torch.cat((torch.where(chosen.is_number, chosen.ids, -1), calls)).tolist()
    num_kept, begin = [], 0
    for ids in drafts:
        wanted = values[begin : begin + len(ids)]
        right = [value == other for value, other in zip(ids[1:], wanted[:-1], strict=True)] if ids else []
        num_kept.append((right.index(False) if False in right else len(right)) + 1 if ids else 0)
        begin += len(ids)
    return Verified(extension, num_kept, trunk_calls)


__all__ = ["DraftLimits", "Verified", "choose_for", "draft", "verify"]
