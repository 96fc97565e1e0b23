"""Runs docs/from_scratch.ipynb from top to bottom and stores what its cells print in it.

Usage: python recipes/run_notebook.py

It takes about a minute of one CPU core. Run it after every change of the notebook's code.
"""

import contextlib
import hashlib
import io
import json
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from patchpad.files import write_atomically

NOTEBOOK = Path(__file__).parent.parent / "docs" / "from_scratch.ipynb"


def code_cells(notebook: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns the cells that hold code, in their order."""
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def code_of(cell: dict[str, Any]) -> str:
    """Returns the code of a cell."""
    return "".join(cell["source"])


def code_hash(notebook: dict[str, Any]) -> str:
    """Returns the SHA-256 of all code, by which outputs are known to belong to it."""
    return hashlib.sha256("\n".join(code_of(cell) for cell in code_cells(notebook)).encode()).hexdigest()


def stored_output(cell: dict[str, Any]) -> str:
    """Returns the text that a cell's outputs hold."""
    return "".join("".join(output["text"]) for output in cell["outputs"])


def run(cell: dict[str, Any], namespace: dict[str, Any]) -> str:
    """Runs a cell in a namespace that all cells share, and returns what it printed."""
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):
            exec(compile(code_of(cell), f"<{cell['id']}>", "exec"), namespace)
    except Exception as error:
        error.add_note(f"In the cell:\n{code_of(cell)}\n\nIt had printed:\n{printed.getvalue()}")
        raise
    return printed.getvalue()


def run_all(notebook: dict[str, Any]) -> Iterator[str]:
    """Runs the cells one after the other, and yields what each has printed."""
    namespace: dict[str, Any] = {"__name__": "__main__"}
    for cell in code_cells(notebook):
        yield run(cell, namespace)


def filled(notebook: dict[str, Any], printed: list[str]) -> dict[str, Any]:
    """Returns a notebook whose code cells hold these outputs, and which says what code and torch they come from."""
    numbers = iter(range(len(printed)))
    cells = []
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            number = next(numbers)
            lines = printed[number].splitlines(keepends=True)
            outputs = [{"name": "stdout", "output_type": "stream", "text": lines}] if lines else []
            cell = {**cell, "execution_count": number + 1, "outputs": outputs}
        cells.append(cell)
    made_with = {"code_sha256": code_hash(notebook), "torch": torch.__version__.split("+")[0]}
    return {**notebook, "cells": cells, "metadata": {**notebook["metadata"], "outputs": made_with}}


def main() -> None:
    """Runs the notebook and writes it back."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    before = time.process_time()
    printed = list(run_all(notebook))
    text = json.dumps(filled(notebook, printed), indent=1, ensure_ascii=False)
    write_atomically(NOTEBOOK, text + "\n")
    logging.info("%s\n%.0f s of CPU time", "".join(printed), time.process_time() - before)


if __name__ == "__main__":
    main()
