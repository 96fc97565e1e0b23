"""The configuration of a run, and how it is read."""

import dataclasses
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from patchpad.config.checks import Section, field_types
from patchpad.config.conversion import shown
from patchpad.config.model import ModelConfig, nats_triggers
from patchpad.config.plain_values import build_section
from patchpad.config.plugged import plain_section
from patchpad.config.presets import read_preset_or_file
from patchpad.config.train import DataConfig, TrainConfig
from patchpad.errors import ConfigError

FORMAT_VERSION = 3


@dataclass(frozen=True, kw_only=True)
class Config(Section):
    """Everything that a run needs; saved with every checkpoint."""

    format_version: int = FORMAT_VERSION
    """Version of the file format."""
    model: ModelConfig = field(default_factory=ModelConfig)
    """Sizes, patchifier and trigger."""
    data: DataConfig = field(default_factory=DataConfig)
    """Text and its split."""
    train: TrainConfig = field(default_factory=TrainConfig)
    """Optimizer and schedules."""

    def check(self) -> None:
        """Checks the version, and what model and training mean together."""
        version = self.format_version
        self.require(
            version == FORMAT_VERSION, f"format_version is {version}", f"{FORMAT_VERSION} in this version of patchpad"
        )
        self._check_parts()
        rate, trigger = self.train.scratchpads_per_byte, self.model.trigger
        self.require(
            trigger.kind != "random" or rate in (None, TrainConfig.scratchpads_per_byte, trigger.scratchpads_per_byte),
            f"train.scratchpads_per_byte is {rate} with the trigger `random`, whose own rate is "
            f"{trigger.scratchpads_per_byte}",
            "the rate of `random` is model.trigger.scratchpads_per_byte; set that one",
        )
        spread = self.train.threshold_spread
        self.require(
            spread == 0 or trigger.threshold_in_nats or trigger.kind == "random",
            f"train.threshold_spread is {spread} with the trigger `{trigger.kind}`",
            f"0, or one of the triggers {', '.join(nats_triggers())}, random",
        )

    def _check_parts(self) -> None:
        """Checks that the parts with a learning rate of their own, and those that are frozen, exist."""
        train, kind, parts = self.train, self.model.kind, self.model.parts
        ratios = {part: ratio for part, ratio in train.learning_rate_ratios.items() if ratio != 1}
        self.require(
            kind == "patch" or not ratios,
            f"train.learning_rate_ratios is {ratios} with model.kind {kind}",
            "1 for each: baselines have one learning rate",
        )
        self.require(
            kind == "patch" or not train.frozen,
            f"train.frozen is {list(train.frozen)} with model.kind {kind}",
            "[]: baselines have no parts",
        )
        train.require_parts("learning_rate_ratios", ratios, parts)
        train.require_parts("frozen", train.frozen, parts)
        self.require(
            kind != "patch" or not set(parts) <= set(train.frozen),
            "train.frozen names all parts of the model",
            "at least one part is left out",
        )

    def to_dict(self) -> dict[str, Any]:
        """Returns nested plain dictionaries, ready for JSON; infinities become the strings "inf" and "-inf".

        Keys that speak of plug-ins are there only where one is used.
        """
        return plain_section(self)

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


def load_config(
    config: str | Path | None,
    overrides: dict[str, str] | None = None,
    *,
    model_of: Callable[[str], ModelConfig] | None = None,
) -> Config:
    """Reads a preset or a YAML file and applies command-line overrides.

    Args:
        config: name of a preset, such as `tiny-fixed16-entropy`; or the path of a YAML file with sections `model`,
            `data`, `train`; None for the defaults alone.
        overrides: dotted key to YAML text, as in `{"train.steps": "200"}`.
        model_of: returns the model of the run that `train.init_from` names, where it names one: keys of `model` that
            are set nowhere are that model's, instead of the defaults.

    Raises:
        ConfigError: the name is unknown, the file is missing or not YAML, or a key or value is wrong.
    """
    values, source = read_values(config, overrides)
    train = values.get("train")
    init_from = train.get("init_from") if isinstance(train, dict) else None
    if model_of is not None and isinstance(init_from, str):
        values = merged({"model": dataclasses.asdict(model_of(init_from))}, values)
    return Config.from_dict(values, source=source)


def read_values(config: str | Path | None, overrides: dict[str, str] | None = None) -> tuple[dict[str, Any], str]:
    """Reads a preset or a YAML file and applies command-line overrides; of the values nothing is checked yet.

    Args:
        config: name of a preset, or path of a YAML file; None for no values.
        overrides: dotted key to YAML text.

    Returns:
        The values that are set, section by section, and where they come from, for messages.

    Raises:
        ConfigError: the name is unknown, the file is missing or not YAML, or an override is not one.
    """
    source = "defaults" if config is None else str(config)
    values = {} if config is None else read_preset_or_file(config)
    for key, text in (overrides or {}).items():
        *sections, name = _path_of(key)
        target = values
        for section in sections:
            target = target.setdefault(section, {})
            if not isinstance(target, dict):
                raise ConfigError(f"--{key}: `{section}` is not a section", hint="Write --section.field VALUE.")
        target[name] = _override_value(key, text)
    return values, f"{source} and the command line" if overrides else source


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Returns both of two configurations as plain values, sections merged key by key, `above` winning.

    Another kind in a section takes over no options of a plug-in's, and no tokens of a source.
    """
    result = dict(below)
    if above.get("kind", below.get("kind")) != below.get("kind"):
        for key in ("options", "plugin", "num_token_ids"):
            result.pop(key, None)
    for key, value in above.items():
        old = result.get(key)
        result[key] = merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return result


def _path_of(key: str) -> list[str]:
    """Returns the parts of a dotted key, unless it is that of a whole section, whose other keys would be dropped."""
    path: list[str] = key.split(".")
    kind: Any = Config
    for part in path:
        kind = field_types(kind).get(part) if dataclasses.is_dataclass(kind) else None
    if dataclasses.is_dataclass(kind):
        example = next(iter(field_types(typing.cast(type, kind))))
        raise ConfigError(f"--{key} is a section; allowed: one of its keys", hint=f"Write --{key}.{example} VALUE.")
    return path


def _override_value(key: str, text: str) -> Any:
    """Reads the value of an override: YAML of which nothing is left over."""
    from patchpad.config.reading import parse_yaml

    if not isinstance(text, str):
        raise ConfigError(f"the value of {key} is {shown(text)}; allowed: YAML text", hint=f"Write {str(text)!r}.")
    if not text.strip():
        raise ConfigError(f"--{key} has an empty value", hint="Write null for none, or '\"\"' for empty text.")
    quote = "Quote text for YAML, inside the quotes of the shell: '\"...\"'."
    try:
        value, rest = parse_yaml(text)
    except ValueError as error:
        raise ConfigError(f"--{key} has the value {text!r}, which is not a YAML value: {error}", hint=quote) from error
    if rest.strip():
        raise ConfigError(f"--{key} has the value {text!r}, whose {rest.strip()!r} is a YAML comment", hint=quote)
    return value
