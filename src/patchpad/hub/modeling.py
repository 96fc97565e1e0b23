"""`PatchpadForCausalLM`: a patchpad model of any kind but `bpe` behind the interface of transformers."""

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from patchpad.config import VOCAB_SIZE, Config
from patchpad.errors import CheckpointError, GenerationError, InputError
from patchpad.files import without_infinities, write_atomically
from patchpad.hub.configuration import PatchpadConfig
from patchpad.hub.generating import PatchpadGenerationMixin
from patchpad.hub.library import (
    AutoModelForCausalLM,
    CausalLMOutputWithPast,
    PreTrainedModel,
    cached_file,
    can_return_tuple,
)
from patchpad.hub.loss import training_loss
from patchpad.hub.row_cache import RowCache
from patchpad.hub.rows import GivenRows, are_read, ids_read, with_padding
from patchpad.hub.saving import weights_sha256, write_digests, write_remote_code
from patchpad.inference.steppers import stepper_for
from patchpad.inference.stepping import row_thresholds
from patchpad.model.baselines import Baseline
from patchpad.model.block import Stack, recompute_trunk
from patchpad.model.build import build_model
from patchpad.model.byte_lm import SOURCE_TOKENS, ByteLM
from patchpad.model.language_model import LanguageModel
from patchpad.model.precision import autocast
from patchpad.model.weights import Embedding
from patchpad.patching import ThresholdLike
from patchpad.version import __version__

FILE_OPTIONS = ("cache_dir", "force_download", "local_files_only", "revision", "subfolder", "token")
"""Options of `from_pretrained` that say where a file lies."""


class PatchpadForCausalLM(PreTrainedModel, PatchpadGenerationMixin):
    """A patchpad model that transformers loads, generates with, trains and saves.

    `model` is the model itself, for everything that `patchpad` does with one.
    """

    config_class = PatchpadConfig
    base_model_prefix = ""
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    accepts_loss_kwargs = True
    _is_stateful = True  # a state cannot go back, as assisted decoding would need
    _keep_in_fp32_modules_strict = ["scratchpad_threshold_nats", "patch_threshold_nats"]  # noqa: RUF012  (as theirs)

    config: PatchpadConfig  # pyrefly: ignore  # theirs may be any configuration

    def __init__(self, config: PatchpadConfig) -> None:
        super().__init__(config)
        found = config.described()
        if found.config.model.kind == "bpe":
            raise GenerationError(
                "a `bpe` model reads tokens that it has learned, which the tokenizer of bytes does not make",
                hint="Use it with patchpad itself: patchpad generate, evaluate, lm-eval.",
            )
        self.model: LanguageModel = build_model(found.config.model)
        self.model.calibration = found.calibration
        self.loss_weights = found.config.train
        self.gradient_checkpointing = False
        self._calibrated_sha256 = found.calibrated_sha256
        self._is_calibration_checked = False
        self._own_buffers = {
            name: buffer.clone() for name, buffer in self.named_buffers() if name not in self.state_dict()
        }
        self.post_init()
        self.generation_config._from_model_config = False  # or keys that transformers does not know would be lost

    @classmethod
    def of(cls, model: LanguageModel, config: Config) -> "PatchpadForCausalLM":
        """Puts a model behind the interface of transformers; both share it.

        Args:
            model: of any kind but `bpe`.
            config: what it was trained with.
        """
        outer = cls(PatchpadConfig(patchpad=replace(config, model=model.config).to_dict()))
        outer.model = model
        return outer.train(model.training)

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        cache: Any = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        scratchpad_threshold_nats: ThresholdLike = None,
        compute: float | None = None,
        num_items_in_batch: Tensor | int | None = None,
        past_key_values: Any = None,
        inputs_embeds: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
    ) -> CausalLMOutputWithPast:
        """Predicts the next id at every position.

        Args:
            input_ids: 0..255 bytes, 256 separators, 257 padding, [batch, length]. A row that does not begin with the
                separator is read as if it did. With a cache, only the ids behind it.
            attention_mask: [batch, length], 0 where an id is not read; with a cache, of all positions up to now.
            cache: what an earlier call returned; it is moved on in place.
            labels: [batch, length], 0..256, and -100 where nothing is predicted; label n is what position n - 1
                predicts, as transformers has it.
            use_cache: return a cache; None for what the configuration says, and not in training.
            logits_to_keep: return only so many of the last positions, 0 for all; or the positions themselves.
            scratchpad_threshold_nats: None for the stored threshold, nats, inf, -inf, or one for each row.
            compute: trunk calls per byte instead of a threshold; needs a calibration.
            num_items_in_batch: what the loss is divided by; None for the labels of the batch. `Trainer` gives it.
            past_key_values: the older name of `cache`.
            inputs_embeds: refused: patches and n-grams are made of bytes.
            output_attentions: refused if true.
            output_hidden_states: refused if true.

        Returns:
            `logits`, [batch, length, 258], in which padding has -inf; `loss` with labels; `cache` if asked for.

        Raises:
            InputError: ids, mask, labels or threshold that do not fit, or something that is refused.
            GenerationError: a dial that the model cannot serve.
        """
        if input_ids is None or inputs_embeds is not None:
            raise InputError("input_ids is needed: patches, n-grams and scratchpads are decided from bytes")
        if output_attentions or output_hidden_states:
            raise InputError("attentions and hidden states are not returned; their positions are slots, not bytes")
        if isinstance(logits_to_keep, int) and logits_to_keep < 0:
            raise InputError(
                f"logits_to_keep is {logits_to_keep}; allowed: 0 for all positions, a number, or positions"
            )
        cache = past_key_values if cache is None else cache
        threshold = self._threshold(scratchpad_threshold_nats, compute)
        if cache is not None:
            if labels is not None:
                raise InputError("labels and a cache are given; allowed: one of them, since steps have no gradients")
            logits = self._read_on(cache, input_ids, attention_mask, threshold)
            return CausalLMOutputWithPast(
                logits=with_padding(_kept(logits, logits_to_keep)),
                cache=cache if use_cache is not False else None,
            )
        use_cache = (self.config.use_cache and not self.training) if use_cache is None else use_cache
        rows = GivenRows.of(input_ids, attention_mask)
        new_cache: Any = None
        if use_cache:
            row_threshold = row_thresholds(self.model, threshold, len(input_ids))
            new_cache = RowCache(stepper_for(self.model), rows.documents, row_threshold, length=input_ids.shape[1])
            if isinstance(logits_to_keep, int) and logits_to_keep == 1 and labels is None:
                logits = new_cache.newest_logits[:, None]
                return CausalLMOutputWithPast(logits=with_padding(logits), cache=new_cache)  # pyrefly: ignore
        loss, logits = self._pass(rows, labels, threshold, num_items_in_batch)
        logits = _kept(rows.at_given(logits), logits_to_keep)
        return CausalLMOutputWithPast(loss=loss, logits=with_padding(logits), cache=new_cache)

    def _pass(
        self,
        rows: GivenRows,
        labels: Tensor | None,
        threshold: ThresholdLike,
        num_items_in_batch: Tensor | int | None,
    ) -> tuple[Float[Tensor, ""] | None, Float[Tensor, "batch width vocab"]]:
        """Runs a full pass over rows, with a loss where there are labels."""
        model, byte_ids = self.model, rows.byte_ids
        decisions = model.decisions(threshold, batch=len(byte_ids))
        with autocast(model.device):
            if labels is not None:
                targets = rows.targets(labels.to(byte_ids.device).long())
                return training_loss(model, byte_ids, targets, decisions, self.loss_weights, num_items_in_batch)
            if isinstance(model, ByteLM):
                return None, model.run(byte_ids, decisions).logits.float()
            assert isinstance(model, Baseline)
            return None, model.run(byte_ids).logits.float()

    def _read_on(
        self, cache: Any, input_ids: Tensor, attention_mask: Tensor | None, threshold: ThresholdLike
    ) -> Float[Tensor, "batch length vocab"]:
        """Reads ids behind a cache; returns the logits at each given position."""
        if not isinstance(cache, RowCache):
            raise InputError(
                f"cache is of type {type(cache).__name__}; allowed: the `cache` that an earlier call returned"
            )
        is_read = are_read(input_ids, attention_mask)
        num_rows, width = is_read.shape
        if num_rows != cache.num_rows:
            raise InputError(f"input_ids has {num_rows} rows and the cache {cache.num_rows}; allowed: as many")
        row_threshold = row_thresholds(self.model, threshold, num_rows)
        entries = cache.read(ids_read(input_ids, is_read), row_threshold, num_positions=width)
        if width == 1:
            return entries[:, -1:]
        place = is_read.long().cumsum(dim=1)
        return entries.gather(1, place[..., None].expand(-1, -1, VOCAB_SIZE))

    # Training

    def _set_gradient_checkpointing(self, enable: bool = True, *args: Any, **kwargs: Any) -> None:
        """Lets training recompute the trunk's blocks, as `train.activation_checkpointing` does."""
        self.gradient_checkpointing = enable
        if enable:
            recompute_trunk(self.model)
            return
        for module in self.model.modules():
            if isinstance(module, Stack):
                module.recomputes = False

    def enable_input_require_grads(self) -> None:
        """Does nothing: blocks that are recomputed need no gradients of their inputs."""

    # Loading and saving

    @classmethod
    def register_for_auto_class(cls, auto_class: Any = None) -> None:
        """Does nothing: the classes are in a package, so no code of theirs is copied into folders."""

    @classmethod
    def from_pretrained(cls, *args: Any, output_loading_info: bool = False, **kwargs: Any) -> Any:
        """Loads a folder; see transformers.

        Raises:
            CheckpointError: weights are missing, do not belong to the model, or have other shapes.
        """
        found: Any = super().from_pretrained(*args, output_loading_info=True, **kwargs)
        model, info = found
        wrong = {what: sorted(map(str, info[what])) for what in ("missing_keys", "unexpected_keys", "mismatched_keys")}
        if any(wrong.values()):
            shown = "; ".join(f"{what}: {', '.join(names[:4])}" for what, names in wrong.items() if names)
            raise CheckpointError(
                f"the weights do not fit the configuration ({shown})",
                hint="Take config.json and the weights from the same folder.",
            )
        model._restore_buffers()
        model._read_extra_files(*args, **kwargs)
        wanted = kwargs.get("dtype", kwargs.get("torch_dtype"))
        wanted = getattr(torch, wanted, None) if isinstance(wanted, str) else wanted  # "auto" is fp32, as it was saved
        if isinstance(wanted, torch.dtype):
            model.to(wanted)  # thresholds and positions stay in fp32
        return (model, info) if output_loading_info else model

    def _restore_buffers(self) -> None:
        """Sets what is not saved with the weights: loading leaves it undefined."""
        for path, value in self._own_buffers.items():
            owner, _, name = path.rpartition(".")
            module = self.get_submodule(owner)
            setattr(module, name, value.clone().to(getattr(module, name).device))

    def _read_extra_files(self, folder: str | os.PathLike[str], *args: Any, **options: Any) -> None:
        """Reads what lies beside the weights: with `tokens` patches, the tokens of the source."""
        if not self.model.config.patchifier.commits_tokens:
            return
        known: Mapping[str, Any] = {name: value for name, value in options.items() if name in FILE_OPTIONS}
        try:
            path = cached_file(folder, SOURCE_TOKENS, **known)
        except OSError as error:
            raise CheckpointError(
                f"{folder} has no {SOURCE_TOKENS}", hint="Export it again with `patchpad export`."
            ) from error
        assert path is not None  # it would have been missing
        self.model.read_extra_files(Path(path).parent)

    def _init_weights(self, module: Any) -> None:
        """Does nothing: the model draws its weights itself."""

    def save_pretrained(  # pyrefly: ignore  # the other arguments are handed on
        self, save_directory: str | os.PathLike[str], **kwargs: Any
    ) -> None:
        """Writes a folder that transformers loads and `patchpad import` reads; see transformers."""
        table = None if self.model.calibration is None else without_infinities(self.model.calibration.to_dict())
        if table != self.config.calibration:
            self.config.calibration = table
            self._calibrated_sha256 = None if table is None else weights_sha256(self.model.state_dict())
        self.config.calibrated_weights_sha256 = self._calibrated_sha256
        self.config.patchpad_version = __version__
        write_remote_code(save_directory)
        super().save_pretrained(save_directory, **kwargs)
        if kwargs.get("is_main_process", True):
            for name, content in self.model.extra_files().items():
                write_atomically(Path(save_directory) / name, content)
            write_digests(save_directory)

    def get_input_embeddings(self) -> Any:
        """Returns the embedding of bytes."""
        return next(module for module in self.model.modules() if isinstance(module, Embedding))

    def resize_token_embeddings(self, *args: Any, **kwargs: Any) -> Any:
        """Refuses: there are as many ids as there are bytes.

        Raises:
            InputError: always.
        """
        raise InputError("the embeddings cannot be resized: ids are the 256 bytes, the separator and padding")


def _kept(
    logits: Float[Tensor, "batch length vocab"], logits_to_keep: int | Tensor
) -> Float[Tensor, "batch kept vocab"]:
    """Returns the last so many positions, 0 for all, or those that are named."""
    return logits[:, logits_to_keep if isinstance(logits_to_keep, Tensor) else slice(-logits_to_keep, None)]


AutoModelForCausalLM.register(PatchpadConfig, PatchpadForCausalLM, exist_ok=True)

__all__ = ["PatchpadForCausalLM"]
