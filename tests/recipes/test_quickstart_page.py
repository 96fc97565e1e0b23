"""The tables of quickstart and its plot are those that the committed result file gives."""

import importlib.util
from pathlib import Path

RECIPE = Path(__file__).resolve().parents[2] / "recipes" / "quickstart_page.py"


def test_tables_and_plot_are_made_from_the_committed_result_file():
    specification = importlib.util.spec_from_file_location("quickstart_page", RECIPE)
    recipe = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(recipe)
    for page in (recipe.README, recipe.TOUR):
        assert page.read_text(encoding="utf-8") == recipe.filled(page), "run python recipes/quickstart_page.py"
    assert recipe.FIGURE.read_text(encoding="utf-8") == recipe.figure(), "run python recipes/quickstart_page.py"
