"""One palette for all pages, figures and the terminal."""

import re
from pathlib import Path

import pytest

from patchpad.inspection.inspection import inspect
from patchpad.inspection.terminal import inspection_lines
from patchpad.pages.page_style import PAGE_CSS
from patchpad.pages.palette import PALETTE, palette_variables
from patchpad.testing import sharp_model, tiny_model_config

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("dark", [False, True])
def test_pages_have_each_colour_of_the_palette_and_its_three_numbers(dark):
    declared = palette_variables(dark=dark)
    assert declared in PAGE_CSS
    for name, colour in PALETTE.items():
        value = colour.dark if dark else colour.light
        red, green, blue = bytes.fromhex(value[1:])
        assert f"--{name}:{value}" in declared
        assert f"--{name}-rgb:{red} {green} {blue}" in declared


def test_no_page_or_figure_has_colours_of_its_own_for_what_the_palette_names():
    names = "|".join(PALETTE)
    for folder in ("src", "recipes"):
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in (".py", ".css", ".html", ".svg") and path.name != "palette.py":
                found = re.findall(rf"--(?:{names}|pad|end)(?:-rgb)?:[^;}}]*", path.read_text(encoding="utf-8"))
                assert found == [], path


def test_the_terminal_marks_commits_in_blue_and_scratchpads_in_orange():
    model = sharp_model(tiny_model_config("spacebyte"))
    lines = inspection_lines(inspect(model, b"It was the best of times", scratchpad_threshold_nats=1.25))
    styles = {mark: style for line in lines for text, style in line for mark in "●○" if set(text) == {mark}}
    assert styles == {"●": "bold #2b8ccb", "○": f"bold {PALETTE['scratchpad'].light}"}
