"""The tables of speed in the docs are those that the committed result files give."""

import importlib.util
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
RECIPE = ROOT / "recipes" / "speed_page.py"


def test_tables_are_made_from_the_committed_result_files():
    specification = importlib.util.spec_from_file_location("speed_page", RECIPE)
    recipe = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(recipe)
    for page in recipe.TABLES:
        assert page.read_text(encoding="utf-8") == recipe.filled(page), "run python recipes/speed_page.py"


def test_result_files_name_their_commit_and_no_folder_of_a_machine():
    files = sorted((ROOT / "benchmarks" / "results").glob("*.json"))
    assert files
    for file in files:
        text = file.read_text(encoding="utf-8")
        assert "--out" not in text
        assert '"changes_since_commit": false' in text, file.name
        assert file.with_suffix(".md").exists() or file.name == "bench.json"  # of `make bench-record`
