"""Where the documents of a batch lie, and what a causal rule may read about each position."""

from dataclasses import dataclass

import torch
from torch import Tensor

from patchpad.config import PADDING, SEPARATOR
from patchpad.patching.token_facts import TokenFacts
from patchpad.shapes import ByteIds, ByteInts, ByteMask


@dataclass(frozen=True, kw_only=True)
class Documents:
    """Document of every position; `start` is the position of the newest separator."""

    start: ByteInts
    offset: ByteInts
    """n - start(n): 0 at the separator, 1 at the document's first byte."""
    is_byte: ByteMask
    """Neither a separator nor padding."""
    is_padding: ByteMask

    @staticmethod
    def locate(byte_ids: ByteIds) -> "Documents":
        """Finds the documents of each row; every row starts with a separator."""
        positions = torch.arange(byte_ids.shape[1], device=byte_ids.device).expand_as(byte_ids)
        start = torch.where(byte_ids == SEPARATOR, positions, 0).cummax(dim=1).values
        return Documents(
            start=start, offset=positions - start, is_byte=byte_ids < SEPARATOR, is_padding=byte_ids == PADDING
        )


@dataclass(frozen=True, kw_only=True)
class ByteFacts:
    """What patchifiers and triggers may read at a position: all of it is known once byte n is.

    All tensors have one shape: [batch, byte] in the full pass, [batch] in a step, so that one rule serves both.
    """

    byte_ids: Tensor
    previous_byte_ids: Tensor
    """The separator at a document's first position."""
    document_offset: Tensor
    """n - start(n)."""
    is_byte: Tensor
    entropy_nats: Tensor | None
    previous_entropy_nats: Tensor | None
    """The position's own entropy at a document's first position. Both are None without an entropy head."""
    boundary_probability: Tensor | None = None
    """How likely the router starts a chunk here; None unless the patchifier is `hnet`."""
    tokens: TokenFacts | None = None
    """Tokens committed here, and the open text after them; None unless the patchifier is `tokens`."""
    ended_share: Tensor | None = None
    """How likely the open text is a token that has ended, by the source's output head; None without one."""

    @staticmethod
    def gather(
        byte_ids: ByteIds,
        documents: Documents,
        entropy_nats: Tensor | None,
        boundary_probability: Tensor | None = None,
        tokens: TokenFacts | None = None,
        ended_share: Tensor | None = None,
    ) -> "ByteFacts":
        """Collects the facts of a whole batch for the full pass."""
        first = documents.offset == 0
        previous_ids = torch.where(first, SEPARATOR, byte_ids.roll(1, dims=1))
        previous_entropy = None
        if entropy_nats is not None:
            previous_entropy = torch.where(first, entropy_nats, entropy_nats.roll(1, dims=1))
        return ByteFacts(
            byte_ids=byte_ids,
            previous_byte_ids=previous_ids,
            document_offset=documents.offset,
            is_byte=documents.is_byte,
            entropy_nats=entropy_nats,
            previous_entropy_nats=previous_entropy,
            boundary_probability=boundary_probability,
            tokens=tokens,
            ended_share=ended_share,
        )
