"""Baseline `byte`: a plain decoder-only Transformer over bytes."""

from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from patchpad.config import NUM_INPUT_IDS, VOCAB_SIZE, ModelConfig
from patchpad.model.back_ends import document_attention
from patchpad.model.baselines.baseline import Baseline, BaselineOutput, CausalTransformer, counted
from patchpad.model.outputs import Predicted
from patchpad.model.precision import plain_defaults
from patchpad.model.weights import LM_HEAD_STD, Embedding, PreciseLinear, draw_weights
from patchpad.patching import Documents
from patchpad.shapes import ByteFloats, ByteIds


class PlainTransformer(Baseline):
    """Embedding, causal Transformer of the trunk's sizes, LM head; over ids of any meaning, 256 the separator."""

    def __init__(self, config: ModelConfig, num_input_ids: int, num_outcomes: int) -> None:
        super().__init__(config)
        self.padding_id = num_input_ids - 1
        self.embedding = Embedding(num_input_ids, config.trunk_dim)
        self.trunk = CausalTransformer.trunk(config)
        self.lm_head = PreciseLinear(config.trunk_dim, num_outcomes, std=LM_HEAD_STD)

    def run(self, ids: Int[Tensor, "batch position"], *, keep_activations: bool = False) -> BaselineOutput:
        """Runs a full pass, unchecked; see `forward`."""
        documents = replace(Documents.locate(ids), is_padding=ids == self.padding_id)
        sees = document_attention(documents.start, keep=keep_activations)
        states = self.trunk(self.embedding(ids), documents.offset, sees)
        return BaselineOutput(
            logits=self.predict(states), documents=documents, trunk=sees.kept, local=[], states=states
        )

    def predict(self, states: Float[Tensor, "*where trunk_dim"]) -> Float[Tensor, "*where vocab"]:
        """Returns the logits of the next id."""
        return self.lm_head(states)

    def encode_prompt(self, prompt: bytes) -> list[int]:
        """Returns a prompt as ids, without the separator before it."""
        return list(prompt)

    def count(self, output: BaselineOutput, targets: Int[Tensor, "batch position"], nats: ByteFloats) -> Predicted:
        """Counts a pass in which every position is one of the trunk's."""
        documents = output.documents
        is_position = ~documents.is_padding
        num_positions = is_position.sum()
        return counted(
            output,
            targets,
            nats,
            num_commits=num_positions,
            trunk_pairs=torch.where(is_position, documents.offset + 1, 0).sum(),
            num_positions=num_positions,
        )


class ByteTransformer(PlainTransformer):
    """The plain Transformer over 256 bytes and the separator."""

    @plain_defaults()
    def __init__(self, config: ModelConfig, *, seed: int = 0) -> None:
        super().__init__(config, NUM_INPUT_IDS, VOCAB_SIZE)
        draw_weights(self, seed)

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
