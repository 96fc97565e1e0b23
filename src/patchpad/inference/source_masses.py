"""Steps and spans with a source head: the masses of tokens that a row's newest commit and scratchpad foretell."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from patchpad.inference.patch_state import DecodingState, PatchCounts
from patchpad.inference.span import Span
from patchpad.model.byte_lm import ByteLM
from patchpad.model.source_head import mixed_logits, with_draft
from patchpad.patching.vocabulary_trie import ROOT
from patchpad.shapes import ByteInts


@dataclass(frozen=True)
class OpenText:
    """What is open at a byte, and how far the newest scratchpad has read it."""

    node: int
    """Of the open text."""
    draft_node: int
    """Of what of it the newest draft has read, see `newest_drafts`; of the empty text without one."""
    since: int
    """Of the bytes since."""

    @staticmethod
    def of(model: ByteLM, newest_ids: Sequence[int], open_bytes: int, draft_bytes: int) -> "OpenText":
        """Looks the texts up.

        Args:
            model: with a source head.
            newest_ids: up to the byte, newest first.
            open_bytes: how many of them are open.
            draft_bytes: how many of these the newest draft has read; 0 without one.
        """
        text, trie = bytes(newest_ids[:open_bytes][::-1]), model.source_trie
        return OpenText(trie.node_of(text), trie.node_of(text[:draft_bytes]), trie.node_of(text[draft_bytes:]))


@dataclass(frozen=True)
class OpenTexts:
    """The same of many bytes, as tensors."""

    node: Int[Tensor, " byte"]
    draft_node: Int[Tensor, " byte"]
    since: Int[Tensor, " byte"]
    at: Int[Tensor, " drafted"]
    """The bytes that have a draft."""

    @staticmethod
    def of(
        model: ByteLM,
        newest_ids: Int[Tensor, "byte recent"],
        open_bytes: Int[Tensor, " byte"],
        draft_bytes: Int[Tensor, " byte"],
    ) -> "OpenTexts":
        """Looks all texts up on the host, which waits for the device."""
        columns = zip(newest_ids.tolist(), open_bytes.tolist(), draft_bytes.tolist(), strict=True)
        known = [OpenText.of(model, *one) for one in columns]
        nodes = [(text.node, text.draft_node, text.since) for text in known]
        node, draft_node, since = torch.tensor(nodes, dtype=torch.int64).view(-1, 3).to(draft_bytes.device).unbind(1)
        return OpenTexts(node, draft_node, since, at=(draft_bytes > 0).nonzero()[:, 0])


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
    assert state.masses is not None
    assert model.source_head is not None
    counts = PatchCounts(*(part[rows] for part in state.patch_counts))
    texts = OpenTexts.of(model, state.recent_ids[rows], counts.open_bytes, counts.draft_bytes)
    masses = state.masses[rows, counts.num_refreshes % 2]
    return model.source_head.of_masses(own, masses, texts.node, texts.draft_node, texts.at, texts.since)


@dataclass(frozen=True)
class SpanSources:
    """From which slot each new byte reads masses: 1 + a slot of the span, or 0 for what the state before holds."""

    newest_commit: Int[Tensor, " new"]
    newest_draft: Int[Tensor, " new"]

    @staticmethod
    def of(span: Span, commits: ByteInts, scratchpads: Tensor, newest_draft: ByteInts) -> "SpanSources":
        """Finds them.

        Args:
            span: new ids.
            commits: at each of them, padded.
            scratchpads: likewise.
            newest_draft: 1 + the newest draft at each, padded; 0 where there is none in the span.
        """
        places = torch.arange(span.width, device=commits.device)
        column = torch.where(commits > 0, places, -1).cummax(dim=1).values
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
    assert state.masses is not None
    before, at = state.turn(state.masses), texts.at
    commits = _Masses(model, outputs, before[:, 0])
    drafts = _Masses(model, outputs, before[:, 1])
    going_on, ending, draft = commits.ask(sources.newest_commit, span.rows, texts.node, texts.draft_node)
    since = texts.since[at]
    behind, ending_behind, _ = drafts.ask(sources.newest_draft[at], span.rows[at], since, since)
    going_on, ended = with_draft(going_on, ending, at, draft[at], since == ROOT, behind, ending_behind)
    return mixed_logits(own, going_on, ended)


def masses_after(
    model: ByteLM, state: DecodingState, span: Span, sources: SpanSources, outputs: Float[Tensor, "slot trunk_dim"]
) -> Float[Tensor, "batch turn 2 mass"]:
    """Returns what the state after a span holds."""
    assert state.masses is not None
    before, none = state.turn(state.masses), torch.zeros_like(span.lengths)
    found = []
    for kind, newest in enumerate((sources.newest_commit, sources.newest_draft)):
        found.append(_Masses(model, outputs, before[:, kind]).of_slots(span.last(newest, none)))
    masses = torch.stack(found, dim=1)
    return torch.stack((masses, masses), dim=1)


class _Masses:
    """Masses of a span's slots, and those that a state holds of the slots before.

    Args:
        model: with a source head.
        outputs: of the trunk for the slots of the span.
        before: masses that each row's state holds.
    """

    def __init__(
        self, model: ByteLM, outputs: Float[Tensor, "slot trunk_dim"], before: Float[Tensor, "batch mass"]
    ) -> None:
        assert model.source_head is not None
        self.head = model.source_head
        self.weight = model.source_head_weight
        self.outputs = outputs
        self.before = before

    def ask(
        self,
        source: Int[Tensor, " query"],
        rows: Int[Tensor, " query"],
        node: Int[Tensor, " query"],
        draft_node: Int[Tensor, " query"],
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Returns what `SourceHead.ask` does; `source` is 1 + a slot of the span, or 0 for the state of the row."""
        new, old = (source > 0).nonzero()[:, 0], (source == 0).nonzero()[:, 0]
        of_new = self.head.ask(self.outputs, self.weight, source[new] - 1, node[new], draft_node[new])
        masses = self.before[rows[old]]
        of_old = (
            self.head.going_on(masses, node[old]),
            self.head.ending(masses, node[old]),
            self.head.ending(masses, draft_node[old]),
        )
        order = torch.cat((new, old)).argsort()
        going_on, ending, draft = (torch.cat(pair)[order] for pair in zip(of_new, of_old, strict=True))
        return going_on, ending, draft

    def of_slots(self, source: Int[Tensor, " batch"]) -> Float[Tensor, "batch mass"]:
        """Returns the masses of one slot for each row."""
        masses, new = self.before.clone(), (source > 0).nonzero()[:, 0]
        masses[new] = self.head.cumulative(self.outputs[source[new] - 1], self.weight)
        return masses


__all__ = ["OpenTexts", "SpanSources", "keep_masses", "masses_after", "mixed_span", "mixed_step"]
