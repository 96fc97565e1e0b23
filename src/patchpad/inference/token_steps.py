"""Steps with `tokens` patches: several tokens of the source may be committed at one byte, and end before it.

The host finds them from the open piece of each row, whose bytes are among the newest ids that its state keeps. All
that a byte commits, and its scratchpad, go through the trunk in one pass.
"""

from collections.abc import Sequence
from typing import cast

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from patchpad.inference.kernels import Ints, packed_counts
from patchpad.inference.patch_state import NUM_COUNTS, DecodingState, PatchCounts
from patchpad.inference.row_state import put
from patchpad.inference.source_masses import keep_masses
from patchpad.inference.span import Span
from patchpad.inference.split_attention import trunk_span_attention
from patchpad.model.byte_lm import ByteLM
from patchpad.model.precision import autocast
from patchpad.model.token_inputs import TokenInputs
from patchpad.patching import OpenPiece, TokenFacts, facts_of_span, facts_of_step

AFTER_NEWEST, BEFORE_NEWEST = (
    tuple(map(PatchCounts._fields.index, names))
    for names in (("piece_bytes", "open_bytes"), ("piece_length", "open_length"))
)
"""Columns with the lengths of a row's open piece and open text: now, and before the newest id, which counts too."""


def read_tokens(model: ByteLM, state: DecodingState, rows: Int[Tensor, " row"], ids: Int[Tensor, " row"]) -> TokenFacts:
    """Returns what an id in each of `rows` commits and leaves open. This waits for the device."""
    pieces = [_open_piece(row) for row in state.ints[rows].tolist()]
    facts, _ = facts_of_step(model.source_tokens, model.source_trie, pieces, ids.tolist())
    return facts.to(model.device)


def tokens_of_span(model: ByteLM, state: DecodingState, span: Span) -> TokenFacts:
    """Returns what a span's ids commit and leave open, [batch, width]. This waits for the device."""
    pieces = [_open_piece(row) for row in state.ints.tolist()]
    next_ids = [part.tolist() for part in span.ids.cpu().split(list(span.sizes))]
    return facts_of_span(model.source_tokens, model.source_trie, pieces, next_ids).to(model.device)


def refresh_tokens(model: ByteLM, state: DecodingState, rows: Int[Tensor, " row"]) -> Ints:
    """Runs the trunk for `rows`, ascending, on what their newest ids have committed, and on their scratchpads.

    Room for all of it is made in the state.

    Returns:
        The new `ints` of the state.
    """
    facts = _tokens_at_newest(model, state.ints[rows])
    num_places = state.num_places[rows] + facts.num_commits
    most_places, most_new = torch.stack((num_places, facts.num_commits)).amax(1).tolist()
    state.make_room_for(max(state.most_patches, most_places), most_new)
    old = state.ints[rows]
    counts = PatchCounts(*old[:, :NUM_COUNTS].unbind(1))
    at, nth, is_commit = slots_of(facts.num_commits, counts.has_scratchpad == 1)
    patch_index = counts.num_patches[at] + nth
    place = patch_index - counts.num_dropped[at]

    with autocast(model.device):
        inputs = cast(TokenInputs, model.patch_pooling).embedding(slot_tokens(facts, at, is_commit))
        stored = None if bool(is_commit.all()) else is_commit
        attend = trunk_span_attention(state.trunk, rows[at], place, stored, state.most_patches, state.trunk_window)
        outputs = model.trunk(inputs, patch_index, attend)
        num_slots = facts.num_commits + counts.has_scratchpad
        context = model.context_to_bytes(outputs[num_slots.cumsum(0) - 1])
    fires = counts.has_scratchpad == 1
    if state.masses is not None:
        keep_masses(model, state, rows, facts.num_commits, counts, outputs)
    num_refreshes = counts.num_refreshes + 1
    state.contexts[rows, num_refreshes % 2] = context.to(state.contexts.dtype)
    new = counts._replace(
        num_patches=counts.num_patches + facts.num_commits,
        trunk_calls=counts.trunk_calls + num_slots,
        slot_position=counts.position - torch.where(fires, 0, counts.open_bytes),
        num_refreshes=num_refreshes,
        scratchpad_bytes=torch.where(
            fires, counts.open_bytes, torch.where(facts.num_commits > 0, 0, counts.scratchpad_bytes)
        ),
    )
    return put(state.ints, rows, packed_counts(new, old[:, NUM_COUNTS:]))


def slots_of(
    num_commits: Int[Tensor, " byte"], scratchpads: Bool[Tensor, " byte"]
) -> tuple[Int[Tensor, " slot"], Int[Tensor, " slot"], Bool[Tensor, " slot"]]:
    """Returns the slots of bytes, in their order: of each byte its commits and then its scratchpad.

    Returns:
        The byte of each slot, its number among the byte's slots, and whether it is a commit.
    """
    counts = num_commits + scratchpads
    at = torch.arange(len(counts), device=counts.device).repeat_interleave(counts)
    nth = torch.arange(len(at), device=at.device) - (counts.cumsum(0) - counts)[at]
    return at, nth, nth < num_commits[at]


def slot_tokens(facts: TokenFacts, at: Int[Tensor, " slot"], is_commit: Bool[Tensor, " slot"]) -> Int[Tensor, " slot"]:
    """Returns the token of each slot that `slots_of` gave: the committed one, or that which the open text is."""
    tokens = facts.open_token.flatten()[at]
    tokens[is_commit] = facts.commit_tokens
    return tokens


def _tokens_at_newest(model: ByteLM, ints: Int[Tensor, "row column"]) -> TokenFacts:
    """Returns what the newest ids of rows have committed and left open: once more what `read_tokens` has found."""
    known = ints.tolist()
    before = [_open_piece(row, before_newest=True) for row in known]
    newest = [row[NUM_COUNTS] for row in known]
    return facts_of_step(model.source_tokens, model.source_trie, before, newest)[0].to(model.device)


def _open_piece(ints: Sequence[int], before_newest: bool = False) -> OpenPiece:
    """Returns what is open in a row after its newest id, or what was before that had come."""
    in_piece, are_open = (ints[place] for place in (BEFORE_NEWEST if before_newest else AFTER_NEWEST))
    newest_first = ints[NUM_COUNTS + before_newest : NUM_COUNTS + in_piece]
    return OpenPiece(bytes(newest_first[::-1]), in_piece - are_open)


__all__ = [
    "read_tokens",
    "refresh_tokens",
    "slot_tokens",
    "slots_of",
    "tokens_of_span",
]
