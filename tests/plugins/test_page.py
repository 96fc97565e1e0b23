"""The page on plug-ins does what it says: its files are written, its Python and its commands are run in order."""

import re
import shlex
from pathlib import Path

import pytest
from plugin_tools import nothing_loaded

from patchpad.cli.app import main

pytestmark = pytest.mark.unchecked

PAGE = Path(__file__).parents[2] / "docs" / "plugins.md"
BLOCK = re.compile(r'^```(\w*)(?: title="([^"]+)")?\n(.*?)^```$', flags=re.MULTILINE | re.DOTALL)


def test_the_page_on_plugins_runs_from_top_to_bottom(tmp_path, monkeypatch, capsysbinary):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_text("It was a text, of no great length. Many hands made it.\n" * 40)
    blocks = BLOCK.findall(PAGE.read_text(encoding="utf-8"))
    for _, title, content in blocks:
        if title:  # parts of a file stand where each of them is explained
            with (tmp_path / title).open("a", encoding="utf-8") as file:
                file.write(content)
    namespace: dict[str, object] = {}
    done = []
    with nothing_loaded():
        for language, title, content in blocks:
            if language == "python" and not title:
                exec(compile(content, str(PAGE), "exec"), namespace)
                done.append("python")
            elif not language:
                for line in content.splitlines():
                    words = shlex.split(line)
                    assert words[0] == "patchpad"
                    assert main(words[1:]) == 0, (line, capsysbinary.readouterr().err)
                    done.append(words[1])
    assert done == ["python", "python", "cost", "train", "calibrate", "generate", "evaluate", "train", "python"]
    losses = (tmp_path / "runs" / "mine" / "losses.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in losses] == ["3"]
    assert "word_order" in (tmp_path / "results" / "result.json").read_text()
    saved = (tmp_path / "runs" / "mine" / "config.json").read_text()
    assert '"weight": 0.2' in saved
