"""The public function `extend`: many bytes of each row in one pass, from a state that prefill or step has left."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from patchpad.config import VOCAB_SIZE
from patchpad.errors import InputError
from patchpad.inference.blocks import read_with_logits
from patchpad.inference.row_state import RowState
from patchpad.inference.steppers import stepper_for
from patchpad.inference.stepping import row_thresholds
from patchpad.model.language_model import LanguageModel
from patchpad.model.wrapped import unwrapped
from patchpad.patching import ThresholdLike
from patchpad.text import encode_text


def extend(
    model: LanguageModel,
    next_bytes: Sequence[bytes | str],
    state: RowState,
    *,
    scratchpad_threshold_nats: ThresholdLike = None,
) -> tuple[Float[Tensor, "batch width vocab"], RowState]:
    """Reads many bytes per row at once, very many in blocks: logits, decisions and state of so many calls of `step`.

    Args:
        model: used in eval mode.
        next_bytes: text or bytes of each row; some or all may be empty. A bpe model tokenises each by itself.
        state: consumed, it becomes the next one; clone it first to keep it.
        scratchpad_threshold_nats: None for the stored threshold, a float, or [batch].

    Returns:
        Logits, of which entry n of a row predicts what follows its byte n (token n of a bpe model), 0 behind a row's
        last one; and the state to go on from. Like a step, it is all or nothing: after an exception the state
        is unchanged.

    Raises:
        InputError: something else than a model, than text or bytes, another number of rows than the state's, a state
            without rows, or an impossible threshold. To begin another document, `step` with the separator 256.
    """
    model = unwrapped(model)
    batch = len(state.ints)
    if batch == 0:
        raise InputError("the state has no rows, so there is nothing to read; allowed: at least one row")
    texts = _encoded(next_bytes)
    if len(texts) != batch:
        raise InputError(f"next_bytes has {len(texts)} rows; allowed: {batch}, one per row of the state")
    threshold = row_thresholds(model, scratchpad_threshold_nats, batch)
    stepper = stepper_for(model)
    next_ids = [stepper.encode(text) for text in texts]
    if not any(next_ids):
        num_outcomes = model.config.bpe_vocab_size if model.config.kind == "bpe" else VOCAB_SIZE
        return torch.zeros(batch, 0, num_outcomes, device=model.device), state
    logits, after = read_with_logits(stepper, state, next_ids, threshold)
    state.become(after)
    return logits.clone(), state  # out of inference mode, as in `prefill`


def _encoded(next_bytes: Any) -> list[bytes]:
    """Returns the text or bytes of each row as bytes."""
    if isinstance(next_bytes, str | bytes) or not isinstance(next_bytes, Sequence):
        kind = type(next_bytes).__name__
        raise InputError(f"next_bytes is of type {kind}; allowed: a list with text or bytes for each row of the state")
    for text in next_bytes:
        if not isinstance(text, str | bytes | bytearray):
            raise InputError(
                f"a row of next_bytes is of type {type(text).__name__}; allowed: str or bytes",
                hint="Ids are read by patchpad.step, the separator that begins a document among them.",
            )
    return [encode_text(text) for text in next_bytes]


__all__ = ["extend"]
