"""Reads many bytes of each row from a state of the patch model on, in one pass: what `kernels` does for one byte.

The order is that of `ByteLM.run`. Bytes are packed, row after row; so are the span's slots, of which only commits
enter the trunk's cache.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from patchpad.inference.patch_state import DecodingState, PatchCounts
from patchpad.inference.source_masses import OpenTexts, SpanSources, masses_after, mixed_span
from patchpad.inference.span import Extension, Span
from patchpad.inference.span_attention import (
    SpanWindowAttention,
    TrunkSpanAttention,
    in_order,
    ring_after,
    span_windows,
)
from patchpad.inference.token_steps import slot_inputs, slot_tokens, slots_of, tokens_of_span
from patchpad.model.byte_lm import ByteLM
from patchpad.model.hnet import linear_scan, smoothing_share
from patchpad.model.precision import autocast
from patchpad.patching import ByteFacts, Documents, TokenFacts
from patchpad.patching.patchifiers import bytes_since_end
from patchpad.shapes import ByteInts, ByteMask


@torch.inference_mode()
def extend_patches(
    model: ByteLM, state: DecodingState, next_ids: Sequence[Sequence[int]], threshold: Float[Tensor, " batch"]
) -> Extension:
    """Reads bytes; see `Stepper.extend`."""
    span = Span.of(next_ids, model.device)
    draft = cast(DecodingState, state.draft())
    with autocast(model.device):
        read = _read(model, draft, span)
        slots = _decide(model, draft, read, threshold)
        slot_outputs, smoothed = _run_trunk(model, draft, read, slots)
        contexts = _contexts(model, draft, slot_outputs)
        decoder_sees, logits = _predict(model, draft, read, slots, contexts)
        sources = None
        if model.source_head is not None:
            sources = SpanSources.of(span, slots.commits, slots.scratchpads, slots.newest)
            logits = mixed_span(model, draft, span, sources, _open_texts(model, read, slots), slot_outputs, logits)

    def advance() -> DecodingState:
        masses = None if sources is None else masses_after(model, draft, span, sources, slot_outputs)
        return _state_after(draft, read, slots, contexts, smoothed, masses, decoder_sees)

    none = torch.zeros_like(span.lengths)
    return Extension(
        span=span,
        logits=logits.float(),
        num_commits=slots.commits.sum(dim=1),
        num_scratchpads=slots.scratchpads.sum(dim=1),
        trunk_pairs=none.index_add(0, slots.rows, slots.patch_index + 1),
        pooled_positions=none.index_add(0, slots.rows, slots.num_pooled),
        advance=advance,
    )


@dataclass(frozen=True, kw_only=True)
class ReadBytes:
    """What the local encoder and the entropy head say about the span's bytes, packed."""

    span: Span
    position: Int[Tensor, " new"]
    byte_states: Float[Tensor, "new byte_dim"]
    earlier_states: Float[Tensor, "batch place byte_dim"]
    """Byte states before the span, the oldest first."""
    recent: Int[Tensor, "new recent"] | None
    entropy_nats: Float[Tensor, " new"] | None
    boundary_probability: Float[Tensor, " new"] | None
    encoder: SpanWindowAttention
    entropy_head: SpanWindowAttention | None


@dataclass(frozen=True, kw_only=True)
class SpanSlots:
    """Patches and slots of a span. Slots are packed, row after row; those of one byte in their order."""

    commits: ByteInts
    """Commits at each byte."""
    scratchpads: ByteMask
    open_bytes: ByteInts
    """As in `PatchCounts`, at each byte."""
    open_length: ByteInts
    """The same."""
    rows: Int[Tensor, " slot"]
    columns: Int[Tensor, " slot"]
    """Place of the slot's byte among the new ones of its row."""
    is_commit: Bool[Tensor, " slot"]
    patch_index: Int[Tensor, " slot"]
    """Commits of the document before the slot."""
    num_pooled: Int[Tensor, " slot"]
    """Positions that the slot pools."""
    tokens: Int[Tensor, " slot"] | None
    """With `tokens` patches, the token that the slot embeds, or -1."""
    newest: ByteInts
    """1 + the slot that each byte reads; 0 where that is older than the span."""
    position: ByteInts
    """Position of the byte that the newest slot ends at."""
    longest: int
    """Most positions that a slot pools; 0 without slots."""
    most_patches: int
    """Most patches of a row, the new ones included."""
    has_scratchpads: bool


def _read(model: ByteLM, state: DecodingState, span: Span) -> ReadBytes:
    counts = state.patch_counts
    position = counts.position[span.rows] + 1 + span.columns
    caches = [state.encoder] if state.entropy_head is None else [state.encoder, state.entropy_head]
    encoder_sees, *head_sees = span_windows(caches, span, counts.position)
    recent = _recent_ids(state, span)
    byte_states = model.local_encoder(span.ids, position, encoder_sees, recent)
    entropies = boundaries = None
    if model.entropy_head is not None:
        _, entropies = model.entropy_head(byte_states, position, head_sees[0] if head_sees else encoder_sees)
    earlier = in_order(state.byte_states, counts.position)
    if model.routing is not None:
        boundaries = model.routing.probability(span.previous(byte_states, earlier[:, -1]), byte_states)
    return ReadBytes(
        span=span,
        position=position,
        byte_states=byte_states,
        earlier_states=earlier,
        recent=recent,
        entropy_nats=entropies,
        boundary_probability=boundaries,
        encoder=encoder_sees,
        entropy_head=head_sees[0] if head_sees else None,
    )


def _recent_ids(state: DecodingState, span: Span) -> Int[Tensor, "new recent"] | None:
    """Returns the newest ids at each new one, newest first; None without n-gram embeddings."""
    before = state.recent_ids
    count = before.shape[1]
    if count == 0:
        return None
    everything = torch.cat((before.flip(1), span.padded(span.ids)), dim=1)
    return everything[span.rows[:, None], count + span.columns[:, None] - torch.arange(count, device=before.device)]


def _decide(model: ByteLM, state: DecodingState, read: ReadBytes, threshold: Float[Tensor, " batch"]) -> SpanSlots:
    """Decides patch ends and scratchpads as the full pass does, from what is open before the span."""
    span, counts = read.span, state.patch_counts
    is_new = span.is_new
    opened = torch.where(counts.ends_patch == 1, 0, counts.open_bytes)
    documents = Documents(
        start=(-1 - opened)[:, None].expand_as(is_new),  # of the open patch, which is all that is asked for
        offset=span.padded(read.position),
        is_byte=is_new,
        is_padding=~is_new,
    )
    decisions = model.decisions_at(threshold)
    tokens = tokens_of_span(model, state, span) if model.config.patchifier.commits_tokens else None
    facts = _facts(state, read, documents, tokens)
    ends = decisions.patch_ends(facts, documents)
    if tokens is None:
        commits, open_bytes = ends.long(), bytes_since_end(ends, documents)
    else:
        commits, open_bytes = tokens.num_commits, tokens.open_bytes
    scratchpads = decisions.scratchpads(facts, open_bytes, ends) & is_new
    patch_index = counts.num_patches[:, None] + commits.cumsum(dim=1) - commits
    if tokens is None:
        open_length = open_bytes + (patch_index == 0)
    else:
        open_length = torch.cat((counts.open_bytes[:, None], open_bytes[:, :-1]), dim=1) + 1

    slot_mask = ends | scratchpads
    places = torch.arange(span.width, device=is_new.device)
    newest_column = torch.where(slot_mask, places, -1).cummax(dim=1).values
    has_slot = newest_column >= 0
    newest_position = counts.position[:, None] + 1 + newest_column
    if tokens is not None:  # the newest of a byte's commits ends before it
        newest_position -= torch.where(scratchpads, 0, open_bytes).gather(1, newest_column.clamp_min(0))
    at, nth, is_commit = slots_of(commits.flatten(), scratchpads.flatten())
    number = (commits + scratchpads).flatten().cumsum(0).view_as(is_new)
    pooled = torch.where(slot_mask, open_length, 0) if tokens is None else torch.where(scratchpads, open_bytes, 0)
    num_pooled = pooled.flatten()[at] if tokens is None else torch.where(is_commit, 0, pooled.flatten()[at])
    longest = pooled.max()
    most_patches = (counts.num_patches + commits.sum(dim=1)).max()
    longest, most_patches, has_scratchpads = torch.stack((longest, most_patches, scratchpads.any())).tolist()
    return SpanSlots(
        commits=commits,
        scratchpads=scratchpads,
        open_bytes=open_bytes,
        open_length=open_length,
        rows=at // span.width,
        columns=at % span.width,
        is_commit=is_commit,
        patch_index=patch_index.flatten()[at] + nth,
        num_pooled=num_pooled,
        tokens=None if tokens is None else slot_tokens(tokens, at, is_commit),
        newest=torch.where(has_slot, number, 0),
        position=torch.where(has_slot, newest_position, counts.slot_position[:, None]),
        longest=longest,
        most_patches=most_patches,
        has_scratchpads=bool(has_scratchpads),
    )


def _facts(state: DecodingState, read: ReadBytes, documents: Documents, tokens: TokenFacts | None) -> ByteFacts:
    span = read.span
    entropies = previous_entropies = boundaries = None
    if read.entropy_nats is not None:
        entropies = span.padded(read.entropy_nats)
        previous_entropies = span.padded(span.previous(read.entropy_nats, state.floats[:, 0]))
    if read.boundary_probability is not None:
        boundaries = span.padded(read.boundary_probability)
    return ByteFacts(
        byte_ids=span.padded(span.ids),
        previous_byte_ids=span.padded(span.previous(span.ids, state.patch_counts.newest_id)),
        document_offset=documents.offset,
        is_byte=documents.is_byte,
        entropy_nats=entropies,
        previous_entropy_nats=previous_entropies,
        boundary_probability=boundaries,
        tokens=tokens,
    )


def _run_trunk(
    model: ByteLM, state: DecodingState, read: ReadBytes, slots: SpanSlots
) -> tuple[Float[Tensor, "slot trunk_dim"], Float[Tensor, "batch trunk_dim"] | None]:
    """Runs all slots at once; returns their outputs, and where the smoothing has come to."""
    smoothed = None
    if state.smoothed is not None:
        all_rows = torch.arange(len(state.ints), device=state.ints.device)
        smoothed = state.smoothed[all_rows, state.num_patches % 2]
    if len(slots.rows) == 0:
        return read.byte_states.new_zeros(0, model.config.trunk_dim), smoothed
    state.has_at_most(slots.most_patches)
    stored = slots.is_commit if slots.has_scratchpads else None
    attend = TrunkSpanAttention(state.trunk, slots.rows, slots.patch_index, stored, slots.most_patches)
    slot_outputs = model.trunk(_slot_inputs(model, read, slots), slots.patch_index, attend)
    if smoothed is not None:
        assert read.boundary_probability is not None
        probability = read.span.padded(read.boundary_probability)[slots.rows, slots.columns]
        share = smoothing_share(probability, slots.patch_index == 0)
        slot_outputs, smoothed = _smooth(slot_outputs, share, slots.rows, slots.is_commit, smoothed)
    return slot_outputs, smoothed


def _contexts(
    model: ByteLM, state: DecodingState, slot_outputs: Float[Tensor, "slot trunk_dim"]
) -> Float[Tensor, "context addition byte_dim"]:
    """Returns what bytes may read: what each row read before the span, then the span's slots."""
    if len(slot_outputs) == 0:
        return state.context
    new = model.context_to_bytes(slot_outputs)
    return torch.cat((state.context.to(new.dtype), new))


def _open_texts(model: ByteLM, read: ReadBytes, slots: SpanSlots) -> OpenTexts:
    assert read.recent is not None
    lag = read.position - read.span.packed(slots.position)
    return OpenTexts.of(model, read.recent, read.span.packed(slots.open_bytes), lag)


def _slot_inputs(model: ByteLM, read: ReadBytes, slots: SpanSlots) -> Float[Tensor, "slot trunk_dim"]:
    """Pools the byte states of slots, or embeds their tokens."""

    def pool(rows: Int[Tensor, " some"], columns: Int[Tensor, " some"], num_pooled: Int[Tensor, " some"]) -> Tensor:
        distance = torch.arange(slots.longest, device=rows.device)
        earlier = columns[:, None] - distance
        places = read.span.place_after(rows[:, None].expand_as(earlier), earlier, read.earlier_states.shape[1])
        newest_first = read.span.after(read.earlier_states, read.byte_states)[places]
        return model.patch_pooling.pool(newest_first, distance < num_pooled[:, None])

    return slot_inputs(model, slots.tokens, pool, slots.rows, slots.columns, slots.num_pooled)


def _smooth(
    slot_outputs: Float[Tensor, "slot trunk_dim"],
    share: Float[Tensor, " slot"],
    slot_rows: Int[Tensor, " slot"],
    is_commit: Tensor,
    before: Float[Tensor, "batch trunk_dim"],
) -> tuple[Float[Tensor, "slot trunk_dim"], Float[Tensor, "batch trunk_dim"]]:
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
    return smoothed, scanned[begin + counts]


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
    additions = model.context_to_bytes.read(contexts, _newest_context(span, slots), lag)
    return decoder_sees, model.local_decoder(read.byte_states, additions, read.position, decoder_sees)


def _newest_context(span: Span, slots: SpanSlots) -> Int[Tensor, " new"]:
    """Returns which entry of the contexts each byte reads; those of the rows before the span come first."""
    newest = span.packed(slots.newest)
    return torch.where(newest > 0, len(span.lengths) + newest - 1, span.rows)


@torch.inference_mode()
def _state_after(
    state: DecodingState,
    read: ReadBytes,
    slots: SpanSlots,
    contexts: Float[Tensor, "context addition byte_dim"],
    smoothed: Float[Tensor, "batch trunk_dim"] | None,
    masses: Float[Tensor, "batch turn 2 mass"] | None,
    decoder: SpanWindowAttention,
) -> DecodingState:
    """Returns the state at each row's own last byte."""
    span, old = read.span, state.patch_counts

    def last(padded: Tensor, before: Tensor) -> Tensor:
        return span.last(span.packed(padded), before)

    counts = PatchCounts(
        position=old.position + span.lengths,
        newest_id=span.last(span.ids, old.newest_id),
        num_patches=old.num_patches + slots.commits.sum(dim=1),
        trunk_calls=old.trunk_calls + (slots.commits + slots.scratchpads).sum(dim=1),
        open_length=last(slots.open_length, old.open_length),
        open_bytes=last(slots.open_bytes, old.open_bytes),
        ends_patch=last((slots.commits > 0).long(), old.ends_patch),
        has_scratchpad=last(slots.scratchpads.long(), old.has_scratchpad),
        slot_position=last(slots.position, old.slot_position),
        num_refreshes=old.num_refreshes + ((slots.commits > 0) | slots.scratchpads).sum(dim=1),
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
        most_patches=max(state.most_patches, slots.most_patches),
        trunk=state.trunk if state.lease is None else state.trunk.clone(),
        encoder=read.encoder.cache_after(),
        entropy_head=None if read.entropy_head is None else read.entropy_head.cache_after(),
        decoder=decoder.cache_after(),
        byte_states=ring_after(span, read.earlier_states, read.byte_states, old.position),
        contexts=torch.stack((context, context), dim=1),
        smoothed=None if smoothed is None else torch.stack((smoothed, smoothed), dim=1),
        masses=masses,
    )
