"""Spans: new ids of the rows of a batch, read in one pass, and what comes of reading them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from patchpad.inference.reports import SlotFacts
from patchpad.inference.row_state import RowState
from patchpad.inference.transfers import on_device


@dataclass(frozen=True, kw_only=True)
class Span:
    """New ids of each row, some rows possibly without any.

    What there is for each id lies either *packed*, row after row, [new, ...], or *padded* to the longest row,
    [batch, width, ...].
    """

    ids: Int[Tensor, " new"]
    sizes: tuple[int, ...]
    """Ids of each row, as the host knows them."""
    lengths: Int[Tensor, " batch"]
    """The same on the device."""
    rows: Int[Tensor, " new"]
    """Row of each id."""
    columns: Int[Tensor, " new"]
    """Place of each id among those of its row."""
    begins: Int[Tensor, " batch"]
    """Ids of all rows before each."""

    @staticmethod
    def of(next_ids: Sequence[Sequence[int]], device: torch.device) -> "Span":
        """Sends ids to a device; it is not waited for."""
        sizes = tuple(map(len, next_ids))
        lengths = on_device(sizes, device, torch.int64)
        ids = on_device([value for row in next_ids for value in row], device, torch.int64)
        rows = torch.arange(len(sizes), device=device).repeat_interleave(lengths, output_size=len(ids))
        begins = lengths.cumsum(0) - lengths
        columns = torch.arange(len(ids), device=device) - begins[rows]
        return Span(ids=ids, sizes=sizes, lengths=lengths, rows=rows, columns=columns, begins=begins)

    @property
    def width(self) -> int:
        """Ids of the longest row."""
        return max(self.sizes)

    @property
    def is_new(self) -> Bool[Tensor, "batch width"]:
        """Where a padded place has an id."""
        return torch.arange(self.width, device=self.ids.device) < self.lengths[:, None]

    def padded(self, packed: Tensor) -> Tensor:
        """Returns packed values padded, with zeros."""
        padded = packed.new_zeros(len(self.lengths), self.width, *packed.shape[1:])
        padded[self.rows, self.columns] = packed
        return padded

    def packed(self, padded: Tensor) -> Tensor:
        """Returns padded values packed."""
        return padded[self.rows, self.columns]

    def previous(self, packed: Tensor, before: Tensor) -> Tensor:
        """Returns for each id what there is for the one before; for the first of a row, that of `before`, [batch]."""
        shifted = torch.cat((packed[:1], packed[:-1]))
        is_first = (self.columns == 0).view(-1, *[1] * (packed.dim() - 1))
        return torch.where(is_first, before[self.rows].to(packed.dtype), shifted)

    def after(self, ordered: Float[Tensor, "batch place ..."], packed: Tensor) -> Tensor:
        """Returns what rings hold, each from its oldest entry to its newest, and then what there is for new ids."""
        return torch.cat((ordered.flatten(0, 1), packed.to(ordered.dtype)))

    def place_after(
        self, rows: Int[Tensor, "*where"], columns: Int[Tensor, "*where"], places: int
    ) -> Int[Tensor, "*where"]:
        """Returns where `after` has what lies at columns of rows; -1 is the newest entry of the row's ring.

        Args:
            rows: of each.
            columns: from -`places` on; behind a row's end, what is found is something else.
            places: of a ring.
        """
        in_ring = rows * places + places + columns
        new = len(self.sizes) * places + self.begins[rows] + columns
        return torch.where(columns < 0, in_ring, new.clamp_max(len(self.sizes) * places + len(self.ids) - 1))

    def cut(self, lengths: Sequence[int]) -> "Span":
        """Returns the span as it is when only the first ids of each row count.

        What there is for all ids keeps its places; `last` and `ring_after` then find what the last id that counts left.

        Args:
            lengths: how many ids of each row count, from 0 to all of them.
        """
        if len(lengths) != len(self.sizes) or not all(
            0 <= length <= size for length, size in zip(lengths, self.sizes, strict=True)
        ):
            raise ValueError(f"lengths are {list(lengths)}; allowed: one for each row, at most {list(self.sizes)}")
        return replace(self, lengths=on_device(lengths, self.ids.device, torch.int64))

    def counted(self, padded: Tensor) -> Int[Tensor, " batch"]:
        """Returns the sum of padded values of each row over the ids that count."""
        return (padded * self.is_new).sum(dim=1)

    def last(self, packed: Tensor, before: Tensor) -> Tensor:
        """Returns what there is for each row's last id that counts; for a row without, that of `before`, [batch]."""
        found = packed[(self.begins + self.lengths - 1).clamp_min(0)].to(before.dtype)
        has_any = (self.lengths > 0).view(-1, *[1] * (before.dim() - 1))
        return torch.where(has_any, found, before)


@dataclass(frozen=True, kw_only=True)
class Extension:
    """What comes of reading a span after a state."""

    span: Span
    logits: Float[Tensor, "new vocab"]
    """Of the id after each new one, packed."""
    num_commits: Int[Tensor, " batch"]
    """Entries that each row's cache got."""
    num_scratchpads: Int[Tensor, " batch"]
    trunk_pairs: Int[Tensor, " batch"]
    """Query-key pairs that a trunk layer saw, each slot itself included."""
    pooled_positions: Int[Tensor, " batch"]
    """Positions that the slots pooled."""
    advance: "Advance"
    """Makes the state to go on from. It shares the trunk's cache with the one before: use only one of the two."""
    trunk_passes: int
    """Calls of the trunk, each of which reads its weights once."""
    slot_facts: SlotFacts
    """What reading each new id told, packed."""


@runtime_checkable  # so that tests can check annotations
class Advance(Protocol):
    """Makes the state after an extension."""

    def __call__(self, lengths: Sequence[int] | None = None) -> RowState:
        """Makes the state after all new ids, or after only the first ones of each row.

        What was computed for ids that do not count is dropped: commits among it lie in places of the trunk's cache that
        the next ones overwrite.

        Args:
            lengths: how many ids of each row count; None for all.
        """
        ...


def unpooled(
    span: Span,
    logits: Float[Tensor, "new vocab"],
    is_slot: Bool[Tensor, " new"],
    trunk_pairs: Int[Tensor, " new"],
    trunk_passes: int,
    advance: Advance,
) -> Extension:
    """Returns what a model without scratchpads read.

    Args:
        span: that was read.
        logits: packed.
        is_slot: which ids made an entry in the trunk's cache.
        trunk_pairs: what each of these saw.
        trunk_passes: calls of the trunk.
        advance: see `Extension`.
    """
    none = torch.zeros_like(span.lengths)
    return Extension(
        span=span,
        logits=logits,
        num_commits=none.index_add(0, span.rows, is_slot.long()),
        num_scratchpads=none,
        trunk_pairs=none.index_add(0, span.rows, torch.where(is_slot, trunk_pairs, 0)),
        pooled_positions=none,
        advance=advance,
        trunk_passes=trunk_passes,
        slot_facts=SlotFacts(is_slot, torch.zeros_like(is_slot), None),
    )


__all__ = ["Advance", "Extension", "Span", "unpooled"]
