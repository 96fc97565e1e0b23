"""Plain values, as YAML and JSON hold them, to configuration dataclasses."""

import dataclasses
import types
import typing
from pathlib import Path
from typing import Any, Literal, TypeVar

from patchpad.errors import ConfigError, near_matches

_Section = TypeVar("_Section")
ITEM_WORDS = {str: "strings", int: "integers", float: "numbers"}


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
    return parse_yaml(text, source=str(path), allowed=allowed)


def parse_yaml(text: str, *, source: str, allowed: str) -> dict[str, Any]:
    """Reads YAML text of keys and values.

    Args:
        text: the YAML; empty text gives no keys.
        source: where it comes from, named in errors.
        allowed: what belongs at its top, for the message.

    Raises:
        ConfigError: the text is not YAML, or holds something else.
    """
    import yaml

    try:
        values = yaml.safe_load(text) or {}
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date that no calendar has
        detail = " ".join(str(error).split())
        raise ConfigError(f"{source} is not valid YAML: {detail}", hint="Fix the file.") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{source} holds a {type(values).__name__}; allowed: {allowed}")
    return values


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
