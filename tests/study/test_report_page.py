"""`report.html` of a study: made from result files alone; sorted and filtered in headless Chromium."""

import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest

from patchpad.study.report import write_study_report
from patchpad.study.report_page import WEB
from patchpad.study.results import read_results
from patchpad.study.summary import summarize
from patchpad.study.tables import arms_table

RESULTS = Path(__file__).resolve().parents[2] / "docs" / "results" / "laptop"
FIRST_COLUMN = """
Array.from(document.querySelector("table.sortable").tBodies[0].rows).filter((row) => row.getClientRects().length)
  .map((row) => row.cells[0].textContent)
"""
COLUMN = """
Array.from(document.querySelector("table.sortable").tBodies[0].rows).map((row) => row.cells[COLUMN].textContent)
"""
NAMELESS = """
Array.from(document.querySelectorAll("button, input, summary, [tabindex], svg"))
  .filter((one) => !(one.labels?.length || one.getAttribute("aria-label") || one.getAttribute("aria-labelledby")
    || one.textContent.trim())).map((one) => one.outerHTML.slice(0, 80))
"""
MARKS = """
Array.from(document.querySelector("section").querySelectorAll("[data-group='fixed1-never']"))
  .filter((one) => one.getClientRects().length).length
"""


@pytest.fixture(scope="module")
def page_file(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("laptop")
    shutil.copytree(RESULTS, folder / "results")
    return write_study_report(folder).with_name("report.html")


class Tags(HTMLParser):
    """Every tag with its attributes, and the text between."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.texts.append(data)


def test_the_page_has_every_cell_of_the_report_and_a_box_for_every_arm(page_file):
    page = Tags(page_file.read_text(encoding="utf-8"))
    comparisons = summarize(read_results(page_file.parent))
    for comparison in comparisons:
        for row in arms_table(comparison).rows:
            assert set(row) <= set(page.texts)
    boxes = [attrs["data-toggles"] for _, attrs in page.tags if "data-toggles" in attrs]
    assert boxes == [arm.name for comparison in comparisons for arm in comparison.arms]
    assert {attrs["data-arm"] for _, attrs in page.tags if "data-arm" in attrs} == set(boxes)
    assert {attrs["data-group"] for _, attrs in page.tags if "data-group" in attrs} == set(boxes)
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))


def test_the_page_loads_nothing_and_runs_its_own_script_alone(page_file):
    page = page_file.read_text(encoding="utf-8")
    assert "script-src 'sha256-" in page
    assert page.count("<script") == 1
    assert (WEB / "report.js").read_text(encoding="utf-8") in page
    assert not re.search(r"(?:src|href)=|url\(|@import", page)


@pytest.mark.browser
def test_tables_sort_and_arms_hide_by_mouse_and_by_keyboard(page_file, browser):
    page = browser.open(page_file.as_uri(), width=1280)
    before = page.evaluate(FIRST_COLUMN)
    place = page.evaluate(
        "Array.from(document.querySelector('table.sortable').tHead.rows[0].cells)"
        ".findIndex((one) => one.textContent === 'bits per byte')"
    )
    heading = f"table.sortable thead th:nth-child({place + 1})"
    page.click(f"{heading} button")
    column = COLUMN.replace("COLUMN", str(place))
    rising = [float(text.split()[0]) for text in page.evaluate(column)]
    assert rising == sorted(rising)
    assert page.evaluate(f"document.querySelector('{heading}').getAttribute('aria-sort')") == "ascending"
    page.press("Enter")  # the focus is still on the heading
    falling = [float(text.split()[0]) for text in page.evaluate(column)]
    assert falling == rising[::-1]
    page.click("table.sortable thead th:nth-child(5) button")  # compressors have no such number
    assert page.evaluate(COLUMN.replace("COLUMN", "4"))[-1] == "–"  # noqa: RUF001

    assert page.evaluate(MARKS) > 0
    page.evaluate("document.querySelector('[data-toggles=\"fixed1-never\"]').focus()")
    page.press(" ")
    assert set(before) - set(page.evaluate(FIRST_COLUMN)) == {"fixed1-never"}
    assert page.evaluate(MARKS) == 0
    assert page.evaluate("document.querySelector('.shown').textContent") == "3 of 4 arms shown"
    page.click("button[data-all=true]")
    assert set(page.evaluate(FIRST_COLUMN)) == set(before)
    assert page.evaluate(NAMELESS) == []
    assert page.messages == []
    assert all(address.startswith("file:") for address in page.requests)
    page.close()


@pytest.mark.browser
def test_the_page_fits_a_telephone_in_light_and_dark(page_file, browser):
    for dark in (False, True):
        page = browser.open(page_file.as_uri(), width=390, height=844, dark=dark)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        assert page.messages == []
        page.close()
