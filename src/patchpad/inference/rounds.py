"""Rounds: a step of the engine by drafts, in which each row may get several bytes from one call of the trunk."""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple, cast

import torch
from torch import Tensor

from patchpad.inference.batch import Batch
from patchpad.inference.drafting import DraftLimits, Verified, choose_for, draft, verify
from patchpad.inference.patch_state import DecodingState
from patchpad.inference.patch_stepper import PatchStepper
from patchpad.inference.reports import Asked, ByteReport, SlotFacts
from patchpad.inference.rows import NotFiniteError, appended_all
from patchpad.inference.transfers import on_device


class Round(NamedTuple):
    """What comes of a round."""

    batch: Batch
    """With the rows that have ended still in it, but not among those that have logits."""
    ended: list[int]
    """Their places."""


@torch.inference_mode()
def make_round(stepper: PatchStepper, batch: Batch, limits: DraftLimits) -> Round:
    """Gives each row the first byte that its logits say, and those that its draft then gets right.

    Args:
        stepper: of the model.
        batch: no row waits for the trunk.
        limits: how far rows draft.

    Raises:
        NotFiniteError: the logits of a row are nan or inf.
    """
    assert batch.state is not None
    assert batch.logits is not None
    state = cast(DecodingState, batch.state)
    rows = [batch.rows[place] for place in batch.ready]
    chosen = choose_for(rows, batch.logits)
    firsts, is_number = torch.stack((chosen.ids, chosen.is_number.long())).tolist()
    if not all(is_number):
        raise NotFiniteError([row for row, is_one in zip(rows, is_number, strict=True) if not is_one])
    drafts = draft(stepper, state, batch.ready, rows, firsts, limits)
    verified = None
    if any(drafts):
        thresholds = on_device([row.threshold for row in batch.rows], stepper.model.device, torch.float32)
        verified = verify(stepper, state, batch.ready, rows, drafts, thresholds)
    num_kept = [0] * len(rows) if verified is None else verified.num_kept
    ids = [drafts[number][:kept] or [firsts[number]] for number, kept in enumerate(num_kept)]
    return _after(stepper, batch, drafts, ids, verified, _reports(batch, drafts, ids, verified))


def _after(
    stepper: PatchStepper,
    batch: Batch,
    drafts: Sequence[Sequence[int]],
    ids: Sequence[Sequence[int]],
    verified: Verified | None,
    reports: Sequence[Sequence[ByteReport | None]],
) -> Round:
    """Gives rows their ids, and goes back to where each of them then stands."""
    ended, ready, newest, released, progress = [], [], [], [], []
    lengths, begin, num_used = [0] * len(batch.rows), 0, 0
    for number, place in enumerate(batch.ready):
        texts = [stepper.model.bytes_of(value) for value in ids[number]]
        come, new, count = appended_all(batch.rows[place], texts, reports[number])
        progress.append((batch.rows[place], come))
        released += [] if new is None else [new]
        if come.stop_reason is None:
            lengths[place] = count
            ready.append(place)
            newest.append(begin + count - 1)
        else:
            lengths[place] = count - 1  # nothing reads the last one
            ended.append(place)
        num_used += count if drafts[number] else 0
        begin += len(drafts[number])
    batch = replace(batch, ready=tuple(ready), logits=None, progress=tuple(progress), released=tuple(released))
    if verified is None:
        return Round(batch, ended)
    extension = verified.extension
    batch = replace(
        batch,
        state=extension.advance(lengths),
        logits=extension.logits[on_device(newest, extension.logits.device, torch.int64)] if newest else None,
        num_trunk_batches=batch.num_trunk_batches + extension.trunk_passes,
        drafts=batch.drafts.plus(sum(map(bool, drafts)), sum(map(len, drafts)), num_used, verified.trunk_calls),
    )
    return Round(batch, ended)


def _reports(
    batch: Batch, drafts: Sequence[Sequence[int]], ids: Sequence[Sequence[int]], verified: Verified | None
) -> list[list[ByteReport | None]]:
    """Returns what rows that ask are told of their ids, each of which was chosen and read at a place of its own."""
    requests = [batch.rows[place].request for place, own in zip(batch.ready, ids, strict=True) for _ in own]
    asked = Asked.by(requests)
    if asked is None:
        return [[None] * len(own) for own in ids]
    assert batch.logits is not None
    chosen_by, read_at, begin = [], [], 0
    for number, own in enumerate(ids):
        chosen_by += [number, *range(len(ids) + begin, len(ids) + begin + len(own) - 1)]
        read_at += range(begin + 1, begin + 1 + len(own)) if drafts[number] else [0]
        begin += len(drafts[number])
    device = batch.logits.device
    logits = batch.logits if verified is None else torch.cat((batch.logits, verified.extension.logits))
    facts = _facts_at(on_device(read_at, device, torch.int64), verified) if asked.details else None
    all_ids = [value for own in ids for value in own]
    parts = asked.parts(
        logits[on_device(chosen_by, device, torch.int64)], on_device(all_ids, device, torch.int64), facts
    )
    found = asked.reports(all_ids, iter(torch.cat(parts).tolist()))
    ordered = iter(range(len(all_ids)))
    return [[found.get(next(ordered)) for _ in own] for own in ids]


def _facts_at(places: Tensor, verified: Verified | None) -> SlotFacts:
    """Returns what was told at 1 + places of an extension; at 0 lies an id that ended its row, of which nothing is."""
    if verified is None:
        none = torch.zeros_like(places, dtype=torch.bool)
        return SlotFacts(none, none, None)
    ends, fires, entropies = verified.extension.slot_facts
    entropies = None if entropies is None else _behind_zero(entropies)[places]
    return SlotFacts(_behind_zero(ends)[places], _behind_zero(fires)[places], entropies)


def _behind_zero(packed: Tensor) -> Tensor:
    return torch.cat((packed.new_zeros(1), packed))


__all__ = ["Round", "make_round"]
