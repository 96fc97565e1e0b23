"""Writes the tables of docs/configuration.md: every key of a configuration with its default, from its own docstring.

Usage: python recipes/configuration_page.py
"""

from pathlib import Path

from measured_blocks import fill_block

from patchpad.config.field_texts import field_texts
from patchpad.files import write_atomically

PAGE = Path(__file__).resolve().parent.parent / "docs" / "configuration.md"
BEGIN = "<!-- written by recipes/configuration_page.py -->"


def tables() -> str:
    """Returns one table for each section."""
    parts = []
    for section, keys in field_texts().items():
        rows = [f"| `{key.name}` | {key.default} | {key.text} |" for key in keys]
        parts.append("\n".join([f"### `{section}`", "", "| key | default | what it is |", "|---|---|---|", *rows, ""]))
    return "\n".join(parts)


def filled(page: str) -> str:
    """Returns the page with its tables written anew."""
    return fill_block(page, BEGIN, tables())


if __name__ == "__main__":
    write_atomically(PAGE, filled(PAGE.read_text(encoding="utf-8")))
