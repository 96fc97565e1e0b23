"""The state of the patch model between two steps."""

from copy import copy
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from patchpad.inference.cache import LocalCache, TrunkCache, capacity_for, ring_of
from patchpad.inference.row_state import RowState
from patchpad.inference.split_cache import SplitTrunkCache
from patchpad.model.byte_lm import ByteLM, ByteLMOutput
from patchpad.model.ngrams import recent_ids
from patchpad.model.source_head import open_scratchpads
from patchpad.shapes import ByteIds

SPARE_PLACES = 32
"""Places at least that a trunk's cache has beyond its window, so that unseen entries are dropped once for many."""


class PatchCounts(NamedTuple):
    """Integers that the patch model keeps of each row; the first are those of `Counts`."""

    position: Int[Tensor, " row"]
    newest_id: Int[Tensor, " row"]
    num_patches: Int[Tensor, " row"]
    trunk_calls: Int[Tensor, " row"]
    open_length: Int[Tensor, " row"]
    """Ids of the newest id's patch up to that id; the separator counts in a document's first patch. With `tokens`: ids
    that were open when the newest one had come, before its commits."""
    open_bytes: Int[Tensor, " row"]
    """The same, the separator not counted. With `tokens`: of the open text, after the commits."""
    piece_length: Int[Tensor, " row"]
    """With `tokens`: like `open_length`, of the open piece, which the open text is the end of; else 0."""
    piece_bytes: Int[Tensor, " row"]
    """With `tokens`: like `open_bytes`, of the open piece; else 0."""
    ends_patch: Int[Tensor, " row"]
    """1 where the newest id closed its patch, so that the next one opens another."""
    has_scratchpad: Int[Tensor, " row"]
    """1 where a scratchpad fires at the newest id."""
    slot_position: Int[Tensor, " row"]
    """Position of the newest slot's last byte; before the document's first slot, 0."""
    num_refreshes: Int[Tensor, " row"]
    """Positions that had slots since the prefill began."""
    scratchpad_bytes: Int[Tensor, " row"]
    """With `tokens` patches: bytes that the open scratchpad has read, see `open_scratchpads`; 0 without one."""
    num_dropped: Int[Tensor, " row"]
    """With a window of the trunk: the oldest of the row's patches, which the trunk's cache has dropped; 0 without."""


NUM_COUNTS = len(PatchCounts._fields)


@dataclass
class DecodingState(RowState):
    """Everything that the next step of each row needs; see `RowState`.

    `ints` holds `PatchCounts` and then, where something needs them, the newest ids of each row's document, newest
    first, then zeros; see `num_recent`. `floats` holds, where the model has them, the entropy at the newest id in nats
    and the router's probability there.
    """

    encoder: LocalCache
    entropy_head: LocalCache | None
    """None without a head, or for one without layers."""
    decoder: LocalCache
    byte_states: Float[Tensor, "batch place byte_dim"]
    """A ring of the newest byte states, longer than any patch: that of position p lies at p % its length."""
    contexts: Float[Tensor, "batch turn addition byte_dim"]
    """What the newest slot adds at the local decoder's layers, see `ContextToBytes`; that of refresh r at r % 2."""
    smoothed: Float[Tensor, "batch turn trunk_dim"] | None
    """For `hnet`: the recurrence over commits, as commit k left it, at k % 2."""
    masses: Float[Tensor, "batch turn 2 mass"] | None
    """With a source head: `SourceHead.cumulative` of the newest commit and of the open scratchpad; that of refresh r at
    r % 2."""
    trunk_window: int | None = None
    """Newest patches that a slot sees; None for all."""

    @property
    def num_places(self) -> Int[Tensor, " batch"]:
        """Places of the trunk's cache that each row takes."""
        counts = self.patch_counts
        return counts.num_patches - counts.num_dropped

    @property
    def drops_patches(self) -> bool:
        """Whether the trunk has a window."""
        return self.trunk_window is not None

    def num_seen(self, patch_index: Int[Tensor, "*where"]) -> Int[Tensor, "*where"]:
        """Returns how many patches slots see, those themselves left out."""
        return patch_index if self.trunk_window is None else patch_index.clamp_max(self.trunk_window)

    def has_at_most(self, most_patches: int) -> None:
        """Notes that no row has more patches; where patches are dropped, that says nothing of places."""
        if not self.drops_patches:
            super().has_at_most(most_patches)

    def make_room(self) -> None:
        """Sees to it that every row has a place for one more slot."""
        if self.drops_patches and self.most_patches >= self.trunk.capacity:
            self.most_patches = int(self.num_places.max())  # as in every state, an upper bound until now
            if self.most_patches >= self.trunk.capacity:
                self.drop_unseen(1)
        super().make_room()

    def make_room_for(self, most_places: int, most_new: int) -> None:
        """Sees to it that every row has places for its new commits, and one more.

        Args:
            most_places: that a row takes, its new commits included.
            most_new: new commits of a row.
        """
        if self.trunk_window is not None and most_places >= self.trunk.capacity:
            self.drop_unseen(most_new)
            most_places = min(most_places, self.trunk_window + most_new)
        super().has_at_most(most_places)

    def drop_unseen(self, most_new: int) -> None:
        """Drops patches that no further slot sees. Caches are copied: those of other states stay as they are.

        Args:
            most_new: commits that are to follow at once.
        """
        window = self.trunk_window
        assert window is not None
        assert not isinstance(self.trunk, SplitTrunkCache), "with a window, no row is much longer than the others"
        counts = self.patch_counts
        num_dropped = (counts.num_patches - window).clamp_min(0)
        num_dropped = torch.maximum(num_dropped, counts.num_dropped)
        capacity = capacity_for(window + max(most_new, SPARE_PLACES, window // 4))
        self.trunk = self.trunk.without_first(num_dropped - counts.num_dropped, window, capacity)
        counts = counts._replace(num_dropped=num_dropped)
        self.ints = torch.cat((torch.stack(counts, dim=1), self.recent_ids), dim=1)
        self.most_patches = min(self.most_patches, window)

    @property
    def patch_counts(self) -> PatchCounts:
        """Integers of each row, by name."""
        return PatchCounts(*self.ints[:, :NUM_COUNTS].unbind(1))

    @property
    def recent_ids(self) -> Int[Tensor, "batch recent"]:
        """The newest ids of each row's document, newest first, then zeros."""
        return self.ints[:, NUM_COUNTS:]

    def with_own_rings(self) -> "DecodingState":
        """Returns a copy to read and predict on while the trunk waits: nothing that it writes into is this state's."""
        own = copy(self)
        own.encoder, own.decoder = self.encoder.clone(), self.decoder.clone()
        own.entropy_head = None if self.entropy_head is None else self.entropy_head.clone()
        own.byte_states = self.byte_states.clone()
        return own

    def turn(self, cache: Float[Tensor, "batch turn *rest"]) -> Float[Tensor, "batch *rest"]:
        """Returns what each row's newest refresh left in a cache."""
        rows = torch.arange(len(self.ints), device=self.ints.device)
        return cache[rows, self.patch_counts.num_refreshes % 2]

    @property
    def context(self) -> Float[Tensor, "batch addition byte_dim"]:
        """What each row's newest slot adds at the local decoder's layers."""
        return self.turn(self.contexts)


def state_of_prefill(
    model: ByteLM, byte_ids: ByteIds, last_position: Int[Tensor, " batch"], output: ByteLMOutput
) -> DecodingState:
    """Returns the state after a full pass over one document per row.

    Args:
        model: in eval mode.
        byte_ids: a separator and a prompt in each row.
        last_position: position of each row's newest id.
        output: of the pass, with its activations.
    """
    layout, kept, config = output.layout, output.activations, model.config
    assert kept is not None
    rows = torch.arange(len(byte_ids), device=byte_ids.device)
    commits, has_scratchpad, open_bytes, patch_index, patch_lag = (
        part[rows, last_position]
        for part in (
            layout.commits_at,
            layout.scratchpad_mask,
            layout.open_bytes,
            layout.patch_index,
            layout.patch_lag,
        )
    )
    open_length = open_bytes + (patch_index == 0)
    piece_length, piece_bytes = torch.zeros_like(open_bytes), torch.zeros_like(open_bytes)
    scratchpad_lag, scratchpad_at = torch.full_like(open_bytes, -1), torch.zeros_like(open_bytes)
    if output.facts.tokens is not None:  # one more than what the id before has left open, if there is one
        before, in_pieces = (last_position - 1).clamp_min(0), output.facts.tokens.piece_bytes
        open_length, piece_length = (
            1 + torch.where(last_position > 0, part[rows, before], 0) for part in (layout.open_bytes, in_pieces)
        )
        piece_bytes = in_pieces[rows, last_position]
        scratchpad_lag, scratchpad_at = (part[rows, last_position] for part in open_scratchpads(layout))
    counts = PatchCounts(
        position=last_position,
        newest_id=byte_ids[rows, last_position],
        num_patches=patch_index + commits,
        trunk_calls=(layout.commits_at + layout.scratchpad_mask).sum(dim=1),
        open_length=open_length,
        open_bytes=open_bytes,
        piece_length=piece_length,
        piece_bytes=piece_bytes,
        ends_patch=(commits > 0).long(),
        has_scratchpad=has_scratchpad.long(),
        slot_position=last_position - patch_lag,
        num_refreshes=(layout.patch_end_mask | layout.scratchpad_mask).sum(dim=1),
        scratchpad_bytes=torch.where(scratchpad_lag >= 0, open_bytes - scratchpad_lag, 0),
        num_dropped=torch.zeros_like(open_bytes),
    )
    ints = [torch.stack(counts, dim=1)]
    if num_recent(model) > 0:
        recent = recent_ids(byte_ids, layout.documents.offset, num_recent(model))
        ints.append(recent[rows, last_position])
    numbers = [number for number in (output.entropy_nats, output.boundary_probability) if number is not None]
    context = kept.contexts[layout.newest_slot[rows, last_position]]
    smoothed = None
    if output.boundary_probability is not None:
        newest = kept.slot_outputs.new_zeros(len(byte_ids), config.trunk_dim)
        has_commit = counts.num_patches > 0
        newest[has_commit] = kept.slot_outputs[layout.rows.commits[has_commit, counts.num_patches[has_commit] - 1]]
        smoothed = torch.stack((newest, newest), dim=1)
    masses = None
    if model.source_head is not None:
        newest = torch.cat((layout.newest_commit[rows, last_position], layout.newest_slot.flatten()[scratchpad_at]))
        outputs = kept.slot_outputs[newest - 1]
        masses = model.source_head.cumulative(outputs, model.source_head_weight).unflatten(0, (2, -1)).transpose(0, 1)
        masses = torch.stack((masses, masses), dim=1)
    state = DecodingState(
        ints=torch.cat(ints, dim=1),
        floats=torch.stack([number[rows, last_position].float() for number in numbers], dim=1)
        if numbers
        else torch.zeros(len(byte_ids), 0, device=byte_ids.device),
        most_patches=layout.rows.commits.shape[1],
        trunk=TrunkCache.from_prefill(kept.trunk, layout.rows.commits),
        encoder=LocalCache.from_prefill(kept.encoder, last_position, config.encoder_window),
        entropy_head=LocalCache.from_prefill(kept.entropy_head, last_position, config.entropy_head_window)
        if kept.entropy_head
        else None,
        decoder=LocalCache.from_prefill(kept.decoder, last_position, config.decoder_window),
        byte_states=ring_of(kept.byte_states, last_position, longest_slot(model) + 1),
        contexts=torch.stack((context, context), dim=1),
        smoothed=smoothed,
        masses=masses,
        trunk_window=config.trunk_window_patches,
    )
    if state.trunk_window is not None and state.most_patches > state.trunk_window + SPARE_PLACES:
        state.drop_unseen(1)
    return state


def longest_slot(model: ByteLM) -> int:
    """Most positions whose byte states a slot needs: those of a patch, and the separator before the first one.

    With `tokens` patches it is the newest byte alone, for the decoder.
    """
    patchifier = model.config.patchifier
    return 1 if patchifier.commits_tokens else patchifier.longest_patch + 1


def num_recent(model: ByteLM) -> int:
    """Newest ids of a row that its state keeps: for n-grams, and with `tokens` for the piece open before the newest."""
    ngrams = model.local_encoder.ngrams
    of_ngrams = 0 if ngrams is None else ngrams.num_recent
    patchifier = model.config.patchifier
    return max(of_ngrams, 1 + patchifier.longest_patch) if patchifier.commits_tokens else of_ngrams
