"""The source's own output head, read byte by byte.

A subword model says how likely each token comes next. How likely each *byte* comes next follows by adding tokens up:
of those that begin with the open text, the share that goes on with that byte. Tokens that are exactly the open text say
nothing about the byte after them. A scratchpad, which is the trunk's reading of that very token, predicts that byte.
Without one, the local decoder does so alone.
"""

import itertools
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from patchpad.config import NUM_BYTE_VALUES, VOCAB_SIZE, ModelConfig
from patchpad.device import wide_dtype
from patchpad.model.precision import PreciseBuffers
from patchpad.model.weights import LM_HEAD_STD, DrawsWeights, draw_normal
from patchpad.patching import PatchLayout, SourceTokens, TokenFacts, VocabularyTrie
from patchpad.patching.layout import newest_place
from patchpad.patching.vocabulary_trie import DEAD, ROOT
from patchpad.shapes import ByteFloats, ByteIds, ByteInts, ByteMask, Logits

SLOTS_AT_ONCE = 128
"""Slots whose masses over the whole vocabulary are held at once in a full pass."""
LEAST_ENDED_SHARE = 1e-3
"""Least share of the probability that is left to the local decoder, so that no byte is impossible."""
LEAST_MASS = 1e-12
"""Where the masses add up to less, tokens say nothing: no token begins with the open text."""


class Predicted(NamedTuple):
    """Probabilities, called masses, that slots give to what comes next: one row for each query."""

    going_on: Float[Tensor, "query vocab"]
    """Of the tokens that begin with the open text and go on with each byte."""
    ending: Float[Tensor, " query"]
    """Of the token that is exactly the open text."""


class ByCommits(NamedTuple):
    """What the newest commits predict of the bytes of a batch, row after row."""

    predicted: Predicted
    ended_share: ByteFloats
    """See `ended_share`."""
    lesson: "Lesson | None"
    """In training only."""


class Lesson(NamedTuple):
    """What the source expects behind tokens of a batch that have ended, each of which was open as one token."""

    last_byte: Int[Tensor, " ended"]
    """Of each token, in the flattened [batch * byte]."""
    expected: Float[Tensor, "ended vocab"]
    """How likely each id comes next; without a gradient."""

    def nats(self, own: Float[Tensor, "byte own"]) -> Float[Tensor, " byte"]:
        """Returns the cross-entropy of what the local decoder says there, 0 elsewhere."""
        local = local_logits(own[self.last_byte]).to(self.expected.dtype)
        nats = -(self.expected * local).sum(dim=-1)
        return nats.new_zeros(len(own)).index_put((self.last_byte,), nats).float()


class SourceWeights(nn.Module, DrawsWeights):
    """Weights of an output head that are not the token embeddings."""

    def __init__(self, num_ids: int, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_ids, dim))

    def draw(self, generator: torch.Generator) -> None:
        """Draws the weights."""
        draw_normal(self.weight, LM_HEAD_STD, generator)


class SourceHead(PreciseBuffers):
    """Masses of the next byte from trunk outputs, and their mixture with what the local decoder says.

    Args:
        config: of the model. With `source_head: tied` the weights are the token embeddings, and each call gets them.
    """

    bounds: Tensor
    exact: Tensor
    order: Tensor
    num_bytes: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        num_ids = config.patchifier.num_token_ids
        assert num_ids is not None
        self.own = SourceWeights(num_ids, config.trunk_dim) if config.source_head == "own" else None
        self.trie: VocabularyTrie | None = None
        self.num_masses = num_ids - NUM_BYTE_VALUES + 1
        """Numbers that `cumulative` returns for a slot."""
        self.num_texts = 0
        """Tokens that are text; those that end a document follow them in `order`."""
        for name in ("bounds", "exact", "order", "num_bytes"):
            self.register_buffer(name, torch.zeros(0, dtype=torch.int64), persistent=False)

    def use_source_tokens(self, tokens: SourceTokens, trie: VocabularyTrie) -> None:
        """Takes over the vocabulary that the weights are of."""
        device = self.bounds.device
        self.trie, self.num_texts = trie, len(trie.order)
        self.num_bytes = torch.tensor([len(data or b"") for data in tokens.bytes_of] + [1] * NUM_BYTE_VALUES).to(device)
        self.bounds, self.exact = trie.bounds.to(device), trie.exact.to(device)
        self.order = torch.cat((trie.order, torch.tensor(tokens.ends, dtype=torch.int64))).to(device)

    def of_commits(
        self,
        outputs: Float[Tensor, "commit trunk_dim"],
        weight: Float[Tensor, "id trunk_dim"],
        newest_commit: ByteInts,
        tokens: TokenFacts,
        *,
        teaches: bool,
    ) -> ByCommits:
        """Returns what the commits of a batch predict, and, if it is asked for, what they teach the local decoder.

        That a token has ended is known once its commit has come, and then the source says, too, what it had expected
        behind it. Without a scratchpad, that is what the local decoder has to predict. From all that the source
        expects it learns more than from the one byte that came.

        Args:
            outputs: of the trunk.
            weight: of the head.
            newest_commit: 1 + index of the newest commit at each byte; 0 without one.
            tokens: what the bytes commit and leave open.
            teaches: whether there is a lesson.
        """
        commit, node = (newest_commit - 1).clamp_min(0).flatten(), tokens.node.flatten()
        lesson = None
        if teaches:
            last_byte, ended = _ended(tokens, self.num_bytes)
            ended = ended.clamp_max(len(outputs) - 1)  # commits without a place: see `PatchLayout.overflows`
            at_root = torch.full_like(ended, ROOT)
            told = self.ask(outputs, weight, torch.cat((commit, ended)), torch.cat((node, at_root)))
            expected = told.going_on[len(commit) :].detach()
            lesson = Lesson(last_byte, expected / expected.sum(dim=-1, keepdim=True))
            predicted = Predicted(*(part[: len(commit)] for part in told))
        else:
            predicted = self.ask(outputs, weight, commit, node)
        share = ended_share(predicted, tokens.num_commits.flatten(), tokens.open_token.flatten())
        return ByCommits(predicted, share.view_as(newest_commit), lesson)

    def of_pass(
        self,
        own: Float[Tensor, "batch byte own"],
        by_commit: Predicted,
        slot_outputs: Float[Tensor, "slot trunk_dim"],
        weight: Float[Tensor, "id trunk_dim"],
        layout: PatchLayout,
        tokens: TokenFacts,
        byte_ids: ByteIds,
    ) -> Logits:
        """Returns the logits of a full pass.

        Args:
            own: what the local decoder says, see `mixed_logits`.
            by_commit: see `of_commits`.
            slot_outputs: of the trunk.
            weight: of the head.
            layout: of the batch.
            tokens: what its bytes commit and leave open.
            byte_ids: of the batch.
        """
        assert self.trie is not None
        lag, scratchpad_at = open_scratchpads(layout)
        at = (lag >= 0).flatten().nonzero()[:, 0]
        scratchpad_at = scratchpad_at.flatten()[at]
        since = nodes_since_scratchpad(self.trie, byte_ids, lag).flatten()[at]
        by_scratchpad = self.ask(slot_outputs, weight, layout.newest_slot.flatten()[scratchpad_at] - 1, since)
        # No commit has come since the scratchpad: at its byte the newest one told the mass of the scratchpad's token.
        told = with_scratchpads(by_commit, by_commit.ending[scratchpad_at], by_scratchpad, at, since)
        return mixed_logits(own.flatten(0, 1), *told).view(*byte_ids.shape, -1)

    def cumulative(
        self, slot_outputs: Float[Tensor, "slot trunk_dim"], weight: Float[Tensor, "id trunk_dim"]
    ) -> Float[Tensor, "slot cumulative"]:
        """Returns the mass of all tokens before each rank, in the order of their bytes; those that end a document last.

        In fp64 where the device has it: the mass of a long beginning is a small difference of two large sums.
        """
        with torch.autocast(slot_outputs.device.type, enabled=False):
            logits = F.linear(slot_outputs.float(), weight.float())[:, self.order]
            mass = logits.softmax(dim=-1).to(wide_dtype(logits.device)).cumsum(dim=-1)
        masses = F.pad(mass, (1, 0))
        return torch.cat((masses, masses[:, -1:].expand(-1, self.num_masses - masses.shape[1])), dim=1)

    def going_on(
        self,
        cumulative: Float[Tensor, "slot cumulative"],
        slot: Int[Tensor, " query"],
        node: Int[Tensor, " query"],
    ) -> Float[Tensor, "query vocab"]:
        """Returns the mass of the tokens that begin with a node's text and go on with each byte.

        At the root, where a token begins, the document may end too.

        Args:
            cumulative: masses of slots.
            slot: of each query.
            node: of each query.
        """
        at_bounds = _masses_before(cumulative, slot, self.bounds[node].long())
        end = (cumulative[:, -1] - cumulative[:, self.num_texts])[slot]
        end = torch.where(node == ROOT, end, 0.0)
        return torch.cat((at_bounds.diff(dim=1), end[:, None]), dim=1)

    def ending(
        self,
        cumulative: Float[Tensor, "slot cumulative"],
        slot: Int[Tensor, " query"],
        node: Int[Tensor, " query"],
    ) -> Float[Tensor, " query"]:
        """Returns the mass of the token that is exactly a node's text; 0 if none is. Arguments: see `going_on`."""
        rank = self.exact[node].long()
        first = rank.clamp_min(0)[:, None]
        mass = _masses_before(cumulative, slot, torch.cat((first, first + 1), dim=1)).diff(dim=1)[:, 0]
        return torch.where(rank >= 0, mass, 0.0)

    def ask(
        self,
        slot_outputs: Float[Tensor, "slot trunk_dim"],
        weight: Float[Tensor, "id trunk_dim"],
        slot: Int[Tensor, " query"],
        node: Int[Tensor, " query"],
    ) -> Predicted:
        """Returns what slots predict, see `read`.

        Slots are taken some at a time, so that the masses over the vocabulary of all of them are never there at once.

        Args:
            slot_outputs: of a batch.
            weight: of the head.
            slot: that each query asks.
            node: of the open text.
        """
        by_slot = slot.argsort(stable=True)
        edges = torch.arange(0, len(slot_outputs) + SLOTS_AT_ONCE, SLOTS_AT_ONCE, device=slot.device)
        cuts = torch.searchsorted(slot[by_slot], edges).tolist()
        parts = []
        for number, (low, high) in enumerate(itertools.pairwise(cuts)):
            if high == low:
                continue
            first = number * SLOTS_AT_ONCE
            some, asked = slot_outputs[first : first + SLOTS_AT_ONCE], by_slot[low:high]
            places = (some, weight, slot[asked] - first, node[asked])
            if torch.is_grad_enabled() and (some.requires_grad or weight.requires_grad):
                parts.append(checkpoint(self._ask_some, *places, use_reentrant=False, preserve_rng_state=False))
            else:
                parts.append(self._ask_some(*places))
        inverse = by_slot.argsort()
        if not parts:  # no queries; or no slots, as in a batch of padding alone
            nothing = slot_outputs.new_zeros(len(slot), dtype=wide_dtype(slot.device))
            return Predicted(nothing.new_zeros(len(slot), VOCAB_SIZE), nothing)
        return Predicted(*(torch.cat(part)[inverse] for part in zip(*parts, strict=True)))

    def _ask_some(self, slot_outputs: Tensor, weight: Tensor, slot: Tensor, node: Tensor) -> Predicted:
        return self.read(self.cumulative(slot_outputs, weight), slot, node)

    def read(
        self,
        cumulative: Float[Tensor, "slot cumulative"],
        slot: Int[Tensor, " query"],
        node: Int[Tensor, " query"],
    ) -> Predicted:
        """Returns the predictions of slots whose masses are known.

        Args:
            cumulative: masses of slots.
            slot: that each query asks.
            node: of the open text.
        """
        return Predicted(self.going_on(cumulative, slot, node), self.ending(cumulative, slot, node))


def _masses_before(
    cumulative: Float[Tensor, "slot cumulative"], slot: Int[Tensor, " query"], rank: Int[Tensor, "query some"]
) -> Float[Tensor, "query some"]:
    """Returns the mass before some ranks. Many queries may share a slot: its masses are never copied for each."""
    place = slot[:, None] * cumulative.shape[1] + rank
    return cumulative.flatten().gather(0, place.flatten()).view_as(rank)


def open_scratchpads(layout: PatchLayout) -> tuple[ByteInts, ByteInts]:
    """Finds the *open scratchpad* of each position: the newest one, if no commit has come since.

    Returns:
        Bytes since that scratchpad, 0 at it and -1 without one; and its place in the flattened [batch * byte], or 0.
    """
    newest = open_scratchpad_place(layout.scratchpad_mask, layout.commits_at > 0)
    # A separator commits, so nothing of an earlier document is found.
    found = (newest >= 0) & ~layout.documents.is_padding
    batch, length = found.shape
    positions = torch.arange(length, device=found.device)
    rows = torch.arange(0, batch * length, length, device=found.device)[:, None]
    return torch.where(found, positions - newest, -1), torch.where(found, newest + rows, 0)


def open_scratchpad_place(fires: ByteMask, has_commit: ByteMask) -> ByteInts:
    """Returns the column of the open scratchpad at each one; -1 without one.

    Args:
        fires: where a scratchpad fires; it comes after the commits of its byte.
        has_commit: where something is committed.
    """
    newest = newest_place(fires)
    return torch.where(newest >= newest_place(has_commit), newest, -1)


def nodes_since_scratchpad(trie: VocabularyTrie, byte_ids: ByteIds, lag: ByteInts) -> ByteInts:
    """Returns the node of the bytes since the open scratchpad at each position; DEAD where there is none.

    Args:
        trie: of the source's vocabulary.
        byte_ids: of a batch.
        lag: bytes since the scratchpad, as `open_scratchpads` returns them.
    """
    node = torch.where(lag == 0, ROOT, DEAD)
    for distance in range(1, int(lag.max()) + 1):
        rows, columns = (lag == distance).nonzero(as_tuple=True)
        node[rows, columns] = trie.child(node[rows, columns - 1], byte_ids[rows, columns])
    return node


def ended_share(
    by_commit: Predicted, num_commits: Int[Tensor, " query"], open_token: Int[Tensor, " query"]
) -> Float[Tensor, " query"]:
    """Returns how likely the open text is a token that has ended, in fp32, as the trigger `ending_entropy` reads it.

    It is asked of the newest commit before the byte, so that a step knows it before the trunk runs: 0 at bytes that
    commit, and where the open text is not one token.

    Args:
        by_commit: what the newest commit predicts of each byte.
        num_commits: tokens committed there.
        open_token: the token that the open text is, or -1.
    """
    ending = by_commit.ending.detach()
    total = (by_commit.going_on.detach().sum(dim=-1) + ending).clamp_min(LEAST_MASS)
    return torch.where((num_commits == 0) & (open_token >= 0), (ending / total).float(), 0.0)


def _ended(tokens: TokenFacts, num_bytes: Int[Tensor, " id"]) -> tuple[Int[Tensor, " ended"], Int[Tensor, " ended"]]:
    """Finds the tokens of a batch that were open, each as one token, at their last byte.

    Args:
        tokens: of the batch.
        num_bytes: of each token.

    Returns:
        The place of that last byte in the flattened [batch * byte], and the token's commit.
    """
    counts = tokens.num_commits.flatten()
    at = torch.arange(len(counts), device=counts.device).repeat_interleave(counts)
    so_far = num_bytes[tokens.commit_tokens].cumsum(0)
    later = so_far[counts.cumsum(0)[at] - 1] - so_far  # bytes of what the same byte commits after it
    last = at - tokens.open_bytes.flatten()[at] - later
    was_open = (tokens.open_token.flatten()[last] == tokens.commit_tokens).nonzero()[:, 0]
    return last[was_open], was_open


def with_scratchpads(
    by_commit: Predicted,
    token_mass: Float[Tensor, " some"],
    by_scratchpad: Predicted,
    at: Int[Tensor, " some"],
    since: Int[Tensor, " some"],
) -> tuple[Float[Tensor, "query vocab"], Float[Tensor, " query"]]:
    """Adds what open scratchpads predict: their token may have ended, and another token may have begun.

    Args:
        by_commit: what each byte's newest commit predicts of the open text.
        token_mass: of the bytes with an open scratchpad: mass, by the newest commit, of the token that it has read.
        by_scratchpad: what the scratchpad predicts of the bytes since.
        at: these bytes.
        since: nodes of the bytes since the scratchpad.

    Returns:
        `going_on` and `ended`, as `mixed_logits` takes them.
    """
    going_on = by_commit.going_on.index_add(0, at, token_mass[:, None] * by_scratchpad.going_on)
    # If the scratchpad is at this very byte, the token is taken to have ended there: it is no longer open.
    behind = torch.where(since == ROOT, -by_commit.ending[at], token_mass * by_scratchpad.ending)
    return going_on, by_commit.ending.index_add(0, at, behind)


def local_logits(own: Float[Tensor, "*where own"]) -> Float[Tensor, "*where vocab"]:
    """Returns what the local decoder says where no token does."""
    return own[..., :VOCAB_SIZE].log_softmax(dim=-1)


def mixed_logits(
    own: Float[Tensor, "*where own"], going_on: Float[Tensor, "*where vocab"], ended: Float[Tensor, "*where"]
) -> Float[Tensor, "*where vocab"]:
    """Returns log-probabilities of the next id, from the mass of tokens and, where they end, from the local decoder.

    p(b) is in proportion to going_on(b) + ended x e^gate x softmax(own)(b). There `ended` is at least LEAST_ENDED_SHARE
    of the sum of `going_on`. Where there is no mass at all, the local decoder speaks alone.

    Args:
        own: the local decoder's logits of 257 ids, and the gate behind them.
        going_on: mass of the tokens that go on with each byte.
        ended: mass of the tokens that end here, whose next byte no token says.
    """
    wide = going_on.dtype
    total = going_on.sum(dim=-1)
    says_something = total + ended >= LEAST_MASS
    ended = torch.where(says_something, torch.maximum(ended, LEAST_ENDED_SHARE * total), 1.0)
    going_on = torch.where(says_something[..., None], going_on, 0.0)
    logits, gate = own[..., :VOCAB_SIZE].to(wide), own[..., VOCAB_SIZE].to(wide)
    local = logits.log_softmax(dim=-1) + (ended.log() + gate)[..., None]
    # A mass of exactly 0 has the logarithm -inf; its gradient, 1 / 0, must not come about.
    mass = going_on.clamp_min(torch.finfo(wide).tiny).log()
    return torch.logaddexp(mass, local).log_softmax(dim=-1).float()


__all__ = [
    "ByCommits",
    "Lesson",
    "Predicted",
    "SourceHead",
    "ended_share",
    "local_logits",
    "mixed_logits",
    "nodes_since_scratchpad",
    "open_scratchpad_place",
    "open_scratchpads",
    "with_scratchpads",
]
