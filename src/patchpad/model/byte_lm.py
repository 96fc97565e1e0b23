"""The paper's figure, top to bottom: bytes -> encoder -> entropies -> patches and scratchpads -> trunk -> decoder."""

from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from patchpad.config import ModelConfig
from patchpad.errors import InputError
from patchpad.model.back_ends import slot_attention, window_attentions
from patchpad.model.commits_first import CommitsFirst
from patchpad.model.entropy_head import EntropyHead
from patchpad.model.hnet import Routing, smooth, straight_through_confidence
from patchpad.model.language_model import LanguageModel
from patchpad.model.local_decoder import ContextToBytes, LocalDecoder
from patchpad.model.local_encoder import LocalEncoder
from patchpad.model.outputs import Activations, ByteLMOutput, Predicted
from patchpad.model.patch_pooling import ByteProjection, PatchPooling
from patchpad.model.precision import plain_defaults
from patchpad.model.source_head import ByCommits, SourceHead, local_logits
from patchpad.model.token_inputs import TokenInputs
from patchpad.model.trunk import Trunk
from patchpad.model.weights import draw_weights
from patchpad.patching import (
    ByteFacts,
    Decisions,
    Documents,
    PatchLayout,
    SlotRoom,
    SourceTokens,
    ThresholdLike,
    TokenFacts,
    VocabularyTrie,
    facts_of_rows,
)
from patchpad.shapes import ByteFloats, ByteIds, Logits, SlotStates

SOURCE_TOKENS = "source_tokens.json"
"""What a run with `tokens` patches keeps of its source's tokenizer."""


class ByteLM(LanguageModel):
    """Byte-level language model with Scratchpad Patching (arXiv 2605.09630)."""

    @plain_defaults()
    def __init__(self, config: ModelConfig, *, seed: int = 0) -> None:
        super().__init__(config)
        self.local_encoder = LocalEncoder(config)
        self.entropy_head = EntropyHead(config) if config.reads_entropy else None
        self.routing = Routing(config) if config.patchifier.kind == "hnet" else None
        self.patch_pooling = _slot_inputs(config)
        self.trunk = Trunk(config)
        self.context_to_bytes = ContextToBytes(config)
        self.local_decoder = LocalDecoder(config)
        self.source_head = SourceHead(config) if config.has_source_head else None

        self.is_one_graph = not config.patchifier.commits_tokens  # the host finds the tokens
        self._source_tokens: SourceTokens | None = None
        self._trie: VocabularyTrie | None = None
        draw_weights(self, seed)

    @property
    def source_tokens(self) -> SourceTokens:
        """The tokens of the source, for `tokens` patches.

        Raises:
            InputError: there are none.
        """
        if self._source_tokens is None:
            raise InputError(
                f"this model with `{self.config.patchifier.kind}` patches has no tokens of a source",
                hint="Make a run with `patchpad convert`, and load it or start from it by --init-from.",
            )
        return self._source_tokens

    @property
    def source_trie(self) -> VocabularyTrie:
        """The vocabulary of the source."""
        assert self.source_tokens is not None
        assert self._trie is not None
        return self._trie

    def use_source_tokens(self, tokens: SourceTokens) -> None:
        """Takes the tokens of the source.

        Raises:
            InputError: they are not as many, or not as long, as the configuration says.
        """
        patchifier = self.config.patchifier
        for name, found, allowed in (
            ("ids", tokens.num_ids, patchifier.num_token_ids),
            ("bytes in their longest open text", tokens.longest(), patchifier.longest_patch),
        ):
            if found != allowed:
                raise InputError(
                    f"the source's tokens have {found} {name}; allowed: {allowed}, as the configuration says"
                )
        self._source_tokens, self._trie = tokens, VocabularyTrie(tokens.bytes_of)
        if self.source_head is not None:
            self.source_head.use_source_tokens(tokens, self._trie)

    @property
    def source_head_weight(self) -> Float[Tensor, "id trunk_dim"]:
        """Weights of the source's output head: its own, or the token embeddings."""
        assert self.source_head is not None
        if self.source_head.own is not None:
            return self.source_head.own.weight
        assert isinstance(self.patch_pooling, TokenInputs)
        return self.patch_pooling.embedding.weight

    def extra_files(self) -> dict[str, str]:
        """Returns `source_tokens.json` for `tokens` patches."""
        return {SOURCE_TOKENS: self.source_tokens.to_json()} if self.config.patchifier.commits_tokens else {}

    def read_extra_files(self, folder: Path) -> None:
        """Reads `source_tokens.json` for `tokens` patches."""
        if self.config.patchifier.commits_tokens:
            self.use_source_tokens(SourceTokens.of_run(self.extra_text(folder / SOURCE_TOKENS)))

    @property
    def patch_threshold(self) -> Float[Tensor, ""]:
        """What the patchifier compares its score with: nats for `entropy`, a probability for `hnet`."""
        return self.patch_threshold_nats if self.routing is None else self.routing.threshold

    def forward(
        self,
        byte_ids: ByteIds,
        scratchpad_threshold_nats: ThresholdLike = None,
        *,
        decisions: Decisions | None = None,
        keep_activations: bool = False,
        null_context: bool = False,
    ) -> ByteLMOutput:
        """Predicts the next id at every position in one masked pass.

        Args:
            byte_ids: 0..255 bytes, 256 separators (each row starts with one), 257 padding at the ends of rows.
            scratchpad_threshold_nats: None for the stored threshold, a float, [batch] or [batch, byte].
            decisions: decide instead of the model's own patchifier and trigger, in the place of a threshold.
            keep_activations: also return what a prefill needs.
            null_context: every byte reads the null context, as before a document's first slot: what the local parts can
                do alone. Patches and scratchpads are decided as ever.

        Raises:
            InputError: ids out of range, a row without a leading separator, an impossible threshold, or a threshold
                beside decisions.
        """
        self.check_ids(byte_ids)
        if decisions is None:
            decisions = self.decisions(scratchpad_threshold_nats, batch=len(byte_ids), length=byte_ids.shape[1])
        elif scratchpad_threshold_nats is not None:
            raise InputError("both scratchpad_threshold_nats and decisions are given; allowed: one of them")
        return self.run(byte_ids, decisions, keep_activations=keep_activations, null_context=null_context)

    def run(
        self,
        byte_ids: ByteIds,
        decisions: Decisions,
        *,
        room: SlotRoom | None = None,
        keep_activations: bool = False,
        null_context: bool = False,
    ) -> ByteLMOutput:
        """Does what `forward` does, without checks of the ids and decisions.

        With a room, nothing is read from the device. Then look at `layout.overflows` before the outputs are used.
        """
        config, documents = self.config, Documents.locate(byte_ids)
        positions = documents.offset
        windows = (config.encoder_window, config.entropy_head_window, config.decoder_window)
        encoder_sees, head_sees, decoder_sees = window_attentions(documents, windows, keep=keep_activations)
        tokens = None
        if config.patchifier.commits_tokens:
            tokens = facts_of_rows(self.source_tokens, self.source_trie, byte_ids)

        # Bytes -> local encoder -> entropies.
        byte_states = self.local_encoder(byte_ids, positions, encoder_sees)
        byte_states = self.with_open_tokens(byte_states, None if tokens is None else tokens.open_token)
        entropy_logits = entropies = None
        if self.entropy_head is not None:
            entropy_logits, entropies = self.entropy_head(byte_states, positions, head_sees)
        boundaries = None if self.routing is None else self.routing(byte_states, documents)

        # Patches and scratchpads.
        first = by_commits = ended = None
        if self.source_head is not None:
            first, by_commits = self._commits_first(documents, tokens, room)
            ended = by_commits.ended_share
        facts = ByteFacts.gather(byte_ids, documents, entropies, boundaries, tokens, ended)
        layout = decisions.layout(facts, documents, room, config.trunk_window_patches)

        # Trunk.
        trunk_sees = slot_attention(layout, keep=keep_activations)
        slot_inputs = self.patch_pooling(*((byte_states, layout) if tokens is None else (layout, tokens)))
        if first is None:
            slot_outputs = self.trunk(slot_inputs, layout.slot_patch_index, trunk_sees)
        else:
            slot_outputs = first.then_scratchpads(self.trunk, slot_inputs, layout, trunk_sees)
        if boundaries is not None:
            slot_outputs = smooth(slot_outputs, layout, boundaries)

        # Local decoder.
        contexts = self.context_to_bytes.with_null(slot_outputs)
        additions = self._additions(contexts, layout, boundaries, null_context=null_context)
        logits = self.local_decoder(byte_states, additions, positions, decoder_sees)
        source_nats = None
        if by_commits is not None:
            logits, source_nats = self._with_source(logits, by_commits, slot_outputs, layout, facts, null_context)

        activations = None
        if keep_activations:
            activations = Activations(
                byte_states=byte_states,
                slot_outputs=slot_outputs,
                contexts=contexts,
                encoder=encoder_sees.kept,
                entropy_head=head_sees.kept,
                trunk=trunk_sees.kept if first is None else trunk_sees.kept or list(first.layers.values()),
                decoder=decoder_sees.kept,
            )
        return ByteLMOutput(
            logits=logits,
            layout=layout,
            facts=facts,
            entropy_logits=entropy_logits,
            source_nats=source_nats,
            activations=activations,
        )

    def _commits_first(
        self, documents: Documents, tokens: TokenFacts | None, room: SlotRoom | None
    ) -> tuple[CommitsFirst, ByCommits]:
        """Runs the commits through the trunk, and asks the source's output head what they predict."""
        assert self.source_head is not None
        assert isinstance(self.patch_pooling, TokenInputs)
        assert tokens is not None
        window = self.config.trunk_window_patches
        first = CommitsFirst.run(self.trunk, self.patch_pooling, documents, tokens, room, window)
        newest, weight = first.layout.newest_slot, self.source_head_weight
        return first, self.source_head.of_commits(first.outputs, weight, newest, tokens, teaches=self.training)

    def _additions(
        self,
        contexts: Float[Tensor, "context addition byte_dim"],
        layout: PatchLayout,
        boundaries: ByteFloats | None,
        *,
        null_context: bool,
    ) -> Float[Tensor, "batch byte layer byte_dim"]:
        """Returns what each decoder layer adds to bytes: from their newest slots, or from the null context alone."""
        newest = torch.zeros_like(layout.newest_slot) if null_context else layout.newest_slot
        additions = self.context_to_bytes.read(contexts, (newest,), layout.patch_lag)
        if boundaries is None:
            return additions
        return additions * straight_through_confidence(boundaries).to(additions.dtype)[..., None, None]

    def _with_source(
        self,
        own: Float[Tensor, "batch byte own"],
        by_commits: ByCommits,
        slot_outputs: SlotStates,
        layout: PatchLayout,
        facts: ByteFacts,
        null_context: bool,
    ) -> tuple[Logits, ByteFloats | None]:
        """Mixes what the local decoder says with what the source's output head does.

        Returns:
            The logits, and in training what `ByteLMOutput.source_nats` are.
        """
        assert self.source_head is not None
        assert facts.tokens is not None
        nats = None
        if by_commits.lesson is not None:
            nats = by_commits.lesson.nats(own.flatten(0, 1)).view_as(facts.byte_ids)
        if null_context:
            return local_logits(own), nats
        weight, predicted = self.source_head_weight, by_commits.predicted
        logits = self.source_head.of_pass(own, predicted, slot_outputs, weight, layout, facts.tokens, facts.byte_ids)
        return logits, nats

    def with_open_tokens(
        self, byte_states: Float[Tensor, "*where byte_dim"], token: Int[Tensor, "*where"] | None
    ) -> Float[Tensor, "*where byte_dim"]:
        """Returns byte states that know their open tokens, see `OpenToken`; None without `tokens` patches."""
        if token is None:
            return byte_states
        assert isinstance(self.patch_pooling, TokenInputs)
        assert self.local_encoder.open_token is not None
        return self.local_encoder.open_token(byte_states, token, self.patch_pooling.embedding)

    def boundary_probabilities(self, byte_ids: ByteIds) -> ByteFloats:
        """Returns how likely a chunk starts at each byte; see `LanguageModel`."""
        if self.routing is None:
            return super().boundary_probabilities(byte_ids)
        documents = Documents.locate(byte_ids)
        (sees,) = window_attentions(documents, (self.config.encoder_window,))
        return self.routing(self.local_encoder(byte_ids, documents.offset, sees), documents)

    def predict_targets(
        self,
        byte_ids: ByteIds,
        targets: ByteIds,
        decisions: Decisions | None = None,
        *,
        room: SlotRoom | None = None,
    ) -> Predicted:
        """Runs a pass and returns the nats of its targets; see `LanguageModel`."""
        decisions = decisions or self.decisions_at(self.scratchpad_threshold_nats)
        return self.run(byte_ids, decisions, room=room).predicted(targets)

    def predict_targets_without_trunk(
        self, byte_ids: ByteIds, targets: ByteIds, decisions: Decisions | None = None
    ) -> Predicted:
        """The same where every byte reads the null context; see `LanguageModel`."""
        decisions = decisions or self.decisions_at(self.scratchpad_threshold_nats)
        return self.run(byte_ids, decisions, null_context=True).predicted(targets)


def _slot_inputs(config: ModelConfig) -> PatchPooling | ByteProjection | TokenInputs:
    """Returns what makes the inputs of slots."""
    if config.patchifier.commits_tokens:
        return TokenInputs(config)
    return PatchPooling(config) if config.pools_bytes else ByteProjection(config)
