"""The notebook docs/from_scratch.ipynb: it runs, its outputs are its own, and it ends with patchpad's numbers."""

import ast
import json
import re

import pytest
import torch
from run_notebook import NOTEBOOK, code_cells, code_hash, code_of, run, stored_output

NOTE = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
CELLS = code_cells(NOTE)
LAST_TEXT = [cell for cell in NOTE["cells"] if cell["cell_type"] == "markdown"][-1]
LAST_SECTION = len(code_cells({"cells": NOTE["cells"][: NOTE["cells"].index(LAST_TEXT)]}))
TRAINING = next(number for number, cell in enumerate(CELLS) if "= train(" in code_of(cell))
NUMBER = re.compile(r"-?\d[\d,]*(\.\d+)?(e[-+]?\d+)?")


def form(text):
    """Returns what a cell prints without what training decides: numbers, bars, spaces and written text."""
    bare = re.sub(r"(It was).*", r"\1", re.sub(r"#+$", "", text, flags=re.MULTILINE), flags=re.DOTALL)
    return re.sub(r"\s+", " ", NUMBER.sub("0", bare)).strip()


def run_cells(after_each=lambda names: None):
    """Runs all cells; returns what each printed, and their names, which `after_each` may change."""
    names, printed = {"__name__": "__main__"}, []
    with torch.random.fork_rng():
        for cell in CELLS:
            printed.append(run(cell, names))
            after_each(names)
    return printed, names


def shorten(names):
    """Leaves so little training and text that the notebook takes some seconds."""
    names["STEPS"] = 8
    if "test_text" in names:
        names["test_text"] = names["test_text"][: 4 * names["CONTEXT"]]


@pytest.fixture(scope="module")
def short():
    """What the cells print, and their names, after little training."""
    return run_cells(shorten)


def test_the_code_has_fewer_than_200_lines():
    assert sum(len(code_of(cell).splitlines()) for cell in CELLS) < 200


def imported(cells):
    """Returns the packages that cells import."""
    nodes = [node for cell in cells for node in ast.walk(ast.parse(code_of(cell)))]
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module for node in nodes if isinstance(node, ast.ImportFrom)]
    return {name.split(".")[0] for name in names}


def test_nothing_of_patchpad_is_imported_before_the_last_section():
    assert imported(CELLS[:LAST_SECTION]) == {"functools", "importlib", "json", "lzma", "math", "torch", "types"}
    assert imported(CELLS[LAST_SECTION:]) == {"patchpad"}


def test_the_outputs_were_made_by_the_code_as_it_is():
    assert NOTE["metadata"]["outputs"]["code_sha256"] == code_hash(NOTE), "run python recipes/run_notebook.py"
    assert [cell["execution_count"] for cell in CELLS] == list(range(1, len(CELLS) + 1))


def test_every_cell_prints_what_its_stored_output_says(short):
    printed, _ = short
    stored = [stored_output(cell) for cell in CELLS]
    assert printed[:TRAINING] == stored[:TRAINING]
    assert [form(text) for text in printed] == [form(text) for text in stored]
    assert "0" in form(stored[-1])


def test_the_notebook_ends_with_the_same_numbers_as_patchpad(short):
    _, names = short
    ours, theirs, at = names["logits"], names["output"], names["at"]
    assert (ours - theirs.logits).abs().max() <= 1e-5
    assert (at.entropy - theirs.entropy_nats).abs().max() <= 1e-5
    assert torch.equal(at.patch_end, theirs.layout.patch_end_mask)
    assert torch.equal(at.scratchpad, theirs.layout.scratchpad_mask)
    assert 0 < at.scratchpad.float().mean() < 1 - 1 / names["PATCH"]
    ours, theirs = names["bits"]
    assert 0 < ours < 8.1
    assert abs(ours - theirs) <= 1e-5


@pytest.mark.parametrize("name", ["trunk.stack.blocks.0.ffn_down.weight", "entropy_head.lm_head.weight"])
def test_the_last_cell_fails_where_a_weight_differs(short, name):
    names = dict(short[1])
    names["model"].float()
    run(CELLS[-2], names)  # builds patchpad's model anew
    weight = names["theirs"].get_parameter(name)
    with torch.no_grad():
        weight.mul_(1.001)
    with pytest.raises(AssertionError):
        run(CELLS[-1], names)


def rows_of_table(outputs):
    """Returns the numbers of the table that compares settings: trunk runs, cache entries, bits per byte."""
    (table,) = [text for text in outputs if text.startswith("scratchpads")]
    return [[float(number) for number in line.split()[-3:]] for line in table.splitlines()[1:]]


def test_the_text_says_what_the_stored_table_shows():
    plain, _, on, everywhere = rows_of_table(map(stored_output, CELLS))
    text = "".join("".join(cell["source"]) for cell in NOTE["cells"] if cell["cell_type"] == "markdown")
    assert f"save {100 * (1 - on[2] / plain[2]):.0f} % of the bits" in text
    assert round(on[0] / plain[0]) == 4
    assert "At every byte they save less" in text
    assert on[2] < everywhere[2] < plain[2]


@pytest.mark.slow
def test_the_whole_training_gives_about_the_stored_numbers():
    printed, _ = run_cells()
    stored = [stored_output(cell) for cell in CELLS]
    assert [form(text) for text in printed] == [form(text) for text in stored]
    assert rows_of_table(printed) == [pytest.approx(row, abs=0.05) for row in rows_of_table(stored)]
