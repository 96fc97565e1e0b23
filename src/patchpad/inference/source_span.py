"""Spans with a source head: what the newest commits and scratchpads predict of many new bytes of each row."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from patchpad.inference.patch_span import SpanSlots
from patchpad.inference.patch_state import DecodingState
from patchpad.inference.source_masses import Held, OpenTexts
from patchpad.inference.span import Span
from patchpad.model.byte_lm import ByteLM
from patchpad.model.source_head import Predicted, mixed_logits, with_scratchpads
from patchpad.patching.layout import newest_place


@dataclass(frozen=True)
class SpanSources:
    """From which slot each new byte reads masses: 1 + a slot of the span, or 0 for what the state before holds."""

    newest_commit: Int[Tensor, " new"]
    open_scratchpad: Int[Tensor, " new"]
    scratchpad_byte: Int[Tensor, " new"]
    """The new byte that the open scratchpad is at; -1 where it is before the span, or there is none."""

    @staticmethod
    def of(span: Span, slots: SpanSlots) -> "SpanSources":
        """Finds them."""
        newest_commit, open_scratchpad = newest_commits(span, slots), span.packed(slots.open_scratchpad)
        if len(slots.rows) == 0:
            return SpanSources(newest_commit, open_scratchpad, torch.full_like(open_scratchpad, -1))
        slot = (open_scratchpad - 1).clamp_min(0)
        byte = span.begins[slots.rows[slot]] + slots.columns[slot]
        return SpanSources(newest_commit, open_scratchpad, torch.where(open_scratchpad > 0, byte, -1))


def newest_commits(span: Span, slots: SpanSlots) -> Int[Tensor, " new"]:
    """Returns 1 + the newest commit at each new byte among the span's slots; 0 where it is before the span."""
    commits = slots.commits
    column = newest_place(commits > 0)
    through = (commits + slots.scratchpads).flatten().cumsum(0).view_as(commits) - slots.scratchpads.long()
    return span.packed(torch.where(column >= 0, through.gather(1, column.clamp_min(0)), 0))


def by_newest_commits(
    model: ByteLM,
    state: DecodingState,
    span: Span,
    slots: SpanSlots,
    outputs: Float[Tensor, "commit trunk_dim"],
    node: Int[Tensor, " new"],
) -> Predicted:
    """Returns what the newest commits predict of new bytes.

    Args:
        model: with a source head.
        state: before the span.
        span: new ids.
        slots: the commits of the span, without scratchpads.
        outputs: of the trunk for them.
        node: of the open text at each new byte.
    """
    held = Held.of(state)
    return _asked(model, outputs, newest_commits(span, slots), held.masses, held.commit[span.rows], node)


def mixed_span(
    model: ByteLM,
    state: DecodingState,
    span: Span,
    sources: SpanSources,
    by_commit: Predicted,
    texts: OpenTexts,
    outputs: Float[Tensor, "slot trunk_dim"],
    own: Float[Tensor, "new own"],
) -> Float[Tensor, "new vocab"]:
    """Returns the logits after each new byte, from what the local decoder says there.

    Args:
        model: with a source head.
        state: before the span.
        span: new ids.
        sources: of their masses.
        by_commit: what the newest commits predict of them.
        texts: open at them.
        outputs: of the trunk for the slots of the span.
        own: what the local decoder says.
    """
    assert model.source_head is not None
    held, at = Held.of(state), texts.at
    holder, byte = span.rows[at], sources.scratchpad_byte[at]
    before = model.source_head.ending(held.masses, held.commit[holder], texts.read_node)
    token_mass = torch.where(byte >= 0, by_commit.ending[byte.clamp_min(0)], before)
    by_scratchpad = _asked(
        model, outputs, sources.open_scratchpad[at], held.masses, held.scratchpad[holder], texts.since
    )
    return mixed_logits(own, *with_scratchpads(by_commit, token_mass, by_scratchpad, at, texts.since))


def _asked(
    model: ByteLM,
    outputs: Float[Tensor, "slot trunk_dim"],
    source: Int[Tensor, " query"],
    held: Float[Tensor, "held mass"],
    held_slot: Int[Tensor, " query"],
    node: Int[Tensor, " query"],
) -> Predicted:
    """Returns what slots predict, both in a span and before it; see `SourceHead.read`.

    Args:
        model: with a source head.
        outputs: of the trunk for slots of the span.
        source: 1 + one of these slots for each query, or 0 for one before the span.
        held: masses of those before it.
        held_slot: which of these each query then asks.
        node: of the open text.
    """
    assert model.source_head is not None
    new, old = (source > 0).nonzero()[:, 0], (source == 0).nonzero()[:, 0]
    by_new = model.source_head.ask(outputs, model.source_head_weight, source[new] - 1, node[new])
    by_old = model.source_head.read(held, held_slot[old], node[old])
    order = torch.cat((new, old)).argsort()
    return Predicted(*(torch.cat(pair)[order] for pair in zip(by_new, by_old, strict=True)))


def masses_after(
    model: ByteLM, state: DecodingState, span: Span, sources: SpanSources, outputs: Float[Tensor, "slot trunk_dim"]
) -> Float[Tensor, "batch turn 2 mass"]:
    """Returns what the state after a span holds; `span` may be cut."""
    assert model.source_head is not None
    held, none, found = Held.of(state), torch.zeros_like(span.lengths), []
    for before, source in ((held.commit, sources.newest_commit), (held.scratchpad, sources.open_scratchpad)):
        newest, masses = span.last(source, none), held.masses[before]
        new = (newest > 0).nonzero()[:, 0]
        masses[new] = model.source_head.cumulative(outputs[newest[new] - 1], model.source_head_weight)
        found.append(masses)
    masses = torch.stack(found, dim=1)
    return torch.stack((masses, masses), dim=1)


__all__ = ["SpanSources", "by_newest_commits", "masses_after", "mixed_span"]
