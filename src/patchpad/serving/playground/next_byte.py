"""The distribution of the next byte at a byte of a text: with a scratchpad there, and without one."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from patchpad.errors import GenerationError, InputError, integer_or_none
from patchpad.inference.patch_state import DecodingState
from patchpad.inference.row_state import RowState
from patchpad.inference.stepping import prefill, step
from patchpad.model.byte_lm import ByteLM
from patchpad.model.language_model import LanguageModel
from patchpad.model.wrapped import unwrapped
from patchpad.text import encode_text

MOST_BYTES = 4096
"""Bytes that one question has read; while it is answered, the server's texts wait."""
WITH_AND_WITHOUT = (-torch.inf, torch.inf)
"""Thresholds at which one byte has a scratchpad, and has none. At a patch end neither has one."""


def next_byte(
    model: LanguageModel,
    prompt: bytes | str,
    *,
    position: int | None = None,
    scratchpad_threshold_nats: int | float | None = None,
) -> dict[str, Any]:
    """Returns what the model expects after one byte of a text, ready for JSON.

    The bytes before it have the scratchpads of the threshold. The byte itself is read as the threshold decides, with a
    scratchpad, and without one.

    Args:
        model: in eval mode after.
        prompt: the text; what stands behind the byte is not read.
        position: index of the byte; -1 for the separator, before the first; None for the last byte.
        scratchpad_threshold_nats: None for the stored one.

    Returns:
        `position`; `byte`, None at the separator; `ends_patch` and `has_scratchpad`, as the threshold decides;
        `entropy_nats` of the next byte by the entropy head, None without one; `patch_lag` in bytes, as the threshold
        decides, and `patch_lag_without` a scratchpad at this byte; and the probabilities of the 256 bytes and of the
        document's end, `with` and `without` a scratchpad. A model without scratchpads has None for `with`, and for
        what is said of marks and lags.

    Raises:
        InputError: a position that the text does not have, or that has too much before it; an impossible threshold.
        GenerationError: a model of tokens, which has no distribution of bytes.
    """
    model = unwrapped(model)
    if model.config.kind == "bpe":
        raise GenerationError(
            "a `bpe` model predicts tokens, so it has no distribution of the next byte", hint="Serve another model."
        )
    data = encode_text(prompt)
    place = _checked_position(position, len(data))
    checked_length(place + 1)
    read = list(data[place : place + 1]) if place >= 0 else []
    answer: dict[str, Any] = dict.fromkeys(
        ("ends_patch", "has_scratchpad", "entropy_nats", "patch_lag", "patch_lag_without", "with")
    )
    answer.update(position=place, byte=read[0] if read else None)
    if not isinstance(model, ByteLM):
        logits, _ = prefill(model, [data[: place + 1]], scratchpad_threshold_nats=scratchpad_threshold_nats)
        return {**answer, "without": _probabilities(logits[0])}
    decided, num_calls_before, logits, pair = _three_readings(
        model, data[: max(place, 0)], read, scratchpad_threshold_nats
    )
    ends_patch = bool(decided.patch_counts.ends_patch[0])
    return {
        **answer,
        "ends_patch": ends_patch,
        "has_scratchpad": not ends_patch and int(decided.trunk_calls[0]) > num_calls_before,
        "entropy_nats": None if model.entropy_head is None else float(decided.floats[0, 0]),
        "patch_lag": _lag(decided, 0),
        "patch_lag_without": _lag(pair, 1),
        "with": _probabilities(logits[0]),
        "without": _probabilities(logits[1]),
    }


def _three_readings(
    model: ByteLM, before: bytes, read: list[int], threshold: int | float | None
) -> tuple[DecodingState, int, Float[Tensor, "pair vocab"], DecodingState]:
    """Reads a byte, or the separator where there is none.

    Returns:
        The state as the threshold decides; how often the trunk ran before; and logits and state of two rows, with a
        scratchpad and without one.
    """
    thresholds = list(WITH_AND_WITHOUT)
    if not read:
        _, decided = prefill(model, [b""], scratchpad_threshold_nats=threshold)
        logits, pair = prefill(model, [b"", b""], scratchpad_threshold_nats=thresholds)
        return _patch_state(decided), 0, logits, _patch_state(pair)
    _, state = prefill(model, [before], scratchpad_threshold_nats=threshold)
    num_calls = int(state.trunk_calls[0])
    logits, pair = step(model, read * 2, state.select([0, 0]), scratchpad_threshold_nats=thresholds)
    _, decided = step(model, read, state, scratchpad_threshold_nats=threshold)
    return _patch_state(decided), num_calls, logits, _patch_state(pair)


def _patch_state(state: RowState) -> DecodingState:
    assert isinstance(state, DecodingState)
    return state


def _lag(state: DecodingState, row: int) -> int:
    counts = state.patch_counts
    return int(counts.position[row] - counts.slot_position[row])


def _probabilities(logits: Float[Tensor, " vocab"]) -> list[float]:
    return logits.double().softmax(dim=-1).tolist()


def checked_length(num_bytes: int) -> None:
    """Does nothing for a text that is short enough to be read in one go.

    Raises:
        InputError: it is longer.
    """
    if num_bytes > MOST_BYTES:
        raise InputError(
            f"the text up to this byte has {num_bytes:,} bytes; allowed: {MOST_BYTES:,}",
            hint="`patchpad inspect` shows a text of any length.",
        )


def _checked_position(position: int | None, num_bytes: int) -> int:
    last = num_bytes - 1
    if position is None:
        return last
    place = integer_or_none(position)
    if place is None or isinstance(position, bool) or not -1 <= place <= last:
        raise InputError(
            f"position is {position!r}; allowed: -1 (the separator, before the first byte) to {last} (the last byte)"
        )
    return place


__all__ = ["MOST_BYTES", "checked_length", "next_byte"]
