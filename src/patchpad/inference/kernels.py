"""What of a step of the patch model runs on the device, in three functions: read, refresh, predict.

A kernel is a function of the model, the state and the rows that are due, in which no control flow depends on values, so
that it can be compiled (`patchpad.inference.compiled`) and captured (`patchpad.inference.cuda_graphs`). It writes into
the caches of the state, and returns a tuple: what there is for each row, if anything, then the state's new values.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from patchpad.config import SEPARATOR
from patchpad.inference.cache import are_all
from patchpad.inference.patch_state import NUM_COUNTS, DecodingState, PatchCounts
from patchpad.inference.row_state import put
from patchpad.inference.split_attention import trunk_attention
from patchpad.model.byte_lm import ByteLM
from patchpad.model.hnet import smoothing_share
from patchpad.model.precision import autocast
from patchpad.model.token_inputs import TokenInputs
from patchpad.patching import ByteFacts, TokenFacts

Ints = Int[Tensor, "batch column"]
Floats = Float[Tensor, "batch number"]


@dataclass(frozen=True, kw_only=True)
class Kernels:
    """One function for each phase, with the arguments and results of those in this module."""

    read: Callable[..., Any]
    refresh: Callable[..., Any]
    predict: Callable[..., Any]


def read(
    model: ByteLM,
    state: DecodingState,
    rows: Int[Tensor, " row"],
    ids: Int[Tensor, " row"],
    threshold: Float[Tensor, " row"],
    tokens: TokenFacts | None = None,
    ended_share: Float[Tensor, " row"] | None = None,
) -> tuple[Bool[Tensor, " row"], Ints, Floats]:
    """Reads one id in each of `rows`: byte states, entropies, patch ends and scratchpads.

    Args:
        model: in eval mode.
        state: its caches are written into.
        rows: different rows of the state, ascending.
        ids: 0..256.
        threshold: scratchpad threshold of each of `rows`, in nats.
        tokens: what the ids commit and leave open, with `tokens` patches; see `token_steps.read_tokens`.
        ended_share: with a source head, see `source_masses.ended_share_of_step`.

    Returns:
        Which of `rows` need the trunk before they can predict; then the new `ints` and `floats`.
    """
    old = rows_of(state.ints, rows)
    counts = counts_in(old)
    is_byte = ids != SEPARATOR
    goes_on = is_byte.long()  # 0 where a document begins: products with it take half the time of `where`
    position = (counts.position + 1) * goes_on
    if tokens is None:
        keeps_patch = goes_on * (1 - counts.ends_patch)
        open_length = counts.open_length * keeps_patch + 1
        open_bytes = torch.addcmul(goes_on, counts.open_bytes, keeps_patch)
    else:
        open_length, piece_length = (before * goes_on + 1 for before in (counts.open_bytes, counts.piece_bytes))
        open_bytes = tokens.open_bytes
        counts = counts._replace(piece_length=piece_length, piece_bytes=tokens.piece_bytes)
    recent = None
    if old.shape[1] > NUM_COUNTS:
        recent = torch.cat((ids[:, None], old[:, NUM_COUNTS:-1] * goes_on[:, None]), dim=1)
    places = state.byte_states.shape[1]
    with autocast(model.device):
        encoder_sees = state.encoder.at(rows, position)
        byte_states = model.local_encoder(ids, position, encoder_sees, recent)
        byte_states = model.with_open_tokens(byte_states, None if tokens is None else tokens.open_token)
        entropies = previous_entropies = None
        if model.entropy_head is not None:
            head_sees = encoder_sees
            if state.entropy_head is not None:
                head_sees = state.entropy_head.at(rows, position, alike=encoder_sees)
            _, entropies = model.entropy_head(byte_states, position, head_sees)
            previous_entropies = torch.where(is_byte, rows_of(state.floats, rows)[:, 0], entropies)
        boundaries = None
        if model.routing is not None:
            previous_states = state.byte_states[rows, counts.position % places].to(byte_states.dtype)
            boundaries = torch.where(is_byte, model.routing.probability(previous_states, byte_states), 1.0)
    facts = ByteFacts(
        byte_ids=ids,
        previous_byte_ids=torch.where(is_byte, counts.newest_id, SEPARATOR),
        document_offset=position,
        is_byte=is_byte,
        entropy_nats=entropies,
        previous_entropy_nats=previous_entropies,
        boundary_probability=boundaries,
        tokens=tokens,
        ended_share=ended_share,
    )
    decisions = model.decisions_at(threshold)
    ends_patch = decisions.step_ends(facts, open_bytes)
    fires = decisions.scratchpads(facts, open_bytes, decisions.may_fire(facts, ends_patch))
    state.byte_states.index_put_((rows, position % places), byte_states.to(state.byte_states.dtype))
    new = counts._replace(
        position=position,
        newest_id=ids,
        open_length=open_length,
        open_bytes=open_bytes,
        ends_patch=ends_patch.long(),
        has_scratchpad=fires.long(),
    )
    numbers = [number for number in (entropies, boundaries) if number is not None]
    floats = put(state.floats, rows, torch.stack(numbers, dim=1)) if numbers else state.floats
    return ends_patch | fires, put(state.ints, rows, packed_counts(new, recent)), floats


def refresh(model: ByteLM, state: DecodingState, rows: Int[Tensor, " row"]) -> tuple[None, Ints]:
    """Runs the trunk for `rows`, ascending, on their patches so far; those whose patch has ended are committed.

    The state must have room for one more slot, see `RowState.make_room`.

    Returns:
        None, as there is nothing for each row; then the new `ints`.
    """
    old = rows_of(state.ints, rows)
    counts = counts_in(old)
    is_commit = counts.ends_patch == 1
    places = state.byte_states.shape[1]
    assert not isinstance(model.patch_pooling, TokenInputs)  # `token_steps.refresh_tokens` is theirs
    with autocast(model.device):
        distance = torch.arange(places - 1, device=rows.device)
        newest_first = state.byte_states[rows[:, None], (counts.position[:, None] - distance) % places]
        slot_inputs = model.patch_pooling.pool(newest_first, distance < counts.open_length[:, None])
        num_places, window = counts.num_patches - counts.num_dropped, model.config.trunk_window_patches
        attend = trunk_attention(state.trunk, rows, num_places, window)
        slot_outputs = model.trunk(slot_inputs, counts.num_patches, attend)
        if state.smoothed is not None:
            probability = state.floats[rows, -1]
            slot_outputs = _smooth(state.smoothed, rows, counts.num_patches, probability, is_commit, slot_outputs)
        context = model.context_to_bytes(slot_outputs)
    num_refreshes = counts.num_refreshes + 1
    state.contexts.index_put_((rows, num_refreshes % 2), context.to(state.contexts.dtype))
    new = counts._replace(
        num_patches=counts.num_patches + is_commit,
        trunk_calls=counts.trunk_calls + 1,
        slot_position=counts.position,
        num_refreshes=num_refreshes,
    )
    recent = old[:, NUM_COUNTS:] if old.shape[1] > NUM_COUNTS else None
    return None, put(state.ints, rows, packed_counts(new, recent))


def predict(model: ByteLM, state: DecodingState, rows: Int[Tensor, " row"]) -> tuple[Float[Tensor, "row vocab"]]:
    """Returns the logits of the next id in each of `rows`, ascending; the state's values stay as they are."""
    counts = counts_in(rows_of(state.ints, rows))
    byte_states = state.byte_states[rows, counts.position % state.byte_states.shape[1]]
    with autocast(model.device):
        decoder_sees = state.decoder.at(rows, counts.position)
        lag = counts.position - counts.slot_position
        contexts = model.context_to_bytes.read(state.contexts, (rows, counts.num_refreshes % 2), lag)
        return (model.local_decoder(byte_states, contexts, counts.position, decoder_sees).float(),)


PLAIN = Kernels(read=read, refresh=refresh, predict=predict)


def rows_of(values: Float[Tensor, "batch number"] | Int[Tensor, "batch number"], rows: Int[Tensor, " row"]) -> Tensor:
    """Returns the given rows, ascending, of what nobody writes into: `values` itself where these are all."""
    return values if are_all(rows, len(values)) else values[rows]


def counts_in(ints: Int[Tensor, "row column"]) -> PatchCounts:
    """Returns the integers of rows by name."""
    return PatchCounts(*ints[:, :NUM_COUNTS].unbind(1))


def packed_counts(counts: PatchCounts, recent: Int[Tensor, "row recent"] | None) -> Int[Tensor, "row column"]:
    """Returns integers of rows as a state keeps them; see `DecodingState`."""
    packed = torch.stack(counts, dim=1)
    return packed if recent is None else torch.cat((packed, recent), dim=1)


def _smooth(
    smoothed: Float[Tensor, "batch turn trunk_dim"],
    rows: Int[Tensor, " row"],
    num_patches: Int[Tensor, " row"],
    boundary_probability: Float[Tensor, " row"],
    is_commit: Bool[Tensor, " row"],
    slot_outputs: Float[Tensor, "row trunk_dim"],
) -> Float[Tensor, "row trunk_dim"]:
    """Moves the recurrence of rows that commit on by one; scratchpads are used as they are.

    What a scratchpad leaves in `smoothed` lies at the turn of a commit that has not come yet, and is never read.
    """
    is_first = num_patches == 0
    share = smoothing_share(boundary_probability, is_first)[:, None].to(slot_outputs.dtype)
    earlier = torch.where(is_first[:, None], 0.0, smoothed[rows, num_patches % 2])
    result = torch.where(is_commit[:, None], share * slot_outputs + (1 - share) * earlier, slot_outputs)
    smoothed[rows, (num_patches + 1) % 2] = result.to(smoothed.dtype)
    return result
