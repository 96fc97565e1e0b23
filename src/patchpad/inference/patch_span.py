"""What new bytes are to the patch model, many of each row: their states, the patches that they end, and their slots.

As `ByteLM.run` and `Decisions.layout` find it for whole rows, from what is open before the bytes. All is packed, row
after row.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from patchpad.inference.patch_state import DecodingState
from patchpad.inference.span import Span
from patchpad.inference.span_attention import SpanWindowAttention, in_order, span_windows
from patchpad.inference.token_steps import slot_tokens, slots_of, tokens_of_span
from patchpad.model.byte_lm import ByteLM
from patchpad.model.source_head import open_scratchpad_place
from patchpad.patching import ByteFacts, Documents, TokenFacts
from patchpad.patching.layout import newest_place
from patchpad.patching.patchifiers import bytes_since_end
from patchpad.shapes import ByteFloats, ByteInts, ByteMask


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
    tokens: TokenFacts | None
    """What the bytes commit and leave open, [batch, width]."""
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
    piece_length: ByteInts
    """The same."""
    piece_bytes: ByteInts
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
    """With `tokens` patches, the token that the slot embeds."""
    newest: ByteInts
    """1 + the slot that each byte reads; 0 where that is older than the span."""
    position: ByteInts
    """Position of the byte that the newest slot ends at."""
    open_scratchpad: ByteInts
    """1 + the open scratchpad at each byte, see `open_scratchpads`; 0 where there is none in the span."""
    scratchpad_bytes: ByteInts
    """As in `PatchCounts`, at each byte."""
    longest: int
    """Most positions that a slot pools; 0 without slots."""
    most_places: int
    """Most places of a row in the trunk's cache, those of its new commits included."""
    most_new: int
    """Most commits of a row in the span."""
    has_scratchpads: bool


def read_bytes(model: ByteLM, state: DecodingState, span: Span) -> ReadBytes:
    """Runs the local encoder and the entropy head on a span; nothing is written into the state."""
    counts = state.patch_counts
    position = counts.position[span.rows] + 1 + span.columns
    caches = [state.encoder] if state.entropy_head is None else [state.encoder, state.entropy_head]
    encoder_sees, *head_sees = span_windows(caches, span, counts.position)
    recent = _recent_ids(state, span)
    byte_states = model.local_encoder(span.ids, position, encoder_sees, recent)
    tokens = tokens_of_span(model, state, span) if model.config.patchifier.commits_tokens else None
    byte_states = model.with_open_tokens(byte_states, None if tokens is None else span.packed(tokens.open_token))
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
        tokens=tokens,
        encoder=encoder_sees,
        entropy_head=head_sees[0] if head_sees else None,
    )


def _recent_ids(state: DecodingState, span: Span) -> Int[Tensor, "new recent"] | None:
    """Returns the newest ids at each new one, newest first; None where the state keeps none."""
    before = state.recent_ids
    count = before.shape[1]
    if count == 0:
        return None
    everything = torch.cat((before.flip(1), span.padded(span.ids)), dim=1)
    return everything[span.rows[:, None], count + span.columns[:, None] - torch.arange(count, device=before.device)]


def decide_slots(
    model: ByteLM,
    state: DecodingState,
    read: ReadBytes,
    threshold: Float[Tensor, " batch"],
    ended_share: ByteFloats | None,
) -> SpanSlots:
    """Decides patch ends and scratchpads as the full pass does, from what is open before the span.

    Args:
        model: of any patches.
        state: before the span.
        read: its bytes.
        threshold: scratchpad threshold of each row, in nats.
        ended_share: with a source head, see `patchpad.model.source_head.ended_share`; padded.
    """
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
    tokens = read.tokens
    facts = _facts(state, read, documents, ended_share)
    ends = decisions.patch_ends(facts, documents)
    if tokens is None:
        commits, open_bytes = ends.long(), bytes_since_end(ends, documents)
    else:
        commits, open_bytes = tokens.num_commits, tokens.open_bytes
    scratchpads = decisions.scratchpads(facts, open_bytes, decisions.may_fire(facts, ends) & is_new)
    patch_index = counts.num_patches[:, None] + commits.cumsum(dim=1) - commits
    slot_mask = ends | scratchpads
    none = torch.zeros_like(open_bytes)
    if tokens is None:
        open_length = open_bytes + (patch_index == 0)
        piece_length, piece_bytes = none, none
        pooled, uncovered = torch.where(slot_mask, open_length, 0), none
    else:  # commits end before their byte; slots embed a token, and pool nothing
        piece_bytes = tokens.piece_bytes
        open_length, piece_length = (
            torch.cat((before[:, None], after[:, :-1]), dim=1) + 1
            for before, after in ((counts.open_bytes, open_bytes), (counts.piece_bytes, piece_bytes))
        )
        pooled, uncovered = none, torch.where(scratchpads, 0, open_bytes)

    newest_column = newest_place(slot_mask)
    has_slot = newest_column >= 0
    newest_position = counts.position[:, None] + 1 + newest_column - uncovered.gather(1, newest_column.clamp_min(0))
    at, nth, is_commit = slots_of(commits.flatten(), scratchpads.flatten())
    number = (commits + scratchpads).flatten().cumsum(0).view_as(is_new)
    open_scratchpad, scratchpad_bytes = none, none
    if tokens is not None:
        open_scratchpad, scratchpad_bytes = _open_scratchpads(tokens, scratchpads, number, counts.scratchpad_bytes)
    new = commits.sum(dim=1)
    most = (pooled.max(), (state.num_places + new).max(), new.max(), scratchpads.any())
    longest, most_places, most_new, has_scratchpads = torch.stack(most).tolist()
    return SpanSlots(
        commits=commits,
        scratchpads=scratchpads,
        open_bytes=open_bytes,
        open_length=open_length,
        piece_length=piece_length,
        piece_bytes=piece_bytes,
        rows=at // span.width,
        columns=at % span.width,
        is_commit=is_commit,
        patch_index=patch_index.flatten()[at] + nth,
        num_pooled=pooled.flatten()[at],
        tokens=None if tokens is None else slot_tokens(tokens, at, is_commit),
        newest=torch.where(has_slot, number, 0),
        position=torch.where(has_slot, newest_position, counts.slot_position[:, None]),
        open_scratchpad=open_scratchpad,
        scratchpad_bytes=scratchpad_bytes,
        longest=longest,
        most_places=most_places,
        most_new=most_new,
        has_scratchpads=bool(has_scratchpads),
    )


def _open_scratchpads(
    tokens: TokenFacts, scratchpads: ByteMask, number: ByteInts, bytes_before: Int[Tensor, " batch"]
) -> tuple[ByteInts, ByteInts]:
    """Returns `open_scratchpad` and `scratchpad_bytes` of `SpanSlots`.

    Args:
        tokens: what the bytes commit and leave open.
        scratchpads: where they fire.
        number: slots up to each byte.
        bytes_before: `scratchpad_bytes` of each row before the span.
    """
    column = open_scratchpad_place(scratchpads, tokens.num_commits > 0)
    is_here, column = column >= 0, column.clamp_min(0)
    before = torch.where(tokens.num_commits.cumsum(dim=1) == 0, bytes_before[:, None], 0)
    scratchpad_bytes = torch.where(is_here, tokens.open_bytes.gather(1, column), before)
    return torch.where(is_here, number.gather(1, column), 0), scratchpad_bytes


def _facts(state: DecodingState, read: ReadBytes, documents: Documents, ended_share: ByteFloats | None) -> ByteFacts:
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
        tokens=read.tokens,
        ended_share=ended_share,
    )


__all__ = ["ReadBytes", "SpanSlots", "decide_slots", "read_bytes"]
