"""Configuration of text and training."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from typing import ClassVar, Literal

from patchpad.config.checks import (
    AboveOne,
    AboveZero,
    AtLeastZero,
    BetweenZeroAndOne,
    Nats,
    NotNegative,
    Positive,
    Section,
    Share,
    ShareBelowOne,
    field_types,
)
from patchpad.config.conversion import shown
from patchpad.config.model import PARTS
from patchpad.registry import TRACKERS

Schedule = Literal["cosine", "wsd"]


@dataclass(frozen=True, kw_only=True)
class TextConfig(Section):
    """Where a text lies, how it is read, and how it is split."""

    paths: tuple[str, ...] = ()
    """Files, globs, directories or URLs to train on; `--data` replaces them."""
    validation_paths: tuple[str, ...] = ()
    """Held-out files; empty: the held-out part of a prepared corpus, or a part of `paths`, see `split_corpus`."""
    validation_fraction: BetweenZeroAndOne = 0.1
    """Share of the bytes held out when `validation_paths` is empty."""
    format: Literal["auto", "raw"] = "auto"
    """`auto`: a file's name says how it is read; `raw`: the bytes of every file are one document, whatever its name."""
    text_field: str = "text"
    """Field of JSONL, or column of Parquet and Arrow, that is the document. Records without it may have `prompt` and
    `completion`: the document is both, and only the completion is trained on and counted."""
    most_bad_records: NotNegative = 0
    """Records without such text that are left out, each reported with its file and line; more are an error."""
    remove_duplicates: bool = False
    """Whether documents that equal an earlier one, byte for byte, are left out, and counted."""


@dataclass(frozen=True, kw_only=True)
class SourceConfig(TextConfig):
    """One text of a mixture."""

    SECTION: ClassVar[str] = "data.sources.NAME"

    weight: AboveZero = 1.0
    """Share of the rows that are taken from this text, in relation to the weights of the others."""

    def check(self) -> None:
        """Checks that there is a text."""
        self.require(bool(self.paths), "paths is empty", "files, globs or directories")

    @property
    def alone(self) -> "DataConfig":
        """The same text as that of a run."""
        return DataConfig(**{name: getattr(self, name) for name in field_types(TextConfig)})


@dataclass(frozen=True, kw_only=True)
class DataConfig(TextConfig):
    """The text of a run: one, or a mixture of several."""

    SECTION: ClassVar[str] = "data"

    sources: dict[str, SourceConfig] = field(default_factory=dict, hash=False)
    """Texts that are trained on together, by name, in place of the keys above. Each has these keys of its own, and
    `weight`: its share of the rows, in relation to the weights of the others (1 if not set)."""

    def check(self) -> None:
        """Checks that a mixture is described by its sources alone, and their names."""
        for item in fields(TextConfig):
            name, default, value = item.name, item.default, getattr(self, item.name)
            self.require(
                not self.sources or value == default,
                f"{name} is {shown(value)} beside data.sources",
                "one of the two; give each source its own keys",
            )
        for name in self.sources:
            self.require(
                re.fullmatch(r"[A-Za-z0-9_-]+", name) is not None,
                f"sources has the name {shown(name)}",
                "letters, digits, - and _",
            )

    @property
    def all_paths(self) -> tuple[str, ...]:
        """Paths of everything that is read: to train on, and held out."""
        texts = (self, *self.sources.values())
        return tuple(path for text in texts for path in (*text.paths, *text.validation_paths))


@dataclass(frozen=True, kw_only=True)
class TrainConfig(Section):
    """The optimizer's budget and the scratchpad threshold's schedule."""

    SECTION: ClassVar[str] = "train"

    seed: NotNegative = 0
    """Sets initialisation and data order."""
    init_from: str | None = None
    """Run or step folder whose weights training starts from, or `bundled` for the model that ships with patchpad;
    `--init-from` sets it. None: weights are drawn from the seed."""
    steps: Positive = 1000
    """Optimizer steps."""
    batch_rows: Positive = 4
    """Rows of `context_bytes` per forward pass."""
    accumulation_steps: Positive = 1
    """Forward passes per optimizer step, weighted by their target bytes."""
    learning_rate: AboveZero = 2e-3
    """Peak of the schedule."""
    schedule: Schedule = "cosine"
    """Of the learning rate after warm-up: `cosine` falls from the first step to the last, `wsd` (warm-up, stable,
    decay) stays at the peak and then falls in a straight line."""
    decay_fraction: Share = 0.2
    """For `wsd`: the last share of the steps, in which the learning rate falls."""
    final_learning_rate_ratio: Share = 0.1
    """Learning rate that the schedule approaches, over the peak; it would reach it one step after the last."""
    learning_rate_ratios: dict[str, AboveZero] = field(default_factory=dict, hash=False)
    """Learning rate of single parts over `learning_rate`, such as {trunk: 0.5}. Parts of the patch model are
    local_encoder, entropy_head, routing, patch_pooling, trunk, context_to_bytes and local_decoder."""
    frozen: tuple[str, ...] = ()
    """Parts whose weights stay as they are, such as [trunk]; parts before them still learn through them."""
    warmup_steps: NotNegative = 50
    """Steps of linear warm-up."""
    weight_decay: AtLeastZero = 0.1
    """AdamW's decay, on parameters of two or more dimensions: matrices of linear layers, embeddings, and the pooling's
    bias by distance. Norms and single vectors do not decay."""
    beta1: ShareBelowOne = 0.9
    """AdamW's first moment decay."""
    beta2: ShareBelowOne = 0.95
    """AdamW's second moment decay."""
    max_grad_norm: AboveZero = 1.0
    """Gradients are clipped to this norm."""
    z_loss_weight: AtLeastZero = 0.0
    """Weight of the mean of ln(Z)^2 over the targets, which keeps the logits of the LM head from drifting; Z is the sum
    that softmax divides by. 1e-4 is usual, 0 leaves it out."""
    max_skipped_steps: NotNegative = 0
    """Steps in a row that may be skipped because a loss or the gradient is not finite: they change nothing. One more is
    an error; 0: the first one is."""
    skip_norm_ratio: AboveOne | None = None
    """A step is skipped too whose gradient's norm is above so many times the median of the steps before it; None: none
    is, however large its gradient."""
    entropy_head_weight: AtLeastZero = 0.1
    """Weight of the entropy head's cross-entropy, whose gradient reaches the encoder. At 1 the encoder serves the head
    more than trunk and decoder (`docs/log.md`)."""
    distillation_weight: AtLeastZero = 1.0
    """With a source head: weight of the local decoder's cross-entropy to what the source expects behind each token,
    which is known once the token has ended; see `SourceHead`. 0 leaves it out."""
    scratchpads_per_byte: ShareBelowOne | None = 3 / 16
    """Rate that the threshold follows; None when `scratchpad_threshold_nats` is set."""
    scratchpad_threshold_nats: Nats | None = None
    """Fixed training threshold; None to follow `scratchpads_per_byte`."""
    patch_threshold_nats: Nats | None = None
    """For `entropy` patches: a fixed threshold; None to follow `patchifier.target_patch_size`."""
    threshold_frozen_fraction: Share = 0.1
    """Followed thresholds are frozen for this last share of the steps."""
    threshold_spread: Share = 0.0
    """Share of each step's rows that train at a rate of their own, uniform between 0 and the most possible; the others
    train at `scratchpads_per_byte`."""
    ratio_loss_weight: AtLeastZero = 0.03
    """For `hnet` patches: weight of the loss that pulls the share of boundaries towards 1 / `target_patch_size`."""
    validate_every: NotNegative = 250
    """Steps between validations; 0: only at the end."""
    validation_bytes: NotNegative = 100_000
    """Bytes per validation, spread over all held-out documents; 0: all."""
    checkpoint_every: NotNegative = 250
    """Steps between checkpoints; 0: only at the end and on interruption."""
    keep_checkpoints: NotNegative = 2
    """Newest checkpoints kept; 0: all."""
    keep_every: NotNegative = 0
    """Checkpoints of steps that are multiples of this are kept too, for ever; 0: none. A multiple of
    `checkpoint_every`."""
    checkpoint_async: bool = True
    """Checkpoints are copied into host memory and written while training goes on. Else training waits."""
    averaged_decay: BetweenZeroAndOne | None = None
    """A moving average of the weights is kept, of which each step leaves this share (0.999, say), and saved beside the
    weights; `patchpad release --averaged` takes it. None: no average."""
    log_every: Positive = 10
    """Steps between lines of `metrics.jsonl`."""
    trackers: tuple[str, ...] = ()
    """Libraries that are told each line of metrics and each sample too: `tensorboard`, `wandb`, `trackio`, or those of
    plug-ins (`docs/plugins.md`)."""
    tracker_plugins: dict[str, str] = field(default_factory=dict, hash=False)
    """Plug-ins that registered trackers, by the trackers' names. patchpad writes it, and never imports them."""
    sample_every: NotNegative = 0
    """Steps between samples of what the model writes, in `samples.jsonl` and for trackers; 0: none."""
    sample_prompt: str | None = None
    """What samples go on with; null: they begin a document."""
    sample_bytes: Positive = 200
    """Most bytes of a sample."""
    compile: bool | None = None
    """On CUDA the whole pass is compiled, unless this is false. Elsewhere true compiles what lies between the attention
    layers, on a CPU with the C++ compiler that this needs."""
    activation_checkpointing: bool = False
    """Keep only the input of each trunk block, and compute the rest again in the backward pass: much less memory, and a
    training step makes up to a third more FLOPs."""
    parallel: Literal["auto", "ddp", "fsdp", "hsdp"] = "auto"
    """What several ranks share. `ddp`: each holds all weights. `fsdp`: each holds a part of them. `hsdp`: as `fsdp`
    among `shard_ranks` ranks, and others hold further copies. `auto`: `ddp` while weights, gradients and moments take
    at most half of a device's memory, else `fsdp`."""
    shard_ranks: Positive | None = None
    """For `hsdp`: ranks that hold one copy of the weights together; None for those of a node."""
    device: str = "auto"
    """`auto`, `cpu`, `cuda`, `cuda:N` or `mps`."""

    def check(self) -> None:
        """Checks the device's name, and that one of rate and threshold is set."""
        self.require(
            re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", self.device, flags=re.ASCII) is not None,
            f"device is {self.device!r}",
            "auto, cpu, cuda, cuda:N or mps",
        )
        self._check_trackers()
        self.require(self.init_from != "", "init_from is empty", "a run, a step folder, `bundled` or null")
        self.require_parts("learning_rate_ratios", self.learning_rate_ratios, PARTS)
        self.require_parts("frozen", self.frozen, PARTS)
        self.require(
            self.skip_norm_ratio is None or self.max_skipped_steps > 0,
            f"skip_norm_ratio is {self.skip_norm_ratio} with train.max_skipped_steps {self.max_skipped_steps}",
            "null, or a max_skipped_steps of at least 1",
        )
        rate, threshold = self.scratchpads_per_byte, self.scratchpad_threshold_nats
        self.require(
            (rate is None) != (threshold is None),
            f"scratchpads_per_byte is {rate} and train.scratchpad_threshold_nats is {threshold}",
            "exactly one of the two; set the other to null",
        )
        every, kept = self.checkpoint_every, self.keep_every
        self.require(
            kept == 0 or (every > 0 and kept % every == 0),
            f"keep_every is {kept} and train.checkpoint_every is {every}",
            "0, or a multiple of train.checkpoint_every",
        )

    def _check_trackers(self) -> None:
        """Checks the names of trackers, and takes note of the plug-ins that they come from.

        A model loads without the tracker that was told of its training: a name that was a plug-in's then may be
        unknown now. Training itself asks for it.
        """
        recorded = self.tracker_plugins
        unknown = next((name for name in self.trackers if name not in recorded and not TRACKERS.knows(name)), None)
        self.require(unknown is None, f"trackers names {unknown!r}", ", ".join(TRACKERS))
        found = {name: TRACKERS.of_plugin(name) for name in self.trackers}
        known = {name: one.plugin for name, one in found.items() if one is not None}
        kept = {name: recorded[name] for name in self.trackers if name in recorded and name not in TRACKERS}
        object.__setattr__(self, "tracker_plugins", {**kept, **known})

    def require_parts(self, name: str, parts: Iterable[str], allowed: tuple[str, ...]) -> None:
        """Requires that a field names parts of a model.

        Args:
            name: of the field.
            parts: what it names.
            allowed: the parts that there are.

        Raises:
            ConfigError: another name.
        """
        unknown = next((part for part in parts if part not in allowed), None)
        self.require(unknown is None, f"{name} names `{unknown}`", ", ".join(allowed))
