"""Baseline `bpe`: the plain Transformer over tokens that are learned from the training text."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from patchpad.config import IGNORED_TARGET, PADDING, SEPARATOR, ModelConfig
from patchpad.errors import InputError
from patchpad.model.baselines.baseline import BaselineOutput
from patchpad.model.baselines.bpe_tokens import BpeTokens
from patchpad.model.baselines.byte_transformer import PlainTransformer
from patchpad.model.outputs import Predicted, target_nats
from patchpad.model.precision import plain_defaults
from patchpad.model.weights import draw_weights
from patchpad.patching import Decisions, SlotRoom
from patchpad.shapes import ByteIds

TOKENIZER = "tokenizer.json"


class BpeTransformer(PlainTransformer):
    """Reads and scores the same windows of bytes as every model; inside, they are tokens.

    Ids of `forward` and of `patchpad.step` are tokens: 0..255 bytes, 256 the separator, then learned ones.
    """

    is_one_graph = False  # the host finds the tokens

    @plain_defaults()
    def __init__(self, config: ModelConfig, *, seed: int = 0) -> None:
        super().__init__(config, config.bpe_vocab_size + 1, config.bpe_vocab_size)
        self._tokens: BpeTokens | None = None
        draw_weights(self, seed)

    @property
    def tokens(self) -> BpeTokens:
        """The learned tokens.

        Raises:
            InputError: none were learned or loaded yet.
        """
        if self._tokens is None:
            raise InputError(
                "this bpe model has no tokens yet", hint="Call model.prepare(documents), or load a trained run."
            )
        return self._tokens

    def prepare(self, documents: Sequence[np.ndarray]) -> None:
        """Learns tokens from the training text, unless the model has some."""
        if self._tokens is None:
            self._tokens = BpeTokens.learn(documents, self.config.bpe_vocab_size)

    def extra_files(self) -> dict[str, str]:
        """Returns `tokenizer.json`."""
        return {TOKENIZER: self.tokens.to_json()}

    def read_extra_files(self, folder: Path) -> None:
        """Reads `tokenizer.json`."""
        self._tokens = BpeTokens.from_json(self.extra_text(folder / TOKENIZER))

    @property
    def highest_id(self) -> int:
        """The last token that was learned."""
        return len(self.tokens) - 1

    def bytes_of(self, chosen_id: int) -> bytes | None:
        """Returns the bytes of a token; None for the end of the document."""
        return None if chosen_id == SEPARATOR else self.tokens.bytes_of[chosen_id]

    def encode_prompt(self, prompt: bytes) -> list[int]:
        """Returns the tokens of a prompt, as if its last byte ended a token: what follows begins a new one."""
        return self.tokens.encode(prompt)

    def predict(self, states: Float[Tensor, "*where trunk_dim"]) -> Float[Tensor, "*where vocab"]:
        """Returns the logits of the next token; -inf for entries that a small text left without a token."""
        logits = self.lm_head(states)
        unused = torch.arange(logits.shape[-1], device=logits.device) >= len(self.tokens)
        return logits.masked_fill(unused, -torch.inf)

    def forward(self, token_ids: Int[Tensor, "batch token"], *, keep_activations: bool = False) -> BaselineOutput:
        """Predicts the next token at every position in one pass.

        Args:
            token_ids: tokens; each row starts with the separator 256, and `padding_id` fills the ends of rows.
            keep_activations: also return keys and values, for a prefill.

        Raises:
            InputError: ids out of range, or a row without a leading separator.
        """
        self.check_ids(token_ids)
        return self.run(token_ids, keep_activations=keep_activations)

    def predict_targets(
        self,
        byte_ids: ByteIds,
        targets: ByteIds,
        decisions: Decisions | None = None,
        *,
        room: SlotRoom | None = None,
    ) -> Predicted:
        """Tokenises each window, and puts a token's nats on its last byte; see `LanguageModel`."""
        windows = _windows(byte_ids.tolist(), targets.tolist())
        parts = self.tokens.encode_many([part for window in windows for part in window.parts])
        rows: list[tuple[list[int], list[int], list[int]]] = [([], [], []) for _ in byte_ids]
        for window, repeated, counted in zip(windows, parts[::2], parts[1::2], strict=True):
            for column, more in zip(rows[window.row], self._columns(window, repeated, counted), strict=True):
                column += more
        token_ids, token_targets, places = (
            _padded(lists, fill).to(byte_ids.device)
            for lists, fill in zip(zip(*rows, strict=True), (self.padding_id, IGNORED_TARGET, 0), strict=True)
        )
        output = self.run(token_ids)
        token_nats = target_nats(output.logits, token_targets)
        # Ignored tokens add 0 wherever they are put.
        nats = torch.zeros(byte_ids.shape, device=byte_ids.device).scatter_add(1, places, token_nats)
        return replace(
            self.count(output, token_targets, nats),
            num_positions=(byte_ids != PADDING).sum(),
        )

    def _columns(
        self, window: "_Window", repeated: list[int], counted: list[int]
    ) -> tuple[list[int], list[int], list[int]]:
        """Returns a window's input tokens, target tokens, and the place in the row that each target's last byte has."""
        tokens = repeated + counted
        ends = np.cumsum([len(self.tokens.bytes_of[token]) for token in tokens], dtype=int) - 1
        wanted, places = [IGNORED_TARGET] * len(repeated) + counted, (window.start + ends).tolist()
        if window.ends_document:
            end = window.start + sum(map(len, window.parts))
            return [SEPARATOR, *tokens], [*wanted, SEPARATOR], [*places, end]
        return [SEPARATOR, *tokens[:-1]], wanted or [IGNORED_TARGET], places or [window.start]


@dataclass(frozen=True)
class _Window:
    """A window of bytes in a row, whose last byte is a target only unless it ends its document."""

    row: int
    start: int
    parts: tuple[bytes, bytes]
    """Bytes that the window before has counted already, and the others: no token may belong to both."""
    ends_document: bool


def _windows(byte_ids: list[list[int]], targets: list[list[int]]) -> list[_Window]:
    found = []
    for row, (ids, wanted) in enumerate(zip(byte_ids, targets, strict=True)):
        length = ids.index(PADDING) if PADDING in ids else len(ids)
        starts = [place for place in range(length) if ids[place] == SEPARATOR]
        for start, end in itertools.pairwise([*starts, length]):  # a row of padding has none
            last = wanted[end - 1]
            data = bytes(ids[start + 1 : end] + [last] * (0 <= last < SEPARATOR))
            counted_from = next((place for place in range(start, end) if wanted[place] != IGNORED_TARGET), end)
            parts = (data[: counted_from - start], data[counted_from - start :])
            found.append(_Window(row, start, parts, last == SEPARATOR))
    return found


def _padded(lists: Sequence[list[int]], fill: int) -> Tensor:
    width = max(1, *map(len, lists))
    return torch.tensor([[*values, *[fill] * (width - len(values))] for values in lists])
