"""Plain values, as YAML and JSON hold them, to configuration dataclasses."""

import dataclasses
import types
import typing
from pathlib import Path
from typing import Any, TypeVar

from patchpad.config.checks import field_types
from patchpad.config.conversion import convert, wrong_value
from patchpad.errors import ConfigError, MissingPluginError, near_matches

_Section = TypeVar("_Section")


def read_yaml(path: str | Path, *, allowed: str, hint: str = "Give a YAML file with --config.") -> dict[str, Any]:
    """Reads a YAML file of keys and values.

    Args:
        path: the file; an empty one gives no keys.
        allowed: what belongs at its top, for the message.
        hint: what to do where there is no such file.

    Raises:
        ConfigError: the file is missing, no YAML, or holds something else.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the configuration {path}: {error}", hint=hint) from error
    return parse_sections(text, source=str(path), allowed=allowed)


def parse_sections(text: str, *, source: str, allowed: str) -> dict[str, Any]:
    """Reads YAML text of keys and values.

    Args:
        text: the YAML; empty text gives no keys.
        source: where it comes from, named in errors.
        allowed: what belongs at its top, for the message.

    Raises:
        ConfigError: the text is not YAML, or holds something else.
    """
    from patchpad.config.reading import parse_yaml

    try:
        values, _ = parse_yaml(text)
    except ValueError as error:
        raise ConfigError(f"{source} is not valid YAML: {error}", hint="Fix the file.") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        found = type(values).__name__
        raise ConfigError(f"{source} holds a {found}; allowed: {allowed}", hint="Write keys and values.")
    return values


def build_section(section: type[_Section], values: Any, source: str) -> _Section:
    """Builds a configuration dataclass from plain values, as a YAML file gives them.

    Args:
        section: the dataclass; its fields say which keys and types are allowed.
        values: keys and values; missing keys keep their defaults.
        source: where the values come from, named in errors.

    Raises:
        ConfigError: an unknown or missing key, a value of the wrong type, or an impossible value.
    """
    try:
        return _build(section, values, "")
    except MissingPluginError as error:
        raise MissingPluginError(f"{source}: {error.message}", plugin=error.plugin, hint=error.hint) from error
    except ConfigError as error:
        raise ConfigError(f"{source}: {error.message}", hint=error.hint) from error


def _build(section: Any, values: Any, prefix: str) -> Any:
    if not isinstance(values, dict):
        name = prefix.rstrip(".") or "the file"
        raise wrong_value(name, values, "keys and values", "Write its keys below it, or leave it out.")
    kinds = field_types(section)
    known: dict[str, Any] = {}
    for key, value in values.items():
        if key not in kinds:
            raise ConfigError(f"unknown key `{prefix}{key}`", hint=near_matches(str(key), kinds))
        name = f"{prefix}{key}"
        known[key] = convert(kinds[key], _with_sections(kinds[key], value, name), name)
    for item in dataclasses.fields(section):
        is_required = item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING
        if is_required and item.name not in known:
            raise ConfigError(f"the key `{prefix}{item.name}` is missing", hint="Add it.")
    return section(**known)


def _with_sections(kind: Any, value: Any, name: str) -> Any:
    """Returns a value whose keys and values are built into the dataclasses that its declared type has."""
    if dataclasses.is_dataclass(kind):
        return _build(kind, value, f"{name}.")
    arguments = [argument for argument in typing.get_args(kind) if argument is not type(None)]
    if typing.get_origin(kind) in (typing.Union, types.UnionType) and value is not None:
        return _with_sections(arguments[0], value, name)
    if typing.get_origin(kind) is tuple and isinstance(value, list | tuple):
        return [_with_sections(arguments[0], item, f"{name}[{index}]") for index, item in enumerate(value)]
    if typing.get_origin(kind) is dict and isinstance(value, dict):
        return {key: _with_sections(arguments[1], item, f"{name}.{key}") for key, item in value.items()}
    return value
