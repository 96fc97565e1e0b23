"""Every key of a configuration with its default and what it means, from the docstrings below the fields."""

import ast
import dataclasses
import inspect
import typing
from collections.abc import Iterator
from dataclasses import dataclass, is_dataclass
from typing import Any, Literal

from patchpad.config.checks import field_types
from patchpad.config.conversion import Words
from patchpad.config.model import ModelConfig, PatchifierConfig, TriggerConfig
from patchpad.config.train import DataConfig, TrainConfig

SECTIONS = (ModelConfig, PatchifierConfig, TriggerConfig, DataConfig, TrainConfig)


@dataclass(frozen=True, kw_only=True)
class FieldText:
    """One key."""

    name: str
    default: str
    """As one writes it in YAML."""
    text: str
    """What it means, on one line; `code` stands in backticks."""
    words: tuple[str, ...]
    """All words that are allowed, for a key that takes one of several."""


def field_texts() -> dict[str, list[FieldText]]:
    """Returns the keys of each section, by its dotted path, in the order of the dataclasses."""
    return {section.SECTION: list(_texts_of(section)) for section in SECTIONS}


def _texts_of(section: Any) -> Iterator[FieldText]:
    texts = {key: text for base in section.__mro__ if is_dataclass(base) for key, text in _docstrings(base).items()}
    for item in dataclasses.fields(section):
        kind = field_types(section)[item.name]
        if not is_dataclass(kind):  # a section of its own
            default = item.default if item.default_factory is dataclasses.MISSING else item.default_factory()
            words = _words(kind)
            yield FieldText(name=item.name, default=_as_yaml(default), text=texts[item.name], words=words)


def _words(kind: Any) -> tuple[str, ...]:
    """Returns the words that a field takes, those of the plug-ins that are loaded among them; () for other fields."""
    if typing.get_origin(kind) is typing.Annotated and isinstance(typing.get_args(kind)[1], Words):
        return tuple(typing.get_args(kind)[1].names())
    return typing.get_args(kind) if typing.get_origin(kind) is Literal else ()


def _docstrings(section: type) -> dict[str, str]:
    """Returns the docstring below each field of a dataclass, on one line, with None as YAML has it."""
    (definition,) = ast.parse(inspect.getsource(section)).body
    assert isinstance(definition, ast.ClassDef)
    found = {}
    for statement, following in zip(definition.body, definition.body[1:], strict=False):
        if isinstance(statement, ast.AnnAssign) and isinstance(following, ast.Expr):
            assert isinstance(statement.target, ast.Name)
            assert isinstance(following.value, ast.Constant)
            found[statement.target.id] = " ".join(str(following.value.value).split()).replace("None", "null")
    return found


def _as_yaml(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return str(list(value))
    return f"{value:.6g}" if isinstance(value, float) else str(value)
