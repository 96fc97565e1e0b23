"""The engine: a batch whose rows join, leave and advance on their own.

A row's byte needs the trunk only where it ends a patch or fires a scratchpad. In lockstep, a batch would wait at nearly
every byte for some row's trunk call; here such rows queue until enough of them share one call, and the others go on.

A step reads from the device once. Ids are chosen there and go straight into the model; then one read tells the host the
ids, which rows need the trunk, and what the rows count.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import torch

from patchpad.inference.batch import Batch
from patchpad.inference.draft_rule import DraftOption, draft_rule_for
from patchpad.inference.drafting import DraftLimits, choose_for
from patchpad.inference.joining import Prefixes, PromptReader
from patchpad.inference.patch_stepper import PatchStepper
from patchpad.inference.reports import Asked, ByteReport
from patchpad.inference.rounds import make_round
from patchpad.inference.row_state import RowState
from patchpad.inference.rows import (
    NewBytes,
    NotFiniteError,
    Progress,
    Request,
    Row,
    StopReason,
    appended,
    check_request,
)
from patchpad.inference.sampling import Chosen, Draws
from patchpad.inference.steppers import stepper_for
from patchpad.inference.transfers import SentLists
from patchpad.model.language_model import LanguageModel

BATCH_ROWS = 32
"""Rows that are in the batch at once; further ones wait."""
TRUNK_GROUP_SHARE = 0.75
"""Share of the batch's rows that makes a trunk call worth while as long as other rows can go on."""


class Engine:
    """Runs requests in one batch; `advance` moves every row that can by one byte.

    Nothing runs between calls of `advance`: to drop the engine is to stop it. A step is all or nothing: `batch` is
    replaced at its end. If an exception interrupts a step, the next call makes the same step again.

    Args:
        model: used in eval mode.
        batch_rows: most rows in the batch at once.
        trunk_group_share: share of the batch's rows that must need the trunk before it is called, as long as other
            rows can go on without it; 0 is lockstep, 1 waits for all.
        compile: run the steps compiled, or on CUDA as captured graphs; see `patchpad.inference.steppers`.
        piece_bytes: bytes of prompts that are read between two steps as long as other rows run; None for a whole block,
            see `patchpad.inference.blocks`.
        prefixes: states of prompts that were read before.
        draft: `off`; or the most bytes that a row drafts at once, see `patchpad.inference.drafting`; or `auto` for
            drafts where they are measured to be faster.
    """

    def __init__(
        self,
        model: LanguageModel,
        *,
        batch_rows: int = BATCH_ROWS,
        trunk_group_share: float = TRUNK_GROUP_SHARE,
        compile: bool = False,
        piece_bytes: int | None = None,
        prefixes: Prefixes | None = None,
        draft: DraftOption = "off",
    ) -> None:
        self.model = model
        self.stepper = stepper_for(model, compile=compile)
        self.prompts = PromptReader(self.stepper, piece_bytes=piece_bytes, prefixes=prefixes)
        self.batch_rows = batch_rows
        self.trunk_group_share = trunk_group_share
        self.drafts = draft_rule_for(model, draft, compile=compile)
        self.batch = Batch()
        self._sent = SentLists()

    def submit(self, requests: Sequence[Request]) -> list[Row]:
        """Queues requests; they join the batch as soon as it has room.

        Raises:
            GenerationError: a bias for an id that the model does not have.
        """
        for request in requests:
            check_request(self.model, request)
        batch = self.batch
        rows = [
            Row(request, batch.num_submitted + number, request.threshold, Draws(request.seed))
            for number, request in enumerate(requests)
        ]
        self.batch = replace(batch, pending=(*batch.pending, *rows), num_submitted=batch.num_submitted + len(rows))
        return rows

    @property
    def is_done(self) -> bool:
        """Whether no row is left."""
        return not (self.batch.pending or self.batch.rows or self.batch.reading)

    @property
    def next_to_join(self) -> Row | None:
        """The row whose prompt is read next."""
        batch = self.batch
        return batch.reading.row if batch.reading is not None else next(iter(batch.pending), None)

    def set_threshold(self, row: Row, threshold: float) -> None:
        """Changes a row's threshold from its next byte on."""
        row.threshold = threshold

    def cancel(self, *rows: Row) -> None:
        """Drops rows; what they have generated stays in them."""
        self.settle()
        batch, dropped = self.batch, set(rows)
        if dropped.intersection(batch.pending):
            batch = replace(batch, pending=tuple(row for row in batch.pending if row not in dropped))
        if batch.reading is not None and batch.reading.row in dropped:
            batch = replace(batch, reading=None)
        places = [place for place in batch.places if batch.rows[place] in dropped]
        if places:
            self._note_counts(batch, places)
            batch = batch.without(places)
        self.batch = batch

    def advance(self) -> list[NewBytes]:
        """Lets waiting prompts join, then gives each row that has logits its next byte.

        Returns:
            What rows have released; may be empty. It also stands in `batch` until the next step.

        Raises:
            GenerationError: the model's logits are nan or inf.
        """
        self.join()
        return self.step()

    def join(self, most: int | None = None) -> None:
        """Lets waiting prompts join, the first half of `advance`.

        Args:
            most: of them at once; None for as many as there is room for.
        """
        self.settle()
        self.batch = self._with_joined(self.batch, most)

    def step(self) -> list[NewBytes]:
        """Gives each row that has logits its next byte, the second half of `advance`; by drafts, several bytes."""
        self.settle()
        limits = self.drafts.limits(self.batch.num_running)
        begin = self.drafts.clock()
        if limits is None:
            batch = self._with_predicted(self._with_read(self.batch))
        else:
            batch = self._with_drafted(self._with_none_waiting(self.batch), limits)
        num_ids = sum(come.num_chosen - row.progress.num_chosen for row, come in batch.progress)
        self.drafts.note(self.batch.num_running, limits, self.drafts.clock() - begin, num_ids)
        self.batch = batch
        self.settle()
        return list(self.batch.released)

    def drop_running(self) -> None:
        """Drops all rows of the batch as they are, without reading their state; those that wait stay."""
        self.batch = Batch(
            number=self.batch.number + 1,
            num_submitted=self.batch.num_submitted,
            num_trunk_batches=self.batch.num_trunk_batches,
            drafts=self.batch.drafts,
            pending=self.batch.pending,
            reading=self.batch.reading,
        )

    def refresh_counts(self) -> None:
        """Updates the counts that running rows report."""
        self.settle()
        self._note_counts(self.batch, self.batch.places)

    def settle(self) -> None:
        """Records the result of the last step in its rows; once more, if an exception came in between."""
        for row, progress in self.batch.progress:
            row.progress = progress

    def _with_joined(self, batch: Batch, most: int | None) -> Batch:
        """Returns the batch with the waiting rows for which there is room."""
        room = self.batch_rows - batch.num_running
        return self.prompts.with_joined(batch, room if most is None else min(most, room))

    def _with_read(self, batch: Batch) -> Batch:
        """Chooses an id for each ready row and reads it. Rows that end with their id leave: reading it does no harm.

        Returns:
            The batch without logits; rows that need the trunk are among those that wait.

        Raises:
            GenerationError: the model's logits are nan or inf.
        """
        batch = replace(batch, number=batch.number + 1, progress=(), released=())
        if batch.state is None or not batch.ready:
            return batch
        state, found = self._read(batch, batch.state.working_copy())
        if not all(found.is_number):
            of_ready = zip(batch.ready, found.is_number, strict=True)
            raise NotFiniteError([batch.rows[place] for place, is_number in of_ready if not is_number])
        ended, released, progress = [], [], []
        for number, (place, value) in enumerate(zip(batch.ready, found.ids, strict=True)):
            row = batch.rows[place]
            come, new = appended(row, self.model.bytes_of(value), found.reports.get(number))
            progress.append((row, come))
            if new is not None:
                released.append(new)
                if new.is_last:
                    ended.append(place)
                    row.trunk_calls, row.trunk_cache_entries = found.trunk_calls[place], found.num_patches[place]
        needing = {place for place, needs in zip(batch.ready, found.needs_trunk, strict=True) if needs}
        staying = [place for place in batch.places if place not in ended]
        batch = replace(
            batch,
            state=state,
            ready=tuple(place for place in batch.ready if place not in needing),
            logits=None,
            waiting=tuple(sorted(needing.union(batch.waiting))),
            progress=tuple(progress),
            released=tuple(released),
        )
        if ended:
            batch = batch.without(ended)
        if batch.state is not None:
            kept = staying if len(batch.rows) < len(found.num_patches) else range(len(batch.rows))
            left = set(batch.free)
            batch.state.has_each([None if place in left else found.num_patches[old] for place, old in enumerate(kept)])
        return batch

    def _read(self, batch: Batch, state: RowState) -> "tuple[RowState, _Found]":
        """Chooses and reads on the device; then reads once from it. The state is worked on, and returned."""
        device, count = self.model.device, len(batch.ready)
        chosen = self._choose(batch)
        rows = self._sent(batch.ready, device)
        thresholds = self._sent([batch.rows[place].threshold for place in batch.ready], device, torch.float32)
        needs_trunk = self.stepper.read(state, rows, chosen.ids, thresholds)
        parts = [chosen.ids, chosen.is_number, needs_trunk, state.trunk_calls, state.num_patches]
        asked = Asked.by([batch.rows[place].request for place in batch.ready])
        if asked is not None:
            assert batch.logits is not None
            facts = self.stepper.slot_facts(state, rows, needs_trunk) if asked.details else None
            parts += asked.parts(batch.logits, chosen.ids, facts)
        values = iter(torch.cat(parts).tolist())
        ids, is_number, needing = (list(itertools.islice(values, count)) for _ in range(3))
        trunk_calls, num_patches = (list(itertools.islice(values, len(batch.rows))) for _ in range(2))
        reports = {} if asked is None else asked.reports(ids, values)
        return state, _Found(ids, is_number, needing, trunk_calls, num_patches, reports)

    def _choose(self, batch: Batch) -> Chosen:
        """Chooses the next id of each ready row."""
        assert batch.logits is not None
        return choose_for([batch.rows[place] for place in batch.ready], batch.logits)

    def _with_drafted(self, batch: Batch, limits: DraftLimits) -> Batch:
        """Makes a round of drafts; see `patchpad.inference.rounds`.

        Raises:
            GenerationError: the model's logits are nan or inf.
        """
        batch = replace(batch, number=batch.number + 1, progress=(), released=())
        if batch.state is None or not batch.ready:
            return batch
        assert isinstance(self.stepper, PatchStepper)
        batch, ended = make_round(self.stepper, batch, limits)
        if ended:
            self._note_counts(batch, ended)
            batch = batch.without(ended)
        return batch

    def _with_none_waiting(self, batch: Batch) -> Batch:
        """Calls the trunk for the rows that wait, as steps have left them."""
        if batch.state is None or not batch.waiting:
            return batch
        state, waiting = batch.state.working_copy(), self._sent(batch.waiting, self.model.device)
        self.stepper.refresh(state, waiting)
        batch = replace(batch, num_trunk_batches=batch.num_trunk_batches + 1)
        return batch.with_none_waiting(state, self.stepper.predict(state, waiting))

    def _with_predicted(self, batch: Batch) -> Batch:
        """Calls the trunk if enough rows need it, and predicts where that is possible."""
        if batch.state is None:
            return batch
        device = self.model.device
        state, calm, waiting, num_calls = batch.state.working_copy(), list(batch.ready), list(batch.waiting), 0
        if waiting and (not calm or len(waiting) >= math.ceil(self.trunk_group_share * batch.num_running)):
            self.stepper.refresh(state, self._sent(waiting, device))
            num_calls = 1
            calm, waiting = sorted(calm + waiting), []
        return replace(
            batch,
            num_trunk_batches=batch.num_trunk_batches + num_calls,
            state=state,
            ready=tuple(calm),
            logits=self.stepper.predict(state, self._sent(calm, device)) if calm else None,
            waiting=tuple(waiting),
        )

    @staticmethod
    def _note_counts(batch: Batch, places: Sequence[int]) -> None:
        if batch.state is None:
            return
        calls, patches = batch.state.trunk_calls.tolist(), batch.state.num_patches.tolist()
        for place in places:
            row = batch.rows[place]
            row.trunk_calls, row.trunk_cache_entries = calls[place], patches[place]


class _Found(NamedTuple):
    """What a step reads from the device: of each ready row, then of each row of the batch."""

    ids: list[int]
    is_number: list[int]
    needs_trunk: list[int]
    trunk_calls: list[int]
    num_patches: list[int]
    reports: dict[int, ByteReport]
    """By the number of the row among the ready ones, for those that ask."""


__all__ = ["BATCH_ROWS", "Batch", "Engine", "NewBytes", "NotFiniteError", "Progress", "Request", "Row", "StopReason"]
