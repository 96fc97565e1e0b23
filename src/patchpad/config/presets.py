"""Presets: the configurations that ship with the package, found by name."""

import os
from importlib import resources
from pathlib import Path
from typing import Any

from patchpad.config.plain_values import parse_sections, read_yaml
from patchpad.errors import ConfigError, near_matches

SUFFIX = ".yaml"
ALLOWED = "sections model, data, train"
_PRESETS = resources.files("patchpad").joinpath("presets")


def preset_names() -> list[str]:
    """Returns the names of all presets, in alphabetical order."""
    return sorted(entry.name.removesuffix(SUFFIX) for entry in _PRESETS.iterdir() if entry.name.endswith(SUFFIX))


def preset_text(name: str) -> str:
    """Returns the YAML of a preset."""
    return _PRESETS.joinpath(name + SUFFIX).read_text(encoding="utf-8")


def read_preset_or_file(
    config: str | Path, *, folder: Path | None = None, hint: str = "Give --config a YAML file."
) -> dict[str, Any]:
    """Reads a preset by its name, or a YAML file by its path.

    Args:
        config: a name such as `tiny-fixed16-entropy`, or a path. A `Path` is always a file, and so is a string with a
            slash or with the ending of a YAML file.
        folder: where relative paths start; the working folder if left out.
        hint: what to do where a path leads nowhere.

    Raises:
        ConfigError: an unknown name, a file that is missing or not YAML, or a name that a file here has too.
    """
    path = Path(config) if folder is None else folder / config
    if not isinstance(config, str) or not _is_name(config):
        if Path(config).stem in preset_names() and not path.exists():
            hint = f"`{Path(config).stem}` is a preset: give its name alone."
        return read_yaml(path, allowed=ALLOWED, hint=hint)
    if config in preset_names():
        if path.is_file():
            raise ConfigError(
                f"`{config}` is the name of a preset and of a file in this folder; allowed: a name that is only one",
                hint=f"For the file, write ./{config}.",
            )
        return parse_sections(preset_text(config), source=config, allowed=ALLOWED)
    if path.exists():
        return read_yaml(path, allowed=ALLOWED, hint=hint)
    raise ConfigError(
        f"{config!r} is neither a preset nor a file",
        hint=f"{near_matches(config, preset_names())} `patchpad configs` lists the presets.",
    )


def _is_name(config: str) -> bool:
    """Whether a string can be the name of a preset."""
    separators = {"/", os.sep}
    return not any(mark in config for mark in separators) and not config.endswith((SUFFIX, ".yml", ".json"))
