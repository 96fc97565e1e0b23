"""The public functions `prefill` and `step`: the full pass, one byte at a time, with the same decisions and logits."""

from collections.abc import Sequence

from jaxtyping import Float, Int
from torch import Tensor

from patchpad.errors import InputError
from patchpad.inference.blocks import read_prompts
from patchpad.inference.prompts import Prompts, encode_prompts
from patchpad.inference.row_state import RowState, integers
from patchpad.inference.stepper import step_all
from patchpad.inference.steppers import stepper_for
from patchpad.model.language_model import LanguageModel
from patchpad.model.wrapped import unwrapped
from patchpad.patching import ThresholdLike


def prefill(
    model: LanguageModel, prompts: Prompts, *, scratchpad_threshold_nats: ThresholdLike = None
) -> tuple[Float[Tensor, "batch vocab"], RowState]:
    """Reads ragged prompts, long ones in blocks.

    Args:
        model: used in eval mode.
        prompts: text or bytes; a separator is put before each. An empty prompt is allowed.
        scratchpad_threshold_nats: None for the stored threshold, a float, or [batch].

    Returns:
        Logits of each row's next id, and the state to go on from.

    Raises:
        InputError: something else than a model, no prompts, or an impossible threshold.
    """
    model = unwrapped(model)
    encoded = encode_prompts(prompts)
    threshold = row_thresholds(model, scratchpad_threshold_nats, len(encoded))
    logits, state = read_prompts(stepper_for(model), encoded, threshold)
    return logits.clone(), state  # out of inference mode, so that the caller may write into them


def step(
    model: LanguageModel,
    next_bytes: Int[Tensor, " batch"] | Sequence[int],
    state: RowState,
    *,
    scratchpad_threshold_nats: ThresholdLike = None,
) -> tuple[Float[Tensor, "batch vocab"], RowState]:
    """Reads one more id per row. Only rows whose byte ends a patch or fires a scratchpad run the trunk.

    A step is all or nothing: after an exception, Ctrl-C included, the state is unchanged, and any step can follow.

    Args:
        model: used in eval mode.
        next_bytes: 0..255, or 256 to begin a new document in a row; tokens for a bpe model; [batch].
        state: consumed, it becomes the next one; clone it first to keep it.
        scratchpad_threshold_nats: None for the stored threshold, a float, or [batch]; may change at every step.

    Returns:
        Logits of each row's next id, and the state to go on from.

    Raises:
        InputError: something else than a model, ids that are not integers or out of range, another number of rows than
            the state's, a state without rows, or an impossible threshold.
    """
    model = unwrapped(model)
    batch = len(state.ints)
    ids = integers(next_bytes)
    if ids is None:
        raise InputError(f"next_bytes is {next_bytes!r}; allowed: integers, one id per row of the state")
    if ids.shape != (batch,):
        raise InputError(f"next_bytes has the shape {list(ids.shape)}; allowed: [{batch}], one id per row of the state")
    if batch == 0:
        raise InputError("the state has no rows, so there is nothing to read; allowed: at least one row")
    ids = ids.cpu()
    if int(ids.min()) < 0 or int(ids.max()) > model.highest_id:
        raise InputError(f"next_bytes holds {ids.tolist()}; allowed: 0 to {model.highest_id}; no padding")
    threshold = row_thresholds(model, scratchpad_threshold_nats, batch)
    logits, working = step_all(stepper_for(model), state, ids, threshold)
    logits = logits.clone()  # out of inference mode, as in `prefill`
    state.become(working)
    return logits, state


def row_thresholds(model: LanguageModel, given: ThresholdLike, batch: int) -> Float[Tensor, " batch"]:
    """Returns a threshold that a caller gave, or the stored one, for each row."""
    return model.decisions(given, batch=batch).scratchpad_threshold.expand(batch)


__all__ = ["prefill", "step"]
