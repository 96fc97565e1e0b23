"""docs/hugging_face.md does what it says, and the benchmark beside it runs."""

import json
import re
import runpy
import shlex
import shutil
import sys
from pathlib import Path

import pytest

from patchpad.cli.app import main
from patchpad.training.checkpoint import BUNDLED_MODEL

pytestmark = pytest.mark.unchecked
ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", flags=re.MULTILINE | re.DOTALL)


def test_commands_and_python_of_the_page_run_from_top_to_bottom(hub, tmp_path, monkeypatch, capsysbinary):
    shutil.copytree(BUNDLED_MODEL, tmp_path / "RUN")
    monkeypatch.chdir(tmp_path)
    page = (ROOT / "docs" / "hugging_face.md").read_text(encoding="utf-8")
    kinds, namespace = [], {}
    for language, content in BLOCK.findall(page):
        kinds.append(language)
        if language == "python":
            exec(compile(content, "docs/hugging_face.md", "exec"), namespace)
        elif language == "":
            for line in content.splitlines():
                assert main(shlex.split(line)[1:]) == 0, capsysbinary.readouterr().err
    assert kinds[:2] == ["", "python"]
    assert len(namespace["ids"][0]) == 107
    assert float(namespace["loss"].detach()) > 0
    assert (tmp_path / "imported" / "calibration.json").is_file()


def test_the_benchmark_of_the_page_runs_end_to_end(hub, tmp_path, monkeypatch):
    path = ROOT / "benchmarks" / "hugging_face.py"
    monkeypatch.syspath_prepend(str(path.parent))
    words = ["--rows", "2", "--new-bytes", "5", "--repeats", "1", "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", [str(path), *words])
    runpy.run_path(str(path), run_name="__main__")
    (raw,) = tmp_path.glob("*.json")
    assert [row["name"] for row in json.loads(raw.read_text())["rows"]] == ["transformers", "patchpad"]
    (table,) = tmp_path.glob("*.md")
    assert "| rows | transformers | patchpad | time of transformers over patchpad |" in table.read_text()
