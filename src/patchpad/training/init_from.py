"""Starting from another model's weights: with a schedule, a text, patches and scratchpads of one's own."""

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from patchpad.config import Config, ModelConfig
from patchpad.errors import CheckpointError, ConfigError
from patchpad.files import sha256_of
from patchpad.model.language_model import LanguageModel
from patchpad.training import checkpoint as files
from patchpad.training.parts import part_of

logger = logging.getLogger(__name__)

FIXED_KEYS = (
    "kind",
    "byte_dim",
    "byte_heads",
    "ngram_vocab_size",
    "ngram_sizes",
    "encoder_layers",
    "decoder_layers",
    "trunk_dim",
    "trunk_heads",
    "trunk_kv_dim",
    "trunk_layers",
    "trunk_ffn_dim",
    "ffn_ratio",
    "bpe_vocab_size",
)
"""What a model that starts from another one shares with it: sizes, and what its weights were trained to mean."""
NUM_SHOWN = 6
"""Parameters that a line of the log names one by one."""


@dataclass(frozen=True)
class Source:
    """A checked model on disk to start from.

    Its weights are taken over; thresholds, calibration, optimizer and schedule are not: they are those of a new run.
    """

    name: str
    """`bundled`, or an absolute path."""
    checkpoint: files.Checkpoint

    @staticmethod
    def open(name: str | Path) -> "Source":
        """Finds and checks a model.

        Args:
            name: a run, one of its step folders, or `bundled`.

        Raises:
            CheckpointError: nothing there, not one of ours, incomplete, altered or of another format.
        """
        if files.is_bundled(name):
            return Source(files.BUNDLED, files.open_checkpoint(files.BUNDLED))
        if not Path(name).is_dir():
            raise CheckpointError(
                f"no run is at {name}, which training was to start from",
                hint=f"Give a run, one of its step folders, or `{files.BUNDLED}` for the shipped model.",
            )
        path = Path(name).absolute()
        return Source(str(path), files.open_checkpoint(path))

    @staticmethod
    def of(config: Config) -> "Source | None":
        """Returns the model that a configuration's `train.init_from` names; None without one.

        Raises:
            CheckpointError: see `open`.
            ConfigError: the configured model cannot start from it.
        """
        if config.train.init_from is None:
            return None
        source = Source.open(config.train.init_from)
        source.require_fits(config.model)
        return source

    @property
    def model_config(self) -> ModelConfig:
        """Its sizes, patchifier and trigger: what a new model has where nothing else is set."""
        return self.checkpoint.config.model

    def facts(self) -> dict[str, Any]:
        """Returns what a run that starts from it keeps: where it was, how far it was trained, and its checksum."""
        folder, steps = self.checkpoint.path, self.checkpoint.config.train.steps
        has_state = (folder / files.TRAINER).is_file()
        return {
            "name": self.name,
            "step": int(self.checkpoint.trainer_state()["step"]) if has_state else steps,
            "manifest_sha256": sha256_of(folder / files.MANIFEST),
        }

    def require_fits(self, config: ModelConfig) -> None:
        """Requires that a model can start from this one.

        Patchifier, trigger, windows, rotary bases, the norms' epsilon and `context_bytes` may differ; sizes may not.

        Raises:
            ConfigError: it cannot, with the keys and both values of each.
        """
        theirs = self.model_config
        differing = [
            f"model.{key} is {_value(config, key)}, and {_value(theirs, key)} in {self.name}"
            for key in _fixed_keys(config, theirs)
            if _value(config, key) != _value(theirs, key)
        ]
        if differing:
            raise ConfigError(
                f"{'; '.join(differing)}; allowed: the same",
                hint="Leave the key out: with --init-from, a key of the model that is not set is the run's.",
            )

    def start(self, model: LanguageModel) -> None:
        """Gives a new model the weights of this one, and says in the log which of its parameters start fresh.

        Args:
            model: fits, see `require_fits`; its own weights have been drawn.

        Raises:
            CheckpointError: the weights cannot be loaded.
        """
        mine, theirs = dict(model.named_parameters()), dict(self.checkpoint.model().named_parameters())
        taken = mine.keys() & theirs.keys()
        if model.config.pools_bytes != self.model_config.pools_bytes:  # another module, with names that are the same
            taken = {name for name in taken if part_of(name) != "patch_pooling"}
        with torch.no_grad():
            for name in taken:
                mine[name].copy_(self._fitted(name, theirs[name], mine[name], model.config))
        model.read_extra_files(self.checkpoint.path)
        logger.info(
            "starting from %s: %d tensors of weights; new: %s; not taken: %s",
            self.name,
            len(taken),
            _listed(mine, mine.keys() - taken),
            _listed(theirs, theirs.keys() - taken),
        )

    def _fitted(self, name: str, theirs: Tensor, mine: Tensor, config: ModelConfig) -> Tensor:
        """Returns a parameter of this model in the shape of a new model's, whose patches may be longer or shorter."""
        if name.endswith(".distance_bias"):
            return fitted_distances(theirs, mine)
        if name == "context_to_bytes.projection.weight":
            before, after = self.model_config.num_context_lags, config.num_context_lags
            return fitted_lags(theirs, before, after, config.byte_dim)
        if name == "local_decoder.lm_head.weight":  # with a source head, one row more: the gate
            return torch.cat((theirs[: len(mine)], mine[len(theirs) :]))
        return theirs


def fitted_distances(theirs: Tensor, drawn: Tensor) -> Tensor:
    """Returns a bias by distance [head, distance] for another longest patch: what is farther goes on as it is drawn."""
    known = theirs[:, : drawn.shape[1]]
    last = known.shape[1] - 1
    return torch.cat((known, drawn[:, last + 1 :] - drawn[:, last, None] + known[:, last, None]), dim=1)


def fitted_lags(theirs: Tensor, before: int, after: int, byte_dim: int) -> Tensor:
    """Returns the context projection for another number of patch lags: longer ones take over the last.

    Args:
        theirs: [addition x byte_dim, trunk_dim]; an addition for each lag, then those of the other decoder layers.
        before: lags that it has.
        after: lags that are wanted.
        byte_dim: width of an addition.
    """
    additions = theirs.unflatten(0, (-1, byte_dim))
    lags, others = additions[:before], additions[before:]
    return torch.cat((lags[:after], lags[-1:].expand(max(0, after - before), -1, -1), others)).flatten(0, 1)


def _fixed_keys(config: ModelConfig, theirs: ModelConfig) -> Iterable[str]:
    if config.kind != theirs.kind:
        return ["kind"]
    keys = list(FIXED_KEYS)
    if config.kind == "patch":
        if config.pools_bytes and theirs.pools_bytes:
            keys.append("pooling_heads")
        if config.patchifier.commits_tokens:
            keys += ["patchifier.num_token_ids", "patchifier.longest_patch"]
            if config.has_source_head and theirs.has_source_head:
                keys.append("source_head")
        if config.reads_entropy and theirs.reads_entropy:
            keys.append("entropy_head_layers")
    if config.kind == "megabyte":
        keys.append("patchifier.target_patch_size")
    return keys


def _value(config: ModelConfig, key: str) -> Any:
    value: Any = config
    for name in key.split("."):
        value = getattr(value, name)
    return list(value) if isinstance(value, tuple) else value


def _listed(parameters: Iterable[str], chosen: Iterable[str]) -> str:
    """Returns names of parameters for a line of the log: a part as a whole, where all of it is chosen."""
    chosen, parameters = set(chosen), list(parameters)
    left = {part_of(name) for name in parameters if name not in chosen}
    names = dict.fromkeys(part_of(name) if part_of(name) not in left else name for name in parameters if name in chosen)
    shown = list(names)[:NUM_SHOWN]
    return ", ".join(shown) + (f" and {len(names) - len(shown)} more" if len(names) > len(shown) else "") or "none"
