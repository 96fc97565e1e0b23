"""Programs are run, counted and compared; reference solutions pass."""

import dataclasses
import json
import os
from pathlib import Path

import pytest

from patchpad.errors import ConfigError, DataError
from patchpad.inference.generator import Completion
from patchpad.tasks import code as code_module
from patchpad.tasks.bubblewrap import why_no_bubblewrap
from patchpad.tasks.code import check_references, problem_of, run_code
from patchpad.tasks.definition import TaskOptions
from patchpad.tasks.generating import Writer, Writing
from patchpad.tasks.kinds import load_task
from patchpad.tasks.result import TaskResult
from patchpad.tasks.sandbox import Verdict
from patchpad.tasks.shots import Prompts
from patchpad.testing.models import sharp_model, tiny_model_config

needs_bubblewrap = pytest.mark.skipif(why_no_bubblewrap() is not None, reason=str(why_no_bubblewrap()))
DATA = os.environ.get("PATCHPAD_TASK_DATA", "")

HUMANEVAL = [
    {
        "task_id": "HumanEval/0",
        "prompt": 'import math\n\ndef half(x):\n    return x / 2\n\ndef root(x):\n    """The root."""\n',
        "canonical_solution": "    return math.sqrt(x)\n",
        "entry_point": "root",
        "test": "def check(candidate):\n    assert math.isclose(candidate(half(8)), 2)\n",
    },
    {
        "task_id": "HumanEval/1",
        "prompt": "def twice(x):\n",
        "canonical_solution": "    return 2 * x\n",
        "entry_point": "twice",
        "test": "def check(candidate):\n    assert candidate(2) == 4\n    assert candidate([1]) == [1, 1]\n",
    },
]
MBPP = [
    {
        "task_id": 1,
        "text": "Write a function to add the values of a list of nodes.",
        "code": "class Node:\r\n\tdef __init__(self, value):\r\n\t\tself.value = value\r\n\t\tself.next = None\r\n"
        "def total(node):\r\n\treturn node.value + total(node.next) if node else 0",
        "test_setup_code": "root = Node(1) \r\nroot.next = Node(2)",
        "test_list": ["assert total(root) == 3", "assert total(None) == 0"],
    },
    {
        "task_id": 2,
        "text": "Write a function to add.",
        "code": "def sum(a, b):\r\n  return a + b",
        "test_setup_code": "",
        "test_list": ["assert sum(1, 2) == 3"],
    },
]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for name, rows in (("humaneval/HumanEval.jsonl", HUMANEVAL), ("mbpp/mbpp.jsonl", MBPP)):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def small_task(name, tmp_path, **changes):
    task = load_task(name)
    return dataclasses.replace(task, data=(task.data[0].removesuffix(".gz"),), **changes)


@pytest.fixture
def written(monkeypatch):
    """Makes models write given completions."""

    def give(*texts: str) -> None:
        left = [text.encode() for text in texts]

        def complete(model, prompts, **options):
            return [
                Completion(data=left.pop(0), trunk_calls=9, trunk_cache_entries=5, stop_reason="stop") for _ in prompts
            ]

        monkeypatch.setattr("patchpad.tasks.generating.complete", complete)

    return give


@needs_bubblewrap
@pytest.mark.parametrize("name", ["humaneval", "mbpp"])
def test_reference_solutions_pass(name, data):
    task, options = small_task(name, data), TaskOptions(data=data)
    verdicts = check_references(task, task.rows(data), options)
    assert [verdict.reason for verdict in verdicts] == ["", ""]


@pytest.mark.slow
@needs_bubblewrap
@pytest.mark.skipif(not DATA, reason="set PATCHPAD_TASK_DATA to a folder with humaneval and mbpp")
@pytest.mark.parametrize(("name", "count"), [("humaneval", 164), ("mbpp", 974)])
def test_every_published_reference_solution_passes(name, count):
    task, options = load_task(name), TaskOptions(data=Path(DATA))
    rows = task.rows(options.data)
    failures = [
        (row.id, verdict.reason)
        for row, verdict in zip(rows, check_references(task, rows, options), strict=True)
        if not verdict.passed
    ]
    assert failures == []
    assert len(rows) == count


@needs_bubblewrap
def test_a_result_counts_what_passed_and_scores_the_reference(data, written):
    # a helper that the completion replaces is not the one that the checks use
    cheat = "    return 2\ndef half(x): return 4\n"
    written("    return math.sqrt(x)\n", cheat, "    return 2 + x\n", "    while True: pass\n")
    task = small_task("humaneval", data, k=(1, 2, 5), cpu_seconds=1)
    told = []
    options = TaskOptions(data=data, samples=2, temperature=0.5, progress=told.append)
    model = sharp_model(tiny_model_config())
    result = run_code(task, task.rows(data), model, options)
    assert {name: metric.value for name, metric in result.metrics.items() if name != "bits_per_byte"} == {
        "pass_at_1": 0.5,
        "pass_at_2": 0.5,
    }
    assert result.main.standard_error == pytest.approx(0.5)
    assert result.details["programs"] == {"out of time": 1, "passed": 2, "wrong": 1}
    first, second = result.examples
    assert (first["id"], first["num_passed"], second["num_passed"]) == ("HumanEval.jsonl:1", 2, 0)
    assert second["completions"][0]["text"] == "    return 2 + x\n"
    assert "line 3 of the checks" in second["completions"][0]["reason"]
    assert first["num_bytes"] == len(HUMANEVAL[0]["canonical_solution"])
    assert result.metrics["bits_per_byte"].value == pytest.approx(
        (first["bits"] + second["bits"]) / (first["num_bytes"] + second["num_bytes"])
    )
    assert sum(told) == 2
    assert result.num_cut_examples == 1  # 78 bytes do not fit beside a completion in a context of 64
    assert TaskResult.from_dict(json.loads(json.dumps(result.to_dict()))) == result


def test_equal_programs_of_a_problem_run_once(data, written, monkeypatch):
    programs = []

    def check(program, checks, **options):
        programs.append(program)
        return Verdict(passed="right" in program, reason="", ending="finished", seconds=0.0)

    monkeypatch.setattr(code_module, "check_program", check)
    monkeypatch.setattr(code_module, "require_sandbox", lambda sandbox: None)
    written(*["right", "wrong", "right"] * 2)
    task = small_task("mbpp", data)
    result = run_code(
        task, task.rows(data), sharp_model(tiny_model_config()), TaskOptions(data=data, samples=3, temperature=1.0)
    )
    assert sorted(programs) == ["right", "right", "wrong", "wrong"]
    assert result.main.value == pytest.approx(2 / 3)


def test_checks_get_only_names_that_the_reference_defines(data):
    options = TaskOptions(data=data)
    problems = {}
    for name in ("humaneval", "mbpp"):
        task = small_task(name, data)
        prompts = Prompts(task, options, lambda row: b"")
        problems[name] = [problem_of(task, row, prompts, options) for row in task.rows(data)]
    assert [problem.names for problem in problems["humaneval"]] == [("root",), ("twice",)]
    assert [problem.names for problem in problems["mbpp"]] == [("Node", "total"), ("sum",)]
    assert problems["humaneval"][0].reference.endswith("math.sqrt(x)\n")
    assert problems["mbpp"][0].prompt == (
        b'"""\nWrite a function to add the values of a list of nodes.\n'
        b'assert total(root) == 3\nassert total(None) == 0\n"""\n'
    )
    assert "\r" not in problems["mbpp"][0].solution + problems["mbpp"][0].checks


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("code", "def f(:", "line 2: the reference program is not Python"),
        ("test_list", ["assert ("], "line 2: the code of the checks is not Python"),
        ("test_list", ["assert 1"], "line 2: the checks use nothing that the reference"),
    ],
)
def test_a_row_whose_own_code_is_wrong_is_named(data, field, value, message):
    path = data / "mbpp" / "mbpp.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in (MBPP[0], {**MBPP[1], field: value})))
    task = small_task("mbpp", data)
    with pytest.raises(DataError, match=message):
        check_references(task, task.rows(data), TaskOptions(data=data))


@needs_bubblewrap
@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ({"samples": 3}, {}, "3 samples at temperature 0"),
        ({"k": (10,)}, {}, "k = 10, and samples is 1"),
        ({}, {"samples": 2}, "2 samples at temperature 0"),
    ],
)
def test_samples_that_say_nothing_are_refused(data, changes, options, message):
    task = small_task("mbpp", data, **changes)
    with pytest.raises(ConfigError, match=message):
        run_code(task, task.rows(data), sharp_model(tiny_model_config()), TaskOptions(data=data, **options))


def test_a_program_without_the_completion_is_refused(tmp_path):
    path = tmp_path / "mine.yaml"
    keys = "kind: code\ndata: a.jsonl\ncontext: a\nsolution: a\nchecks: a\n"
    for text, message in ((keys + "program: x\n", "`program` has no {completion}"), (keys, "`program` is missing")):
        path.write_text(text)
        with pytest.raises(ConfigError, match=message):
            load_task(path)
    path.write_text(keys + "program: '{completion}'\nk: [0, 1]\n")
    with pytest.raises(ConfigError, match="`k` is 0, 1; allowed: numbers of at least 1"):
        load_task(path)


def test_samples_depend_on_the_example_and_not_on_what_is_beside_it(monkeypatch):
    model = sharp_model(tiny_model_config())
    writing = Writing(max_new_bytes=6, stop=("\n",), temperature=0.8)
    prompts = [(f"a:{number}", bytes(range(97, 97 + 7 * number))) for number in range(1, 4)]
    together = list(Writer(model, TaskOptions(data=Path()), writing).complete(prompts, samples=2))
    assert [len(part) for part in together] == [3]
    monkeypatch.setattr("patchpad.tasks.generating.PROMPTS_AT_ONCE", 2)
    writer = Writer(model, TaskOptions(data=Path()), writing)
    alone = list(writer.complete(prompts[::-1], samples=2))
    assert [len(part) for part in alone] == [1, 1, 1]
    assert [one.data for several in together[0] for one in several] == [
        one.data for part in alone[::-1] for several in part for one in several
    ]
    other = list(Writer(model, TaskOptions(data=Path(), seed=1), writing).complete(prompts, samples=2))
    assert other != together
    assert writer.compute().bytes_in_requests > 2 * sum(len(prompt) for _, prompt in prompts)
    assert writer.num_cut_prompts == 0
    list(writer.complete([("long", bytes(100))]))
    assert (writer.num_cut_prompts, writer.num_cut_bytes) == (1, 100 - (64 - 6))
