"""Ids, and the configuration of models, patchifiers and triggers."""

import math
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, ClassVar, Literal

from patchpad.config.checks import AboveOne, AboveZero, Nats, NotNegative, Positive, Section, Share
from patchpad.config.conversion import Range
from patchpad.config.plugged import PluggedSection, words_of
from patchpad.registry import PATCHIFIERS, TRIGGERS, Registry

NUM_BYTE_VALUES = 256
SEPARATOR = 256
"""Id of the one separator: as an input it starts a document, as a target it ends one."""
PADDING = 257
"""Id of padding; only ever an input, only ever at the end of a row."""
VOCAB_SIZE = 257
"""Outcomes of a prediction: 256 bytes and the end of the document."""
NUM_INPUT_IDS = 258
IGNORED_TARGET = -100
"""Target of positions that predict nothing that counts."""

ModelKind = Literal["patch", "byte", "bpe", "megabyte"]
PatchifierKind = Annotated[str, words_of(PATCHIFIERS)]
PatchRule = Literal["global", "jump"]
SourceHeadKind = Literal["none", "tied", "own"]
TriggerKind = Annotated[str, words_of(TRIGGERS)]
BpeVocabSize = Annotated[
    int,
    Range(
        f"an integer of at least {NUM_BYTE_VALUES + 1} (the bytes and the separator)",
        lambda size: size > NUM_BYTE_VALUES,
    ),
]
NATS_TRIGGERS = ("entropy", "entropy_jump", "ending_entropy")
"""Built-in triggers whose threshold is an entropy (difference) in nats. Those of plug-ins say so themselves: ask
`TriggerConfig.threshold_in_nats`."""


def nats_triggers() -> list[str]:
    """Returns the triggers whose threshold is in nats, those of plug-ins among them, for messages."""
    plugged = (name for name, one in TRIGGERS.registered.items() if one.target.threshold_in_nats)
    return [*NATS_TRIGGERS, *sorted(plugged)]


LONGEST_CHARACTER = 4
"""Bytes of the longest character in UTF-8."""
PARTS = (
    "local_encoder",
    "entropy_head",
    "routing",
    "patch_pooling",
    "trunk",
    "context_to_bytes",
    "local_decoder",
    "source_head",
)
"""Parts of the patch model in the order in which data passes; also the names of `ByteLM`'s submodules."""
PATCH_MODEL_OPTIONS = (
    "trunk_kv_heads",
    "trunk_window_patches",
    "ngram_vocab_size",
    "encoder_window_bytes",
    "entropy_head_window_bytes",
    "decoder_window_bytes",
    "context_lags",
    "source_head",
)
"""Options that baselines do not have."""


@dataclass(frozen=True, kw_only=True)
class PatchifierConfig(PluggedSection):
    """How bytes are cut into patches."""

    SECTION: ClassVar[str] = "model.patchifier"
    REGISTRY: ClassVar[Registry] = PATCHIFIERS

    kind: PatchifierKind = "fixed"
    """Where patches end. `fixed`: after every `target_patch_size` bytes. `spacebyte`: at the ends of words. `entropy`:
    where the next byte is uncertain. `hnet`: where a learned router decides. `tokens`: at the ends of tokens, for a
    trunk that was taken from a subword model. The name of a plug-in's patchifier works too (`docs/plugins.md`)."""
    target_patch_size: Positive = 16
    """Bytes per patch to aim at. `fixed`: the exact size. `entropy`, `hnet`: training aims at this mean. `spacebyte`:
    only what is expected, since the text decides."""
    rule: PatchRule = "global"
    """For `entropy`. `global`: a patch ends where the entropy is above the threshold. `jump`: where it has risen by
    more than the threshold."""
    patch_threshold_nats: Nats = 1.5
    """For `entropy`: the threshold that is used until training has stored another."""
    max_patch_size: Positive | None = None
    """An open patch is closed by force after this many bytes. Default: 4 x `target_patch_size`, and at least 16.
    `fixed` does not use it. For `tokens`: the most bytes of a word that is still open."""
    num_token_ids: Positive | None = None
    """For `tokens`: the number of ids of the source's tokenizer, plus one for each byte value. Null for the others.
    `patchpad convert` sets it."""
    options: dict[str, Any] = field(default_factory=dict, hash=False)
    """Options of a plug-in's patchifier, by name. Built-in patchifiers have none."""
    plugin: str | None = None
    """The plug-in that registered the kind. patchpad writes this key. It is used to name a missing plug-in, and is
    never imported."""

    def check(self) -> None:
        """Checks the kind, and that the maximum is at least the target."""
        super().check()
        self.require(
            self.max_patch_size is None or self.kind == "fixed" or self.max_patch_size >= self.target_patch_size,
            f"max_patch_size is {self.max_patch_size} with target_patch_size {self.target_patch_size}",
            "a maximum of at least the target",
        )
        self.require(
            not self.commits_tokens or self.longest_patch >= LONGEST_CHARACTER,
            f"max_patch_size is {self.max_patch_size} with the kind `{self.kind}`",
            f"{LONGEST_CHARACTER} or more, the bytes of the longest character",
        )
        self.require(
            (self.num_token_ids is not None) == self.commits_tokens,
            f"num_token_ids is {self.num_token_ids} with the kind `{self.kind}`",
            "a number for `tokens`, as `patchpad convert` writes it, and null for the others",
        )

    @property
    def commits_tokens(self) -> bool:
        """Whether patches are tokens of another model: several may end at one byte, and before it."""
        return self.kind == "tokens"

    @property
    def longest_patch(self) -> int:
        """Most bytes that a patch can have, the separator not counted; for `tokens`, that the open text can have."""
        if self.kind == "fixed":
            return self.target_patch_size
        return self.max_patch_size or max(16, 4 * self.target_patch_size)

    @property
    def threshold_in_nats(self) -> bool:
        """Whether patches end where a score in nats exceeds a threshold, which training follows."""
        return self.kind == "entropy" if self.plugged is None else self.plugged.threshold_in_nats

    @property
    def reads_entropy(self) -> bool:
        """Whether it reads entropies."""
        return self.threshold_in_nats or (self.plugged is not None and self.plugged.reads_entropy)


@dataclass(frozen=True, kw_only=True)
class TriggerConfig(PluggedSection):
    """Where scratchpads are issued."""

    SECTION: ClassVar[str] = "model.trigger"
    REGISTRY: ClassVar[Registry] = TRIGGERS

    kind: TriggerKind = "entropy"
    """Which trigger decides where scratchpads fire. It gives each byte a score. `entropy` is the method's own.
    `ending_entropy` is for models with a source head. The others are for comparison. The name of a plug-in's trigger
    works too (`docs/plugins.md`)."""
    scratchpad_threshold_nats: Nats = 1.5
    """A scratchpad fires where the entropy is above this, until training has stored another threshold. For
    `entropy_jump` it is compared with the rise of the entropy, for `ending_entropy` with the entropy times the chance
    that the open token has ended."""
    stride: Positive = 4
    """For `stride`: a scratchpad after every `stride` bytes of the patch."""
    scratchpads_per_byte: Share = 3 / 16
    """For `random`: the rate per byte. It is exact if patches have `target_patch_size` bytes."""
    seed: int = 0
    """For `random`: the seed of the hash."""
    options: dict[str, Any] = field(default_factory=dict, hash=False)
    """Options of a plug-in's trigger, by name. Built-in triggers have none."""
    plugin: str | None = None
    """The plug-in that registered the kind. patchpad writes this key. It is used to name a missing plug-in, and is
    never imported."""

    @property
    def threshold_in_nats(self) -> bool:
        """Whether the score is in nats, so that a threshold can be given, calibrated and followed in training."""
        return self.kind in NATS_TRIGGERS if self.plugged is None else self.plugged.threshold_in_nats

    @property
    def reads_entropy(self) -> bool:
        """Whether it reads entropies."""
        return self.threshold_in_nats or (self.plugged is not None and self.plugged.reads_entropy)


@dataclass(frozen=True, kw_only=True)
class ModelConfig(Section):
    """Sizes of the model. Widths are features, windows are bytes.

    Every kind reads `kind`, `trunk_*`, `ffn_ratio`, `rotary_base` and `context_bytes`; `patch` reads all fields but
    `bpe_vocab_size`. What else a baseline reads is said at the field; it leaves the others alone.
    """

    SECTION: ClassVar[str] = "model"

    kind: ModelKind = "patch"
    """`patch` is this project's model. The baselines are `byte` and `bpe`, a single Transformer over bytes or tokens
    with the trunk's sizes, and `megabyte`, whose global model has the trunk's sizes."""
    byte_dim: Positive = 96
    """Width of the byte states in the local encoder, entropy head and local decoder. `megabyte`: width of its local
    model."""
    byte_heads: Positive = 2
    """Attention heads of the local layers. `megabyte`: of its local model."""
    window_bytes: Positive = 16
    """How many bytes a local layer sees, including the byte itself."""
    encoder_window_bytes: Positive | None = None
    """A separate window for the local encoder. None: `window_bytes`."""
    entropy_head_window_bytes: Positive | None = None
    """A separate window for the entropy head. None: `window_bytes`."""
    decoder_window_bytes: Positive | None = None
    """A separate window for the local decoder. None: `window_bytes`."""
    ngram_vocab_size: NotNegative = 4096
    """Entries in each table of hashed n-gram embeddings, which are added to the byte embedding. 0: no tables."""
    ngram_sizes: tuple[int, ...] = (3, 4, 5, 6, 7, 8)
    """For n-gram embeddings: one table for each of these numbers. It looks at that many of the last bytes."""
    encoder_layers: Positive = 2
    """Layers of the local encoder."""
    entropy_head_layers: NotNegative = 0
    """Layers of the entropy head on top of the encoder. 0: the head reads the encoder's states directly, so its loss
    trains layers that the whole model uses."""
    decoder_layers: Positive = 2
    """Layers of the local decoder. `megabyte`: of its local model."""
    pooling_heads: Positive = 4
    """Attention heads that pool the bytes of a patch. Each has its own query. Not used if patches are single bytes."""
    trunk_dim: Positive = 256
    """Width of the trunk."""
    trunk_heads: Positive = 4
    """Attention heads of the trunk."""
    trunk_kv_heads: Positive | None = None
    """Key and value heads of the trunk (grouped-query attention). Each is shared by `trunk_heads` / `trunk_kv_heads`
    query heads. None: `trunk_heads`."""
    trunk_layers: Positive = 4
    """Layers of the trunk."""
    trunk_window_patches: Positive | None = None
    """Newest commits of its document that a slot of the trunk sees, besides itself; None for all. With it, the cost per
    byte and the trunk's cache stop growing with the document."""
    trunk_ffn_dim: Positive | None = None
    """Hidden width of SwiGLU in the trunk. None: computed from `ffn_ratio`."""
    trunk_rotary_base: AboveOne | None = None
    """Base of the trunk's rotary positions. None: `rotary_base`."""
    trunk_norm_epsilon: AboveZero = 1e-6
    """Epsilon of the trunk's norms, including the last one. It is added to the mean of the squares before the root."""
    context_lags: Positive = 16
    """The number of patch lags, counted from 0, that get their own projection of the trunk's output at the first
    decoder layer. Longer lags share the last one. 1: one projection for all. There are never more than the longest
    patch has bytes."""
    source_head: SourceHeadKind = "none"
    """For `tokens` patches: whether the output head of the model that the trunk was taken from is used too. `tied`: its
    weights are the token embeddings. `own`: it has its own weights. `none`: not used."""
    ffn_ratio: AboveZero = 8 / 3
    """Hidden width of SwiGLU divided by the layer's width. The result is rounded up to a multiple of 16."""
    rotary_base: AboveOne = 10000.0
    """Base of the rotary positions of the local layers. The trunk uses it too, unless `trunk_rotary_base` is set."""
    context_bytes: Positive = 1024
    """The longest window of a document in training and evaluation. Longer documents are cut."""
    bpe_vocab_size: BpeVocabSize = 4096
    """Only for `bpe`: the most tokens, including the 256 bytes and the separator. A small text may give fewer."""
    patchifier: PatchifierConfig = field(default_factory=PatchifierConfig)
    """How bytes are cut into patches. `megabyte`: `fixed`, with its `target_patch_size`."""
    trigger: TriggerConfig = field(default_factory=TriggerConfig)
    """Where scratchpads are issued. Baselines have none, so theirs is `never`."""

    def check(self) -> None:
        """Checks that sizes divide each other, and that a baseline has only what it reads."""
        self._check_baseline()
        sizes = self.ngram_sizes
        self.require(
            len(sizes) > 0 and len(set(sizes)) == len(sizes) and min(sizes) >= 1,
            f"ngram_sizes is {list(sizes)}",
            "at least one, each a different integer of at least 1",
        )
        self.require(
            self.patchifier.commits_tokens or not self.has_source_head,
            f"source_head is {self.source_head} with the patchifier `{self.patchifier.kind}`",
            "none, or the patchifier `tokens`",
        )
        self.require(
            self.trigger.kind != "ending_entropy" or self.has_source_head,
            f"trigger.kind is ending_entropy with source_head {self.source_head}",
            "a source head, with which `patchpad convert` makes models of `tokens` patches, or another trigger",
        )
        kv_heads = self.trunk_kv_heads
        self.require(
            kv_heads is None or self.trunk_heads % kv_heads == 0,
            f"trunk_kv_heads is {kv_heads} with trunk_heads {self.trunk_heads}",
            "trunk_kv_heads that divide trunk_heads, or null",
        )
        for dim, heads in (("byte_dim", "byte_heads"), ("trunk_dim", "trunk_heads")):
            width, count = getattr(self, dim), getattr(self, heads)
            self.require(
                width % (2 * count) == 0,
                f"{dim} is {width} with {heads} {count}",
                f"a {dim} that is a multiple of 2 x {heads} (rotary positions turn pairs of features)",
            )
        self.require(
            self.kind != "patch" or self.byte_dim % self.pooling_heads == 0,
            f"byte_dim is {self.byte_dim} with pooling_heads {self.pooling_heads}",
            "pooling_heads that divide byte_dim",
        )

    def _check_baseline(self) -> None:
        if self.kind == "patch":
            return
        patchifier, trigger = self.patchifier, self.trigger
        self.require(
            patchifier.kind == "fixed", f"patchifier.kind is {patchifier.kind} with model.kind {self.kind}", "fixed"
        )
        self.require(
            trigger.kind in ("never", TriggerConfig.kind),
            f"trigger.kind is {trigger.kind} with model.kind {self.kind}, which has no scratchpads",
            "leave it out",
        )
        for name in PATCH_MODEL_OPTIONS:
            value, default = getattr(self, name), type(self).__dataclass_fields__[name].default
            self.require(
                value == default,
                f"{name} is {value} with model.kind {self.kind}",
                "leave it out: it is the patch model's",
            )
        object.__setattr__(self, "trigger", replace(trigger, kind="never"))
        self.require(
            self.kind != "megabyte" or self.trunk_dim % patchifier.target_patch_size == 0,
            f"trunk_dim is {self.trunk_dim} with target_patch_size {patchifier.target_patch_size}",
            "for megabyte, a trunk_dim that is a multiple of the patch size (each byte takes an equal part of it)",
        )

    @property
    def parts(self) -> tuple[str, ...]:
        """Those of `PARTS` that the model has: none for a baseline."""
        absent = set() if self.reads_entropy else {"entropy_head"}
        if not self.has_source_head:
            absent.add("source_head")
        if self.patchifier.kind != "hnet":
            absent.add("routing")
        return tuple(part for part in PARTS if part not in absent) if self.kind == "patch" else ()

    @property
    def reads_entropy(self) -> bool:
        """Whether a trigger or patchifier reads entropies, so that the entropy head exists."""
        return self.trigger.reads_entropy or self.patchifier.reads_entropy

    @property
    def has_source_head(self) -> bool:
        """Whether the source's output head predicts bytes too."""
        return self.source_head != "none"

    @property
    def pools_bytes(self) -> bool:
        """Whether the bytes of a patch are pooled; else a slot's input is its newest byte's state, projected.

        With `tokens` patches it is a token's embedding.
        """
        return self.patchifier.kind not in ("hnet", "tokens") and self.patchifier.longest_patch > 1

    @property
    def cuts_by_entropy(self) -> bool:
        """Whether patches end by the entropy, so that the model has a patch threshold in nats."""
        return self.patchifier.threshold_in_nats

    @property
    def encoder_window(self) -> int:
        """Bytes that a layer of the local encoder sees."""
        return self.encoder_window_bytes or self.window_bytes

    @property
    def entropy_head_window(self) -> int:
        """Bytes that a layer of the entropy head sees."""
        return self.entropy_head_window_bytes or self.window_bytes

    @property
    def decoder_window(self) -> int:
        """Bytes that a layer of the local decoder sees."""
        return self.decoder_window_bytes or self.window_bytes

    @property
    def num_context_lags(self) -> int:
        """Patch lags that have a projection of their own."""
        return min(self.context_lags, self.patchifier.longest_patch)

    @property
    def trunk_kv_dim(self) -> int:
        """Width of the trunk's keys, and of its values."""
        return self.trunk_dim // self.trunk_heads * (self.trunk_kv_heads or self.trunk_heads)

    @property
    def trunk_hidden_dim(self) -> int:
        """Hidden width of SwiGLU in a layer of the trunk."""
        return self.trunk_ffn_dim or self._ffn_dim(self.trunk_dim)

    @property
    def byte_hidden_dim(self) -> int:
        """Hidden width of SwiGLU in a local layer."""
        return self._ffn_dim(self.byte_dim)

    @property
    def trunk_base(self) -> float:
        """Base of the trunk's rotary positions."""
        return self.trunk_rotary_base or self.rotary_base

    def _ffn_dim(self, dim: int) -> int:
        return math.ceil(self.ffn_ratio * dim / 16) * 16
