"""Heat maps: each cell in its place, its shade in step with its value, and no text that leaves the picture."""

import re
import xml.etree.ElementTree as ET

import pytest

from patchpad.pages.heat_map import CELL_HEIGHT, DEEPEST, LEGEND_STEPS, column_letter, heat_map

SVG = "{http://www.w3.org/2000/svg}"


def drawn(values, rows, columns=("bytes", "patches"), **options) -> ET.Element:
    texts = [["" if value is None else f"{value:g}" for value in row] for row in values]
    given = {"texts": texts, "highest": 10.0, "title": "ranks & more", "scale_label": "% more", **options}
    svg = heat_map(rows, columns, values, standalone=True, **given)
    assert "nan" not in svg.lower()
    return ET.fromstring(svg)


def cells(root: ET.Element) -> list[tuple[float, float, float]]:
    """Opacity and place of each cell, those of the scale left out."""
    paths = [path for path in root.iter(f"{SVG}path") if "fill-opacity" in path.get("style", "")][LEGEND_STEPS:]
    places = [re.match(r"M([\d.]+),([\d.]+)", path.get("d")) for path in paths]
    opacities = [float(path.get("style").rsplit(":", 1)[1]) for path in paths]
    return [(shade, float(place[1]), float(place[2])) for shade, place in zip(opacities, places, strict=True)]


def texts_of(root: ET.Element) -> list[str]:
    return [element.text or "" for element in root.iter(f"{SVG}text")]


def test_the_shade_of_a_cell_is_in_step_with_its_value_and_an_unknown_one_has_no_cell():
    found = cells(drawn([[0, 5], [10, 400], [None, 2.5]], ["deu", "rus", "zho"]))
    assert [shade for shade, _, _ in found] == [0, DEEPEST / 2, DEEPEST, DEEPEST, DEEPEST / 4]
    (_, left, top), (_, right, same), (_, below_x, below), *_ = found
    assert (same, below_x, below) == (top, left, top + CELL_HEIGHT)
    assert right > left


def test_every_row_is_named_once_and_columns_by_letters_that_are_spelled_out():
    names = [f"language-{number}" for number in range(100)]
    root = drawn([[1, 2]] * 100, names)
    shown = texts_of(root)
    assert [name for name in shown if name.startswith("language-")] == names
    assert {"A  bytes", "B  patches"} <= set(shown)
    assert len(cells(root)) == 200
    blocks = {left for _, left, _ in cells(root)}
    assert len(blocks) > 2, "rows stand in blocks beside each other"
    assert shown.count("A") == len(blocks) / 2


@pytest.mark.parametrize("count", [1, 11, 40, 129])
@pytest.mark.parametrize("width", [420, 900])
def test_no_cell_leaves_the_picture(count, width):
    root = drawn([[1, 2]] * count, [f"r{number}" for number in range(count)], width=width)
    _, _, full_width, full_height = map(float, root.get("viewBox").split())
    assert len(cells(root)) == 2 * count
    assert max(x for _, x, _ in cells(root)) + 30 < full_width
    assert max(y for _, _, y in cells(root)) + CELL_HEIGHT < full_height


def test_a_map_without_rows_or_with_a_scale_of_nothing_is_drawn():
    assert cells(drawn([], [])) == []
    assert cells(drawn([[0, 0]], ["deu"], highest=0.0))[0][0] == 0


def test_letters_go_on_behind_z():
    assert [column_letter(number) for number in (0, 25, 26, 51, 52)] == ["A", "Z", "AA", "AZ", "BA"]
