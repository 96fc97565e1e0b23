"""Steps of the `byte` and `bpe` baselines: every id is a position of the trunk and an entry in its cache."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from patchpad.config import SEPARATOR
from patchpad.inference.cache import TrunkCache
from patchpad.inference.prompts import padded_prompts
from patchpad.inference.reports import SlotFacts
from patchpad.inference.row_state import Counts, RowState, put
from patchpad.inference.span import Extension, Span, unpooled
from patchpad.inference.split_attention import trunk_attention, trunk_span_attention
from patchpad.inference.transfers import on_device
from patchpad.model.baselines import BpeTransformer, ByteTransformer
from patchpad.model.precision import autocast


@dataclass
class PlainState(RowState):
    """State of a plain Transformer; see `RowState`."""

    trunk_states: Float[Tensor, "batch trunk_dim"]
    """Output of the trunk for the newest id, which every step computes before it is read."""


class PlainStepper:
    """Prefill and step of a plain Transformer; see `Stepper`.

    Args:
        model: used in eval mode.
    """

    def __init__(self, model: ByteTransformer | BpeTransformer) -> None:
        self.model = model.eval()

    @torch.inference_mode()
    def prefill(
        self, prompts: list[bytes], threshold: Float[Tensor, " batch"]
    ) -> tuple[Float[Tensor, "batch vocab"], PlainState]:
        """Reads prompts in one pass."""
        model = self.model
        encoded = [model.encode_prompt(prompt) for prompt in prompts]
        ids = padded_prompts(encoded, model.padding_id, model.device)
        last_position = on_device([len(prompt) for prompt in encoded], model.device, torch.int64)
        rows = torch.arange(len(prompts), device=model.device)
        with autocast(model.device):
            output = model.run(ids, keep_activations=True)
        assert output.states is not None
        counts = Counts(last_position, ids[rows, last_position], last_position + 1, last_position + 1)
        state = PlainState(
            ints=torch.stack(counts, dim=1),
            floats=torch.zeros(len(prompts), 0, device=model.device),
            most_patches=ids.shape[1],
            trunk=TrunkCache.of_positions(output.trunk),
            trunk_states=output.states[rows, last_position],
        )
        return self.predict(state, rows), state

    @torch.inference_mode()
    def begin_documents(self, state: PlainState, rows: Int[Tensor, " row"]) -> None:
        """Drops the trunk's cache of `rows`."""
        counts = state.counts
        dropped = counts._replace(num_patches=counts.num_patches.index_put((rows,), torch.zeros_like(rows)))
        state.ints = torch.stack(dropped, dim=1)

    @torch.inference_mode()
    def read(
        self, state: PlainState, rows: Int[Tensor, " row"], ids: Int[Tensor, " row"], threshold: Float[Tensor, " row"]
    ) -> Bool[Tensor, " row"]:
        """Reads one id in each of `rows`; all of them need the trunk."""
        begins = ids == SEPARATOR
        counts = Counts(*state.ints[rows].unbind(1))
        new = counts._replace(position=torch.where(begins, 0, counts.position + 1), newest_id=ids)
        state.ints = put(state.ints, rows, torch.stack(new, dim=1))
        return torch.ones_like(begins)

    @torch.inference_mode()
    def slot_facts(self, state: PlainState, rows: Int[Tensor, " row"], needs_trunk: Bool[Tensor, " row"]) -> SlotFacts:
        """Returns what the last `read` told: every id is a patch of its own."""
        return SlotFacts(needs_trunk, torch.zeros_like(needs_trunk), None)

    @torch.inference_mode()
    def refresh(self, state: PlainState, rows: Int[Tensor, " row"]) -> None:
        """Runs the trunk on the newest id of `rows`, and keeps its keys and values."""
        if len(rows) == 0:
            return
        state.make_room()
        counts = Counts(*state.ints[rows].unbind(1))
        attend = trunk_attention(state.trunk, rows, counts.num_patches)
        with autocast(self.model.device):
            states = self.model.trunk(self.model.embedding(counts.newest_id), counts.position, attend)
        state.trunk_states[rows] = states.to(state.trunk_states.dtype)
        new = counts._replace(num_patches=counts.num_patches + 1, trunk_calls=counts.trunk_calls + 1)
        state.ints = put(state.ints, rows, torch.stack(new, dim=1))

    @torch.inference_mode()
    def predict(self, state: PlainState, rows: Int[Tensor, " row"]) -> Float[Tensor, "row vocab"]:
        """Returns the logits of the next id in each of `rows`."""
        with autocast(self.model.device):
            return self.model.predict(state.trunk_states[rows]).float()

    def encode(self, text: bytes) -> list[int]:
        """Returns the bytes, or the tokens of a bpe model."""
        return self.model.encode_prompt(text)

    @torch.inference_mode()
    def extend(
        self, state: PlainState, next_ids: Sequence[Sequence[int]], threshold: Float[Tensor, " batch"]
    ) -> Extension:
        """Reads many ids of each row in one pass."""
        span = Span.of(next_ids, self.model.device)
        counts, working = state.counts, cast(PlainState, state.working_copy())
        working.has_at_most(state.most_patches + span.width)
        place = counts.num_patches[span.rows] + span.columns
        attend = trunk_span_attention(working.trunk, span.rows, place, None, working.most_patches)
        with autocast(self.model.device):
            position = counts.position[span.rows] + 1 + span.columns
            states = self.model.trunk(self.model.embedding(span.ids), position, attend)
            logits = self.model.predict(states).float()

        @torch.inference_mode()
        def advance(lengths: Sequence[int] | None = None) -> PlainState:
            read = span if lengths is None else span.cut(lengths)
            new = Counts(
                position=counts.position + read.lengths,
                newest_id=read.last(span.ids, counts.newest_id),
                num_patches=counts.num_patches + read.lengths,
                trunk_calls=counts.trunk_calls + read.lengths,
            )
            working.ints = torch.stack(new, dim=1)
            working.trunk_states = read.last(states, state.trunk_states)
            return working

        return unpooled(span, logits, torch.ones_like(span.ids, dtype=torch.bool), place + 1, 1, advance)
