"""Prefill and step of the `megabyte` baseline: the trunk runs where a patch is complete and where a document starts."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from patchpad.config import PADDING, SEPARATOR
from patchpad.inference.cache import LocalCache, TrunkCacheAttention
from patchpad.inference.plain_stepping import cache_of
from patchpad.inference.row_state import RowState, padded_prompts
from patchpad.model.baselines import MegaByte
from patchpad.model.precision import autocast
from patchpad.patching import Decisions


@dataclass
class MegaByteState(RowState):
    """State of MegaByte; see `RowState`."""

    newest_bytes: Int[Tensor, "batch place"]
    """The last p ids of each row, oldest first."""
    slices: Float[Tensor, "batch place byte_dim"]
    """What the newest global output says about each byte of its patch."""
    local: LocalCache
    """Keys and values of the local model; a new patch overwrites those of the one before."""


@torch.inference_mode()
def read_prompts(
    model: MegaByte, prompts: list[bytes], decisions: Decisions
) -> tuple[Float[Tensor, "batch vocab"], MegaByteState]:
    """Is `prefill` for prompts and decisions that are known to be right."""
    size, device = model.patch_size, model.device
    ids = padded_prompts(prompts, PADDING, device)
    last_position = torch.tensor([len(prompt) for prompt in prompts], device=device)
    rows = torch.arange(len(prompts), device=device)
    model.eval()
    with autocast(device):
        output = model.run(ids, keep_activations=True)
    assert output.slices is not None
    num_slots = last_position // size + 1
    source = last_position[:, None] + torch.arange(1 - size, 1, device=device)
    state = MegaByteState(
        position=last_position,
        newest_id=ids[rows, last_position],
        trunk=cache_of(output.trunk, num_slots),
        trunk_calls=num_slots.clone(),
        newest_bytes=ids[rows[:, None], source.clamp_min(0)],
        slices=output.slices[rows, num_slots - 1],
        local=LocalCache.from_prefill(output.local, last_position, size),
    )
    return output.logits[rows, last_position].float(), state


@torch.inference_mode()
def read(
    model: MegaByte, ids: Int[Tensor, " row"], state: MegaByteState, rows: Int[Tensor, " row"], decisions: Decisions
) -> Bool[Tensor, " row"]:
    """Reads one id in each of `rows`; returns which of them completed a patch or began a document."""
    begins = ids == SEPARATOR
    position = torch.where(begins, 0, state.position[rows] + 1)
    state.position[rows] = position
    state.newest_id[rows] = ids
    state.newest_bytes[rows] = torch.cat((state.newest_bytes[rows, 1:], ids[:, None]), dim=1)
    state.trunk.num_patches[rows[begins]] = 0
    return position % model.patch_size == 0


@torch.inference_mode()
def refresh(model: MegaByte, state: MegaByteState, rows: Int[Tensor, " row"]) -> None:
    """Runs the trunk for `rows`, ascending, on their last p bytes, and keeps its keys and values."""
    if len(rows) == 0:
        return
    is_commit = torch.ones_like(rows, dtype=torch.bool)
    state.trunk.make_room()
    attend = TrunkCacheAttention(state.trunk, rows)
    with autocast(model.device):
        slices = model.run_trunk(state.newest_bytes[rows], state.position[rows] // model.patch_size, attend)
    state.slices[rows] = slices.to(state.slices.dtype)
    state.trunk.commit(rows, is_commit)
    state.trunk_calls[rows] += 1


@torch.inference_mode()
def predict(model: MegaByte, state: MegaByteState, rows: Int[Tensor, " row"]) -> Float[Tensor, "row vocab"]:
    """Returns the logits of the next id in each of `rows`, ascending, once per id that was read."""
    place = state.position[rows] % model.patch_size
    with autocast(model.device):
        # Counted from the patch's start, so that the ring shows the bytes of this patch alone.
        local_sees = state.local.at(rows, place)
        return model.local_model(state.slices[rows, place], state.newest_id[rows], place, local_sees).float()
