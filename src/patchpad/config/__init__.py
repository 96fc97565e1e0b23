"""Configuration: frozen dataclasses, checked when they are made; torch-free.

Precedence is defaults < YAML file < command line. A file holds only what differs from the defaults.
"""

from patchpad.config.model import (
    IGNORED_TARGET,
    LONGEST_CHARACTER,
    NATS_TRIGGERS,
    NUM_BYTE_VALUES,
    NUM_INPUT_IDS,
    PADDING,
    PARTS,
    SEPARATOR,
    VOCAB_SIZE,
    ModelConfig,
    ModelKind,
    PatchifierConfig,
    PatchifierKind,
    TriggerConfig,
    TriggerKind,
    nats_triggers,
)
from patchpad.config.plain_values import build_section, read_yaml
from patchpad.config.presets import preset_names, preset_text, read_preset_or_file
from patchpad.config.run import FORMAT_VERSION, Config, load_config
from patchpad.config.train import DataConfig, SourceConfig, TextConfig, TrainConfig

__all__ = [
    "FORMAT_VERSION",
    "IGNORED_TARGET",
    "LONGEST_CHARACTER",
    "NATS_TRIGGERS",
    "NUM_BYTE_VALUES",
    "NUM_INPUT_IDS",
    "PADDING",
    "PARTS",
    "SEPARATOR",
    "VOCAB_SIZE",
    "Config",
    "DataConfig",
    "ModelConfig",
    "ModelKind",
    "PatchifierConfig",
    "PatchifierKind",
    "SourceConfig",
    "TextConfig",
    "TrainConfig",
    "TriggerConfig",
    "TriggerKind",
    "build_section",
    "load_config",
    "nats_triggers",
    "preset_names",
    "preset_text",
    "read_preset_or_file",
    "read_yaml",
]
