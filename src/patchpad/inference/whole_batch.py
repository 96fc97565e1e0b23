"""Kernels of a step for all rows of a state at once: their shapes follow from the state alone, as CUDA graphs need it.

Rows that are not due are computed too, and what comes of them is thrown away. What that leaves in their caches lies
where nothing reads before it is overwritten, as after a step that was broken off; see `RowState`. So no row is
gathered, and one graph serves whatever rows are due. Unlike `patchpad.inference.kernels`, these write the state's
values in place.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from patchpad.inference import kernels
from patchpad.inference.patch_state import DecodingState
from patchpad.model.byte_lm import ByteLM

NOT_DUE = -1
"""Stands in the place of an id where a row reads nothing."""


def read_all(
    model: ByteLM, state: DecodingState, ids: Int[Tensor, " batch"], threshold: Float[Tensor, " batch"]
) -> Bool[Tensor, " batch"]:
    """Reads one id in each row that is due; returns which of these need the trunk; see `kernels.read`.

    Args:
        model: in eval mode.
        state: is written into.
        ids: 0..256, or `NOT_DUE`.
        threshold: scratchpad threshold of each row, in nats.
    """
    is_due = ids >= 0
    needs_trunk, ints, floats = kernels.read(model, state, _all_rows(ids), ids.clamp_min(0), threshold)
    _write(state.ints, ints, is_due)
    _write(state.floats, floats, is_due)
    return needs_trunk & is_due


def refresh_all(model: ByteLM, state: DecodingState, is_due: Bool[Tensor, " batch"]) -> None:
    """Runs the trunk for the rows that are due; see `kernels.refresh`."""
    _, ints = kernels.refresh(model, state, _all_rows(is_due))
    _write(state.ints, ints, is_due)


def predict_all(model: ByteLM, state: DecodingState) -> Float[Tensor, "batch vocab"]:
    """Returns the logits of each row's next id; see `kernels.predict`."""
    (logits,) = kernels.predict(model, state, _all_rows(state.ints))
    return logits


def _all_rows(like: Tensor) -> Int[Tensor, " batch"]:
    return torch.arange(len(like), device=like.device)


def _write(
    values: Int[Tensor, "batch column"] | Float[Tensor, "batch column"],
    new: Int[Tensor, "batch column"] | Float[Tensor, "batch column"],
    is_due: Bool[Tensor, " batch"],
) -> None:
    values.copy_(torch.where(is_due[:, None], new, values))


__all__ = ["NOT_DUE", "predict_all", "read_all", "refresh_all"]
