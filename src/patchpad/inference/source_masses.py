"""Steps with a source head: the masses of tokens that a row's newest commit and scratchpad predict."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from patchpad.inference.patch_state import DecodingState, PatchCounts
from patchpad.model.byte_lm import ByteLM
from patchpad.model.source_head import ended_share, mixed_logits, with_scratchpads
from patchpad.patching import TokenFacts


@dataclass(frozen=True, kw_only=True)
class OpenTexts:
    """What is open at bytes, as nodes of the source's trie."""

    node: Int[Tensor, " byte"]
    """Of the open text."""
    at: Int[Tensor, " some"]
    """The bytes with an open scratchpad, see `open_scratchpads`."""
    read_node: Int[Tensor, " some"]
    """Of what of their open text that scratchpad has read."""
    since: Int[Tensor, " some"]
    """Of the bytes since the scratchpad."""

    @staticmethod
    def find(
        model: ByteLM,
        newest_ids: Int[Tensor, "byte recent"],
        open_bytes: Int[Tensor, " byte"],
        scratchpad_bytes: Int[Tensor, " byte"],
    ) -> "OpenTexts":
        """Looks them up on the host, which waits for the device.

        Args:
            model: with a source head.
            newest_ids: up to each byte, newest first.
            open_bytes: how many of them are open.
            scratchpad_bytes: how many of these the open scratchpad has read; 0 without one.
        """
        node_of, nodes = model.source_trie.node_of, []
        for ids, num_open, num_read in zip(
            newest_ids.tolist(), open_bytes.tolist(), scratchpad_bytes.tolist(), strict=True
        ):
            text = bytes(ids[:num_open][::-1])
            nodes.append((node_of(text), node_of(text[:num_read]), node_of(text[num_read:])))
        node, read_node, since = (
            torch.tensor(nodes, dtype=torch.int64).view(-1, 3).to(scratchpad_bytes.device).unbind(1)
        )
        at = (scratchpad_bytes > 0).nonzero()[:, 0]
        return OpenTexts(node=node, at=at, read_node=read_node[at], since=since[at])


def ended_share_of_step(
    model: ByteLM, state: DecodingState, rows: Int[Tensor, " row"], tokens: TokenFacts
) -> Float[Tensor, " row"]:
    """Returns how likely the open text of `rows` has ended, see `ended_share`, after ids that are not yet read.

    Args:
        model: with a source head.
        state: before these ids.
        rows: different rows of the state.
        tokens: what the ids commit and leave open.
    """
    assert model.source_head is not None
    held = Held.of(state)
    predicted = model.source_head.read(held.masses, held.commit[rows], tokens.node)
    return ended_share(predicted, tokens.num_commits, tokens.open_token)


def keep_masses(
    model: ByteLM,
    state: DecodingState,
    rows: Int[Tensor, " row"],
    num_commits: Int[Tensor, " row"],
    counts: PatchCounts,
    outputs: Float[Tensor, "slot trunk_dim"],
) -> None:
    """Writes the masses of each row's newest commit and scratchpad; without new ones they are those before.

    Args:
        model: with a source head.
        state: its caches are written into.
        rows: that are refreshed.
        num_commits: of each of them.
        counts: of each of them, before the refresh.
        outputs: of the trunk for their slots, row by row, each row's commits before its scratchpad.
    """
    assert state.masses is not None
    assert model.source_head is not None
    before, after = counts.num_refreshes % 2, (counts.num_refreshes + 1) % 2
    fires = counts.has_scratchpad == 1
    end = (num_commits + fires).cumsum(0)
    for kind, is_new, slot in ((0, num_commits > 0, end - 1 - fires.long()), (1, fires, end - 1)):
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
    texts = OpenTexts.find(model, state.recent_ids[rows], counts.open_bytes, counts.scratchpad_bytes)
    held, head = Held.of(state), model.source_head
    by_commit = head.read(held.masses, held.commit[rows], texts.node)
    holder = rows[texts.at]
    token_mass = head.ending(held.masses, held.commit[holder], texts.read_node)
    by_scratchpad = head.read(held.masses, held.scratchpad[holder], texts.since)
    return mixed_logits(own, *with_scratchpads(by_commit, token_mass, by_scratchpad, texts.at, texts.since))


@dataclass(frozen=True)
class Held:
    """Masses by the slots before, as a state holds them; and which are of each row's newest commit and scratchpad."""

    masses: Float[Tensor, "slot mass"]
    commit: Int[Tensor, " batch"]
    scratchpad: Int[Tensor, " batch"]

    @staticmethod
    def of(state: DecodingState) -> "Held":
        """Returns views of a state."""
        assert state.masses is not None
        rows = torch.arange(len(state.ints), device=state.ints.device)
        commit = 4 * rows + 2 * (state.patch_counts.num_refreshes % 2)  # two turns, of two kinds each
        return Held(state.masses.flatten(0, 2), commit, commit + 1)


__all__ = ["Held", "OpenTexts", "ended_share_of_step", "keep_masses", "mixed_step"]
