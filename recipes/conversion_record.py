"""What measuring a converted model leaves: a JSON file of named cells, written after each, so that it resumes."""

import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from patchpad.errors import DataError
from patchpad.files import strict_json, write_atomically
from patchpad.provenance import provenance, without_folders
from patchpad.training.progress import duration

FORMAT_VERSION = 1
OTHER_FILE = "Give another file, or delete this one."


class Record:
    """Cells by name, such as `bits/books/source`: what went into each, its values, seconds and provenance.

    Args:
        path: read if it is there.
        models: facts of both models; a file about others is refused.
        command: words of the command line, for provenance.

    Raises:
        DataError: the file is not such a record, or is about other models.
    """

    def __init__(self, path: Path, models: Mapping[str, Any], command: Sequence[str] = ()) -> None:
        self.path, self.models = path, plain(models)
        self.command = " ".join(["python", "recipes/measure_conversion.py", *map(without_folders, command)])
        self.cells: dict[str, dict[str, Any]] = {}
        if path.exists():
            found = read_record(path)
            if found["models"] != self.models:
                raise DataError(f"{path} holds results of other models; allowed: those of these two", hint=OTHER_FILE)
            self.cells = found["cells"]

    def cell(self, name: str, inputs: Mapping[str, Any], measure: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
        """Returns the values of a cell, measured now if they are not there.

        Args:
            name: of the cell.
            inputs: all that changes its values beside the models.
            measure: called without arguments.

        Raises:
            DataError: the cell is there and was made of other inputs.
        """
        there = self.cells.get(name)
        if there is not None:
            if there["inputs"] != plain(inputs):
                raise DataError(
                    f"{self.path}: `{name}` was measured with {there['inputs']}; allowed: {plain(inputs)}",
                    hint=OTHER_FILE,
                )
            return there["values"]
        began, cpu_began = time.perf_counter(), time.process_time()
        values = plain(measure())
        seconds = round(time.perf_counter() - began, 1)
        cpu_seconds = round(time.process_time() - cpu_began, 1)
        origin = {**provenance((), torch.device("cpu")), "command": self.command}
        took = {"seconds": seconds, "cpu_seconds": cpu_seconds}
        self.cells[name] = {"inputs": plain(inputs), "values": values, **took, "provenance": origin}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(self.path, self._text())
        sys.stderr.write(f"{name}: {duration(seconds)}, of a processor {duration(cpu_seconds)}\n")
        return values

    def _text(self) -> str:
        """Returns the file: a line for the models and one for each cell."""
        lines = [f"{json.dumps(name)}: {strict_json(cell)}" for name, cell in self.cells.items()]
        head = f'"format_version": {FORMAT_VERSION},\n"models": {strict_json(self.models)}'
        return f'{{{head},\n"cells": {{\n' + ",\n".join(lines) + "\n}}\n"


def plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns values as they come back from the file."""
    return json.loads(strict_json(dict(values)))


def read_record(path: Path) -> dict[str, Any]:
    """Returns the content of a record.

    Raises:
        DataError: it is not one.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if found["format_version"] != FORMAT_VERSION:
            raise ValueError(f"format_version is {found['format_version']}")
        if not all(name in found["models"] for name in ("source", "ours")) or not isinstance(found["cells"], dict):
            raise ValueError("it has no models or no cells")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is not a file of measure_conversion.py: {error}", hint=OTHER_FILE) from error
    return found
