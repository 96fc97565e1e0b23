"""The tables of a simulated cluster are those of the committed result file."""

import importlib.util
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
RECIPE = ROOT / "recipes" / "simulated_cluster.py"


def recipe():
    specification = importlib.util.spec_from_file_location("simulated_cluster", RECIPE)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def test_a_page_is_filled_and_says_that_nothing_ran():
    made = recipe()
    page = made.filled(f"before\n\n{made.BEGIN}\n\nold\n\n<!-- end of measured -->\n\nafter\n")
    assert page.startswith("before\n")
    assert page.endswith("after\n")
    assert "old" not in page
    assert "**Simulated: nothing ran on a GPU" in page
    assert "2b-fixed16-entropy" in page
    assert made.filled(page) == page


def test_pages_with_the_block_hold_the_newest_tables():
    made = recipe()
    for path in (ROOT / "docs").glob("*.md"):
        page = path.read_text(encoding="utf-8")
        if made.BEGIN in page:
            assert page == made.filled(page), "run python recipes/simulated_cluster.py"
