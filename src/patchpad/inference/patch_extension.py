"""Reads many bytes of each row from a state of the patch model on, in one pass: what `kernels` does for one byte.

The order is that of `ByteLM.run`. Bytes are packed, row after row; so are the span's slots, of which only commits
enter the trunk's cache.
"""

from collections.abc import Sequence
from typing import NamedTuple, cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from patchpad.inference.patch_span import ReadBytes, SpanSlots, decide_slots, read_bytes
from patchpad.inference.patch_state import DecodingState, PatchCounts
from patchpad.inference.reports import SlotFacts
from patchpad.inference.source_masses import OpenTexts
from patchpad.inference.source_span import SpanSources, by_newest_commits, masses_after, mixed_span
from patchpad.inference.span import Extension, Span
from patchpad.inference.span_attention import SpanWindowAttention, TrunkSpanAttention, ring_after, span_windows
from patchpad.inference.split_attention import SplitAttention, trunk_span_attention
from patchpad.model.byte_lm import ByteLM
from patchpad.model.hnet import linear_scan, smoothing_share
from patchpad.model.precision import autocast
from patchpad.model.source_head import Predicted, ended_share
from patchpad.model.token_inputs import TokenInputs


@torch.inference_mode()
def extend_patches(
    model: ByteLM, state: DecodingState, next_ids: Sequence[Sequence[int]], threshold: Float[Tensor, " batch"]
) -> Extension:
    """Reads bytes; see `Stepper.extend`."""
    span = Span.of(next_ids, model.device)
    working = cast(DecodingState, state.working_copy())
    with autocast(model.device):
        read = read_bytes(model, working, span)
        first = ended = None
        if model.source_head is not None:
            first, ended = _commits_first(model, working, read)
        slots = decide_slots(model, working, read, threshold, ended)
        if first is None:
            slot_outputs, smoothed = _run_trunk(model, working, read, slots)
        else:
            slot_outputs, smoothed = _run_scratchpads(model, working, read, slots, first.outputs), None
        contexts = _contexts(model, working, slot_outputs)
        decoder_sees, logits = _predict(model, working, read, slots, contexts)
        sources = None
        if first is not None:
            sources, texts = SpanSources.of(span, slots), _texts_of_span(model, read, slots)
            logits = mixed_span(model, working, span, sources, first.predicted, texts, slot_outputs, logits)

    @torch.inference_mode()
    def advance(lengths: Sequence[int] | None = None) -> DecodingState:
        counted = span if lengths is None else span.cut(lengths)
        masses = None if sources is None else masses_after(model, working, counted, sources, slot_outputs)
        return _state_after(working, counted, read, slots, contexts, smoothed, masses, decoder_sees)

    none = torch.zeros_like(span.lengths)
    return Extension(
        span=span,
        logits=logits.float(),
        num_commits=slots.commits.sum(dim=1),
        num_scratchpads=slots.scratchpads.sum(dim=1),
        trunk_pairs=none.index_add(0, slots.rows, working.num_seen(slots.patch_index) + 1),
        pooled_positions=none.index_add(0, slots.rows, slots.num_pooled),
        advance=advance,
        trunk_passes=_num_passes(slots, first),
        slot_facts=SlotFacts(span.packed(slots.commits > 0), span.packed(slots.scratchpads), read.entropy_nats),
    )


def _num_passes(slots: SpanSlots, first: "_CommitsFirst | None") -> int:
    """Returns how often the trunk was called."""
    if first is None:
        return int(len(slots.rows) > 0)
    return int(len(first.outputs) > 0) + int(slots.has_scratchpads)


def _run_trunk(
    model: ByteLM, state: DecodingState, read: ReadBytes, slots: SpanSlots
) -> tuple[Float[Tensor, "slot trunk_dim"], "_Smoothed | None"]:
    """Runs all slots at once; returns their outputs, and what the smoothing has come to."""
    smoothed = None
    if state.smoothed is not None:
        all_rows = torch.arange(len(state.ints), device=state.ints.device)
        smoothed = _Smoothed(state.smoothed[all_rows, state.num_patches % 2], all_rows)
    if len(slots.rows) == 0:
        return read.byte_states.new_zeros(0, model.config.trunk_dim), smoothed
    state.make_room_for(slots.most_places, slots.most_new)
    stored = slots.is_commit if slots.has_scratchpads else None
    attend = _trunk_sees(state, slots.rows, slots.patch_index, stored)
    slot_outputs = model.trunk(_slot_inputs(model, read, slots), slots.patch_index, attend)
    if smoothed is not None:
        assert read.boundary_probability is not None
        probability = read.span.padded(read.boundary_probability)[slots.rows, slots.columns]
        share = smoothing_share(probability, slots.patch_index == 0)
        slot_outputs, smoothed = _smooth(slot_outputs, share, slots.rows, slots.is_commit, smoothed.results)
    return slot_outputs, smoothed


def _trunk_sees(
    state: DecodingState,
    rows: Int[Tensor, " slot"],
    patch_index: Int[Tensor, " slot"],
    is_commit: Bool[Tensor, " slot"] | None,
) -> TrunkSpanAttention | SplitAttention:
    place = patch_index - state.patch_counts.num_dropped[rows]
    return trunk_span_attention(state.trunk, rows, place, is_commit, state.most_patches, state.trunk_window)


class _Smoothed(NamedTuple):
    """The recurrence of each row over the commits of a span."""

    results: Float[Tensor, "result trunk_dim"]
    """Row after row: what a row had before, then what each of its commits has left."""
    begins: Int[Tensor, " batch"]
    """Where each row begins."""

    def after(self, num_commits: Int[Tensor, " batch"]) -> Float[Tensor, "batch turn trunk_dim"]:
        """Returns what a state holds after so many commits of each row."""
        smoothed = self.results[self.begins + num_commits]
        return torch.stack((smoothed, smoothed), dim=1)


class _CommitsFirst(NamedTuple):
    """The commits of a span once they have been through the trunk, see `patchpad.model.commits_first`."""

    outputs: Float[Tensor, "commit trunk_dim"]
    predicted: Predicted
    """What the newest commits predict of the new bytes."""


def _commits_first(
    model: ByteLM, state: DecodingState, read: ReadBytes
) -> tuple[_CommitsFirst, Float[Tensor, "batch width"]]:
    """Runs a span's commits; returns them, and what scratchpads are then decided from."""
    span, tokens = read.span, read.tokens
    assert tokens is not None
    never = torch.full((len(span.lengths),), torch.inf, device=model.device)
    slots = decide_slots(model, state, read, never, torch.zeros_like(tokens.node, dtype=torch.float32))
    outputs, _ = _run_trunk(model, state, read, slots)
    node, num_commits, open_token = map(span.packed, (tokens.node, tokens.num_commits, tokens.open_token))
    predicted = by_newest_commits(model, state, span, slots, outputs, node)
    return _CommitsFirst(outputs, predicted), span.padded(ended_share(predicted, num_commits, open_token))


def _run_scratchpads(
    model: ByteLM,
    state: DecodingState,
    read: ReadBytes,
    slots: SpanSlots,
    commit_outputs: Float[Tensor, "commit trunk_dim"],
) -> Float[Tensor, "slot trunk_dim"]:
    """Runs the scratchpads of a span whose commits are in the trunk's cache; returns the outputs of all slots."""
    if not slots.has_scratchpads:
        return commit_outputs
    assert slots.tokens is not None
    assert isinstance(model.patch_pooling, TokenInputs)
    some = (~slots.is_commit).nonzero()[:, 0]
    rows, patch_index, none = slots.rows[some], slots.patch_index[some], torch.zeros_like(slots.is_commit[some])
    attend = _trunk_sees(state, rows, patch_index, none)
    outputs = commit_outputs.new_empty(len(slots.rows), commit_outputs.shape[1])
    outputs[slots.is_commit] = commit_outputs
    outputs[some] = model.trunk(model.patch_pooling.embedding(slots.tokens[some]), patch_index, attend).to(
        outputs.dtype
    )
    return outputs


def _contexts(
    model: ByteLM, state: DecodingState, slot_outputs: Float[Tensor, "slot trunk_dim"]
) -> Float[Tensor, "context addition byte_dim"]:
    """Returns what bytes may read: what each row read before the span, then the span's slots."""
    if len(slot_outputs) == 0:
        return state.context
    new = model.context_to_bytes(slot_outputs)
    return torch.cat((state.context.to(new.dtype), new))


def _texts_of_span(model: ByteLM, read: ReadBytes, slots: SpanSlots) -> OpenTexts:
    assert read.recent is not None
    packed = read.span.packed
    return OpenTexts.find(model, read.recent, packed(slots.open_bytes), packed(slots.scratchpad_bytes))


def _slot_inputs(model: ByteLM, read: ReadBytes, slots: SpanSlots) -> Float[Tensor, "slot trunk_dim"]:
    """Pools the byte states of slots, or embeds their tokens."""
    if isinstance(model.patch_pooling, TokenInputs):
        return model.patch_pooling.embedding(slots.tokens)
    distance = torch.arange(slots.longest, device=slots.rows.device)
    rows, columns, num_pooled = (part[:, None] for part in (slots.rows, slots.columns, slots.num_pooled))
    earlier = columns - distance
    places = read.span.place_after(rows.expand_as(earlier), earlier, read.earlier_states.shape[1])
    newest_first = read.span.after(read.earlier_states, read.byte_states)[places]
    return model.patch_pooling.pool(newest_first, distance < num_pooled)


def _smooth(
    slot_outputs: Float[Tensor, "slot trunk_dim"],
    share: Float[Tensor, " slot"],
    slot_rows: Int[Tensor, " slot"],
    is_commit: Tensor,
    before: Float[Tensor, "batch trunk_dim"],
) -> tuple[Float[Tensor, "slot trunk_dim"], _Smoothed]:
    """Moves the recurrence of each row on over its commits; scratchpads are used as they are.

    One scan serves all rows: each row's stretch begins with what the row had before, at a decay of exactly 0.
    """
    batch = len(before)
    rows, share = slot_rows[is_commit], share[is_commit][:, None]
    counts = torch.bincount(rows, minlength=batch)
    begin = counts.cumsum(0) - counts + torch.arange(batch, device=rows.device)
    place = torch.arange(len(rows), device=rows.device) + rows + 1
    inputs = torch.cat((before, before.new_zeros(len(rows), before.shape[1])))
    decay = inputs.new_zeros(len(inputs))
    inputs[begin] = before
    inputs[place] = (share * slot_outputs[is_commit].float()).to(inputs.dtype)
    decay[place] = (1 - share[:, 0]).to(decay.dtype)
    scanned = linear_scan(decay, inputs)
    smoothed = slot_outputs.index_put((is_commit.nonzero()[:, 0],), scanned[place].to(slot_outputs.dtype))
    return smoothed, _Smoothed(scanned, begin)


def _predict(
    model: ByteLM,
    state: DecodingState,
    read: ReadBytes,
    slots: SpanSlots,
    contexts: Float[Tensor, "context addition byte_dim"],
) -> tuple[SpanWindowAttention, Float[Tensor, "new vocab"]]:
    span = read.span
    (decoder_sees,) = span_windows([state.decoder], span, state.position)
    lag = read.position - span.packed(slots.position)
    additions = model.context_to_bytes.read(contexts, (_newest_context(span, slots),), lag)
    return decoder_sees, model.local_decoder(read.byte_states, additions, read.position, decoder_sees)


def _newest_context(span: Span, slots: SpanSlots) -> Int[Tensor, " new"]:
    """Returns which entry of the contexts each byte reads; those of the rows before the span come first."""
    newest = span.packed(slots.newest)
    return torch.where(newest > 0, len(span.lengths) + newest - 1, span.rows)


@torch.inference_mode()
def _state_after(
    state: DecodingState,
    counted: Span,
    read: ReadBytes,
    slots: SpanSlots,
    contexts: Float[Tensor, "context addition byte_dim"],
    smoothed: _Smoothed | None,
    masses: Float[Tensor, "batch turn 2 mass"] | None,
    decoder: SpanWindowAttention,
) -> DecodingState:
    """Returns the state at each row's own last byte of those that count; see `Span.cut`."""
    span, old = counted, state.patch_counts

    def last(padded: Tensor, before: Tensor) -> Tensor:
        return span.last(span.packed(padded), before)

    num_commits = span.counted(slots.commits)
    counts = PatchCounts(
        position=old.position + span.lengths,
        newest_id=span.last(span.ids, old.newest_id),
        num_patches=old.num_patches + num_commits,
        trunk_calls=old.trunk_calls + num_commits + span.counted(slots.scratchpads),
        open_length=last(slots.open_length, old.open_length),
        open_bytes=last(slots.open_bytes, old.open_bytes),
        piece_length=last(slots.piece_length, old.piece_length),
        piece_bytes=last(slots.piece_bytes, old.piece_bytes),
        ends_patch=last((slots.commits > 0).long(), old.ends_patch),
        has_scratchpad=last(slots.scratchpads.long(), old.has_scratchpad),
        slot_position=last(slots.position, old.slot_position),
        num_refreshes=old.num_refreshes + span.counted((slots.commits > 0) | slots.scratchpads),
        scratchpad_bytes=last(slots.scratchpad_bytes, old.scratchpad_bytes),
        num_dropped=old.num_dropped,
    )
    ints = torch.stack(counts, dim=1)
    if read.recent is not None:
        ints = torch.cat((ints, span.last(read.recent, state.recent_ids)), dim=1)
    numbers = [number for number in (read.entropy_nats, read.boundary_probability) if number is not None]
    floats = span.last(torch.stack(numbers, dim=1), state.floats) if numbers else state.floats
    own_rows = torch.arange(len(ints), device=ints.device)
    context = contexts[span.last(_newest_context(span, slots), own_rows)].to(state.contexts.dtype)
    return DecodingState(
        ints=ints,
        floats=floats,
        most_patches=state.most_patches,
        trunk=state.trunk if state.lease is None else state.trunk.clone(),
        encoder=read.encoder.cache_after(span),
        entropy_head=None if read.entropy_head is None else read.entropy_head.cache_after(span),
        decoder=decoder.cache_after(span),
        byte_states=ring_after(span, read.earlier_states, read.byte_states, old.position),
        contexts=torch.stack((context, context), dim=1),
        smoothed=None if smoothed is None else smoothed.after(num_commits),
        masses=masses,
        trunk_window=state.trunk_window,
    )
