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
    """Files, globs, directories or URLs to train on. `--data` replaces them."""
    validation_paths: tuple[str, ...] = ()
    """Held-out files. If empty, the held-out part of a prepared corpus is used, or a part of `paths` is held out
    (`docs/files.md`)."""
    validation_fraction: BetweenZeroAndOne = 0.1
    """Share of the bytes that is held out if `validation_paths` is empty."""
    format: Literal["auto", "raw"] = "auto"
    """`auto`: the name of a file says how it is read. `raw`: the bytes of every file are one document, whatever its
    name."""
    text_field: str = "text"
    """The field of JSONL, or the column of Parquet and Arrow, that holds the document. A record without it may have
    `prompt` and `completion`: the document is both, and only the completion is trained on and counted."""
    most_bad_records: NotNegative = 0
    """How many records without such text may be skipped. Each is reported with its file and line. One more is an
    error."""
    remove_duplicates: bool = False
    """Whether to skip documents that equal an earlier one byte for byte. Their number is reported."""


@dataclass(frozen=True, kw_only=True)
class SourceConfig(TextConfig):
    """One text of a mixture."""

    SECTION: ClassVar[str] = "data.sources.NAME"

    weight: AboveZero = 1.0
    """Weight of this text in the mixture. Its share of the rows is this divided by the sum of all weights."""

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
    """A mixture: several texts by name, instead of the keys above. Each has its own values of these keys, and a
    `weight` (default 1). Its share of the rows is its weight divided by the sum of all weights."""

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
    """Sets the initial weights and the order of the data."""
    init_from: str | None = None
    """Run or step folder whose weights training starts from, or `bundled` for the model that ships with patchpad.
    `--init-from` sets it. None: weights are drawn from the seed."""
    steps: Positive = 1000
    """Optimizer steps."""
    batch_rows: Positive = 4
    """Rows of `context_bytes` per forward pass, over all ranks together."""
    accumulation_steps: Positive = 1
    """Forward passes per optimizer step, weighted by the bytes that they predict."""
    learning_rate: AboveZero = 2e-3
    """The highest learning rate of the schedule."""
    schedule: Schedule = "cosine"
    """How the learning rate changes after warm-up. `cosine`: it falls from the first step to the last. `wsd` (warm-up,
    stable, decay): it stays at its peak and then falls in a straight line."""
    decay_fraction: Share = 0.2
    """For `wsd`: the learning rate falls during this last share of the steps."""
    final_learning_rate_ratio: Share = 0.1
    """The learning rate at the end, divided by the peak. It would be reached one step after the last."""
    learning_rate_ratios: dict[str, AboveZero] = field(default_factory=dict, hash=False)
    """Learning rates of single parts, divided by `learning_rate`, such as {trunk: 0.5}. The parts of the patch model
    are local_encoder, entropy_head, routing, patch_pooling, trunk, context_to_bytes, local_decoder and source_head."""
    frozen: tuple[str, ...] = ()
    """Parts whose weights do not change, such as [trunk]. Parts before them still learn."""
    warmup_steps: NotNegative = 50
    """Steps in which the learning rate rises linearly."""
    weight_decay: AtLeastZero = 0.1
    """AdamW's weight decay. It applies to parameters with two or more dimensions: matrices of linear layers,
    embeddings, and the distance bias of patch pooling. Norms and single vectors do not decay."""
    beta1: ShareBelowOne = 0.9
    """AdamW's decay of the first moment."""
    beta2: ShareBelowOne = 0.95
    """AdamW's decay of the second moment."""
    max_grad_norm: AboveZero = 1.0
    """Gradients are clipped to this norm."""
    z_loss_weight: AtLeastZero = 0.0
    """Weight of the mean of ln(Z)^2 over the targets, where Z is the sum that the softmax of the LM head divides by. It
    keeps the logits from drifting. 1e-4 is usual. 0: off."""
    max_skipped_steps: NotNegative = 0
    """How many steps in a row may be skipped because the loss or the gradient is not finite. A skipped step changes
    nothing. One more is an error. 0: none may be skipped."""
    skip_norm_ratio: AboveOne | None = None
    """Steps are also skipped if the norm of their gradient is above this many times the median of earlier steps. None:
    no step is skipped for a large gradient."""
    entropy_head_weight: AtLeastZero = 0.1
    """Weight of the entropy head's cross-entropy. Its gradient reaches the encoder. At 1 the encoder serves the head
    more than the trunk and the decoder (`docs/log.md`)."""
    distillation_weight: AtLeastZero = 1.0
    """With a source head: weight of the loss that teaches the local decoder what the source expects after each token.
    That is known once the token has ended. 0: off."""
    scratchpads_per_byte: ShareBelowOne | None = 3 / 16
    """Scratchpad rate to aim at: the threshold follows it. None if `scratchpad_threshold_nats` is set."""
    scratchpad_threshold_nats: Nats | None = None
    """A fixed threshold for training. None: the threshold follows `scratchpads_per_byte`."""
    patch_threshold_nats: Nats | None = None
    """For `entropy` patches: a fixed threshold. None: the threshold follows `patchifier.target_patch_size`."""
    threshold_frozen_fraction: Share = 0.1
    """Thresholds stop moving for this last share of the steps."""
    threshold_spread: Share = 0.0
    """Share of each step's rows that train at other scratchpad rates. Each draws its rate uniformly between 0 and the
    most possible. The other rows train at `scratchpads_per_byte`."""
    ratio_loss_weight: AtLeastZero = 0.03
    """For `hnet` patches: weight of the loss that pulls the share of boundaries towards 1 / `target_patch_size`."""
    validate_every: NotNegative = 250
    """Steps between validations. 0: only at the end."""
    validation_bytes: NotNegative = 100_000
    """Bytes per validation, spread over all held-out documents. 0: all bytes."""
    checkpoint_every: NotNegative = 250
    """Steps between checkpoints. 0: only at the end and when interrupted."""
    keep_checkpoints: NotNegative = 2
    """How many of the newest checkpoints to keep. 0: all."""
    keep_every: NotNegative = 0
    """Checkpoints at multiples of this many steps are kept for good. It must be a multiple of `checkpoint_every`. 0:
    none."""
    checkpoint_async: bool = True
    """Whether checkpoints are copied to host memory and written while training continues. If false, training waits."""
    averaged_decay: BetweenZeroAndOne | None = None
    """Decay of a moving average of the weights, such as 0.999. It is saved beside the weights, and
    `patchpad release --averaged` takes it. None: no average."""
    log_every: Positive = 10
    """Steps between lines of `metrics.jsonl`."""
    trackers: tuple[str, ...] = ()
    """Libraries that also receive each line of metrics and each sample: `tensorboard`, `wandb`, `trackio`, or trackers
    of plug-ins (`docs/plugins.md`)."""
    tracker_plugins: dict[str, str] = field(default_factory=dict, hash=False)
    """The plug-ins that registered trackers, by the trackers' names. patchpad writes this key and never imports
    them."""
    sample_every: NotNegative = 0
    """Steps between samples of the model's text, for `samples.jsonl` and for trackers. 0: none."""
    sample_prompt: str | None = None
    """The text that samples continue. Null: they begin a new document."""
    sample_bytes: Positive = 200
    """The most bytes of a sample."""
    compile: bool | None = None
    """On CUDA the whole pass is compiled, unless this is false. On other devices, true compiles what lies between the
    attention layers. On a CPU this needs a C++ compiler."""
    activation_checkpointing: bool = False
    """Keep only the input of each trunk block, and compute the rest again in the backward pass. This takes much less
    memory, and up to a third more FLOPs per training step."""
    parallel: Literal["auto", "ddp", "fsdp", "hsdp"] = "auto"
    """How the model is spread over several ranks. `ddp`: each holds all weights. `fsdp`: each holds a part of them.
    `hsdp`: each group of `shard_ranks` ranks holds one copy, divided as in `fsdp`. `auto`: `ddp` if weights, gradients
    and moments take at most half of a device's memory, otherwise `fsdp`."""
    shard_ranks: Positive | None = None
    """For `hsdp`: how many ranks hold one copy of the weights together. None: the ranks of a node."""
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
