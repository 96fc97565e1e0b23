"""Configuration: frozen dataclasses, checked when they are made; torch-free.

Precedence is defaults < YAML file < command line. A file holds only what differs from the defaults.
"""

import dataclasses
import math
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from patchpad.errors import ConfigError, near_matches

FORMAT_VERSION = 1
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
PatchifierKind = Literal["fixed", "spacebyte", "entropy", "hnet"]
PatchRule = Literal["global", "jump"]
TriggerKind = Literal["entropy", "never", "always", "random", "stride", "whitespace", "entropy_jump"]
NATS_TRIGGERS = ("entropy", "entropy_jump")
"""Triggers whose threshold is an entropy (difference) in nats."""


PATCH_MODEL_OPTIONS = (
    "trunk_kv_heads",
    "ngram_vocab_size",
    "encoder_window_bytes",
    "entropy_head_window_bytes",
    "decoder_window_bytes",
    "scratchpads_see_scratchpads",
    "slot_type_embedding",
    "context_lags",
)
"""Options that baselines do not have."""


def _require(condition: bool, message: str, allowed: str) -> None:
    if not condition:
        raise ConfigError(
            f"{message}; allowed: {allowed}", hint="Change the value in the YAML file or on the command line."
        )


def _require_positive(section: Any, *names: str) -> None:
    for name in names:
        value = getattr(section, name)
        _require(value >= 1, f"{name} is {value}", "an integer of at least 1")


def _require_finite(section: Any, *names: str) -> None:
    for name in names:
        value = getattr(section, name)
        _require(math.isfinite(value), f"{name} is {value}", "a finite number")


@dataclass(frozen=True, kw_only=True)
class PatchifierConfig:
    """How bytes are cut into patches."""

    kind: PatchifierKind = "fixed"
    """`fixed`: every `target_patch_size` bytes; `spacebyte`: at the ends of words; `entropy`: where the next byte is
    uncertain; `hnet`: where a learned router says so."""
    target_patch_size: int = 16
    """Bytes per patch that the patchifier aims at: exact for `fixed`, an expectation for `spacebyte`, followed in
    training by `entropy` and `hnet`."""
    rule: PatchRule = "global"
    """For `entropy`: `global` ends a patch above a threshold, `jump` where the entropy has risen by more than it."""
    patch_threshold_nats: float = 1.5
    """For `entropy`: the threshold until training has stored another."""
    max_patch_size: int | None = None
    """Bytes after which an open patch is closed by force; default max(16, 4 x target), unused by `fixed`."""

    def __post_init__(self) -> None:
        _require_positive(self, "target_patch_size")
        threshold = self.patch_threshold_nats
        _require(not math.isnan(threshold), "patch_threshold_nats is nan", "a number, inf or -inf")
        if self.max_patch_size is not None:
            _require(self.max_patch_size >= 1, f"max_patch_size is {self.max_patch_size}", "an integer of at least 1")

    @property
    def longest_patch(self) -> int:
        """Most bytes that a patch can have, the separator not counted."""
        if self.kind == "fixed":
            return self.target_patch_size
        return self.max_patch_size or max(16, 4 * self.target_patch_size)


@dataclass(frozen=True, kw_only=True)
class TriggerConfig:
    """Where scratchpads are issued."""

    kind: TriggerKind = "entropy"
    """Causal score per byte; `entropy` is the method's, the rest are controls."""
    scratchpad_threshold_nats: float = 1.5
    """Entropy (or its rise, for `entropy_jump`) above which a scratchpad fires until training has stored another."""
    stride: int = 4
    """For `stride`: a scratchpad at every `stride` bytes of the patch."""
    scratchpads_per_byte: float = 3 / 16
    """For `random`: its rate per byte, exact when patches have `target_patch_size` bytes."""
    seed: int = 0
    """For `random`: seed of the hash."""

    def __post_init__(self) -> None:
        _require_positive(self, "stride")
        _require(
            not math.isnan(self.scratchpad_threshold_nats), "scratchpad_threshold_nats is nan", "a number, inf or -inf"
        )
        rate = self.scratchpads_per_byte
        _require(0 <= rate <= 1, f"trigger scratchpads_per_byte is {rate}", "a number from 0 to 1")


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Sizes of the model. Widths are features, windows are bytes.

    Every kind reads `kind`, `trunk_*`, `ffn_ratio`, `rotary_base` and `context_bytes`; `patch` reads all fields but
    `bpe_vocab_size`. What else a baseline reads is said at the field; it leaves the others alone.
    """

    kind: ModelKind = "patch"
    """`patch`: this project's model. Baselines: `byte` and `bpe`, one Transformer over bytes or over tokens with the
    trunk's sizes; `megabyte`, whose global model has the trunk's sizes."""
    byte_dim: int = 96
    """Width of the byte states in the local encoder, entropy head and local decoder; `megabyte`: of its local model."""
    byte_heads: int = 2
    """Attention heads of the local layers; `megabyte`: of its local model."""
    window_bytes: int = 16
    """Bytes that a local layer sees, the byte itself included."""
    encoder_window_bytes: int | None = None
    """The local encoder's own window; None for `window_bytes`."""
    entropy_head_window_bytes: int | None = None
    """The entropy head's own window; None for `window_bytes`."""
    decoder_window_bytes: int | None = None
    """The local decoder's own window; None for `window_bytes`."""
    ngram_vocab_size: int = 0
    """Entries of each table of hashed n-gram embeddings, which are added to the byte embedding; 0: no tables."""
    ngram_sizes: tuple[int, ...] = (3, 4, 5, 6, 7, 8)
    """For n-gram embeddings: how many of the last bytes each table looks at; one table for each."""
    encoder_layers: int = 2
    """Layers of the local encoder."""
    entropy_head_layers: int = 0
    """Layers of the entropy head on top of the encoder; 0: it reads the encoder's states, and what it learns serves the
    whole model."""
    decoder_layers: int = 2
    """Layers of the local decoder; `megabyte`: of its local model."""
    pooling_heads: int = 4
    """Attention heads that pool the bytes of a patch, each with a query of its own."""
    trunk_dim: int = 256
    """Width of the trunk."""
    trunk_heads: int = 4
    """Attention heads of the trunk."""
    trunk_kv_heads: int | None = None
    """Heads of the trunk's keys and values, each shared by `trunk_heads` / `trunk_kv_heads` query heads (grouped-query
    attention); None for `trunk_heads`."""
    trunk_layers: int = 4
    """Layers of the trunk."""
    scratchpads_see_scratchpads: bool = False
    """A scratchpad also attends to the earlier scratchpads of its own open patch; commits never see any."""
    slot_type_embedding: bool = False
    """Add a learned vector, 0 at the start, to the slot input of scratchpads."""
    context_lags: int = 16
    """Patch lags, from 0 on, for which the trunk's output has a projection of its own at the first decoder layer;
    longer lags share the last one. 1: the same for all. No more are made than the longest patch has bytes."""
    ffn_ratio: float = 8 / 3
    """Hidden width of SwiGLU over the layer's width, rounded up to a multiple of 16."""
    rotary_base: float = 10000.0
    """Base of the rotary positions, local layers and trunk alike."""
    context_bytes: int = 1024
    """Longest window of a document in training and evaluation; longer documents are cut."""
    bpe_vocab_size: int = 4096
    """Only `bpe`: most tokens, the 256 bytes and the separator included; a small text may give fewer."""
    patchifier: PatchifierConfig = field(default_factory=PatchifierConfig)
    """How bytes are cut into patches; `megabyte`: `fixed`, with its `target_patch_size`."""
    trigger: TriggerConfig = field(default_factory=TriggerConfig)
    """Where scratchpads are issued; baselines have none, so theirs is `never`."""

    def __post_init__(self) -> None:
        self._check_baseline()
        _require_positive(self, "byte_dim", "byte_heads", "window_bytes", "encoder_layers")
        layers = self.entropy_head_layers
        _require(layers >= 0, f"entropy_head_layers is {layers}", "an integer of at least 0")
        _require_positive(
            self, "context_bytes", "decoder_layers", "pooling_heads", "trunk_dim", "trunk_heads", "trunk_layers"
        )
        for name in ("encoder_window_bytes", "entropy_head_window_bytes", "decoder_window_bytes"):
            if getattr(self, name) is not None:
                _require_positive(self, name)
        _require(self.ngram_vocab_size >= 0, f"ngram_vocab_size is {self.ngram_vocab_size}", "an integer of at least 0")
        sizes = self.ngram_sizes
        _require(
            len(sizes) > 0 and len(set(sizes)) == len(sizes) and min(sizes) >= 1,
            f"ngram_sizes is {list(sizes)}",
            "at least one, each a different integer of at least 1",
        )
        kv_heads = self.trunk_kv_heads
        _require(
            kv_heads is None or (kv_heads >= 1 and self.trunk_heads % kv_heads == 0),
            f"trunk_kv_heads is {kv_heads} with trunk_heads {self.trunk_heads}",
            "trunk_kv_heads that divide trunk_heads, or null",
        )
        for dim, heads in (("byte_dim", "byte_heads"), ("trunk_dim", "trunk_heads")):
            width, count = getattr(self, dim), getattr(self, heads)
            _require(
                width % (2 * count) == 0,
                f"{dim} is {width} with {heads} {count}",
                f"a {dim} that is a multiple of 2 x {heads} (rotary positions turn pairs of features)",
            )
        _require(
            self.byte_dim % self.pooling_heads == 0,
            f"byte_dim is {self.byte_dim} with pooling_heads {self.pooling_heads}",
            "pooling_heads that divide byte_dim",
        )
        _require_finite(self, "ffn_ratio", "rotary_base")
        _require(self.ffn_ratio > 0, f"ffn_ratio is {self.ffn_ratio}", "a number above 0")
        _require(self.rotary_base > 1, f"rotary_base is {self.rotary_base}", "a number above 1")

    def _check_baseline(self) -> None:
        _require(
            self.bpe_vocab_size > NUM_BYTE_VALUES,
            f"bpe_vocab_size is {self.bpe_vocab_size}",
            f"an integer of at least {NUM_BYTE_VALUES + 1} (the bytes and the separator)",
        )
        if self.kind == "patch":
            return
        patchifier, trigger = self.patchifier, self.trigger
        _require(
            patchifier.kind == "fixed", f"patchifier.kind is {patchifier.kind} with model.kind {self.kind}", "fixed"
        )
        _require(
            trigger.kind in ("never", TriggerConfig.kind),
            f"trigger.kind is {trigger.kind} with model.kind {self.kind}, which has no scratchpads",
            "leave it out",
        )
        for name in PATCH_MODEL_OPTIONS:
            value, default = getattr(self, name), type(self).__dataclass_fields__[name].default
            _require(
                value == default,
                f"{name} is {value} with model.kind {self.kind}",
                "leave it out: it is the patch model's",
            )
        object.__setattr__(self, "trigger", TriggerConfig(kind="never"))
        _require(
            self.kind != "megabyte" or self.trunk_dim % patchifier.target_patch_size == 0,
            f"trunk_dim is {self.trunk_dim} with target_patch_size {patchifier.target_patch_size}",
            "for megabyte, a trunk_dim that is a multiple of the patch size (each byte takes an equal part of it)",
        )

    @property
    def reads_entropy(self) -> bool:
        """Whether a trigger or patchifier reads entropies, so that the entropy head exists."""
        return self.trigger.kind in NATS_TRIGGERS or self.patchifier.kind == "entropy"

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

    def ffn_dim(self, dim: int) -> int:
        """Hidden width of the SwiGLU layer for a layer of width `dim`."""
        return math.ceil(self.ffn_ratio * dim / 16) * 16


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Which text, and how it is split."""

    paths: tuple[str, ...] = ()
    """Files, globs or directories to train on; set by `--data`."""
    validation_paths: tuple[str, ...] = ()
    """Held-out files; empty: a part of `paths`, split by document."""
    validation_fraction: float = 0.1
    """Share of the bytes held out when `validation_paths` is empty."""

    def __post_init__(self) -> None:
        fraction = self.validation_fraction
        _require(0 < fraction < 1, f"validation_fraction is {fraction}", "a number between 0 and 1, both excluded")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """The optimizer's budget and the scratchpad threshold's schedule."""

    seed: int = 0
    """Sets initialisation and data order."""
    steps: int = 1000
    """Optimizer steps."""
    batch_rows: int = 4
    """Rows of `context_bytes` per forward pass."""
    accumulation_steps: int = 1
    """Forward passes per optimizer step, weighted by their target bytes."""
    learning_rate: float = 2e-3
    """Peak of the cosine schedule."""
    trunk_learning_rate_ratio: float = 1.0
    """Learning rate of patch pooling, trunk and context projection over that of the local parts; baselines: 1."""
    final_learning_rate_ratio: float = 0.1
    """Last learning rate over the peak."""
    warmup_steps: int = 50
    """Steps of linear warm-up."""
    weight_decay: float = 0.1
    """AdamW's decay, on matrices only."""
    beta1: float = 0.9
    """AdamW's first moment decay."""
    beta2: float = 0.95
    """AdamW's second moment decay."""
    max_grad_norm: float = 1.0
    """Gradients are clipped to this norm."""
    entropy_head_weight: float = 0.1
    """Weight of the entropy head's cross-entropy, whose gradient reaches the encoder. At 1 the encoder serves the head
    more than trunk and decoder (`docs/log.md`)."""
    scratchpads_per_byte: float | None = 3 / 16
    """Rate that the threshold follows; None when `scratchpad_threshold_nats` is set."""
    scratchpad_threshold_nats: float | None = None
    """Fixed training threshold; None to follow `scratchpads_per_byte`."""
    patch_threshold_nats: float | None = None
    """For `entropy` patches: a fixed threshold; None to follow `patchifier.target_patch_size`."""
    threshold_frozen_fraction: float = 0.1
    """Followed thresholds are frozen for this last share of the steps."""
    threshold_spread: float = 0.0
    """Share of each step's rows that train at a rate of their own, uniform between 0 and the most possible; the others
    train at `scratchpads_per_byte`."""
    ratio_loss_weight: float = 0.03
    """For `hnet` patches: weight of the loss that pulls the share of boundaries towards 1 / `target_patch_size`."""
    validate_every: int = 250
    """Steps between validations; 0: only at the end."""
    validation_bytes: int = 100_000
    """Bytes per validation, spread over all held-out documents; 0: all."""
    checkpoint_every: int = 250
    """Steps between checkpoints; 0: only at the end and on interruption."""
    keep_checkpoints: int = 2
    """Newest checkpoints kept; 0: all."""
    log_every: int = 10
    """Steps between lines of `metrics.jsonl`."""
    compile: bool = False
    """Compile what lies between the attention layers, on a CPU with the C++ compiler that this needs."""
    device: str = "auto"
    """`auto`, `cpu`, `cuda`, `cuda:N` or `mps`."""

    def __post_init__(self) -> None:
        _require_positive(self, "steps", "batch_rows", "accumulation_steps", "log_every")
        for name in (
            "warmup_steps",
            "validate_every",
            "validation_bytes",
            "checkpoint_every",
            "keep_checkpoints",
            "seed",
        ):
            value = getattr(self, name)
            _require(value >= 0, f"{name} is {value}", "an integer of at least 0")
        _require(self.seed < 2**63, f"seed is {self.seed}", "an integer from 0 to below 2^63")
        _require_finite(self, "learning_rate", "weight_decay", "max_grad_norm", "entropy_head_weight")
        _require_finite(self, "trunk_learning_rate_ratio")
        for name in ("learning_rate", "trunk_learning_rate_ratio", "max_grad_norm"):
            _require(getattr(self, name) > 0, f"{name} is {getattr(self, name)}", "a number above 0")
        _require(self.weight_decay >= 0, f"weight_decay is {self.weight_decay}", "a number of at least 0")
        for name in ("entropy_head_weight", "ratio_loss_weight"):
            value = getattr(self, name)
            _require(math.isfinite(value) and value >= 0, f"{name} is {value}", "a number of at least 0")
        for name in ("beta1", "beta2"):
            _require(0 <= getattr(self, name) < 1, f"{name} is {getattr(self, name)}", "a number from 0 to below 1")
        for name in ("final_learning_rate_ratio", "threshold_frozen_fraction", "threshold_spread"):
            _require(0 <= getattr(self, name) <= 1, f"{name} is {getattr(self, name)}", "a number from 0 to 1")
        rate, threshold = self.scratchpads_per_byte, self.scratchpad_threshold_nats
        _require(
            (rate is None) != (threshold is None),
            f"train.scratchpads_per_byte is {rate} and train.scratchpad_threshold_nats is {threshold}",
            "exactly one of the two; set the other to null",
        )
        if rate is not None:
            _require(0 <= rate < 1, f"train.scratchpads_per_byte is {rate}", "a number from 0 to below 1")
        for name in ("scratchpad_threshold_nats", "patch_threshold_nats"):
            value = getattr(self, name)
            _require(value is None or not math.isnan(value), f"train.{name} is nan", "a number, inf or -inf")


@dataclass(frozen=True, kw_only=True)
class Config:
    """Everything that a run needs; saved with every checkpoint."""

    format_version: int = FORMAT_VERSION
    """Version of the file format."""
    model: ModelConfig = field(default_factory=ModelConfig)
    """Sizes, patchifier and trigger."""
    data: DataConfig = field(default_factory=DataConfig)
    """Text and its split."""
    train: TrainConfig = field(default_factory=TrainConfig)
    """Optimizer and schedules."""

    def __post_init__(self) -> None:
        version = self.format_version
        _require(
            version == FORMAT_VERSION, f"format_version is {version}", f"{FORMAT_VERSION} in this version of patchpad"
        )
        ratio, kind = self.train.trunk_learning_rate_ratio, self.model.kind
        _require(
            ratio == 1 or kind == "patch",
            f"train.trunk_learning_rate_ratio is {ratio} with model.kind {kind}",
            "1: baselines have one learning rate",
        )
        spread, trigger = self.train.threshold_spread, self.model.trigger.kind
        _require(
            spread == 0 or trigger in (*NATS_TRIGGERS, "random"),
            f"train.threshold_spread is {spread} with the trigger `{trigger}`",
            f"0, or one of the triggers {', '.join(NATS_TRIGGERS)}, random",
        )

    def to_dict(self) -> dict[str, Any]:
        """Returns nested plain dictionaries, ready for JSON; infinities become the strings "inf" and "-inf"."""
        return typing.cast(dict[str, Any], _plain(dataclasses.asdict(self)))

    @staticmethod
    def from_dict(values: dict[str, Any], *, source: str = "configuration") -> "Config":
        """Builds a checked configuration from nested dictionaries.

        Args:
            values: sections and keys; missing keys keep their defaults.
            source: where the values come from, named in errors.

        Raises:
            ConfigError: an unknown key, a value of the wrong type, or an impossible value.
        """
        return build_section(Config, values, source)


def load_config(path: str | Path | None, overrides: dict[str, str] | None = None) -> Config:
    """Reads a YAML file and applies command-line overrides.

    Args:
        path: YAML file with sections `model`, `data`, `train`; None for the defaults alone.
        overrides: dotted key to YAML text, as in `{"train.steps": "200"}`.

    Raises:
        ConfigError: the file is missing or no YAML, or a key or value is wrong.
    """
    import yaml

    source = "defaults" if path is None else str(path)
    values = {} if path is None else read_yaml(path, allowed="sections model, data, train")
    for key, text in (overrides or {}).items():
        *sections, name = key.split(".")
        target = values
        for section in sections:
            target = target.setdefault(section, {})
            if not isinstance(target, dict):
                raise ConfigError(f"--{key}: `{section}` is not a section", hint="Write --section.field VALUE.")
        try:
            target[name] = yaml.safe_load(text)
        except (yaml.YAMLError, ValueError) as error:
            raise ConfigError(f"--{key} has the value {text!r}, which is not a YAML value") from error
        source += " and the command line" if "command line" not in source else ""
    return Config.from_dict(values, source=source)


def read_yaml(path: str | Path, *, allowed: str, hint: str = "Give a YAML file with --config.") -> dict[str, Any]:
    """Reads a YAML file of keys and values.

    Args:
        path: the file; an empty one gives no keys.
        allowed: what belongs at its top, for the message.
        hint: what to do where there is no such file.

    Raises:
        ConfigError: the file is missing, no YAML, or holds something else.
    """
    import yaml

    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the configuration {path}: {error}", hint=hint) from error
    try:
        values = yaml.safe_load(text) or {}
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date that no calendar has
        detail = " ".join(str(error).split())
        raise ConfigError(f"{path} is not valid YAML: {detail}", hint="Mend the file.") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path} holds a {type(values).__name__}; allowed: {allowed}")
    return values


_Section = TypeVar("_Section")
ITEM_WORDS = {str: "strings", int: "integers", float: "numbers"}


def build_section(section: type[_Section], values: Any, source: str, prefix: str = "") -> _Section:
    """Builds a configuration dataclass from plain values, as a YAML file gives them.

    Args:
        section: the dataclass; its fields say which keys and types are allowed.
        values: keys and values; missing keys keep their defaults.
        source: where the values come from, named in errors.
        prefix: dotted path of the section, with a dot at its end.

    Raises:
        ConfigError: an unknown or missing key, a value of the wrong type, or an impossible value.
    """
    if not isinstance(values, dict):
        raise ConfigError(f"{source}: `{prefix.rstrip('.') or 'the file'}` is {values!r}; allowed: keys and values")
    hints = typing.get_type_hints(section)
    known: dict[str, Any] = {}
    for key, value in values.items():
        if key not in hints:
            raise ConfigError(f"{source}: unknown key `{prefix}{key}`", hint=near_matches(str(key), hints))
        known[key] = _convert(hints[key], value, source, f"{prefix}{key}")
    for item in dataclasses.fields(typing.cast(Any, section)):
        is_required = item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING
        if is_required and item.name not in known:
            raise ConfigError(f"{source}: the key `{prefix}{item.name}` is missing", hint="Add it.")
    return section(**known)


def _convert(kind: Any, value: Any, source: str, name: str) -> Any:
    """Checks a plain value against a field's type; integers may stand for floats, "inf" for infinity."""
    where, origin = f"{source}: `{name}`", typing.get_origin(kind)
    if dataclasses.is_dataclass(kind):
        return build_section(typing.cast(type, kind), value, source, f"{name}.")
    if origin is Literal:
        if value not in typing.get_args(kind):
            raise ConfigError(f"{where} is {value!r}", hint=near_matches(str(value), map(str, typing.get_args(kind))))
        return value
    if origin in (typing.Union, types.UnionType):
        if value is None:
            return None
        option = next(option for option in typing.get_args(kind) if option is not type(None))
        return _convert(option, value, source, name)
    if origin is dict:
        if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
            raise ConfigError(f"{where} is {value!r}; allowed: keys and values")
        item_kind = typing.get_args(kind)[1]
        if item_kind is Any:
            return value
        return {key: _convert(item_kind, item, source, f"{name}.{key}") for key, item in value.items()}
    if origin is tuple:
        return _convert_items(typing.get_args(kind)[0], value, source, name)
    if kind is float and not isinstance(value, bool):
        if isinstance(value, int | float | str):
            try:  # YAML reads 1e-3 and inf as strings
                return float(value)
            except (ValueError, OverflowError):
                pass
    elif isinstance(value, kind) and (kind is bool or not isinstance(value, bool)):
        return value
    raise ConfigError(f"{where} is {value!r}; allowed: a value of type {kind.__name__}")


def _convert_items(item_kind: Any, value: Any, source: str, name: str) -> tuple[Any, ...]:
    items = [value] if isinstance(value, str) and item_kind is str else value
    is_section = dataclasses.is_dataclass(item_kind)
    if not isinstance(items, list | tuple) or not (
        is_section or item_kind is float or all(type(item) is item_kind for item in items)
    ):
        words = "sections" if is_section else ITEM_WORDS[item_kind]
        raise ConfigError(f"{source}: `{name}` is {value!r}; allowed: a list of {words}")
    return tuple(_convert(item_kind, item, source, f"{name}[{index}]") for index, item in enumerate(items))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    if isinstance(value, float) and math.isinf(value):
        return "inf" if value > 0 else "-inf"
    return value
