"""`prefill` and `step`: the full pass, one byte at a time, with the same decisions and the same logits.

A step has three phases, each for some rows of a batch: `read` a byte and decide, `refresh` the context by a trunk call
where a patch ends or a scratchpad fires, `predict` the next byte. `step` runs them for all rows at once; the engine
lets rows go their own way.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from patchpad.config import PADDING, SEPARATOR
from patchpad.errors import InputError
from patchpad.inference.cache import LocalCache, TrunkCache, TrunkCacheAttention
from patchpad.inference.row_state import RowState, integers, padded_prompts
from patchpad.model.byte_lm import ByteLM
from patchpad.model.hnet import smoothing_share
from patchpad.model.language_model import LanguageModel
from patchpad.model.ngrams import recent_ids
from patchpad.model.precision import autocast
from patchpad.model.wrapped import unwrapped
from patchpad.patching import ByteFacts, Decisions, ThresholdLike
from patchpad.patching.patchifiers import bytes_since_end
from patchpad.text import encode_text

if TYPE_CHECKING:
    from patchpad.inference.kernels import Kernels
    from patchpad.inference.phases import Phases

Prompts = Sequence[bytes | str]


@dataclass
class DecodingState(RowState):
    """Everything that the next step of each row needs. A step consumes it: use only the state that it returns."""

    newest_entropy_nats: Float[Tensor, " batch"] | None
    encoder: LocalCache
    entropy_head: LocalCache | None
    """None without a head, or for one without layers."""
    decoder: LocalCache
    open_states: Float[Tensor, "batch place byte_dim"]
    """Byte states of the newest id's patch up to that id, oldest first."""
    open_length: Int[Tensor, " batch"]
    """Byte states in `open_states`; the separator counts in a document's first patch."""
    open_bytes: Int[Tensor, " batch"]
    """Bytes of that patch so far, the separator not counted."""
    newest_ends_patch: Bool[Tensor, " batch"]
    """Whether the newest id closed its patch, so that the next one opens another."""
    context: Float[Tensor, "batch addition byte_dim"]
    """What the newest slot adds at the local decoder's layers, see `ContextToBytes`."""
    patch_lag: Int[Tensor, " batch"]
    """Bytes since the newest slot; before the document's first, since its start."""
    boundary_probability: Float[Tensor, " batch"] | None
    """For `hnet`: the router's probability at the newest id."""
    smoothed: Float[Tensor, "batch trunk_dim"] | None
    """For `hnet`: the recurrence over commits, as the newest one left it."""
    recent_ids: Int[Tensor, "batch recent"] | None
    """With n-gram embeddings: the newest ids of each row's document, newest first, then zeros."""


def encode_prompts(prompts: Prompts) -> list[bytes]:
    """Returns prompts as bytes, text as UTF-8 (lone surrogates kept as they are).

    Raises:
        InputError: no prompt, or a prompt that is neither text nor bytes.
    """
    if isinstance(prompts, str | bytes):
        raise InputError("prompts is a single string; allowed: a list of strings or bytes", hint="Write [prompt].")
    if not isinstance(prompts, Iterable):
        raise InputError(f"prompts is of type {type(prompts).__name__}; allowed: a list of strings or bytes")
    prompts = list(prompts)
    if len(prompts) == 0:
        raise InputError("no prompt was given; allowed: at least one, which may be empty")
    for prompt in prompts:
        if not isinstance(prompt, str | bytes | bytearray):
            raise InputError(f"a prompt is of type {type(prompt).__name__}; allowed: str or bytes")
    return [encode_text(prompt) for prompt in prompts]


def prefill(
    model: LanguageModel, prompts: Prompts, *, scratchpad_threshold_nats: ThresholdLike = None
) -> tuple[Float[Tensor, "batch vocab"], RowState]:
    """Reads ragged prompts in one pass.

    Args:
        model: used in eval mode.
        prompts: text or bytes; a separator is put before each. An empty prompt is allowed.
        scratchpad_threshold_nats: None for the stored threshold, a float, or [batch].

    Returns:
        Logits of each row's next id, and the state to go on from.

    Raises:
        InputError: no prompts, or an impossible threshold.
    """
    model = unwrapped(model)
    encoded = encode_prompts(prompts)
    decisions = model.decisions(scratchpad_threshold_nats, batch=len(encoded))
    logits, state = _phases_of(model).read_prompts(model, encoded, decisions)
    return logits.clone(), state  # out of inference mode, so that the caller may write into them


def step(
    model: LanguageModel,
    next_bytes: Int[Tensor, " batch"] | Sequence[int],
    state: RowState,
    *,
    scratchpad_threshold_nats: ThresholdLike = None,
) -> tuple[Float[Tensor, "batch vocab"], RowState]:
    """Reads one more id per row. Only rows whose byte ends a patch or fires a scratchpad run the trunk.

    Args:
        model: used in eval mode.
        next_bytes: 0..255, or 256 to begin a new document in a row; tokens for a bpe model; [batch].
        state: consumed, it is written in place; clone it first to keep it.
        scratchpad_threshold_nats: None for the stored threshold, a float, or [batch]; may change at every step.

    Returns:
        Logits of each row's next id, and the state to go on from.

    Raises:
        InputError: ids that are no integers or out of range, another number of rows than the state's, a state
            without rows, or an impossible threshold.
    """
    model = unwrapped(model)
    batch = len(state.position)
    ids = integers(next_bytes)
    if ids is None:
        raise InputError(f"next_bytes is {next_bytes!r}; allowed: integers, one id per row of the state")
    if ids.shape != (batch,):
        raise InputError(f"next_bytes has the shape {list(ids.shape)}; allowed: [{batch}], one id per row of the state")
    if batch == 0:
        raise InputError("the state has no rows, so there is nothing to read; allowed: at least one row")
    if int(ids.min()) < 0 or int(ids.max()) > model.highest_id:
        raise InputError(f"next_bytes holds {ids.tolist()}; allowed: 0 to {model.highest_id}; no padding")
    decisions = model.decisions(scratchpad_threshold_nats, batch=batch)
    logits = step_all(model.eval(), _phases_of(model), ids.to(model.device), state, decisions)
    return logits.clone(), state  # out of inference mode, so that the caller may write into them


@torch.inference_mode()
def step_all(
    model: LanguageModel, phases: "Phases", ids: Int[Tensor, " batch"], state: RowState, decisions: Decisions
) -> Float[Tensor, "batch vocab"]:
    """Is `step` for ids and decisions that are known to be right, by phases of any kind; the state is changed."""
    rows = torch.arange(len(ids), device=ids.device)
    needs_trunk = phases.read(model, ids, state, rows, decisions)
    phases.refresh(model, state, rows[needs_trunk])
    return phases.predict(model, state, rows)


def _phases_of(model: LanguageModel) -> "Phases":
    from patchpad.inference.phases import phases_of  # it imports this module

    return phases_of(model)


@torch.inference_mode()
def read_prompts(
    model: ByteLM, prompts: list[bytes], decisions: Decisions
) -> tuple[Float[Tensor, "batch vocab"], DecodingState]:
    """Is `prefill` for prompts and decisions that are known to be right."""
    last_position = torch.tensor([len(prompt) for prompt in prompts], device=model.device)
    byte_ids = padded_prompts(prompts, PADDING, model.device)
    model.eval()
    with autocast(model.device):
        output = model.run(byte_ids, decisions, keep_activations=True)
    layout, kept = output.layout, output.activations
    assert kept is not None
    rows = torch.arange(len(prompts), device=model.device)
    ends_patch = layout.patch_end_mask[rows, last_position]
    open_bytes = bytes_since_end(layout.patch_end_mask, layout.documents)[rows, last_position]
    patch_index = layout.patch_index[rows, last_position]
    open_length = open_bytes + (patch_index == 0)
    place = torch.arange(longest_slot(model), device=model.device)
    source = (last_position - open_length + 1)[:, None] + place
    config = model.config
    state = DecodingState(
        position=last_position,
        newest_id=byte_ids[rows, last_position],
        newest_entropy_nats=None if output.entropy_nats is None else output.entropy_nats[rows, last_position],
        encoder=LocalCache.from_prefill(kept.encoder, last_position, config.encoder_window),
        entropy_head=LocalCache.from_prefill(kept.entropy_head, last_position, config.entropy_head_window)
        if kept.entropy_head
        else None,
        decoder=LocalCache.from_prefill(kept.decoder, last_position, config.decoder_window),
        trunk=TrunkCache.from_prefill(kept.trunk, layout.padded_commits, patch_index + ends_patch),
        open_states=kept.byte_states[rows[:, None], source.clamp(0, byte_ids.shape[1] - 1)],
        open_length=open_length,
        open_bytes=open_bytes,
        newest_ends_patch=ends_patch,
        context=kept.contexts[layout.newest_slot[rows, last_position]],
        patch_lag=layout.patch_lag[rows, last_position],
        trunk_calls=(layout.patch_end_mask | layout.scratchpad_mask).sum(dim=1),
        boundary_probability=None,
        smoothed=None,
        recent_ids=None,
    )
    if model.local_encoder.ngrams is not None:
        recent = recent_ids(byte_ids, layout.documents.offset, model.local_encoder.ngrams.num_recent)
        state.recent_ids = recent[rows, last_position]
    if output.boundary_probability is not None:
        state.boundary_probability = output.boundary_probability[rows, last_position]
        state.smoothed = kept.slot_outputs.new_zeros(len(prompts), model.config.trunk_dim)
        has_commit = state.trunk.num_patches > 0
        newest_commit = layout.padded_commits[has_commit, state.trunk.num_patches[has_commit] - 1]
        state.smoothed[has_commit] = kept.slot_outputs[newest_commit]
    return output.logits[rows, last_position].float(), state


def longest_slot(model: ByteLM) -> int:
    """Most positions of a patch: those of its bytes, and the separator before a document's first one."""
    return model.config.patchifier.longest_patch + 1


@torch.inference_mode()
def read(
    model: ByteLM,
    ids: Int[Tensor, " row"],
    state: DecodingState,
    rows: Int[Tensor, " row"],
    decisions: Decisions,
    kernels: "Kernels | None" = None,
) -> Bool[Tensor, " row"]:
    """Reads one id in each of `rows`: byte states, entropies, patch ends and scratchpads.

    Args:
        model: in eval mode.
        ids: 0..256.
        state: written in place.
        rows: different rows of the state, ascending.
        decisions: with one threshold for all, or one per entry of `rows`.
        kernels: compiled or captured versions of what runs on the device.

    Returns:
        Which of `rows` need the trunk, by `refresh`, before they can predict.
    """
    begins = ids == SEPARATOR
    if bool(begins.any()):
        _forget_documents(model, state, rows[begins])
    kernel = read_kernel if kernels is None else kernels.read
    return kernel(model, state, rows, ids, decisions.scratchpad_threshold.expand(ids.shape))


def read_kernel(
    model: ByteLM,
    state: DecodingState,
    rows: Int[Tensor, " row"],
    ids: Int[Tensor, " row"],
    threshold: Float[Tensor, " row"],
) -> Bool[Tensor, " row"]:
    """Is `read` without anything that depends on values: it can be compiled and captured."""
    begins = ids == SEPARATOR
    position = torch.where(begins, 0, state.position[rows] + 1)
    opens_patch = begins | state.newest_ends_patch[rows]
    place = torch.where(opens_patch, 0, state.open_length[rows])
    open_bytes = torch.where(opens_patch, 0, state.open_bytes[rows]) + ~begins
    recent = None
    if state.recent_ids is not None:
        earlier = torch.where(begins[:, None], 0, state.recent_ids[rows, :-1])
        recent = torch.cat((ids[:, None], earlier), dim=1)
        state.recent_ids[rows] = recent
    with autocast(model.device):
        encoder_sees = state.encoder.at(rows, position)
        byte_states = model.local_encoder(ids, position, encoder_sees, recent)
        entropies = previous_entropies = None
        if model.entropy_head is not None:
            head_sees = encoder_sees if state.entropy_head is None else state.entropy_head.at(rows, position)
            _, entropies = model.entropy_head(byte_states, position, head_sees)
            assert state.newest_entropy_nats is not None
            previous_entropies = torch.where(begins, entropies, state.newest_entropy_nats[rows])
            state.newest_entropy_nats[rows] = entropies
        boundaries = None
        if model.routing is not None and state.boundary_probability is not None:
            previous_states = state.open_states[rows, state.open_length[rows] - 1].to(byte_states.dtype)
            boundaries = torch.where(begins, 1.0, model.routing.probability(previous_states, byte_states))
            state.boundary_probability[rows] = boundaries
    facts = ByteFacts(
        byte_ids=ids,
        previous_byte_ids=torch.where(begins, SEPARATOR, state.newest_id[rows]),
        document_offset=position,
        is_byte=~begins,
        entropy_nats=entropies,
        previous_entropy_nats=previous_entropies,
        boundary_probability=boundaries,
    )
    decisions = model.decisions_at(threshold)
    ends_patch = decisions.step_ends(facts, open_bytes)
    fires = decisions.scratchpads(facts, open_bytes, ends_patch)
    state.position[rows] = position
    state.newest_id[rows] = ids
    state.open_states[rows, place] = byte_states.to(state.open_states.dtype)
    state.open_length[rows] = place + 1
    state.open_bytes[rows] = open_bytes
    state.newest_ends_patch[rows] = ends_patch
    state.patch_lag[rows] = torch.where(begins, 0, state.patch_lag[rows] + 1)
    return ends_patch | fires


def _forget_documents(model: ByteLM, state: DecodingState, rows: Int[Tensor, " row"]) -> None:
    """Drops the trunk cache and context of rows in which another document begins."""
    state.trunk.num_patches[rows] = 0
    with autocast(model.device):
        null = model.context_to_bytes(model.context_to_bytes.null_context[None])
    state.context[rows] = null.to(state.context.dtype)


@torch.inference_mode()
def refresh(model: ByteLM, state: DecodingState, rows: Int[Tensor, " row"], kernels: "Kernels | None" = None) -> None:
    """Runs the trunk for `rows`, ascending, on their patches so far; those whose patch has ended are committed."""
    if len(rows) == 0:
        return
    state.trunk.make_room()
    kernel = refresh_kernel if kernels is None else kernels.refresh
    kernel(model, state, rows)


def refresh_kernel(model: ByteLM, state: DecodingState, rows: Int[Tensor, " row"]) -> None:
    """Is `refresh` without anything that depends on values."""
    with autocast(model.device):
        length = state.open_length[rows]
        distance = torch.arange(state.open_states.shape[1], device=rows.device)
        newest_first = state.open_states[rows[:, None], (length[:, None] - 1 - distance).clamp_min(0)]
        slot_inputs = model.patch_pooling.pool(newest_first, distance < length[:, None])
        is_commit = state.newest_ends_patch[rows]
        attend = TrunkCacheAttention(state.trunk, rows)
        slot_outputs = model.trunk(slot_inputs, state.trunk.num_patches[rows], attend)
        if state.smoothed is not None:
            slot_outputs = _smooth(state, rows, slot_outputs)
        state.context[rows] = model.context_to_bytes(slot_outputs).to(state.context.dtype)
    state.patch_lag[rows] = 0
    state.trunk.commit(rows, is_commit)
    state.trunk_calls[rows] += 1


def _smooth(state: DecodingState, rows: Int[Tensor, " row"], slot_outputs: Tensor) -> Tensor:
    """Moves the recurrence of rows that commit on by one; scratchpads are used as they are."""
    assert state.smoothed is not None
    assert state.boundary_probability is not None
    is_first = state.trunk.num_patches[rows] == 0
    share = smoothing_share(state.boundary_probability[rows], is_first)[:, None].to(slot_outputs.dtype)
    earlier = torch.where(is_first[:, None], 0.0, state.smoothed[rows])
    is_commit = state.newest_ends_patch[rows][:, None]
    smoothed = torch.where(is_commit, share * slot_outputs + (1 - share) * earlier, slot_outputs)
    state.smoothed[rows] = torch.where(is_commit, smoothed, state.smoothed[rows]).to(state.smoothed.dtype)
    return smoothed


@torch.inference_mode()
def predict(
    model: ByteLM, state: DecodingState, rows: Int[Tensor, " row"], kernels: "Kernels | None" = None
) -> Float[Tensor, "row vocab"]:
    """Returns the logits of the next id in each of `rows`, ascending, once per id that was read."""
    return (predict_kernel if kernels is None else kernels.predict)(model, state, rows)


def predict_kernel(model: ByteLM, state: DecodingState, rows: Int[Tensor, " row"]) -> Float[Tensor, "row vocab"]:
    """Is `predict`; nothing in it depends on values."""
    position = state.position[rows]
    byte_states = state.open_states[rows, state.open_length[rows] - 1]
    with autocast(model.device):
        decoder_sees = state.decoder.at(rows, position)
        contexts = model.context_to_bytes.read(state.context, rows, state.patch_lag[rows])
        return model.local_decoder(byte_states, contexts, position, decoder_sees).float()


__all__ = [
    "DecodingState",
    "Prompts",
    "encode_prompts",
    "predict",
    "prefill",
    "read",
    "read_prompts",
    "refresh",
    "step",
]
