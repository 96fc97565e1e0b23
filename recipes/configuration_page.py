"""Writes the tables of docs/configuration.md: every field of a configuration with its default, from its own docstring.

Usage: python recipes/configuration_page.py
"""

import ast
import inspect
from dataclasses import MISSING, Field, fields
from pathlib import Path

from measured_blocks import fill_block

from patchpad.config.model import ModelConfig, PatchifierConfig, TriggerConfig
from patchpad.config.train import DataConfig, TrainConfig
from patchpad.files import write_atomically

PAGE = Path(__file__).resolve().parent.parent / "docs" / "configuration.md"
BEGIN = "<!-- written by recipes/configuration_page.py -->"
SECTIONS = {
    "model": ModelConfig,
    "model.patchifier": PatchifierConfig,
    "model.trigger": TriggerConfig,
    "data": DataConfig,
    "train": TrainConfig,
}


def docstrings(section: type) -> dict[str, str]:
    """Returns the docstring below each field of a dataclass, on one line."""
    (definition,) = ast.parse(inspect.getsource(section)).body
    assert isinstance(definition, ast.ClassDef)
    found = {}
    for statement, following in zip(definition.body, definition.body[1:], strict=False):
        if isinstance(statement, ast.AnnAssign) and isinstance(following, ast.Expr):
            assert isinstance(statement.target, ast.Name)
            assert isinstance(following.value, ast.Constant)
            found[statement.target.id] = " ".join(str(following.value.value).split()).replace("None", "null")
    return found


def default(field: Field) -> str:
    """Returns a field's default as one writes it in YAML."""
    value = field.default
    assert value is not MISSING
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return str(list(value))
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def tables() -> str:
    """Returns one table for each section."""
    parts = []
    for name, section in SECTIONS.items():
        texts = docstrings(section)
        rows = [
            f"| `{field.name}` | {default(field)} | {texts[field.name]} |"
            for field in fields(section)
            if field.default is not MISSING
        ]
        parts.append("\n".join([f"### `{name}`", "", "| key | default | what it is |", "|---|---|---|", *rows, ""]))
    return "\n".join(parts)


def filled(page: str) -> str:
    """Returns the page with its tables written anew."""
    return fill_block(page, BEGIN, tables())


if __name__ == "__main__":
    write_atomically(PAGE, filled(PAGE.read_text(encoding="utf-8")))
