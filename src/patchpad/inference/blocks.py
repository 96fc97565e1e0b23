"""Long prompts, read in blocks: logits and state are those of one pass, and memory grows with the trunk's cache alone.

A pass over a whole prompt holds about 20 kB for each of its bytes. A block holds as much for its own bytes, and leaves
only the state behind: the trunk's keys and values of commits, and the ends of the local windows.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from patchpad.inference.buckets import FREE_POSITIONS, MOST_PADDING, buckets
from patchpad.inference.row_state import RowState
from patchpad.inference.span import Extension
from patchpad.inference.stepper import Stepper
from patchpad.inference.transfers import on_device

CPU_BLOCK_POSITIONS = 4096
"""Ids of all rows that are read at once on a CPU. Smaller blocks save no memory worth naming, and take longer per id;
larger ones are no faster."""
BLOCK_POSITIONS = 16_384
"""The same on other devices, which are not busy with so few."""
SMALLEST_BLOCK = 16
"""Ids of each row that are read at once, however many rows there are."""
MARGIN = 1 / 16
"""Places that are kept ready beyond those expected from the text so far, as a share."""


class Block(NamedTuple):
    """What reading a block of ids brought."""

    extension: Extension
    state: RowState
    """After it."""


def block_positions(device: torch.device) -> int:
    """Returns how many ids of all rows are read at once."""
    return CPU_BLOCK_POSITIONS if device.type == "cpu" else BLOCK_POSITIONS


@torch.inference_mode()
def read_prompts(
    stepper: Stepper, prompts: list[bytes], threshold: Float[Tensor, " batch"]
) -> tuple[Float[Tensor, "batch vocab"], RowState]:
    """Reads prompts of any length; see `Stepper.prefill`.

    Those of like length are read together, so that what pads them has a bound. Then the rows are put in order.
    """
    found = buckets([1 + len(prompt) for prompt in prompts], free=FREE_POSITIONS)
    if len(found) == 1:
        return _read_alike(stepper, prompts, threshold)
    parts = [
        _read_alike(
            stepper,
            [prompts[row] for row in bucket],
            threshold[on_device(bucket, threshold.device, torch.int64)],
        )
        for bucket in found
    ]
    state = type(parts[0][1]).join([state for _, state in parts], copies=False)
    logits = torch.cat([logits for logits, _ in parts])
    places = {row: place for place, row in enumerate(row for bucket in found for row in bucket)}
    order = [places[row] for row in range(len(prompts))]
    if order == sorted(order):
        return logits, state
    return logits[on_device(order, logits.device, torch.int64)], state.select(order)


def _read_alike(
    stepper: Stepper, prompts: list[bytes], threshold: Float[Tensor, " batch"]
) -> tuple[Float[Tensor, "batch vocab"], RowState]:
    """Reads prompts, in one pass where they are short, else in blocks."""
    most = (1 + MOST_PADDING) * block_positions(stepper.model.device)
    if len(prompts) * (max(map(len, prompts)) + 1) <= most:
        return stepper.prefill(prompts, threshold)
    logits, state = stepper.prefill([b""] * len(prompts), threshold)
    return read_on(stepper, state, [stepper.encode(prompt) for prompt in prompts], threshold, logits)


@torch.inference_mode()
def read_on(
    stepper: Stepper,
    state: RowState,
    next_ids: Sequence[Sequence[int]],
    threshold: Float[Tensor, " batch"],
    logits: Float[Tensor, "batch vocab"],
) -> tuple[Float[Tensor, "batch vocab"], RowState]:
    """Reads many ids of each row; returns the logits after each row's last one, and the state there.

    Args:
        stepper: of the model.
        state: of the model. It stays as it is, but of it and of what is returned use only one.
        next_ids: of each row, possibly none; see `Stepper.extend`.
        threshold: scratchpad threshold of each row, in nats.
        logits: that each row has before.
    """
    for block in read_in_blocks(stepper, state, next_ids, threshold):
        state, logits = block.state, block.extension.span.last(block.extension.logits, logits)
    return logits, state


@torch.inference_mode()
def read_with_logits(
    stepper: Stepper, state: RowState, next_ids: Sequence[Sequence[int]], threshold: Float[Tensor, " batch"]
) -> tuple[Float[Tensor, "batch width vocab"], RowState]:
    """The same, with the logits after every id: 0 behind a row's last one. They are as many as there are ids.

    Args:
        stepper: of the model.
        state: see `read_on`.
        next_ids: of each row, possibly none, but not of all.
        threshold: scratchpad threshold of each row, in nats.
    """
    parts = []
    for block in read_in_blocks(stepper, state, next_ids, threshold):
        state = block.state
        parts.append(block.extension.span.padded(block.extension.logits))
    return torch.cat(parts, dim=1) if len(parts) > 1 else parts[0], state


def read_in_blocks(
    stepper: Stepper, state: RowState, next_ids: Sequence[Sequence[int]], threshold: Float[Tensor, " batch"]
) -> Iterator[Block]:
    """Reads block after block.

    A block has as many ids of every row that still has some.

    Args:
        stepper: of the model.
        state: see `read_on`.
        next_ids: of each row, possibly none.
        threshold: scratchpad threshold of each row, in nats.
    """
    most, longest = block_positions(stepper.model.device), max(map(len, next_ids), default=0)
    begin, patches_before = 0, state.most_patches
    while begin < longest:
        size = max(SMALLEST_BLOCK, most // sum(len(ids) > begin for ids in next_ids))
        end = min(begin + size, longest)
        state = with_expected_room(state, begin, state.most_patches - patches_before, end - begin, longest - begin)
        extension = stepper.extend(state, [ids[begin:end] for ids in next_ids], threshold)
        state = extension.advance()
        yield Block(extension, state)
        begin = end


def with_expected_room(state: RowState, num_read: int, num_patches: int, num_next: int, num_left: int) -> RowState:
    """Returns a state whose trunk cache has room for all that is left to read, if the next block may not fit.

    Room that is made block by block would copy the whole cache each time.

    Args:
        state: stays as it is.
        num_read: ids that were read.
        num_patches: that these have made.
        num_next: ids of the next block.
        num_left: ids that are left, the next block's among them.
    """
    if num_read == 0 or state.drops_patches:
        return state

    def expected(num_ids: int) -> int:
        return state.most_patches + -(-int(num_ids * num_patches * (1 + MARGIN)) // num_read) + 1

    if state.trunk.capacity > expected(num_next):
        return state
    wider = state.working_copy()
    wider.trunk = state.trunk.with_room(expected(num_left))
    return wider


__all__ = [
    "Block",
    "block_positions",
    "read_in_blocks",
    "read_on",
    "read_prompts",
    "read_with_logits",
    "with_expected_room",
]
