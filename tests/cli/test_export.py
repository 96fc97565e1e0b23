"""`patchpad export` and `patchpad import`."""

import json
import sys

import pytest

from patchpad.training.checkpoint import load


@pytest.fixture
def quiet(monkeypatch):
    pytest.importorskip("transformers", reason='needs the extra `hub`: pip install "patchpad[hub]"')
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.mark.unchecked
def test_a_run_is_exported_and_imported(quiet, patchpad, fails, finished, tmp_path):
    called = patchpad("export", finished, "--out", tmp_path / "exported")
    assert called.code == 0
    assert called.err == ""
    assert called.out.startswith(f"{tmp_path / 'exported'}: ")
    assert f"First: patchpad calibrate {finished}" in called.out
    assert (tmp_path / "exported" / "README.md").is_file()
    printed = patchpad("import", tmp_path / "exported", "--out", tmp_path / "back", "--json")
    assert json.loads(printed.out) == {
        "folder": str(tmp_path / "back"),
        "bytes": sum(file.stat().st_size for file in (tmp_path / "back").iterdir()),
        "calibrated": False,
    }
    own, again = load(finished).state_dict(), load(tmp_path / "back").state_dict()
    assert all(value.equal(again[name]) for name, value in own.items())
    assert "is not an empty folder" in fails(1, "export", finished, "--out", tmp_path)
    assert "is not an empty folder" in fails(1, "import", tmp_path / "exported", "--out", tmp_path)
    assert "no folder is at" in fails(1, "import", tmp_path / "none", "--out", tmp_path / "new")
    assert "no run is at" in fails(1, "export", tmp_path / "none", "--out", tmp_path / "new")


def test_without_transformers_export_names_the_extra(fails, finished, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    for name in [name for name in sys.modules if name.startswith("patchpad.hub.")]:
        monkeypatch.delitem(sys.modules, name)
    text = fails(1, "export", finished, "--out", tmp_path / "out")
    assert 'pip install "patchpad[hub]"' in text
    assert not (tmp_path / "out").exists()
