"""Stepping beside the full pass: the comparison that every way to step has to stand."""

from collections.abc import Sequence

import torch
from torch import Tensor

from patchpad.config import PADDING
from patchpad.inference.row_state import RowState
from patchpad.inference.stepper import Stepper, step_all
from patchpad.inference.steppers import stepper_for
from patchpad.inference.stepping import prefill
from patchpad.model.byte_lm import ByteLM
from patchpad.testing.models import as_row, random_documents, tolerance


def batch_of(rows: Sequence[Sequence[int]]) -> Tensor:
    """Returns rows of ids as [batch, byte], padded at their ends."""
    width = max(map(len, rows))
    return torch.tensor([[*row, *[PADDING] * (width - len(row))] for row in rows])


def ragged_packed_rows(seed: int, lengths: Sequence[int]) -> tuple[list[list[int]], list[int]]:
    """Returns rows of one or two documents each, and the length of each row's first document."""
    first = random_documents(seed, [*lengths, 30])
    second = random_documents(seed + 1, [length // 2 for length in [*lengths, 30]])
    rows = [
        as_row(one, two) if index % 2 else as_row(one)
        for index, (one, two) in enumerate(zip(first, second, strict=True))
    ]
    return rows, [len(one) for one in first]


def step_through(
    model: ByteLM,
    rows: Sequence[Sequence[int]],
    prompt_lengths: Sequence[int],
    threshold: float | None,
    stepper: Stepper | None = None,
) -> tuple[list[tuple[int, int, Tensor]], RowState]:
    """Prefills each row's first bytes, then steps, in lockstep; rows that are at their end leave.

    Args:
        model: in eval mode.
        rows: ids, a separator first.
        prompt_lengths: bytes of each row that the prefill reads.
        threshold: in nats; None for the model's own.
        stepper: how to step; None for the plain way.

    Returns:
        Row, position and logits at each position from the prompt's last on, and the last state.
    """
    stepper = stepper or stepper_for(model)
    thresholds = model.decisions(threshold, batch=1).scratchpad_threshold
    prompts = [bytes(row[1 : 1 + length]) for row, length in zip(rows, prompt_lengths, strict=True)]
    logits, state = prefill(model, prompts, scratchpad_threshold_nats=threshold)
    seen = [(row, prompt_lengths[row], logits[row]) for row in range(len(rows))]
    live = list(range(len(rows)))
    at = [length + 1 for length in prompt_lengths]
    while True:
        staying = [place for place, row in enumerate(live) if at[row] < len(rows[row])]
        if not staying:
            return seen, state
        if len(staying) < len(live):
            state = state.select(staying)
            live = [live[place] for place in staying]
        ids = torch.tensor([rows[row][at[row]] for row in live])
        logits, working = step_all(stepper, state, ids, thresholds.expand(len(ids)))
        state.become(working)
        for place, row in enumerate(live):
            seen.append((row, at[row], logits[place]))
            at[row] += 1


def assert_steps_equal_pass(
    model: ByteLM,
    rows: Sequence[Sequence[int]],
    prompt_lengths: Sequence[int],
    threshold: float | None,
    stepper: Stepper | None = None,
) -> None:
    """Fails unless the logits of every step equal those of the full pass within the tolerance; see `step_through`."""
    with torch.no_grad():
        expected = model(batch_of(rows), threshold).logits
    seen, _ = step_through(model, rows, prompt_lengths, threshold, stepper)
    assert len(seen) == sum(len(row) - length for row, length in zip(rows, prompt_lengths, strict=True))
    allowed = tolerance(expected)
    for row, position, logits in seen:
        difference = float((logits - expected[row, position]).abs().max())
        assert difference <= allowed, (threshold, row, position, difference)
