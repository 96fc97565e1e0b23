"""How prompts come into the batch: together in one pass, or in blocks; what was read before is not read again."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from patchpad.inference.batch import Batch, Reading
from patchpad.inference.blocks import block_positions, read_prompts, with_expected_room
from patchpad.inference.row_state import RowState
from patchpad.inference.rows import Row
from patchpad.inference.stepper import Stepper
from patchpad.inference.transfers import on_device

IDLE_PIECES = 8
"""Pieces that are read at once where no row waits for it."""


@dataclass(frozen=True, kw_only=True)
class Prefix:
    """A prompt that was read: the state after it, of one row, read-only, and its logits."""

    prompt: bytes
    state: RowState
    logits: Float[Tensor, "1 vocab"]


@runtime_checkable  # so that tests can check annotations
class Prefixes(Protocol):
    """Keeps what prompts were read."""

    def find(self, prompt: bytes, threshold: float, *, is_whole: bool) -> Prefix | None:
        """Returns the longest stored prompt that this one begins with.

        Args:
            prompt: to be read.
            threshold: at which it is read; in nats, inf or -inf.
            is_whole: nothing shorter than the whole prompt is of use.
        """
        ...

    def store(self, threshold: float, prefix: Prefix) -> None:
        """Keeps a prompt."""
        ...

    def note_hits(self, count: int) -> None:
        """Notes that so many prompts were not read, or not from their beginning."""
        ...


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """How a row's prompt is going to be read."""

    row: Row
    known: Prefix | None
    """What of it was read before."""

    @property
    def key(self) -> tuple[bytes, float]:
        """What rows that can be read as one have in common."""
        return self.row.request.prompt, self.row.threshold

    @property
    def left(self) -> bytes:
        """What has to be read."""
        return self.row.request.prompt[len(self.known.prompt) :] if self.known is not None else self.row.request.prompt


class PromptReader:
    """Reads prompts for the engine.

    Args:
        stepper: of the model.
        piece_bytes: bytes that are read between two steps as long as other rows run; None for a whole block, see
            `patchpad.inference.blocks`. A prompt is encoded before it is cut, so tokens are those of the whole prompt.
        prefixes: states of prompts that were read before; None to read each prompt for itself.
    """

    def __init__(self, stepper: Stepper, *, piece_bytes: int | None = None, prefixes: Prefixes | None = None) -> None:
        self.stepper = stepper
        self.reads_bytes = stepper.model.config.kind != "bpe"
        self.piece_bytes = piece_bytes
        self.prefixes = prefixes

    @torch.inference_mode()
    def with_joined(self, batch: Batch, room: int) -> Batch:
        """Returns the batch with waiting rows that have joined, or with a block of a long prompt that was read.

        Args:
            batch: where the engine stands.
            room: for so many rows.
        """
        if batch.reading is not None:
            return self._with_piece(batch, batch.reading)
        plans = self._next(batch, room)
        if not plans:
            return batch
        batch = replace(batch, pending=batch.pending[len(plans) :])
        if len(plans[0].left) >= self._most_bytes(batch):
            if plans[0].known is not None and self.prefixes is not None:
                self.prefixes.note_hits(1)
            return self._with_piece(batch, self._begun(plans[0]))
        if self.prefixes is None:
            logits, state = self._prefill(plans)
            return batch.with_rows([plan.row for plan in plans], state, logits)
        return self._with_known(batch, plans)

    def _most_bytes(self, batch: Batch) -> int:
        """Returns how many bytes may be read now."""
        if self.piece_bytes is None:
            return block_positions(self.stepper.model.device)
        return self.piece_bytes if batch.num_running else IDLE_PIECES * self.piece_bytes

    def _next(self, batch: Batch, room: int) -> list[_Plan]:
        """Returns how those rows that come next are read, as many as may be read at once, and at least one."""
        plans: list[_Plan] = []
        keys: set[tuple[bytes, float]] = set()
        num_bytes, most = 0, self._most_bytes(batch)
        for row in itertools.islice(batch.pending, room):
            plan = _Plan(row=row, known=self._known(row))
            if self.prefixes is None or plan.key not in keys:
                num_bytes += len(plan.left) + (plan.known is None)
            if plans and num_bytes > most:
                break
            keys.add(plan.key)
            plans.append(plan)
        return plans

    def _known(self, row: Row) -> Prefix | None:
        if self.prefixes is None:
            return None
        return self.prefixes.find(row.request.prompt, row.threshold, is_whole=not self.reads_bytes)

    def _prefill(self, plans: Sequence[_Plan]) -> tuple[Float[Tensor, "row vocab"], RowState]:
        thresholds = self._thresholds([plan.row.threshold for plan in plans])
        return read_prompts(self.stepper, [plan.row.request.prompt for plan in plans], thresholds)

    def _thresholds(self, values: Sequence[float]) -> Float[Tensor, " row"]:
        return on_device(values, self.stepper.model.device, torch.float32)

    def _begun(self, plan: _Plan) -> Reading:
        """Returns the beginning of a long prompt: what was read before, or the separator alone."""
        row = plan.row
        if plan.known is None:
            _, state = self.stepper.prefill([b""], self._thresholds([row.threshold]))
        else:
            state = plan.known.state.clone()
        return Reading(row=row, threshold=row.threshold, state=state, ids=self.stepper.encode(plan.left))

    def _with_piece(self, batch: Batch, reading: Reading) -> Batch:
        """Reads a block; the row joins after the last one."""
        begin, num_left = reading.num_read, len(reading.ids) - reading.num_read
        size = min(self._most_bytes(batch), num_left)
        before = with_expected_room(reading.state, begin, reading.num_patches, size, num_left)
        ids = reading.ids[begin : begin + size]
        extension = self.stepper.extend(before, [ids], self._thresholds([reading.threshold]))
        state, logits = extension.advance(), extension.logits[-1:]
        if size < num_left:
            num_patches = reading.num_patches + state.most_patches - before.most_patches
            read_on = replace(reading, state=state, num_read=begin + size, num_patches=num_patches)
            return replace(batch, reading=read_on)
        if self.prefixes is not None:
            self._store([(reading.row.request.prompt, reading.threshold)], state, logits)
        return replace(batch, reading=None).with_rows([reading.row], state, logits)

    def _with_known(self, batch: Batch, plans: Sequence[_Plan]) -> Batch:
        """Reads what was not read before, each prompt once, and has all rows join."""
        unlike = {plan.key: plan for plan in reversed(plans)}
        whole = [plan for plan in unlike.values() if plan.known is None]
        begun = [plan for plan in unlike.values() if plan.known is not None and plan.left]
        known = [plan for plan in unlike.values() if plan.known is not None and not plan.left]
        parts = [self._prefill(whole)] if whole else []
        if begun:
            parts.append(self._read_on(begun))
        for (logits, state), read in zip(parts, [part for part in (whole, begun) if part], strict=True):
            self._store([plan.key for plan in read], state, logits)
        parts += [(plan.known.logits, plan.known.state) for plan in known if plan.known is not None]
        places = {plan.key: place for place, plan in enumerate([*whole, *begun, *known])}
        states = [state for _, state in parts]
        state = type(states[0]).join(states)
        logits = torch.cat([logits for logits, _ in parts])
        order = [places[plan.key] for plan in plans]
        if order != list(range(len(state.ints))):
            state, logits = state.select(order), logits[order]
        assert self.prefixes is not None
        self.prefixes.note_hits(len(plans) - len(whole))
        return batch.with_rows([plan.row for plan in plans], state, logits)

    def _read_on(self, plans: Sequence[_Plan]) -> tuple[Float[Tensor, "row vocab"], RowState]:
        """Reads the rest of prompts whose beginnings are known."""
        known = [plan.known for plan in plans if plan.known is not None]
        state = type(known[0].state).join([prefix.state for prefix in known])  # a copy, also of a single one
        thresholds = self._thresholds([plan.row.threshold for plan in plans])
        extension = self.stepper.extend(state, [list(plan.left) for plan in plans], thresholds)
        before = torch.cat([prefix.logits for prefix in known])
        return extension.span.last(extension.logits, before), extension.advance()

    def _store(self, keys: Sequence[tuple[bytes, float]], state: RowState, logits: Float[Tensor, "row vocab"]) -> None:
        """Keeps copies of rows, no larger than what is in them."""
        assert self.prefixes is not None
        for place, ((prompt, threshold), num_places) in enumerate(zip(keys, state.num_places.tolist(), strict=True)):
            view = state.working_copy()
            view.most_patches = num_places
            own = view.narrowed(0).select([place])
            prefix = Prefix(prompt=prompt, state=own, logits=logits[place : place + 1].clone())
            self.prefixes.store(threshold, prefix)


__all__ = ["IDLE_PIECES", "Prefix", "Prefixes", "PromptReader"]
