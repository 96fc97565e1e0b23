"""`patchpad lm-eval`: lm_eval's own command line, and what is put in where it says nothing."""

import json
import re
import shlex
import subprocess
from pathlib import Path

import pytest


@pytest.fixture
def given(monkeypatch):
    """What lm_eval's command line would carry out, instead of carrying it out."""
    pytest.importorskip("lm_eval", reason='needs the extra `eval`: pip install "patchpad[eval]"')
    from patchpad.tasks.lm_eval_adapter import HarnessCLI

    arguments = {}
    monkeypatch.setattr(HarnessCLI, "execute", lambda self, parsed: arguments.update(vars(parsed)))
    return arguments


def test_help_is_that_of_patchpad_and_needs_no_lm_eval(patchpad, monkeypatch):
    called = patchpad("lm-eval", "--help")
    assert called.code == 0
    assert "--model RUN --tasks" in " ".join(called.out.split())


def test_help_of_a_command_of_lm_eval_is_its_own(patchpad, given, capsysbinary):
    with pytest.raises(SystemExit) as ended:
        patchpad("lm-eval", "run", "--help")
    assert ended.value.code == 0
    assert b"--num_fewshot" in capsysbinary.readouterr().out


def test_a_run_is_given_as_the_model(patchpad, given, tmp_path):
    folder = tmp_path / "a=b, c"
    folder.mkdir()
    called = patchpad(
        "lm-eval",
        "--model",
        folder,
        "--tasks",
        "a,b",
        "c",
        "--model_args",
        "scratchpad_threshold=-inf,seed=3",
        "-f",
        "2",
    )
    assert called.code == 0, called.err
    assert given["model"] == "patchpad"
    assert given["model_args"] == {"run": str(folder), "scratchpad_threshold": float("-inf"), "seed": 3}
    assert given["tasks"] == ["a", "b", "c"]
    assert given["num_fewshot"] == 2
    assert (given["device"], given["batch_size"]) == ("auto", "auto")


def test_without_a_model_it_is_the_one_that_ships_and_what_is_said_stays(patchpad, given):
    assert patchpad("lm-eval", "run", "--tasks", "a", "--device", "cpu", "--batch_size", "4").code == 0
    assert (given["model"], given["model_args"]) == ("patchpad", None)
    assert (given["device"], given["batch_size"]) == ("cpu", "4")


def test_the_shipped_model_has_a_name(patchpad, given):
    assert patchpad("lm-eval", "--model", "bundled", "--tasks", "a").code == 0
    assert (given["model"], given["model_args"]) == ("patchpad", {"run": "bundled"})


def test_a_file_of_arguments_counts_as_said(patchpad, given, tmp_path):
    (tmp_path / "run").mkdir()
    file = tmp_path / "arguments.yaml"
    file.write_text(f"model: {tmp_path / 'run'}\nmodel_args: {{seed: 4}}\ndevice: cpu\nbatch_size: 2\ntasks: [a]\n")
    assert patchpad("lm-eval", "--config", file).code == 0
    assert (given["model"], given["model_args"]) == ("patchpad", {"run": str(tmp_path / "run"), "seed": 4})
    assert given["device"] is None
    assert "batch_size" not in given


def test_models_of_lm_eval_are_left_alone(patchpad, given):
    assert patchpad("lm-eval", "--model", "dummy", "--tasks", "a").code == 0
    assert (given["model"], given["device"]) == ("dummy", None)
    assert "batch_size" not in given


def test_a_model_that_is_none_is_an_error(fails, given, tmp_path):
    assert "allowed: the folder of a run" in fails(2, "lm-eval", "--model", tmp_path / "none", "--tasks", "a")
    assert "Did you mean `patchpad`?" in fails(2, "lm-eval", "--model", "patchpat", "--tasks", "a")


@pytest.mark.parametrize(
    ("error", "lines"),
    [
        (
            ValueError("Tasks not\nfound: a"),
            ["patchpad: lm_eval has stopped: ValueError: Tasks not found: a", "--debug shows where."],
        ),
        (
            ConnectionError("Couldn't reach\n'a' on the Hub"),
            [
                "patchpad: lm_eval could not load what it needs: Couldn't reach 'a' on the Hub",
                "Check the network, and the name of the task's data.",
            ],
        ),
    ],
)
def test_an_error_of_lm_eval_is_told_in_two_lines(fails, given, monkeypatch, error, lines):
    from patchpad.tasks.lm_eval_adapter import HarnessCLI

    def stop(self, parsed):
        raise error

    monkeypatch.setattr(HarnessCLI, "execute", stop)
    assert fails(1, "lm-eval", "--tasks", "a").splitlines() == lines


def test_the_commands_of_the_evaluation_page_are_understood(patchpad, given):
    page = (Path(__file__).parents[2] / "docs" / "evaluation.md").read_text(encoding="utf-8")
    lines = re.findall(r"^patchpad (lm-eval .*)$", page, flags=re.MULTILINE)
    assert lines
    for line in lines:
        assert patchpad(*shlex.split(line.replace("--model RUN ", "--model patchpad "))).code == 0, line


@pytest.mark.slow
def test_a_task_file_is_run_from_end_to_end(command, run, tmp_path):
    pytest.importorskip("lm_eval", reason='needs the extra `eval`: pip install "patchpad[eval]"')
    (tmp_path / "rows.jsonl").write_text('{"q": "a", "options": ["b", "cd"], "gold": 1}\n' * 3)
    task = {
        "task": "quiz",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": str(tmp_path / "rows.jsonl"), "cache_dir": str(tmp_path / "cache")},
        "test_split": "train",
        "output_type": "multiple_choice",
        "doc_to_text": "{{q}}",
        "doc_to_choice": "{{options}}",
        "doc_to_target": "gold",
        "metric_list": [{"metric": "acc"}],
    }
    (tmp_path / "quiz.yaml").write_text(json.dumps(task))
    out = tmp_path / "out"
    done = command.run(
        "lm-eval", "--model", run, "--tasks", tmp_path / "quiz.yaml", "--limit", 2, "--output_path", out, "--quiet"
    )
    assert isinstance(done, subprocess.CompletedProcess)
    assert done.returncode == 0, done.stderr.decode()
    assert b"|quiz" in done.stdout
    (result,) = out.rglob("results_*.json")
    config = json.loads(result.read_text())["config"]
    assert config["patchpad"]["run"] == str(run)
    assert config["patchpad"]["compute"]["scoring"]["trunk_calls_per_byte"] > 0
