"""Baseline `megabyte` (Yu et al. 2023): a global model over fixed patches, a local model inside each patch.

With offset o(n) = n - start(n), position n predicts byte j = o mod p of patch k = o // p of its document. It reads
slice j of the global output for patch k, and byte n itself unless that lies in the patch before. The global input for
patch k is the concatenated embeddings of patch k - 1, so a global position exists wherever o mod p = 0, the separator
included.
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from patchpad.config import NUM_BYTE_VALUES, VOCAB_SIZE, ModelConfig
from patchpad.model.attention import Attend
from patchpad.model.back_ends import document_attention, window_attentions
from patchpad.model.baselines.baseline import Baseline, BaselineOutput, CausalTransformer, counted
from patchpad.model.outputs import Predicted
from patchpad.model.precision import plain_defaults
from patchpad.model.weights import (
    LM_HEAD_STD,
    DrawsWeights,
    Embedding,
    Linear,
    PreciseLinear,
    draw_normal,
    draw_weights,
)
from patchpad.patching import Documents
from patchpad.shapes import ByteFloats, ByteIds, ByteInts, ByteMask

PAD = NUM_BYTE_VALUES
"""Row of the local embedding for positions whose byte lies in the patch before."""


@dataclass(frozen=True, kw_only=True)
class GlobalLayout:
    """Where the global model's positions lie in a batch, and which of them each byte reads."""

    slot_mask: ByteMask
    """Positions n with o(n) mod p = 0: they complete a patch, or start a document."""
    newest_slot: ByteInts
    """Number, in its row, of the newest of them at or before n."""
    slot_position: Int[Tensor, "batch row_slot"]
    """Position n of each row's slots; unused places repeat position 0."""
    slot_start: Int[Tensor, "batch row_slot"]
    """Number of the slot that starts the document of each slot."""

    @staticmethod
    def build(documents: Documents, patch_size: int) -> "GlobalLayout":
        """Lays the slots of each row out from the left."""
        slot_mask = (documents.offset % patch_size == 0) & ~documents.is_padding
        newest = slot_mask.long().cumsum(dim=1) - 1
        width = max(1, int(newest.max()) + 1)  # rows of nothing but padding have no slot
        positions = torch.arange(slot_mask.shape[1], device=slot_mask.device).expand_as(newest)
        place = torch.where(slot_mask, newest, width)  # one place more, for positions without a slot
        slot_position = newest.new_zeros(len(newest), width + 1).scatter_(1, place, positions)[:, :width]
        slot_start = newest.gather(1, documents.start.gather(1, slot_position)).clamp_min(0)
        return GlobalLayout(slot_mask=slot_mask, newest_slot=newest, slot_position=slot_position, slot_start=slot_start)


class PatchEmbedding(nn.Module, DrawsWeights):
    """Bytes of a patch, each embedded at width D / p and concatenated; a learned vector before a document's first."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.embedding = Embedding(NUM_BYTE_VALUES, config.trunk_dim // config.patchifier.target_patch_size)
        self.first = nn.Parameter(torch.empty(config.trunk_dim))

    def draw(self, generator: torch.Generator) -> None:
        """Draws the vector before a document's first patch, with unit variance like the embeddings."""
        draw_normal(self.first, 1.0, generator)

    def forward(self, patches: Int[Tensor, "*where place"], is_first: Tensor) -> Float[Tensor, "*where trunk_dim"]:
        """Embeds the bytes of the patch before; where `is_first`, there is none and they are not read."""
        embedded = self.embedding(torch.where(is_first[..., None], 0, patches)).flatten(-2)
        return torch.where(is_first[..., None], self.first, embedded)


class LocalModel(nn.Module):
    """Transformer inside one patch: a slice of the global output plus the byte before, then the LM head."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.embedding = Embedding(NUM_BYTE_VALUES + 1, config.byte_dim)
        self.transformer = CausalTransformer(
            config.decoder_layers, config.byte_dim, config.byte_heads, config.byte_hidden_dim, config.rotary_base
        )
        self.lm_head = PreciseLinear(config.byte_dim, VOCAB_SIZE, std=LM_HEAD_STD)

    def forward(
        self,
        slices: Float[Tensor, "*where byte_dim"],
        ids: Int[Tensor, "*where"],
        place: Int[Tensor, "*where"],
        attend: Attend,
    ) -> Float[Tensor, "*where vocab"]:
        """Returns logits of the next id.

        Args:
            slices: what the global model says about the next byte.
            ids: the newest id; not read at place 0.
            place: j, the place of the next byte in its patch.
            attend: sees the positions of the same patch.
        """
        known = torch.where(place == 0, PAD, ids).clamp_max(PAD)  # padding, whose output nothing reads
        return self.lm_head(self.transformer(slices + self.embedding(known), place, attend))


class MegaByte(Baseline):
    """MegaByte without its options: no strided inference, no cross-patch attention."""

    is_one_graph = False  # the host counts the patches of the longest row

    @plain_defaults()
    def __init__(self, config: ModelConfig, *, seed: int = 0) -> None:
        super().__init__(config)
        self.patch_size = config.patchifier.target_patch_size
        self.patch_embedding = PatchEmbedding(config)
        self.trunk = CausalTransformer.trunk(config)
        self.slices = Linear(config.trunk_dim // self.patch_size, config.byte_dim)
        self.local_model = LocalModel(config)
        draw_weights(self, seed)

    def run_trunk(
        self,
        patches: Int[Tensor, "*where place"],
        patch_index: Int[Tensor, "*where"],
        attend: Attend,
    ) -> Float[Tensor, "*where place byte_dim"]:
        """Returns, for each patch k of `patch_index`, its slices, from the bytes of patch k - 1."""
        states = self.trunk(self.patch_embedding(patches, patch_index == 0), patch_index, attend)
        return self.slices(states.unflatten(-1, (self.patch_size, -1)))

    def forward(self, byte_ids: ByteIds, *, keep_activations: bool = False) -> BaselineOutput:
        """Predicts the next id at every position in one pass.

        Args:
            byte_ids: 0..255 bytes, 256 separators (each row starts with one), 257 padding at the ends of rows.
            keep_activations: also return keys and values, for a prefill.

        Raises:
            InputError: ids out of range, or a row without a leading separator.
        """
        self.check_ids(byte_ids)
        return self.run(byte_ids, keep_activations=keep_activations)

    def run(self, ids: ByteIds, *, keep_activations: bool = False) -> BaselineOutput:
        """Runs a full pass, unchecked; see `forward`."""
        documents, size = Documents.locate(ids), self.patch_size
        layout = GlobalLayout.build(documents, size)
        source = layout.slot_position[..., None] + torch.arange(1 - size, 1, device=ids.device)
        patches = ids.gather(1, source.clamp_min(0).flatten(1)).view_as(source)
        patch_index = documents.offset.gather(1, layout.slot_position) // size
        trunk_sees = document_attention(layout.slot_start, keep=keep_activations)
        slices = self.run_trunk(patches, patch_index, trunk_sees)

        place = documents.offset % size
        positions = torch.arange(ids.shape[1], device=ids.device)
        in_patch = replace(documents, start=positions - place)
        (local_sees,) = window_attentions(in_patch, (size,), keep=keep_activations)
        rows = torch.arange(len(ids), device=ids.device)[:, None]
        logits = self.local_model(slices[rows, layout.newest_slot, place], ids, place, local_sees)
        return BaselineOutput(
            logits=logits, documents=documents, trunk=trunk_sees.kept, local=local_sees.kept, slices=slices
        )

    def count(self, output: BaselineOutput, targets: Int[Tensor, "batch position"], nats: ByteFloats) -> Predicted:
        """Counts a pass whose trunk has a position for each complete patch and each start of a document."""
        documents = output.documents
        is_slot = (documents.offset % self.patch_size == 0) & ~documents.is_padding
        return counted(
            output,
            targets,
            nats,
            num_commits=is_slot.sum(),
            trunk_pairs=torch.where(is_slot, documents.offset // self.patch_size + 1, 0).sum(),
            num_positions=(~documents.is_padding).sum(),
        )
