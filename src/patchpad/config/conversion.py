"""One converter for every value of a configuration, from Python, YAML, JSON or the command line; torch-free."""

import dataclasses
import math
import numbers
import operator
import os
import reprlib
import types
import typing
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from patchpad.errors import ConfigError, near_matches

INFINITIES = {"inf": math.inf, "-inf": -math.inf}
"""How JSON and YAML may write infinities."""
LARGEST_INTEGER = 2**63 - 1
WORDS = {
    int: "an integer",
    float: "a number",
    str: "text",
    bool: "true or false",
}
ITEM_WORDS = {int: "integers", float: "numbers", str: "strings"}


@dataclass(frozen=True)
class Range:
    """What a field's numbers may be, beside its type: written as `Annotated[int, Range(...)]`."""

    words: str
    """Said in errors after "allowed: "."""
    holds: Callable[[float], bool]
    """Whether a number is allowed; false for NaN."""


@dataclass(frozen=True)
class Words:
    """The names that a field of text takes, where plug-ins may add to them: `Annotated[str, Words(...)]`.

    The section itself looks whether a name is one of them: it knows which plug-in is missing.
    """

    names: Callable[[], list[str]]
    """Gives the names that are known now."""


def shown(value: Any) -> str:
    """Returns a value as Python writes it, shortened if it is long."""
    shortener = reprlib.Repr()
    shortener.maxstring = shortener.maxother = 120
    try:
        return shortener.repr(value)
    except ValueError:  # an integer of thousands of digits
        return f"a {type(value).__name__} that is too long to show"


def wrong_value(name: str, value: Any, allowed: str, hint: str = "") -> ConfigError:
    """Returns the error of a value of another type than the field's."""
    return ConfigError(f"`{name}` is {shown(value)}; allowed: {allowed}", hint=hint)


def convert(kind: Any, value: Any, name: str) -> Any:
    """Returns a value as its field's declared type, or says what is allowed.

    Integers may stand for numbers, numbers of numpy for those of Python, lists for tuples, one string for a list of
    strings, paths for strings, and "inf" for infinity. Nothing else is converted: not `True` to 1, not "5" to 5.

    Args:
        kind: the declared type: int, float, str, bool, a literal, a dataclass, a tuple or dictionary of these, any of
            them or None; annotated with a `Range`, with `Words` or not.
        value: what was given.
        name: the field, for messages.

    Raises:
        ConfigError: the value has another type, or lies outside the range.
    """
    origin = typing.get_origin(kind)
    if origin is typing.Annotated:
        plain, allowed = typing.get_args(kind)
        if isinstance(allowed, Words):
            if not isinstance(value, str):
                raise wrong_value(name, value, ", ".join(allowed.names()), CHANGE_IT)
            return str(value)
        converted = convert(plain, value, name)
        if not allowed.holds(converted):
            raise ConfigError(f"{name} is {shown(converted)}; allowed: {allowed.words}", hint=CHANGE_IT)
        return converted
    if origin in (typing.Union, types.UnionType):
        if value is None:
            return None
        option = next(option for option in typing.get_args(kind) if option is not type(None))
        return convert(option, value, name)
    if origin is Literal:
        options = typing.get_args(kind)
        if not isinstance(value, str) or value not in options:
            close = near_matches(str(value), options) if isinstance(value, str) else ""
            raise wrong_value(name, value, ", ".join(options), close if close.startswith("Did") else CHANGE_IT)
        return str(value)
    if dataclasses.is_dataclass(kind):
        if not isinstance(value, typing.cast(type, kind)):
            raise wrong_value(name, value, f"a {typing.cast(type, kind).__name__}, or keys and values in a file")
        return value
    if origin is tuple:
        return _convert_items(typing.get_args(kind)[0], value, name)
    if origin is dict:
        if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
            raise wrong_value(name, value, "keys and values")
        item_kind = typing.get_args(kind)[1]
        return {key: convert(item_kind, item, f"{name}.{key}") for key, item in value.items()}
    if kind is Any:
        return value
    return _convert_plain(kind, value, name)


CHANGE_IT = "Change the value where it is set: in the file, on the command line or in Python."


def _convert_plain(kind: type, value: Any, name: str) -> Any:
    given = value
    if getattr(value, "ndim", None) == 0 and hasattr(value, "item"):  # a number of numpy or torch
        value = value.item()
    if kind is bool:
        if isinstance(value, bool):
            return value
    elif kind is str:
        if isinstance(value, str):
            return str(value)
        if isinstance(value, os.PathLike) and isinstance(os.fspath(value), str):
            return os.fspath(value)
    elif kind is int:
        if isinstance(value, numbers.Integral) and not isinstance(value, bool):
            integer = operator.index(value)
            if abs(integer) > LARGEST_INTEGER:
                raise ConfigError(f"{name} is {shown(integer)}; allowed: an integer below 2^63", hint=CHANGE_IT)
            return integer
    elif kind is float:
        if isinstance(value, str) and value in INFINITIES:
            return INFINITIES[value]
        if isinstance(value, numbers.Real) and not isinstance(value, bool):
            try:
                return float(value)
            except OverflowError:
                pass
    raise wrong_value(name, given, WORDS[kind])


def _convert_items(item_kind: Any, value: Any, name: str) -> tuple[Any, ...]:
    if isinstance(value, str | os.PathLike) and item_kind is str:
        value = [value]
    words = "sections" if dataclasses.is_dataclass(item_kind) else ITEM_WORDS[item_kind]
    if not isinstance(value, list | tuple):
        raise wrong_value(name, value, f"a list of {words}")
    try:
        return tuple(convert(item_kind, item, f"{name}[{index}]") for index, item in enumerate(value))
    except ConfigError as error:
        if dataclasses.is_dataclass(item_kind):
            raise
        raise wrong_value(name, value, f"a list of {words}") from error
