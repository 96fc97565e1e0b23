"""The source of a converted model as the library transformers runs it, for measuring; nothing of it is our own model.

Texts are bytes. The tokens are those that the source's own tokenizer gives, and the token that begins a text stands
before them. Bytes that are not UTF-8 become the source's tokens of single bytes.
"""

import bisect
import math
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from patchpad.conversion.llama import LlamaConfig
from patchpad.conversion.source import LlamaSource
from patchpad.conversion.token_weights import tokens_of
from patchpad.cost.patch_model import block_weights
from patchpad.errors import ConversionError, MissingExtraError
from patchpad.files import sha256_of
from patchpad.patching.byte_level_bpe import ByteLevelBpe, tokenizers_library

CACHE_ITEM_BYTES = 4
"""Of a key or value in fp32."""
MOST_TAKEN_BACK = 8
"""Tokens at an end that are taken back to look for longer ones."""
LOST_BYTE_NATS = math.log(256)
"""What a byte costs that none of the source's tokens stands for."""
NOT_UTF8 = re.compile("([\udc80-\udcff]+)")


@dataclass(frozen=True)
class SourceScore:
    """What the source says about a continuation."""

    nats: float
    """-ln p of the continuation's tokens."""
    open_nats: float
    """-ln p that the text goes on with the continuation's bytes, whatever comes after: tokens that go on beyond its end
    count too. A byte model's likelihood means the same; the tokens alone also say that a token ends there. It is a
    bound: other ways to cut the bytes before are left out."""
    is_greedy: bool
    """Whether each token is the likeliest."""
    num_tokens: int
    """Of the continuation."""
    num_read: int
    """Tokens that are read: all but the last, and the one that begins a text."""
    num_lost_bytes: int
    """Bytes without a token, in the continuation; each costs `LOST_BYTE_NATS`."""


class Source:
    """A model of the llama architecture, run by transformers in fp32.

    Args:
        path: a folder of Hugging Face, or a .gguf file.
        device: where it runs.

    Raises:
        ConversionError: it cannot be read.
        MissingExtraError: transformers is not installed.
    """

    def __init__(self, path: Path, device: torch.device | str = "cpu") -> None:
        files = LlamaSource.open(path)
        self.name, self.licence = files.name, files.licence
        self.config: LlamaConfig = files.config
        self.weight_files = files.weight_files
        self.tokens = tokens_of(files)
        self.device = torch.device(device)
        text = files.tokenizer_json()
        self._byte_ids = ByteLevelBpe(text).byte_ids
        self._tokenizer: Any = tokenizers_library("the source").Tokenizer.from_str(text)
        self._tokenizer.encode_special_tokens = True  # `<|endoftext|>` in a text is text
        pairs = ((data, token) for token, data in enumerate(self.tokens.bytes_of) if data)
        self._by_bytes: list[tuple[bytes, int]] = sorted(pairs)
        self.model = pretrained(path).to(self.device)

    def facts(self) -> dict[str, Any]:
        """Returns what results say of it."""
        return {
            "name": self.name,
            "licence": None if self.licence is None else self.licence.name,
            "weights_sha256": {path.name: sha256_of(path) for path in self.weight_files},
            "num_params": sum(math.prod(shape) for shape in self.config.shapes().values()),
            "begins_with": self.tokens.begin,
        }

    def encode(self, data: bytes) -> list[int]:
        """Returns the tokens of a text, without the one that begins it."""
        ids: list[int] = []
        for run in NOT_UTF8.split(data.decode("utf-8", "surrogateescape")):
            if not run:
                continue
            if NOT_UTF8.fullmatch(run):
                found = [self._byte_ids[byte] for byte in run.encode("utf-8", "surrogateescape")]
                ids += [token for token in found if token < len(self.tokens.bytes_of)]
            else:
                ids += self._tokenizer.encode(run, add_special_tokens=False).ids
        return ids

    def split_pair(self, context: bytes, continuation: bytes) -> tuple[list[int], list[int], int]:
        """Returns the tokens of a context and of its continuation, split as lm-eval does, and the latter's bytes.

        White space at the context's end goes to the continuation; then both together are encoded, and what follows as
        many tokens as the context alone has are the continuation's. Where these first tokens are not the context's own,
        since a token would belong to both, context and continuation are encoded each by itself, so that just the
        continuation's bytes are scored. There lm-eval scores a part of them, or some of the context's.
        """
        kept = len(context.rstrip())
        before, whole = self.encode(context[:kept]), self.encode(context + continuation)
        if whole[: len(before)] == before:
            return before, whole[len(before) :], len(context) - kept + len(continuation)
        return self.encode(context), self.encode(continuation), len(continuation)

    def score_pair(self, context: bytes, continuation: bytes) -> SourceScore:
        """Scores a continuation after a context; `split_pair` says by which tokens."""
        return self.score(*self.split_pair(context, continuation))

    def score_text(self, data: bytes) -> SourceScore:
        """Scores a whole text, which begins a document."""
        return self.score([], self.encode(data), len(data))

    @torch.no_grad()
    def score(self, context: Sequence[int], continuation: Sequence[int], num_bytes: int) -> SourceScore:
        """Scores tokens after others.

        Args:
            context: tokens, without the one that begins a text; may be empty.
            continuation: tokens.
            num_bytes: of the text that was to become the continuation's tokens; those that they lack are charged.
        """
        lost = num_bytes - sum(len(self.bytes_of(token)) for token in continuation)
        charged = lost * LOST_BYTE_NATS
        if not continuation:
            return SourceScore(charged, charged, False, 0, 0, lost)
        ids = [self.tokens.begin, *context, *continuation[:-1]]
        given = torch.tensor([ids], device=self.device)
        logits = self.model(given, use_cache=False, logits_to_keep=len(continuation)).logits[0].float()
        logs = logits.log_softmax(dim=-1)
        wanted = torch.tensor(list(continuation), device=self.device)
        of_tokens = logs.gather(1, wanted[:, None])[:, 0].double().cpu()
        return SourceScore(
            nats=charged - float(of_tokens.sum()),
            open_nats=charged - self._open_end(logs, of_tokens, continuation),
            is_greedy=lost == 0 and bool((logits.argmax(dim=-1) == wanted).all()),
            num_tokens=len(continuation),
            num_read=len(ids),
            num_lost_bytes=lost,
        )

    def _open_end(self, logs: Tensor, of_tokens: Tensor, continuation: Sequence[int]) -> float:
        """Returns ln p that a text goes on with the bytes of the continuation; see `SourceScore.open_nats`.

        Args:
            logs: ln p of every token at each place of the continuation, [token, vocabulary].
            of_tokens: ln p of the continuation's own tokens, [token].
            continuation: tokens.
        """
        ways = [
            float(of_tokens[:place].sum() + logs[place, longer].double().logsumexp(dim=0).cpu())
            for place, _, longer in self._ends(continuation)
        ]
        return float(torch.tensor(ways, dtype=torch.float64).logsumexp(dim=0)) if ways else float(of_tokens.sum())

    def _ends(self, tokens: Sequence[int]) -> Iterator[tuple[int, bytes, list[int]]]:
        """Yields the ways in which a text can end inside a token, the last of some tokens or a few of them taken back.

        Each is the place of the first token that is taken back, the bytes from there on, and the tokens that begin with
        these bytes.
        """
        open_text = b""
        for place in range(len(tokens) - 1, max(-1, len(tokens) - 1 - MOST_TAKEN_BACK), -1):
            open_text = self.bytes_of(tokens[place]) + open_text
            if longer := self.beginning_with(open_text):
                yield place, open_text, longer

    def bytes_of(self, token: int) -> bytes:
        """Returns the bytes of a token; none for one that is not text."""
        known = self.tokens.bytes_of
        return (known[token] if token < len(known) else None) or b""

    def beginning_with(self, data: bytes) -> list[int]:
        """Returns the tokens that begin with some bytes, those that are exactly these among them."""
        first = last = bisect.bisect_left(self._by_bytes, (data, -1))
        while last < len(self._by_bytes) and self._by_bytes[last][0].startswith(data):
            last += 1
        return [token for _, token in self._by_bytes[first:last]]

    @torch.no_grad()
    def write(self, prompt: bytes, max_bytes: int, *, stops: Sequence[bytes] = (), takes_back: bool = False) -> bytes:
        """Writes greedily until there are enough bytes, the text ends, or a stop string is in what was written.

        Args:
            prompt: bytes.
            max_bytes: at most so many are returned.
            stops: strings that end a text; the first one is cut off, with what follows.
            takes_back: first, one or some of the prompt's last tokens make way for the likeliest token that begins with
                their bytes and may go on beyond them, so that it does not matter where the prompt was cut ("token
                healing").
        """
        ids, written = self.encode(prompt), b""
        if takes_back and ids:
            ids, written = self._without_a_cut(ids)
        given, cache = torch.tensor([[self.tokens.begin, *ids]], device=self.device), None
        while len(written) < max_bytes:
            output = self.model(given, cache=cache, use_cache=True, logits_to_keep=1)
            cache, token = output.cache, int(output.logits[0, -1].argmax())
            if not self.bytes_of(token):
                break
            written += self.bytes_of(token)
            found = [written.index(stop) for stop in stops if stop in written]
            if found:
                return written[: min(found)][:max_bytes]
            given = torch.tensor([[token]], device=self.device)
        return written[:max_bytes]

    def _without_a_cut(self, ids: list[int]) -> tuple[list[int], bytes]:
        """Returns the likeliest tokens that begin with the bytes of some others, and what goes on beyond these."""
        given = torch.tensor([[self.tokens.begin, *ids[:-1]]], device=self.device)
        logs = self.model(given, use_cache=False).logits[0].float().log_softmax(dim=-1)
        of_tokens = logs.gather(1, torch.tensor(ids, device=self.device)[:, None])[:, 0].double()
        best, chosen, beyond = -math.inf, ids, b""
        for place, open_text, longer in self._ends(ids):
            token = longer[int(logs[place, longer].argmax())]
            log = float(of_tokens[:place].sum() + logs[place, token])
            if log > best:
                best, chosen, beyond = log, [*ids[:place], token], self.bytes_of(token)[len(open_text) :]
        return chosen, beyond

    def rates(self, windows: Sequence[tuple[int, int]]) -> dict[str, float]:
        """Returns compute per byte, counted as `patchpad.cost` counts: matrix products, visible pairs, a cache in fp32.

        Args:
            windows: bytes and tokens of each text that was read. The token that begins a text is read too, and the last
                token is not, so there are as many trunk calls as tokens.
        """
        sizes, config = [tokens for _, tokens in windows], self.config
        num_bytes = max(1, sum(num for num, _ in windows))
        dim, layers = config.hidden_size, config.num_hidden_layers
        kv_dim = config.head_dim * config.num_key_value_heads
        weights = layers * block_weights(dim, kv_dim, config.intermediate_size) + config.vocab_size * dim
        pairs = sum(size * (size + 1) // 2 for size in sizes)
        return {
            "trunk_calls_per_byte": sum(sizes) / num_bytes,
            "flops_per_byte": (2 * weights * sum(sizes) + 4 * layers * dim * pairs) / num_bytes,
            "trunk_cache_bytes_per_byte": 2 * layers * kv_dim * CACHE_ITEM_BYTES * sum(sizes) / num_bytes,
        }


def pretrained(path: Path) -> Any:
    """Returns the model as transformers loads it, in fp32 and in eval mode; the one place that imports the library.

    Raises:
        ConversionError: it cannot be loaded.
        MissingExtraError: transformers is not installed.
    """
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # read when transformers is imported
    try:
        import transformers
    except ImportError as error:
        raise MissingExtraError(
            "the library `transformers` is not installed", hint='Install it with: pip install "patchpad[convert]"'
        ) from error
    transformers.utils.logging.disable_progress_bar()
    where = (path, {}) if path.is_dir() else (path.parent, {"gguf_file": path.name})
    try:
        return transformers.AutoModelForCausalLM.from_pretrained(where[0], dtype=torch.float32, **where[1]).eval()
    except (OSError, ValueError) as error:
        raise ConversionError(
            f"transformers cannot load {path}: {' '.join(str(error).split())[:300]}", hint="Take another copy."
        ) from error
