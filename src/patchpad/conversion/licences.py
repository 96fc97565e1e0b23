"""What files beside a model say about its licence."""

from pathlib import Path
from typing import Any

import yaml

from patchpad.conversion.llama import one_line
from patchpad.conversion.source_files import Licence

README = "README.md"
LICENCE_FILES = ("LICENSE", "LICENSE.txt", "LICENSE.md", "LICENCE", "LICENCE.txt", "LICENCE.md", "COPYING")
MOST_BYTES = 1 << 20
"""Read of a file; the rest says nothing more."""


def licence_beside(folder: Path) -> Licence | None:
    """Returns the licence that a folder's model card names, else the first line of its licence file."""
    front = _front_matter(_text(folder / README))
    named = front.get("license")
    if named == "other":
        named = front.get("license_name") or named
    if isinstance(named, list):
        named = ", ".join(str(one) for one in named)
    if named:
        return Licence(one_line(named), README)
    for name in LICENCE_FILES:
        lines = [line.strip(" #\t") for line in _text(folder / name).splitlines()]
        first = next((line for line in lines if line), None)
        if first is not None:
            return Licence(one_line(first), name)
    return None


def _front_matter(text: str) -> dict[str, Any]:
    """Returns the keys that a model card begins with."""
    lines = text.splitlines()
    if not lines or lines[0].strip() != "---":
        return {}
    end = next((number for number, line in enumerate(lines[1:], 1) if line.strip() == "---"), len(lines))
    try:
        values = yaml.safe_load("\n".join(lines[1:end]))
    except (yaml.YAMLError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}


def _text(path: Path) -> str:
    try:
        with open(path, "rb") as file:
            return file.read(MOST_BYTES).decode("utf-8", "replace")
    except OSError:
        return ""
