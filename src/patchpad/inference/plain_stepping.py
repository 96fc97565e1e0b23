"""Prefill and step of the `byte` and `bpe` baselines: every id is a position of the trunk and an entry in its cache."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from patchpad.config import SEPARATOR
from patchpad.inference.cache import TrunkCache, TrunkCacheAttention
from patchpad.inference.row_state import RowState, padded_prompts
from patchpad.model.baselines import BpeTransformer, ByteTransformer
from patchpad.model.precision import autocast
from patchpad.patching import Decisions

PlainModel = ByteTransformer | BpeTransformer


@dataclass
class PlainState(RowState):
    """State of a plain Transformer; see `RowState`."""

    trunk_states: Float[Tensor, "batch trunk_dim"]
    """Output of the trunk for the newest id."""


def cache_of(kept: list[tuple[Tensor, Tensor]], num_entries: Int[Tensor, " batch"]) -> TrunkCache:
    """Takes each row's first entries from a full pass: keys and values are [batch, position, head, head_dim]."""
    batch, width = kept[0][0].shape[:2]
    places = torch.arange(batch * width, device=num_entries.device).view(batch, width)
    return TrunkCache.from_prefill(
        [(key.flatten(0, 1), value.flatten(0, 1)) for key, value in kept], places, num_entries
    )


@torch.inference_mode()
def read_prompts(
    model: PlainModel, prompts: list[bytes], decisions: Decisions
) -> tuple[Float[Tensor, "batch vocab"], PlainState]:
    """Is `prefill` for prompts and decisions that are known to be right."""
    encoded = [model.encode_prompt(prompt) for prompt in prompts]
    ids = padded_prompts(encoded, model.padding_id, model.device)
    last_position = torch.tensor([len(prompt) for prompt in encoded], device=model.device)
    rows = torch.arange(len(prompts), device=model.device)
    model.eval()
    with autocast(model.device):
        output = model.run(ids, keep_activations=True)
    assert output.states is not None
    state = PlainState(
        position=last_position,
        newest_id=ids[rows, last_position],
        trunk=cache_of(output.trunk, last_position + 1),
        trunk_calls=last_position + 1,
        trunk_states=output.states[rows, last_position],
    )
    return predict(model, state, rows), state


@torch.inference_mode()
def read(
    model: PlainModel, ids: Int[Tensor, " row"], state: PlainState, rows: Int[Tensor, " row"], decisions: Decisions
) -> Bool[Tensor, " row"]:
    """Reads one id in each of `rows`; all of them need the trunk."""
    begins = ids == SEPARATOR
    state.position[rows] = torch.where(begins, 0, state.position[rows] + 1)
    state.newest_id[rows] = ids
    state.trunk.num_patches[rows[begins]] = 0
    return torch.ones_like(begins)


@torch.inference_mode()
def refresh(model: PlainModel, state: PlainState, rows: Int[Tensor, " row"]) -> None:
    """Runs the trunk on the newest id of `rows`, ascending, and keeps its keys and values."""
    if len(rows) == 0:
        return
    is_commit = torch.ones_like(rows, dtype=torch.bool)
    state.trunk.make_room()
    attend = TrunkCacheAttention(state.trunk, rows)
    with autocast(model.device):
        states = model.trunk(model.embedding(state.newest_id[rows]), state.position[rows], attend)
    state.trunk_states[rows] = states.to(state.trunk_states.dtype)
    state.trunk.commit(rows, is_commit)
    state.trunk_calls[rows] += 1


@torch.inference_mode()
def predict(model: PlainModel, state: PlainState, rows: Int[Tensor, " row"]) -> Float[Tensor, "row vocab"]:
    """Returns the logits of the next id in each of `rows`."""
    with autocast(model.device):
        return model.predict(state.trunk_states[rows]).float()
