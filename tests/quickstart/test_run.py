"""The main job end to end, on a tiny model and the user's own file."""

import html
import inspect
import json
import math
import re
import shlex
from dataclasses import replace

import pytest

import patchpad
from patchpad.cli import quickstart as command
from patchpad.cli.app import main
from patchpad.config import ModelConfig
from patchpad.quickstart import run as job
from patchpad.quickstart.record import DEFAULT_MINUTES, Request
from patchpad.testing import random_documents
from patchpad.training.metrics import CLOCK_KEYS, read_metrics

TINY = ModelConfig(byte_dim=16, window_bytes=4, trunk_dim=16, trunk_heads=2, trunk_layers=1, context_bytes=128)


def test_quickstart_on_the_users_file_leaves_a_run_a_table_and_a_report(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(job, "CONFIG", replace(job.CONFIG, model=TINY))
    text = tmp_path / "own.txt"
    text.write_bytes(b"\n".join(random_documents(1, [60] * 150)))
    out = tmp_path / "run"
    assert main(["quickstart", "--data", str(text), "--out", str(out), "--minutes", "0.05", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    stored = json.loads((out / "quickstart.json").read_text())
    assert printed["points"] == stored["points"]
    thresholds = [float(point["scratchpad_threshold_nats"]) for point in stored["points"]]
    assert thresholds == sorted(thresholds, reverse=True)
    assert (thresholds[0], thresholds[-1]) == (math.inf, -math.inf)
    assert "Scratchpad Patching" in (out / "report.html").read_text()
    model = patchpad.load(out)
    assert model.calibration is not None
    assert float(model.scratchpad_threshold_nats) in thresholds


def shown(page: str, heading: str) -> str:
    """What a report's page shows below a heading, as a reader would copy it."""
    (found,) = re.findall(rf"<h3>{heading}</h3>\n<pre[^>]*>(.*?)</pre>", page, flags=re.DOTALL)
    return html.unescape(found)


@pytest.mark.slow
def test_the_commands_of_the_report_are_the_one_that_was_run_and_one_that_repeats_it(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(job, "CONFIG", replace(job.CONFIG, model=TINY))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "it's own.txt").write_bytes(b"\n".join(random_documents(1, [60] * 150)))
    arguments = ["--out", "runs/my run", "--steps", "12", "--data", "it's own.txt", "--seed", "3"]
    assert main(["quickstart", *arguments]) == 0
    page = (tmp_path / "runs" / "my run" / "report.html").read_text(encoding="utf-8")
    assert shlex.split(shown(page, "The command")) == ["patchpad", "quickstart", *arguments]
    program, *again = shlex.split(shown(page, "To reproduce").splitlines()[-1])
    assert program == "patchpad"
    assert main(again) == 0, capsys.readouterr().err
    first, second = tmp_path / "runs" / "my run", tmp_path / "runs" / "my run-again"
    lines = [[line | dict.fromkeys(CLOCK_KEYS) for line in read_metrics(run)] for run in (first, second)]
    assert lines[0] == lines[1]
    assert (first / "model.safetensors").read_bytes() == (second / "model.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "patchpad quickstart"),
        ({"minutes": 2.0}, "patchpad quickstart --minutes 2"),
        ({"minutes": None, "steps": 30}, "patchpad quickstart --steps 30"),
        ({"device": "cuda:1", "seed": 7}, "patchpad quickstart --seed 7 --device cuda:1"),
        ({"data": ("a.txt", "b c/*")}, "patchpad quickstart --data a.txt --data 'b c/*'"),
    ],
)
def test_the_command_holds_what_differs_from_the_defaults_of_the_command_line(changes, expected):
    defaults = {name: item.default for name, item in inspect.signature(command.quickstart).parameters.items()}
    values = {**defaults, "data": (), "minutes": DEFAULT_MINUTES, **changes}
    del values["json"]
    assert Request(**values).command_line() == expected


def test_quickstart_without_a_folder_takes_the_next_that_is_free(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "quickstart").mkdir(parents=True)
    (tmp_path / "runs" / "quickstart-2").mkdir()
    assert str(job.free_folder()) == "runs/quickstart-3"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--minutes", "nan"], "minutes is nan; allowed: a number above 0"),
        (["--minutes", "0"], "minutes is 0.0; allowed: a number above 0"),
        (["--steps", "0"], "steps is 0; allowed: an integer of at least 1"),
        (["--steps", "5", "--minutes", "5"], "minutes is 5.0 and steps is 5; allowed: one of the two"),
    ],
)
def test_quickstart_refuses_a_budget_that_is_none(tmp_path, capsys, words, message):
    assert main(["quickstart", "--out", str(tmp_path / "run"), *words]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
