"""`prefill` and `step`: the full pass, one byte at a time, with the same decisions and the same logits."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from patchpad.config import NUM_INPUT_IDS, PADDING, SEPARATOR
from patchpad.errors import InputError
from patchpad.inference.cache import LocalCache, TrunkCache, TrunkCacheAttention
from patchpad.model.byte_lm import ByteLM
from patchpad.model.precision import autocast
from patchpad.patching import ByteFacts, Threshold, check_threshold
from patchpad.patching.patchifiers import bytes_since_end

Prompts = Sequence[bytes | str]


@dataclass
class DecodingState:
    """Everything that the next step of each row needs. A step consumes it: use only the state that it returns."""

    position: Int[Tensor, " batch"]
    """n - start(n) of the newest id."""
    newest_id: Int[Tensor, " batch"]
    newest_entropy_nats: Float[Tensor, " batch"] | None
    encoder: LocalCache
    entropy_head: LocalCache | None
    decoder: LocalCache
    trunk: TrunkCache
    open_states: Float[Tensor, "batch place byte_dim"]
    """Byte states of the open patch, oldest first."""
    open_length: Int[Tensor, " batch"]
    """Byte states in `open_states`; the separator counts in a document's first patch."""
    open_bytes: Int[Tensor, " batch"]
    """Bytes of the open patch, the separator not counted."""
    context: Float[Tensor, "batch layer byte_dim"]
    """What the newest slot adds at each local decoder layer."""
    trunk_calls: Int[Tensor, " batch"]
    """Commits and scratchpads since the prefill began."""

    def clone(self) -> "DecodingState":
        """Returns an independent copy, for beams and rollback."""
        return self._map(lambda part: part.clone())

    def select(self, rows: Sequence[int] | Int[Tensor, " row"]) -> "DecodingState":
        """Returns a copy with the given rows, in the given order; a row may come more than once."""
        index = torch.as_tensor(rows, dtype=torch.long, device=self.position.device)
        return self._map(lambda part: part.select(index) if isinstance(part, LocalCache | TrunkCache) else part[index])

    def _map(self, change: Any) -> "DecodingState":
        values: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}
        changed: dict[str, Any] = {name: None if part is None else change(part) for name, part in values.items()}
        return DecodingState(**changed)


def encode_prompts(prompts: Prompts) -> list[bytes]:
    """Returns prompts as bytes, text as UTF-8 (lone surrogates kept as they are).

    Raises:
        InputError: no prompt, or a prompt that is neither text nor bytes.
    """
    if isinstance(prompts, str | bytes):
        raise InputError("prompts is a single string; allowed: a list of strings or bytes", hint="Write [prompt].")
    if len(prompts) == 0:
        raise InputError("no prompt was given; allowed: at least one, which may be empty")
    for prompt in prompts:
        if not isinstance(prompt, str | bytes | bytearray):
            raise InputError(f"a prompt is of type {type(prompt).__name__}; allowed: str or bytes")
    return [prompt.encode("utf-8", "surrogatepass") if isinstance(prompt, str) else bytes(prompt) for prompt in prompts]


@torch.inference_mode()
def prefill(
    model: ByteLM, prompts: Prompts, *, scratchpad_threshold_nats: Threshold = None
) -> tuple[Float[Tensor, "batch vocab"], DecodingState]:
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
    encoded = encode_prompts(prompts)
    last_position = torch.tensor([len(prompt) for prompt in encoded], device=model.device)
    width = max(map(len, encoded)) + 1
    byte_ids = torch.tensor(
        [[SEPARATOR, *prompt, *[PADDING] * (width - 1 - len(prompt))] for prompt in encoded], device=model.device
    )
    model.eval()
    check_threshold(scratchpad_threshold_nats, model.config.trigger.kind, len(encoded), None)
    with autocast(model.device):
        output = model(byte_ids, scratchpad_threshold_nats, keep_activations=True)
    layout, kept = output.layout, output.activations
    assert kept is not None
    rows = torch.arange(len(encoded), device=model.device)
    ended = layout.patch_end_mask[rows, last_position]
    open_bytes = bytes_since_end(layout.patch_end_mask, layout.documents)[rows, last_position]
    open_bytes = torch.where(ended, 0, open_bytes)
    patch_index = layout.patch_index[rows, last_position]
    open_length = torch.where(ended, 0, open_bytes + (patch_index == 0))
    place = torch.arange(model.config.patchifier.longest_patch + 1, device=model.device)
    source = (last_position - open_length + 1)[:, None] + place
    window = model.config.window_bytes
    slots = layout.patch_end_mask | layout.scratchpad_mask
    state = DecodingState(
        position=last_position,
        newest_id=byte_ids[rows, last_position],
        newest_entropy_nats=None if output.entropy_nats is None else output.entropy_nats[rows, last_position],
        encoder=LocalCache.from_prefill(kept.encoder, last_position, window),
        entropy_head=LocalCache.from_prefill(kept.entropy_head, last_position, window) if kept.entropy_head else None,
        decoder=LocalCache.from_prefill(kept.decoder, last_position, window),
        trunk=TrunkCache.from_prefill(kept.trunk, layout.padded_commits, patch_index + ended),
        open_states=kept.byte_states[rows[:, None], source.clamp(0, width - 1)],
        open_length=open_length,
        open_bytes=open_bytes,
        context=kept.contexts[layout.newest_slot[rows, last_position]],
        trunk_calls=slots.sum(dim=1),
    )
    return output.logits[rows, last_position].float(), state


@torch.inference_mode()
def step(
    model: ByteLM,
    next_bytes: Int[Tensor, " batch"] | Sequence[int],
    state: DecodingState,
    *,
    scratchpad_threshold_nats: Threshold = None,
) -> tuple[Float[Tensor, "batch vocab"], DecodingState]:
    """Reads one more id per row. Only rows whose byte ends a patch or fires a scratchpad run the trunk.

    Args:
        model: used in eval mode.
        next_bytes: 0..255, or 256 to begin a new document in a row; [batch].
        state: consumed, its caches are written in place; clone it first to keep it.
        scratchpad_threshold_nats: None for the stored threshold, a float, or [batch]; may change at every step.

    Returns:
        Logits of each row's next id, and the state to go on from.

    Raises:
        InputError: ids out of range, another number of rows than the state's, or an impossible threshold.
    """
    ids = torch.as_tensor(next_bytes, dtype=torch.long, device=model.device)
    _check_step(model, ids, state, scratchpad_threshold_nats)
    model.eval()
    _begin_documents(model, ids, state)
    with autocast(model.device):
        byte_states = model.local_encoder(ids, state.position, state.encoder.at(state.position))
        entropies = None
        if model.entropy_head is not None and state.entropy_head is not None:
            _, entropies = model.entropy_head(byte_states, state.position, state.entropy_head.at(state.position))
        rows = torch.arange(len(ids), device=ids.device)
        state.open_states[rows, state.open_length] = byte_states
        state.open_length += 1
        ended = _update_context(model, ids, entropies, state, scratchpad_threshold_nats)
        logits = model.local_decoder(byte_states, state.context, state.position, state.decoder.at(state.position))
    state.newest_id, state.newest_entropy_nats = ids, entropies
    state.open_length.masked_fill_(ended, 0)
    state.open_bytes.masked_fill_(ended, 0)
    return logits.float(), state


def _check_step(model: ByteLM, ids: Tensor, state: DecodingState, threshold: Threshold) -> None:
    batch = len(state.position)
    if ids.shape != (batch,):
        raise InputError(f"next_bytes has the shape {list(ids.shape)}; allowed: [{batch}], one id per row of the state")
    if int(ids.min()) < 0 or int(ids.max()) > SEPARATOR:
        raise InputError(f"next_bytes holds {ids.tolist()}; allowed: 0 to {SEPARATOR} ({NUM_INPUT_IDS - 1} is padding)")
    check_threshold(threshold, model.config.trigger.kind, batch, None)


def _begin_documents(model: ByteLM, ids: Tensor, state: DecodingState) -> None:
    """Moves on by one position, and forgets the document before where a separator begins another."""
    begins = ids == SEPARATOR
    state.position = torch.where(begins, 0, state.position + 1)
    state.open_bytes = torch.where(begins, 0, state.open_bytes + 1)
    if bool(begins.any()):
        state.open_length = state.open_length.masked_fill(begins, 0)
        state.trunk.num_patches = state.trunk.num_patches.masked_fill(begins, 0)
        null = model.context_to_bytes(model.context_to_bytes.null_context[None])
        state.context = torch.where(begins[:, None, None], null.to(state.context.dtype), state.context)


def _update_context(
    model: ByteLM, ids: Tensor, entropies: Tensor | None, state: DecodingState, threshold: Threshold
) -> Tensor:
    """Runs the trunk for the rows that end a patch or fire a scratchpad; returns which rows ended a patch."""
    begins = state.position == 0
    previous_entropy = state.newest_entropy_nats
    if entropies is not None and previous_entropy is not None:
        previous_entropy = torch.where(begins, entropies, previous_entropy)
    facts = ByteFacts(
        byte_ids=ids,
        previous_byte_ids=torch.where(begins, SEPARATOR, state.newest_id),
        document_offset=state.position,
        is_byte=~begins,
        entropy_nats=entropies,
        previous_entropy_nats=previous_entropy,
    )
    ended = model.patchifier.step_ends(facts, state.open_bytes)
    fires = model.trigger.scratchpads(facts, state.open_bytes, ended, threshold)
    rows = (ended | fires).nonzero().squeeze(1)
    if len(rows):
        length = state.open_length[rows]
        distance = torch.arange(int(length.max()), device=ids.device)
        newest_first = state.open_states[rows[:, None], (length[:, None] - 1 - distance).clamp_min(0)]
        slot_inputs = model.patch_pooling.pool(newest_first, distance < length[:, None])
        attend = TrunkCacheAttention(state.trunk, rows)
        slot_outputs = model.trunk(slot_inputs, state.trunk.num_patches[rows], attend)
        state.context[rows] = model.context_to_bytes(slot_outputs).to(state.context.dtype)
        state.trunk.commit(rows, attend.kept, ended[rows])
        state.trunk_calls[rows] += 1
    return ended


__all__ = ["DecodingState", "Prompts", "encode_prompts", "prefill", "step"]
