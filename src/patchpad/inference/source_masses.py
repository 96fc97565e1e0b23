"""Steps and spans with a source head: the masses of tokens that a row's newest commit and draft foretell."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from patchpad.inference.patch_state import DecodingState, PatchCounts
from patchpad.inference.span import Span
from patchpad.model.byte_lm import ByteLM
from patchpad.model.source_head import Foretold, OpenTexts, mixed_logits, with_drafts
from patchpad.patching.layout import newest_place
from patchpad.shapes import ByteInts, ByteMask


def open_texts(
    model: ByteLM,
    newest_ids: Int[Tensor, "byte recent"],
    open_bytes: Int[Tensor, " byte"],
    draft_bytes: Int[Tensor, " byte"],
) -> OpenTexts:
    """Looks up on the host, which waits for the device, what is open at bytes.

    Args:
        model: with a source head.
        newest_ids: up to each byte, newest first.
        open_bytes: how many of them are open.
        draft_bytes: how many of these the newest draft has read; 0 without one.
    """
    node_of, nodes = model.source_trie.node_of, []
    for ids, num_open, num_read in zip(newest_ids.tolist(), open_bytes.tolist(), draft_bytes.tolist(), strict=True):
        text = bytes(ids[:num_open][::-1])
        nodes.append((node_of(text), node_of(text[:num_read]), node_of(text[num_read:])))
    node, draft_node, since = torch.tensor(nodes, dtype=torch.int64).view(-1, 3).to(draft_bytes.device).unbind(1)
    return OpenTexts(node=node, draft_node=draft_node, at=(draft_bytes > 0).nonzero()[:, 0], since=since)


def keep_masses(
    model: ByteLM,
    state: DecodingState,
    rows: Int[Tensor, " row"],
    num_commits: Int[Tensor, " row"],
    counts: PatchCounts,
    drafts: Bool[Tensor, " row"],
    outputs: Float[Tensor, "slot trunk_dim"],
) -> None:
    """Writes the masses of each row's newest commit and draft; without new ones they are those before.

    Args:
        model: with a source head.
        state: its caches are written into.
        rows: that are refreshed.
        num_commits: of each of them.
        counts: of each of them, before the refresh.
        drafts: which of them have a new draft, see `newest_drafts`.
        outputs: of the trunk for their slots, row by row, each row's commits before its scratchpad.
    """
    assert state.masses is not None
    assert model.source_head is not None
    before, after = counts.num_refreshes % 2, (counts.num_refreshes + 1) % 2
    fires = counts.has_scratchpad == 1
    end = (num_commits + fires).cumsum(0)
    for kind, is_new, slot in ((0, num_commits > 0, end - 1 - fires.long()), (1, drafts, end - 1)):
        new, old = is_new.nonzero()[:, 0], (~is_new).nonzero()[:, 0]
        masses = model.source_head.cumulative(outputs[slot[new]], model.source_head_weight)
        state.masses[rows[new], after[new], kind] = masses
        state.masses[rows[old], after[old], kind] = state.masses[rows[old], before[old], kind]


def mixed_step(
    model: ByteLM, state: DecodingState, rows: Int[Tensor, " row"], own: Float[Tensor, "row own"]
) -> Float[Tensor, "row vocab"]:
    """Returns the logits of `rows` from what the local decoder says there; see `SourceHead.of_pass`."""
    assert model.source_head is not None
    counts = PatchCounts(*(part[rows] for part in state.patch_counts))
    texts = open_texts(model, state.recent_ids[rows], counts.open_bytes, counts.draft_bytes)
    held = _Held.of(state)
    commit, draft = held.commit[rows], held.draft[rows[texts.at]]
    by_commit = model.source_head.read(held.masses, commit, texts.node, texts.draft_node)
    by_draft = model.source_head.read(held.masses, draft, texts.since_drafts, texts.since_drafts)
    return mixed_logits(own, *with_drafts(by_commit, by_draft, texts))


@dataclass(frozen=True)
class _Held:
    """What a state holds of the slots before: masses, and which of them are of each row's newest commit and draft."""

    masses: Float[Tensor, "slot mass"]
    commit: Int[Tensor, " batch"]
    draft: Int[Tensor, " batch"]

    @staticmethod
    def of(state: DecodingState) -> "_Held":
        """Returns views of a state."""
        assert state.masses is not None
        rows = torch.arange(len(state.ints), device=state.ints.device)
        commit = 4 * rows + 2 * (state.patch_counts.num_refreshes % 2)  # two turns, of two kinds each
        return _Held(state.masses.flatten(0, 2), commit, commit + 1)


@dataclass(frozen=True)
class SpanSources:
    """From which slot each new byte reads masses: 1 + a slot of the span, or 0 for what the state before holds."""

    newest_commit: Int[Tensor, " new"]
    newest_draft: Int[Tensor, " new"]

    @staticmethod
    def of(span: Span, commits: ByteInts, scratchpads: ByteMask, newest_draft: ByteInts) -> "SpanSources":
        """Finds them.

        Args:
            span: new ids.
            commits: at each of them, padded.
            scratchpads: likewise.
            newest_draft: 1 + the newest draft at each, padded; 0 where there is none in the span.
        """
        column = newest_place(commits > 0)
        through = (commits + scratchpads).flatten().cumsum(0).view_as(commits) - scratchpads.long()
        newest_commit = torch.where(column >= 0, through.gather(1, column.clamp_min(0)), 0)
        return SpanSources(span.packed(newest_commit), span.packed(newest_draft))


def mixed_span(
    model: ByteLM,
    state: DecodingState,
    span: Span,
    sources: SpanSources,
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
        texts: open at them.
        outputs: of the trunk for the slots of the span.
        own: what the local decoder says.
    """
    held, at = _Held.of(state), texts.at
    by_commit = _asked(
        model, outputs, sources.newest_commit, held.masses, held.commit[span.rows], texts.node, texts.draft_node
    )
    since = texts.since_drafts
    by_draft = _asked(model, outputs, sources.newest_draft[at], held.masses, held.draft[span.rows[at]], since, since)
    return mixed_logits(own, *with_drafts(by_commit, by_draft, texts))


def _asked(
    model: ByteLM,
    outputs: Float[Tensor, "slot trunk_dim"],
    source: Int[Tensor, " query"],
    held: Float[Tensor, "held mass"],
    held_slot: Int[Tensor, " query"],
    node: Int[Tensor, " query"],
    draft_node: Int[Tensor, " query"],
) -> Foretold:
    """Returns what slots foretell, be they in a span or before it; see `SourceHead.read`.

    Args:
        model: with a source head.
        outputs: of the trunk for the slots of the span.
        source: 1 + a slot of the span for each query, or 0 for one before it.
        held: masses of those before it.
        held_slot: which of these each query then asks.
        node: of the open text.
        draft_node: of the part of it that a draft has read.
    """
    assert model.source_head is not None
    new, old = (source > 0).nonzero()[:, 0], (source == 0).nonzero()[:, 0]
    by_new = model.source_head.ask(outputs, model.source_head_weight, source[new] - 1, node[new], draft_node[new])
    by_old = model.source_head.read(held, held_slot[old], node[old], draft_node[old])
    order = torch.cat((new, old)).argsort()
    return Foretold(*(torch.cat(pair)[order] for pair in zip(by_new, by_old, strict=True)))


def masses_after(
    model: ByteLM, state: DecodingState, span: Span, sources: SpanSources, outputs: Float[Tensor, "slot trunk_dim"]
) -> Float[Tensor, "batch turn 2 mass"]:
    """Returns what the state after a span holds."""
    assert model.source_head is not None
    held, none, found = _Held.of(state), torch.zeros_like(span.lengths), []
    for before, source in ((held.commit, sources.newest_commit), (held.draft, sources.newest_draft)):
        newest, masses = span.last(source, none), held.masses[before]
        new = (newest > 0).nonzero()[:, 0]
        masses[new] = model.source_head.cumulative(outputs[newest[new] - 1], model.source_head_weight)
        found.append(masses)
    masses = torch.stack(found, dim=1)
    return torch.stack((masses, masses), dim=1)


__all__ = ["SpanSources", "keep_masses", "masses_after", "mixed_span", "mixed_step", "open_texts"]
