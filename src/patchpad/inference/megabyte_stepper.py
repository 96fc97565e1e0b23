"""Steps of the `megabyte` baseline: the trunk runs where a patch is complete and where a document starts."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from patchpad.config import PADDING, SEPARATOR
from patchpad.inference.cache import LocalCache, TrunkCache
from patchpad.inference.prompts import padded_prompts
from patchpad.inference.reports import SlotFacts
from patchpad.inference.row_state import Counts, RowState, put
from patchpad.inference.span import Extension, Span, unpooled
from patchpad.inference.span_attention import SpanWindowAttention
from patchpad.inference.split_attention import trunk_attention, trunk_span_attention
from patchpad.inference.transfers import on_device
from patchpad.model.baselines import MegaByte
from patchpad.model.precision import autocast

NUM_COUNTS = len(Counts._fields)


@dataclass
class MegaByteState(RowState):
    """State of MegaByte; see `RowState`. `ints` holds `Counts` and then each row's last p ids, oldest first."""

    slices: Float[Tensor, "batch place byte_dim"]
    """What the newest global output says about each byte of its patch."""
    local: LocalCache
    """Keys and values of the local model; a new patch overwrites those of the one before."""


class MegaByteStepper:
    """Prefill and step of MegaByte; see `Stepper`.

    Args:
        model: used in eval mode.
    """

    def __init__(self, model: MegaByte) -> None:
        self.model = model.eval()

    @torch.inference_mode()
    def prefill(
        self, prompts: list[bytes], threshold: Float[Tensor, " batch"]
    ) -> tuple[Float[Tensor, "batch vocab"], MegaByteState]:
        """Reads prompts in one pass."""
        size, device = self.model.patch_size, self.model.device
        ids = padded_prompts(prompts, PADDING, device)
        last_position = on_device([len(prompt) for prompt in prompts], device, torch.int64)
        rows = torch.arange(len(prompts), device=device)
        with autocast(device):
            output = self.model.run(ids, keep_activations=True)
        assert output.slices is not None
        num_slots = last_position // size + 1
        source = last_position[:, None] + torch.arange(1 - size, 1, device=device)
        counts = Counts(last_position, ids[rows, last_position], num_slots, num_slots)
        state = MegaByteState(
            ints=torch.cat((torch.stack(counts, dim=1), ids[rows[:, None], source.clamp_min(0)]), dim=1),
            floats=torch.zeros(len(prompts), 0, device=device),
            most_patches=output.slices.shape[1],
            trunk=TrunkCache.of_positions(output.trunk),
            slices=output.slices[rows, num_slots - 1],
            local=LocalCache.from_prefill(output.local, last_position, size),
        )
        return output.logits[rows, last_position].float(), state

    @torch.inference_mode()
    def begin_documents(self, state: MegaByteState, rows: Int[Tensor, " row"]) -> None:
        """Drops the trunk's cache of `rows`."""
        counts = state.counts
        dropped = counts._replace(num_patches=counts.num_patches.index_put((rows,), torch.zeros_like(rows)))
        state.ints = torch.cat((torch.stack(dropped, dim=1), state.ints[:, NUM_COUNTS:]), dim=1)

    @torch.inference_mode()
    def read(
        self,
        state: MegaByteState,
        rows: Int[Tensor, " row"],
        ids: Int[Tensor, " row"],
        threshold: Float[Tensor, " row"],
    ) -> Bool[Tensor, " row"]:
        """Reads one id in each of `rows`; those that completed a patch or began a document need the trunk."""
        old = state.ints[rows]
        counts = Counts(*old[:, :NUM_COUNTS].unbind(1))
        position = torch.where(ids == SEPARATOR, 0, counts.position + 1)
        new = torch.stack(counts._replace(position=position, newest_id=ids), dim=1)
        state.ints = put(state.ints, rows, torch.cat((new, old[:, NUM_COUNTS + 1 :], ids[:, None]), dim=1))
        return position % self.model.patch_size == 0

    @torch.inference_mode()
    def slot_facts(
        self, state: MegaByteState, rows: Int[Tensor, " row"], needs_trunk: Bool[Tensor, " row"]
    ) -> SlotFacts:
        """Returns what the last `read` told: a row needs the trunk where its patch is complete."""
        return SlotFacts(needs_trunk, torch.zeros_like(needs_trunk), None)

    @torch.inference_mode()
    def refresh(self, state: MegaByteState, rows: Int[Tensor, " row"]) -> None:
        """Runs the trunk for `rows` on their last p bytes, and keeps its keys and values."""
        if len(rows) == 0:
            return
        state.make_room()
        old = state.ints[rows]
        counts, newest_bytes = Counts(*old[:, :NUM_COUNTS].unbind(1)), old[:, NUM_COUNTS:]
        attend = trunk_attention(state.trunk, rows, counts.num_patches)
        with autocast(self.model.device):
            slices = self.model.run_trunk(newest_bytes, counts.position // self.model.patch_size, attend)
        state.slices[rows] = slices.to(state.slices.dtype)
        new = counts._replace(num_patches=counts.num_patches + 1, trunk_calls=counts.trunk_calls + 1)
        state.ints = put(state.ints, rows, torch.cat((torch.stack(new, dim=1), newest_bytes), dim=1))

    @torch.inference_mode()
    def predict(self, state: MegaByteState, rows: Int[Tensor, " row"]) -> Float[Tensor, "row vocab"]:
        """Returns the logits of the next id in each of `rows`."""
        counts = Counts(*state.ints[rows, :NUM_COUNTS].unbind(1))
        place = counts.position % self.model.patch_size
        with autocast(self.model.device):
            # Counted from the patch's start, so that the ring shows the bytes of this patch alone.
            local_sees = state.local.at(rows, place)
            return self.model.local_model(state.slices[rows, place], counts.newest_id, place, local_sees).float()

    def encode(self, text: bytes) -> list[int]:
        """Returns the bytes."""
        return list(text)

    @torch.inference_mode()
    def extend(
        self, state: MegaByteState, next_ids: Sequence[Sequence[int]], threshold: Float[Tensor, " batch"]
    ) -> Extension:
        """Reads many bytes of each row in one pass."""
        span, size = Span.of(next_ids, self.model.device), self.model.patch_size
        counts, working = state.counts, cast(MegaByteState, state.working_copy())
        known = torch.cat((state.ints[:, NUM_COUNTS:], span.padded(span.ids)), dim=1)
        newest = span.columns[:, None] + torch.arange(1, size + 1, device=known.device)
        newest_bytes = known[span.rows[:, None], newest]
        position = counts.position[span.rows] + 1 + span.columns
        place, is_slot = position % size, position % size == 0
        with autocast(self.model.device):
            slices = self._slices(working, span, newest_bytes, position, is_slot)
            local_sees = SpanWindowAttention(state.local, span, counts.position % size, span.columns - place)
            own_slices = slices[_newest_slices(span, is_slot), place]
            logits = self.model.local_model(own_slices, span.ids, place, local_sees).float()

        @torch.inference_mode()
        def advance(lengths: Sequence[int] | None = None) -> MegaByteState:
            read = span if lengths is None else span.cut(lengths)
            num_slots = read.counted(span.padded(is_slot))
            new = Counts(
                position=counts.position + read.lengths,
                newest_id=read.last(span.ids, counts.newest_id),
                num_patches=counts.num_patches + num_slots,
                trunk_calls=counts.trunk_calls + num_slots,
            )
            last_bytes = read.last(newest_bytes, state.ints[:, NUM_COUNTS:])
            working.ints = torch.cat((torch.stack(new, dim=1), last_bytes), dim=1)
            own_rows = torch.arange(len(working.ints), device=known.device)
            working.slices = slices[read.last(_newest_slices(span, is_slot), own_rows)].to(state.slices.dtype)
            working.local = local_sees.cache_after(read)
            return working

        passes = int(len(slices) > len(state.slices))
        return unpooled(span, logits, is_slot, position // size + 1, passes, advance)

    def _slices(
        self,
        state: MegaByteState,
        span: Span,
        newest_bytes: Int[Tensor, "new place"],
        position: Int[Tensor, " new"],
        is_slot: Bool[Tensor, " new"],
    ) -> Float[Tensor, "slices place byte_dim"]:
        """Runs the trunk where a patch is complete; returns the slices of each row before, then the new ones."""
        if not bool(is_slot.any()):
            return state.slices
        state.has_at_most(state.most_patches + span.width // self.model.patch_size + 1)
        index = position[is_slot] // self.model.patch_size
        attend = trunk_span_attention(state.trunk, span.rows[is_slot], index, None, state.most_patches)
        slices = self.model.run_trunk(newest_bytes[is_slot], index, attend)
        return torch.cat((state.slices.to(slices.dtype), slices))


def _newest_slices(span: Span, is_slot: Bool[Tensor, " new"]) -> Int[Tensor, " new"]:
    """Returns which entry of the slices each byte reads: those of its row before, or the newest of the span."""
    number = is_slot.long().cumsum(0)
    before_row = torch.cat((number.new_zeros(1), number))[span.begins[span.rows]]
    return torch.where(number > before_row, len(span.lengths) + number - 1, span.rows)
