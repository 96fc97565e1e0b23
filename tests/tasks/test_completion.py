"""Last lines of functions: which are drawn, and how near a completion comes."""

import functools
import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchpad.errors import DataError
from patchpad.inference.generator import Completion
from patchpad.tasks.completion import CompletionTask, edit_distance, edit_similarity, last_lines, run_completion
from patchpad.tasks.definition import TaskOptions
from patchpad.tasks.kinds import load_task
from patchpad.testing.models import sharp_model, tiny_model_config

CODE = '''\
import math

def short(): return 1

def area(radius):
    """Of a circle."""
    return math.pi * radius**2

class Ball:
    def grow(self, by):
        if by:
            self.radius += by
        else:
            self.radius = 2 * self.radius

    def split(self):
        return [
            self,
        ]
'''
LINES = ["return math.pi * radius**2", "self.radius = 2 * self.radius"]


def test_last_lines_are_whole_statements_of_functions():
    lines = CODE.split("\n")
    assert [lines[number].strip() for number in last_lines(CODE, 3)] == LINES
    assert [lines[number].strip() for number in last_lines(CODE, 5)] == LINES[1:]
    assert last_lines("def f(:\n", 1) == []
    nested = (
        "def f(x):\n    try:\n        g()\n    except E:\n        match x:\n            case 1:\n                h(x)\n"
    )
    assert last_lines(nested, 3) == [6]


def test_the_same_functions_are_drawn_from_rows_and_from_files(tmp_path):
    folder = tmp_path / "code"
    for number in range(6):
        (folder / f"part{number % 2}").mkdir(parents=True, exist_ok=True)
        (folder / f"part{number % 2}" / f"{number}.py").write_text(CODE.replace("radius", f"radius{number}"))
    (folder / "broken.py").write_text("def (")
    files = CompletionTask(kind="completion", name="files", data=("code", "code/part0/0.py"), num_functions=4)
    rows = files.rows(tmp_path)
    assert len(rows) == 4 == len({row.id for row in rows})
    assert [row.id for row in files.rows(tmp_path)] == [row.id for row in rows]
    assert [row.id for row in files.rows(tmp_path, 2)] == [rows[0].id, rows[2].id]
    assert rows[0].id.startswith("code/part0/")
    assert len(files.files(tmp_path)) == 8
    for row in rows:
        assert row["prompt"] + row["line"] in (tmp_path / row.id).read_text()
        assert "text" not in row
        assert not row["prompt"].strip(" ").endswith(" ")
        assert len(row["prompt"].encode()) <= files.prompt_bytes + 8
    (tmp_path / "code.jsonl").write_text(json.dumps({"text": CODE}) + "\n")
    task = CompletionTask(kind="completion", name="rows", data=("code.jsonl",), prompt_bytes=60)
    (row,) = task.rows(tmp_path)
    assert row["line"] in LINES
    assert 20 < len(row["prompt"].encode()) <= 68


def test_the_task_of_the_evaluation_page_is_read(tmp_path):
    page = (Path(__file__).parents[2] / "docs" / "evaluation.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```yaml\n(kind: completion\n.*?)```", page, flags=re.DOTALL)
    (tmp_path / "mine.yaml").write_text(block)
    task = load_task(tmp_path / "mine.yaml")
    assert isinstance(task, CompletionTask)
    assert (task.name, task.num_functions) == ("mine", 100)


def test_data_without_functions_is_an_error(tmp_path):
    (tmp_path / "a.py").write_text("x = 1\n")
    task = CompletionTask(kind="completion", name="none", data=("a.py",))
    with pytest.raises(DataError, match=r"`none` finds no function in a\.py"):
        task.rows(tmp_path)


@pytest.mark.parametrize(("left", "right", "edits"), [("kitten", "sitting", 3), ("", "abc", 3), ("ab", "ba", 2)])
def test_known_edit_distances(left, right, edits):
    assert edit_distance(left, right) == edit_distance(right, left) == edits
    assert edit_similarity(left, right) == pytest.approx(1 - edits / max(len(left), len(right)))
    assert edit_similarity("", "") == 1


@given(st.text("abc", max_size=6), st.text("abc", max_size=6))
def test_the_edit_distance_equals_its_definition(left, right):
    @functools.cache
    def least(i: int, j: int) -> int:
        if 0 in (i, j):
            return i + j
        return min(least(i - 1, j) + 1, least(i, j - 1) + 1, least(i - 1, j - 1) + (left[i - 1] != right[j - 1]))

    assert edit_distance(left, right) == least(len(left), len(right))


def test_a_result_tells_how_many_lines_match_and_how_nearly(tmp_path, monkeypatch):
    for number in range(3):
        (tmp_path / f"{number}.py").write_text(CODE)
    task = CompletionTask(kind="completion", name="lines", data=("0.py", "1.py", "2.py"))
    rows = task.rows(tmp_path)
    texts = [rows[0]["line"] + " ", rows[1]["line"][:-1], "".join(reversed(rows[2]["line"]))]

    def complete(model, prompts, **options):
        assert options["temperature"] == 0
        assert options["stop"] == ("\n",)
        return [
            Completion(data=text.encode(), trunk_calls=9, trunk_cache_entries=5, stop_reason="stop") for text in texts
        ]

    monkeypatch.setattr("patchpad.tasks.generating.complete", complete)
    told = []
    options = TaskOptions(data=tmp_path, progress=told.append)
    result = run_completion(task, rows, sharp_model(tiny_model_config()), options)
    assert [example["exact_match"] for example in result.examples] == [1, 0, 0]
    similar = [example["edit_similarity"] for example in result.examples]
    assert similar[:2] == [1, pytest.approx(1 - 1 / len(rows[1]["line"]))]
    assert 0 <= similar[2] < 1
    assert result.main.value == pytest.approx(1 / 3)
    assert result.metrics["bits_per_byte"].value > 0
    assert result.num_cut_examples == 3
    assert sum(told) == 3
    assert result.compute.bytes_scored == sum(map(len, texts))
