import math
import re
import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchpad.pages.line_plot import Series, line_plot
from patchpad.pages.numbers import compact_number
from patchpad.pages.svg import MARKER_RADIUS
from patchpad.pages.ticks import nice_log_ticks, nice_ticks, tick_texts

SVG = "{http://www.w3.org/2000/svg}"
ORDINARY = st.floats(-1e12, 1e12) | st.integers(-1000, 1000)


def parsed(series: list[Series], **options) -> ET.Element:
    names = {"title": "a title", "x_label": "trunk calls per byte", "y_label": "bits per byte", **options}
    svg = line_plot(series, **names, standalone=True)
    assert "nan" not in svg.lower()
    return ET.fromstring(svg)


def texts(root: ET.Element) -> list[str]:
    return [element.text or "" for element in root.iter(f"{SVG}text")]


def markers(root: ET.Element) -> list[ET.Element]:
    return [element for element in root.iter() if element.get("class") == "plot-marker"]


@pytest.mark.parametrize("log_x", [False, True])
@pytest.mark.parametrize(
    "points",
    [
        [(0.25, 2.5)],
        [(1, 2)],
        [(0.25, 2.5), (0.25, 2.5)],
        [(1.0, 0.0), (2.0, 0.0)],
        [(1e-3, 1e9), (1e6, 1e9 + 1e-7)],
        [(1e-140, -1e140), (1e140, 1e140)],
    ],
)
def test_one_point_and_equal_values_are_drawn_inside_the_plot(points, log_x):
    root = parsed([Series("a", points)], log_x=log_x, width=640, height=360)
    assert len(markers(root)) == len(points)
    for marker in markers(root):
        x, y = (float(part) for part in marker.get("d").split("a")[0][1:].split(","))
        assert 0 <= x <= 640
        assert 0 <= y <= 360


@given(st.lists(st.tuples(ORDINARY, ORDINARY), max_size=6), st.booleans())
def test_any_points_make_a_well_formed_plot(points, log_x):
    series = [Series("a", points, point_labels=[str(x) for x, _ in points]), Series("b", points, dashed=True)]
    root = parsed(series, log_x=log_x)
    shown = [point for point in points if not log_x or point[0] > 0]
    assert len(markers(root)) >= 2 * len(shown)


def test_values_that_are_not_finite_are_left_out():
    points = [(math.inf, 2.0), (0.5, math.nan), (0.5, -math.inf), (0.25, 2.5), (0.5, 2.4)]
    root = parsed([Series("a", points)])
    assert len(markers(root)) == 2
    (line,) = root.iter(f"{SVG}polyline")
    assert len(line.get("points").split()) == 2


@pytest.mark.parametrize("series", [[], [Series("a", [])], [Series("a", [(math.inf, 1.0)])]])
def test_a_plot_of_nothing_says_so(series):
    assert "no points to show" in texts(parsed(series))
    assert "no points to show" in texts(parsed(series, log_x=True))


def test_text_is_escaped_everywhere():
    hostile = '<script>"&\x00'
    svg = line_plot(
        [Series(hostile, [(1.0, 2.0)], point_labels=[hostile]), Series("b", [(2.0, 3.0)])],
        title=hostile,
        x_label=hostile,
        y_label=hostile,
        reference_lines={hostile: 2.5},
        element_id=hostile,
    )
    assert "<script" not in svg
    assert "\x00" not in svg
    ET.fromstring(svg)


def test_a_plot_has_a_name_and_a_description_for_readers_who_do_not_see_it():
    root = parsed([Series("scratchpads", [(0.25, 2.5), (1.0, 2.25)])], title="Quality", element_id="plot-7")
    assert root.get("role") == "img"
    assert root.get("aria-labelledby") == "plot-7-title"
    assert root.find(f"{SVG}title").text == "Quality"
    description = root.find(f"{SVG}desc")
    assert description.get("id") == root.get("aria-describedby")
    assert "from 2.25 to 2.5" in description.text


def test_a_standalone_file_brings_both_colour_schemes_and_an_inline_plot_neither():
    series = [Series("a", [(1.0, 2.0)])]
    names = {"title": "t", "x_label": "x", "y_label": "y"}
    alone, inline = line_plot(series, **names, standalone=True), line_plot(series, **names)
    assert "prefers-color-scheme:dark" in alone
    assert 'xmlns="http://www.w3.org/2000/svg" width="640" height="360"' in alone
    assert "<style" not in inline
    assert "http" not in inline


def test_a_legend_appears_with_the_second_series():
    one = [Series("first", [(1.0, 2.0)])]
    assert "first" not in texts(parsed(one))
    assert {"first", "second"} <= set(texts(parsed([*one, Series("second", [(2.0, 3.0)])])))


def test_reference_lines_are_inside_the_range_and_labelled():
    root = parsed([Series("a", [(1.0, 2.0), (2.0, 2.1)])], reference_lines={"xz": 3.07, "bz2": 3.06, "none": math.inf})
    assert {"xz 3.070", "bz2 3.060"} <= set(texts(root))
    assert [e for e in root.iter() if e.get("class") == "plot-reference"] != []
    assert not any(text.startswith("none") for text in texts(root))


def test_point_labels_must_match_the_points():
    with pytest.raises(ValueError, match="2 points but 1 point labels"):
        Series("a", [(1.0, 2.0), (2.0, 2.0)], point_labels=["x"])


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.0625, 1.0], ["0", "0.2", "0.4", "0.6", "0.8", "1.0"]),
        ([2.3, 2.52], ["2.30", "2.35", "2.40", "2.45", "2.50", "2.55"]),
        ([1.1e6, 4.2e6], ["1M", "2M", "3M", "4M", "5M"]),
        ([-3, 4], ["-4", "-2", "0", "2", "4"]),
        ([0.0, 0.0], ["0", "0.2", "0.4", "0.6", "0.8", "1.0"]),
    ],
)
def test_ticks_are_round_numbers_that_enclose_the_values(values, expected):
    assert tick_texts(nice_ticks(values)) == expected


def test_log_ticks_are_one_two_five_then_powers_alone():
    assert nice_log_ticks([20, 300]) == [20, 50, 100, 200, 500]
    assert nice_log_ticks([3.0, 2e6]) == [1, 10, 100, 1e3, 1e4, 1e5, 1e6, 1e7]
    assert len(nice_log_ticks([1e-100, 1e100])) <= 10


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (math.inf, "∞"),
        (-math.inf, "-∞"),
        (0, "0"),
        (999_999, "1M"),
        (1_234_567, "1.23M"),
        (128, "128"),
        (0.0625, "0.0625"),
    ],
)
def test_numbers_are_short(value, expected):
    assert compact_number(value) == expected


def test_frame_says_where_values_lie():
    found = parsed([Series("", [(0.0, 2.0), (1.0, 3.0)])], states_frame=True)
    spots = []
    for element in markers(found):
        _, x, y = re.match(r"(M)([\d.]+),([\d.]+)", element.get("d") or "").groups()
        spots.append((float(x) + MARKER_RADIUS, float(y)))  # the path begins at the left of a circle
    for (x, y), point in zip(spots, [(0.0, 2.0), (1.0, 3.0)], strict=True):
        for at, value, name in ((x, point[0], "data-x"), (y, point[1], "data-y")):
            low, high, start, end = map(float, (found.get(name) or "").split())
            assert start + (value - low) / (high - low) * (end - start) == pytest.approx(at, abs=0.1)
    assert parsed([Series("", [(0.0, 2.0)])]).get("data-x") is None


def test_deviations_are_bars_inside_the_plot_with_the_marker_in_their_middle():
    points = [(1.0, 2.0), (2.0, 2.5), (3.0, 2.2)]
    root = parsed([Series("a", points, line=False, deviations=[0.5, None, math.nan])], width=640, height=360)
    (bar,) = [element for element in root.iter() if element.get("class", "").endswith("plot-bar")]
    low, high = (float(end) for end in re.search(r"h12M[\d.]+,([\d.]+)V([\d.]+)M", bar.get("d")).groups())
    middle = float(re.match(r"M[\d.]+,([\d.]+)a", markers(root)[0].get("d"))[1])
    assert 0 < high < middle < low < 360
    assert low - middle == pytest.approx(middle - high, abs=0.2)
    assert "± 0.5" in markers(root)[0][0].text
    with pytest.raises(ValueError, match="3 points but 1 deviations"):
        Series("a", points, deviations=[0.1])


def named(root: ET.Element, group: str) -> list[ET.Element]:
    return [child for part in root.iter(f"{SVG}g") if part.get("data-group") == group for child in part]


def test_open_marks_have_the_colour_of_their_series_as_their_edge():
    hollow, full = markers(parsed([Series("a", [(1, 2)], look=3, hollow=True), Series("b", [(2, 3)], look=3)]))[-2:]
    assert hollow.get("style") == "fill:var(--plot-paper);stroke:var(--plot-4);stroke-width:2"
    assert full.get("style") == "fill:var(--plot-4)"


def test_an_arrow_points_at_its_last_point_and_stops_before_the_mark():
    pair = [(0.0, 0.0), (1.0, 1.0)]
    root = parsed([Series("", pair, arrow=True, group="arrow"), Series("", pair, line=False, look=0, group="marks")])
    (arrow,) = named(root, "arrow")
    start, tip, left, again, right = re.findall(r"(-?[\d.]+),(-?[\d.]+)", arrow.get("d"))
    assert tip == again
    ends = [tuple(map(float, mark.get("d").split("a")[0][1:].split(","))) for mark in named(root, "marks")]
    (x, y), target = map(float, tip), ends[1]
    target = (target[0] + MARKER_RADIUS, target[1])
    assert 6 < ((x - target[0]) ** 2 + (y - target[1]) ** 2) ** 0.5 < 10
    assert float(start[0]) < float(left[0]) < x
    assert float(right[0]) < x
    near = parsed([Series("", [(0.0, 0.0), (1e-3, 0.0), (1.0, 1.0)][:2], arrow=True, group="a"), Series("b", pair)])
    assert named(near, "a") == []


def test_series_are_named_at_their_marks_and_at_the_ends_of_their_lines():
    series = [Series("line", [(0, 1), (1, 2)]), Series("short", [(0, 2), (0.4, 3)]), Series("point", [(0.5, 1)])]
    root = parsed(series, direct_labels=True, x_ends=(0, 1))
    places = {one.text: (float(one.get("x")), one.get("text-anchor")) for one in root.iter(f"{SVG}text")}
    ends = [float(mark.get("d")[1:].split("a")[0].split(",")[0]) + MARKER_RADIUS for mark in markers(root)[:2]]
    assert places["line"][0] == pytest.approx(ends[1] + 16, abs=0.2)
    assert {"short", "point"} <= set(places)
    assert places["short"][0] < ends[1]
    legend = parsed(series)
    first = next(one for one in legend.iter(f"{SVG}text") if one.text == "line")
    assert float(first.get("y")) < 50  # above the plot


def test_names_without_a_place_are_in_a_legend():
    crowd = [Series(f"a long name, number {number}", [(number / 1000, 1)], line=False) for number in range(30)]
    root = parsed([*crowd, Series("", [(1, 2)])], direct_labels=True)
    assert {one.label for one in crowd} <= set(texts(root))


def test_an_axis_ends_where_it_is_told_to():
    root = parsed([Series("a", [(1, 2), (16, 3)])], x_ends=(1, 16), x_ticks=[1, 4, 8, 16])
    assert [text for text in texts(root) if text.isdigit()] == ["1", "4", "8", "16"]
    calls = parsed([Series("a", [(0.06, 2), (1, 3)])], x_ends=(0, 1))
    assert "1.0" in texts(calls)
    assert "1.2" not in texts(calls)


def test_points_above_the_plot_are_left_out_and_said():
    series = [Series("a", [(0, 1), (1, 1.5), (2, 9), (3, 1)]), Series("b", [(1, 2)])]
    root = parsed(series, highest_y=2.0, direct_labels=True)
    assert len(markers(root)) == 4
    note = "Above this range and not shown: a 9.0000 at 2."
    assert note in texts(root)
    assert note in root.find(f"{SVG}desc").text
    lines = [line.get("points").split() for line in root.iter(f"{SVG}polyline")]
    assert [len(points) for points in lines] == [3, 2]  # the line leaves the plot and comes back
    cuts = [float(points[end].split(",")[1]) for points, end in zip(lines, (-1, 0), strict=True)]
    assert cuts[0] == cuts[1] == min(float(point.split(",")[1]) for points in lines for point in points)


def test_rows_go_down_in_their_order_and_name_their_marks():
    root = parsed([Series("", [(1.0, 0)]), Series("", [(2.0, 1)])], row_names=["first", "second"], y_label="")
    heights = {one.text: float(one.get("y")) for one in root.iter(f"{SVG}text")}
    assert heights["first"] < heights["second"]
    assert [mark.find(f"{SVG}title").text for mark in markers(root)] == [
        "first, trunk calls per byte: 1",
        "second, trunk calls per byte: 2",
    ]


def test_the_key_says_what_open_and_filled_marks_mean():
    root = parsed([Series("a", [(1, 2)], hollow=True)], marks_key=("without", "with"))
    assert {"without", "with"} <= set(texts(root))
    assert len(markers(root)) == 3
