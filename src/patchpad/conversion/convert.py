"""`convert`: a run at step 0, whose trunk is the layers of a trained subword model."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from patchpad.config import Config
from patchpad.config.run import merged, read_values
from patchpad.conversion.card import CARD, model_card
from patchpad.conversion.llama import LlamaConfig
from patchpad.conversion.source import LlamaSource
from patchpad.conversion.source_files import Licence
from patchpad.conversion.token_weights import load_slot_inputs, tokens_of
from patchpad.conversion.trunk_weights import load_trunk
from patchpad.errors import ConfigError
from patchpad.model.build import build_model
from patchpad.model.byte_lm import ByteLM
from patchpad.patching import SourceTokens
from patchpad.training.release import released_config, require_empty, save

logger = logging.getLogger(__name__)

TOKENS = "tokens"
"""The patchifier whose commits are the source's tokens."""
BASELINES = ("byte", "bpe", "megabyte")
"""Kinds of models without a trunk over slots."""


@dataclass(frozen=True)
class Converted:
    """What came of a source."""

    model: ByteLM
    config: Config
    source_name: str
    licence: Licence | None
    """Under which the trunk's weights, and so the whole model, stand; None where the source does not say."""


def convert(source: str | Path, config: str | Path | None, out: str | Path) -> Converted:
    """Makes a run of a source: its layers are the trunk, the other parts are drawn from `train.seed`.

    Args:
        source: a folder of Hugging Face with safetensors, or a .gguf file, of the llama architecture.
        config: name of a preset or path of a YAML file. It may leave out the trunk's sizes, rotary base and epsilon:
            they are the source's. None for the defaults.
        out: absent, or an empty folder. It is what `patchpad release` writes, a model without metrics or optimizer,
            and a card that says where the trunk comes from.

    Raises:
        ConversionError: no source is there, it is damaged, or it is not of the llama architecture.
        ConfigError: the configuration is wrong, or says something else of the trunk than the source.
        CheckpointError: `out` is not empty or cannot be written.
        MissingExtraError: a .gguf file without the extra `convert`.
    """
    require_empty(Path(out), hint="Choose another --out.")
    values, origin = read_values(config)
    opened = LlamaSource.open(source)
    tokens = tokens_of(opened) if _asks_for_tokens(values) else None
    settings = config_for(opened, values, origin, tokens)
    model = build_model(settings.model, seed=settings.train.seed)
    assert isinstance(model, ByteLM)
    logger.info("reading %d layers of %s", opened.config.num_hidden_layers, opened.name)
    load_trunk(model.trunk, opened)
    load_slot_inputs(model, opened, tokens and tokens.limited_to(settings.model.patchifier.longest_patch))
    save(model, settings, out, beside={CARD: model_card(opened, settings)})
    return Converted(model.eval(), settings, opened.name, opened.licence)


def config_for(source: LlamaSource, values: dict[str, Any], origin: str, tokens: SourceTokens | None) -> Config:
    """Returns the configuration of a run whose trunk is a source's; the paths of its text are left out.

    Args:
        source: the source.
        values: sections and keys that are set; a key of the trunk that is null counts as left out.
        origin: where they come from, for messages.
        tokens: of the source, where the values ask for `tokens` patches; else None.

    Raises:
        ConfigError: a wrong key or value, one of the trunk that differs from the source's, or another kind of model.
    """
    theirs = trunk_values(source.config)
    mine = values.get("model")
    if isinstance(mine, dict):
        if mine.get("kind") in BASELINES:
            raise ConfigError(
                f"{origin}: model.kind is {mine['kind']}; allowed: patch, whose trunk the layers become",
                hint="Leave it out.",
            )
        differing = [
            f"model.{key} is {mine[key]}, and {name} is {value} in {source.place}"
            for key, (name, value) in theirs.items()
            if type(mine.get(key)) in (int, float) and mine[key] != value
        ]
        if differing:
            raise ConfigError(
                f"{origin}: {'; '.join(differing)}; allowed: the same",
                hint="Leave these keys out: the trunk's sizes are then the source's.",
            )
        values = {**values, "model": {key: mine[key] for key in mine if not (key in theirs and mine[key] is None)}}
    below: dict[str, Any] = {"model": {key: value for key, (_, value) in theirs.items()}}
    if tokens is not None:
        below["model"] |= token_values(source, tokens)
        if isinstance(mine, dict) and mine.get("source_head") != "none":
            below["model"]["trigger"] = {"kind": "ending_entropy"}
    settings = Config.from_dict(merged(below, values), source=origin)
    if settings.train.init_from is not None:
        raise ConfigError(
            f"{origin}: train.init_from is {settings.train.init_from}; allowed: null, since the other parts are drawn",
            hint="Leave it out: `patchpad train --init-from` starts from the folder that this command writes.",
        )
    if settings.model.source_head == "tied" and not source.config.tie_word_embeddings:
        raise ConfigError(
            f"{origin}: model.source_head is tied, and the LM head of {source.place} has weights of its own; allowed: "
            "own, or none",
            hint="Leave it out: it is then the source's.",
        )
    return released_config(settings)


def _asks_for_tokens(values: dict[str, Any]) -> bool:
    """Returns whether values of a configuration, of which nothing is checked yet, name the patchifier `tokens`."""
    model = values.get("model")
    patchifier = model.get("patchifier") if isinstance(model, dict) else None
    return isinstance(patchifier, dict) and patchifier.get("kind") == TOKENS


def token_values(source: LlamaSource, tokens: SourceTokens) -> dict[str, Any]:
    """Returns what `tokens` patches take over from a source, unless the configuration says something else."""
    return {
        "patchifier": {
            "kind": TOKENS,
            "target_patch_size": 4,
            "max_patch_size": tokens.longest(),
            "num_token_ids": tokens.num_ids,
        },
        "source_head": "tied" if source.config.tie_word_embeddings else "own",
    }


def trunk_values(config: LlamaConfig) -> dict[str, tuple[str, int | float]]:
    """Returns key of `model` -> the source's field, and its value, for all that a source decides."""
    return {
        "trunk_dim": ("hidden_size", config.hidden_size),
        "trunk_heads": ("num_attention_heads", config.num_attention_heads),
        "trunk_kv_heads": ("num_key_value_heads", config.num_key_value_heads),
        "trunk_layers": ("num_hidden_layers", config.num_hidden_layers),
        "trunk_ffn_dim": ("intermediate_size", config.intermediate_size),
        "trunk_rotary_base": ("rope_theta", config.rope_theta),
        "trunk_norm_epsilon": ("rms_norm_eps", config.rms_norm_eps),
    }
