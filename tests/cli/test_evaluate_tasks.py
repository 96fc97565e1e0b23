"""`patchpad evaluate --suite` and `--task`."""

import json
import sys

import pytest

from patchpad.cli.evaluate_tasks import default_folder, run_name
from patchpad.cli.tables import print_task_results
from patchpad.tasks import bubblewrap, running
from patchpad.tasks.suite import load_suite, with_tasks

TASK = "{kind: choices, data: toy.jsonl, context: '{question}', choices: '{choices}', normalisation: sum}"


@pytest.fixture
def toys(tmp_path, monkeypatch):
    """The working folder, with a task and its data."""
    monkeypatch.chdir(tmp_path)
    rows = [{"question": f"the {word} sat", "choices": ["on", "größer"], "gold": 0} for word in ("cat", "mat", "日本")]
    (tmp_path / "toy.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "toy.yaml").write_text(TASK)
    (tmp_path / "toys.yaml").write_text("tasks: [toy.yaml]")
    return tmp_path


def test_tasks_are_measured_and_printed_with_what_they_took(patchpad, finished, toys):
    called = patchpad("evaluate", finished, "--task", "./toy.yaml", "--data", toys, "--scratchpad-threshold", "inf,1")
    assert called.code == 0, called.err
    heading, rows = " ".join(called.out.split()), [line.split() for line in called.out.splitlines() if "toy" in line]
    assert "scratchpads trunk calls FLOPs trunk KV bytes" in heading
    assert [row[0] for row in rows[:2]] == ["toy", "toy"]
    assert [row[6] for row in rows[:2]] == ["inf", "1.000"]
    assert all(len(row) == 11 for row in rows[:2])
    folder = toys / "evaluations" / "finished-toy"
    assert f"Results: {folder.relative_to(toys)}" in called.out
    assert (folder / "toy.svg").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="limits of another system")
def test_programs_run_without_a_sandbox_only_where_asked_for(patchpad, fails, finished, toys, monkeypatch, caplog):
    row = {"prompt": "def f(x):\n", "solution": "    return x", "test": "assert f(1) == 1"}
    (toys / "code.jsonl").write_text(json.dumps(row) + "\n")
    keys = "kind: code\ndata: code.jsonl\ncontext: '{prompt}'\nsolution: '{solution}'\nchecks: '{test}'\n"
    (toys / "code.yaml").write_text(f"{keys}program: '{{prompt}}{{completion}}'\nmax_new_bytes: 3\n")
    call = ["evaluate", finished, "--task", "./code.yaml", "--data", "."]
    bubblewrap.require_sandbox.cache_clear()
    monkeypatch.setattr(bubblewrap, "why_no_bubblewrap", lambda: "bubblewrap (bwrap) is not installed")
    error = fails(1, *call)
    assert "cannot be run safely: bubblewrap (bwrap) is not installed" in error
    assert "--unsafe-code" in error
    called = patchpad(*call, "--unsafe-code")
    bubblewrap.require_sandbox.cache_clear()
    assert called.code == 0, called.err
    assert "PROGRAMS WRITTEN BY A MODEL ARE RUN WITHOUT A SANDBOX" in caplog.text
    (result,) = json.loads((toys / "evaluations" / "finished-code" / "result.json").read_text())["results"]
    assert result["details"]["sandbox"] == "limited-process"
    assert result["main_metric"] == "pass_at_1"


def test_json_is_one_strict_object_with_every_result(patchpad, finished, toys):
    called = patchpad("evaluate", finished, "--suite", "toys.yaml", "--data", ".", "--limit", "2", "--json")
    assert called.code == 0, called.err
    found = json.loads(called.out, parse_constant=pytest.fail)
    assert found == json.loads((toys / "evaluations" / "finished-toys-limit2" / "result.json").read_text())
    (result,) = found["results"]
    assert result["num_examples"] == 2
    assert result["compute"]["scratchpad_threshold_nats"] == found["scratchpad_thresholds_nats"][0]
    assert found["suite"] == "toys"
    assert found["run"] == "finished"


def test_ctrl_c_says_the_command_to_go_on_with(fails, finished, toys, monkeypatch):
    def interrupted(*rest):
        raise KeyboardInterrupt

    monkeypatch.setattr(running, "run_task", interrupted)
    error = fails(130, "evaluate", finished, "--task", "./toy.yaml", "--data", toys, "--shots", "1", "--quiet")
    command = f"evaluate {finished} --task ./toy.yaml --data {toys} --shots 1 --out evaluations/finished-toy-shots1"
    assert error.splitlines() == [
        "patchpad: stopped at toy; 0 of 1 results were made and are kept",
        f"Continue with: patchpad {command}",
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--limit", "3"], "--limit is an option of measurements of tasks, and was given without --suite or --task"),
        (["--unsafe-code"], "--unsafe-code is an option of measurements of tasks"),
        (["--task", "piqa", "--overlap", "3"], "--overlap is an option of measurements of texts"),
        (["--task", "piqa"], "--data was not given; allowed for tasks: the one folder that holds their files"),
        (["--task", "piqa", "--data", "a", "--data", "b"], "--data is a b; allowed for tasks"),
        (["--suite", "nlp", "--data", "."], "'nlp' is neither a suite nor a file"),
        (["--task", "./toy.yaml", "--data", ".", "--compute", "1", "--scratchpad-threshold", "1"], "both --scratchpad"),
        (["--task", "./toy.yaml", "--data", ".", "--compute", "0.5"], "the model has no calibration"),
    ],
)
def test_options_that_do_not_fit_are_refused(fails, finished, toys, options, message):
    assert message in fails(2, "evaluate", finished, *options)


def test_folders_of_results_are_named_after_run_suite_and_options(tmp_path):
    nlu = load_suite("nlu")
    step = tmp_path / "x" / "checkpoints" / "step-10"
    assert run_name(step) == "x-step-10"
    assert str(default_folder(step, nlu, None, None)) == "evaluations/x-step-10-nlu"
    assert str(default_folder(None, with_tasks(None, ["piqa"]), 50, 2)) == "evaluations/bundled-piqa-limit50-shots2"


def test_what_did_not_fit_is_told_once_for_each_task_without_empty_lines(capsys):
    compute = dict.fromkeys(
        ("scratchpads_per_byte", "trunk_calls_per_byte", "flops_per_byte", "trunk_cache_bytes_per_byte"), 1.0
    )
    shared = {"num_examples": 9, "main_metric": "m", "metrics": {"m": {"value": 0, "standard_error": 0, "chance": 0}}}
    print_task_results(
        [
            {"task": task, "kind": kind, "num_cut_examples": count, "num_cut_bytes": 50, **shared}
            | {"compute": {**compute, "scratchpad_threshold_nats": threshold}}
            for task, kind, count in (("one", "choices", 1), ("two", "parallel", 2), ("three", "choices", 0))
            for threshold in (0.5, 1.0)
        ]
    )
    assert capsys.readouterr().out.partition("\n\n")[2].splitlines() == [
        "one: 1 example did not fit the model's context and lost 50 bytes at the left, over all choices",
        "two: 2 sentences were longer than the model's context; 50 bytes lie in further windows",
    ]
