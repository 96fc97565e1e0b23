"""Who may see whom: the two mask rules of the model, stated once.

Local layers: byte n sees byte j iff  start(n) <= j <= n  and  n - j < window_bytes.
Trunk: slot r sees slot c iff  they share a document and ((c is a commit and k_r - w <= k_c < k_r) or c is r),
with w = `trunk_window_patches`, or no lower end without it.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from patchpad.patching.documents import Documents
from patchpad.patching.layout import TRUNK_BLOCK, PatchLayout
from patchpad.shapes import ByteInts

SMALLEST_BLOCK, LARGEST_BLOCK = 32, 256


@dataclass(frozen=True)
class Window:
    """Local visibility of a batch in blocks: queries of one block see `span` keys, never byte x byte."""

    window_bytes: int
    block: int
    """Queries per block."""
    bias: Float[Tensor, "block_row one block span"]
    """0 where visible, -inf elsewhere; rows are (batch, block)."""

    @staticmethod
    def build(documents: Documents, window_bytes: int) -> "Window":
        """Computes the blocks' masks for all local layers of a forward pass.

        Key a' of block i is position i * block + a' - (window_bytes - 1).
        """
        batch, length = documents.start.shape
        block = min(max(1 << (window_bytes - 1).bit_length(), SMALLEST_BLOCK), LARGEST_BLOCK)
        num_blocks = -(-length // block)
        device = documents.start.device
        query = torch.arange(block, device=device)[:, None]
        key = torch.arange(block + window_bytes - 1, device=device)[None, :] - (window_bytes - 1)
        first_position = torch.arange(num_blocks, device=device)[:, None, None] * block
        first = F.pad(visible_bytes(documents.start, window_bytes)[0], (0, num_blocks * block - length))
        visible = (key <= query) & (key + first_position >= first.view(batch, num_blocks, block, 1))
        bias = torch.zeros(visible.shape, device=device).masked_fill_(~visible, -torch.inf)
        return Window(window_bytes, block, bias.view(batch * num_blocks, 1, block, -1))


def visible_bytes(start: ByteInts, window_bytes: int) -> tuple[ByteInts, ByteInts]:
    """The first byte that each byte sees in a window, and one past the last; `start` is that of its document."""
    positions = torch.arange(start.shape[1], device=start.device).expand_as(start)
    return torch.maximum(start, positions - (window_bytes - 1)), positions + 1


def visible_commits(layout: PatchLayout, block_index: int) -> Bool[Tensor, "batch block_slot block_commit"]:
    """Which of a block's commits each of its slots sees; the slot itself is always visible besides."""
    first_slot = block_index * TRUNK_BLOCK
    rows = slice(first_slot, first_slot + TRUNK_BLOCK)
    commits = torch.arange(*layout.rows.block_commits[block_index], device=layout.slot_byte.device)
    first = layout.rows.visible_from[:, rows, None]
    last = layout.rows.visible_to[:, rows, None]
    return (commits >= first) & (commits < last)


def count_trunk_pairs(layout: PatchLayout) -> Int[Tensor, ""]:
    """Query-key pairs that a trunk layer sees in a batch, each slot itself included."""
    return (layout.visible_to - layout.visible_from).sum() + layout.num_slots
