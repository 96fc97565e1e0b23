"""The documentation site: what is made of pages, and the checks of what was built."""

import json
import re

import pytest
from check_site import faults_of_site
from chromium import CHROMIUM
from look_at_site import faults_of_pages
from site_pages import ROOT, command_text, gather, notebook_text, with_site_links

from patchpad.cli.app import COMMANDS, build_app


def test_links_lead_to_pages_of_the_site_from_docs_and_from_the_root_folder():
    page = "[a](docs/plugins.md#check) [b](../CHANGELOG.md) [c](SECURITY.md) [d](from_scratch.ipynb) [e](https://a.b/c)"
    assert with_site_links(page) == (
        "[a](plugins.md#check) [b](changelog.md) [c](security.md) [d](from_scratch.md) [e](https://a.b/c)"
    )
    assert with_site_links("```\n[a](docs/a.md)\n```\n") == "```\n[a](docs/a.md)\n```\n"


def test_a_notebook_as_a_page_has_its_text_its_code_and_what_it_printed():
    cells = [
        {"cell_type": "markdown", "source": ["# Title"]},
        {"cell_type": "code", "source": ["print(1)"], "outputs": [{"text": ["1\n"]}]},
        {"cell_type": "code", "source": ["pass"], "outputs": []},
    ]
    page = notebook_text({"cells": cells})
    assert page.startswith("# Title\n")
    assert page.endswith("```python\nprint(1)\n```\n\n``` { .text .output }\n1\n```\n\n```python\npass\n```\n")


def is_described(option, page):
    """Whether a page has an option or argument with what its help says, as it is now."""
    text = " ".join((option.parameter.help or "").split())
    return re.search(rf"^\* `{re.escape(option.name)}\b[^`]*`: {re.escape(text)}", page, flags=re.MULTILINE)


def test_the_page_of_commands_has_every_command_and_option_as_they_are_now(tmp_path):
    gather(tmp_path / "pages")
    page = (tmp_path / "pages" / "commands.md").read_text(encoding="utf-8")
    assert [name for name in COMMANDS if f"\n## patchpad {name}\n" not in page] == []
    options = [option for name in COMMANDS for option in build_app(name)[name].assemble_argument_collection()]
    assert len(options) > 100
    lacking = [option.name for option in options if option.show and not is_described(option, page)]
    assert lacking == []
    assert "\n### patchpad study report\n\n```\npatchpad study report [OPTIONS] DIR\n```\n" in page
    assert "Table of Contents" not in page
    assert "[default: False]" not in page
    for name in ("contributing", "changelog", "security", "from_scratch", "tour"):
        assert (tmp_path / "pages" / f"{name}.md").read_text(encoding="utf-8").startswith("# "), name
    assert json.loads((ROOT / "docs" / "from_scratch.ipynb").read_text(encoding="utf-8"))["cells"]


def test_links_between_commands_have_the_names_of_their_headings():
    assert "](#patchpad-study-report)" in command_text("study")


def page_of(body, head=""):
    return f"<!doctype html><title>a</title>{head}<body><h1 id=top>a</h1>{body}"


@pytest.fixture
def site(tmp_path):
    """A site of two pages without a fault."""
    (tmp_path / "index.html").write_text(page_of('<a href="b.html#top">b</a> <img src="a.svg" alt="a">'))
    (tmp_path / "b.html").write_text(page_of('<a href="index.html">a</a> <a href="https://a.b">c</a>'))
    (tmp_path / "a.svg").write_text("<svg/>")
    (tmp_path / "a.css").write_text("p { background: url(a.svg) } q { background: url('data:image/png;base64,') }")
    return tmp_path


FAULTS = {
    '<a href="c.html">c</a>': "the link c.html leads to no file",
    '<a href="#c">c</a>': "the link #c leads to no place in b.html",
    '<a href="index.html#c">c</a>': "the link index.html#c leads to no place in index.html",
    '<img src="https://a.b/c.png" alt="c">': "https://a.b/c.png is loaded from the web",
    '<script src="//a.b/c.js"></script>': "//a.b/c.js is loaded from the web",
    '<link rel="preload stylesheet" href="https://a.b/c.css">': "https://a.b/c.css is loaded from the web",
    '<style>@import "https://a.b/c.css";</style>': "https://a.b/c.css is loaded from the web",
    '<p style="background: url(https://a.b/c.png)">c</p>': "https://a.b/c.png is loaded from the web",
    '<img src="c.png" alt="c">': "c.png is loaded and is not there",
    '<picture><source srcset="c.png 2x"><img src="a.svg" alt="a"></picture>': "c.png is loaded and is not there",
    '<img src="a.svg">': "the picture a.svg has no text for those who do not see it",
    '<autoref identifier="a.b.c">c</autoref>': "the name a.b.c leads nowhere",
}


@pytest.mark.parametrize("body", FAULTS)
def test_each_kind_of_fault_of_a_page_is_found(site, body):
    assert list(faults_of_site(site)) == []
    (site / "b.html").write_text(page_of(f'<a href="index.html">a</a>{body}'))
    assert list(faults_of_site(site)) == [f"b.html: {FAULTS[body]}"]


def test_a_page_that_nothing_leads_to_and_a_style_from_the_web_are_found(site):
    (site / "orphan.html").write_text(page_of('<a href="index.html">a</a>'))
    (site / "404.html").write_text(page_of('<a href="index.html">a</a>'))
    (site / "a.css").write_text("@font-face { src: url(https://a.b/c.woff2) }")
    assert list(faults_of_site(site)) == [
        "a.css: https://a.b/c.woff2 is loaded from the web",
        "orphan.html: no link leads here from index.html",
    ]


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_what_a_reader_would_meet_in_a_page_is_found_in_the_browser(tmp_path):
    dark = "<style>@media (prefers-color-scheme: dark) { body { background: #000; color: #fff } }</style>"
    (tmp_path / "a.html").write_text(
        page_of("<button>a</button><div style='overflow:auto'><p style=width:900px>", dark)
    )
    (tmp_path / "b.html").write_text(
        page_of(
            "<button></button><p style=width:900px>wide</p><script>console.error('no')</script>",
            "<style>body{background:#fff}</style>",
        )
    )
    faults = list(faults_of_pages(tmp_path))
    assert [fault.partition(":")[0] for fault in faults] == ["b.html"] * 4
    assert [fault for fault in faults if "the console says: no" in fault]
    assert [fault for fault in faults if 'wider than 390 px: <p style="width:900px">wide</p>' in fault]
    assert [fault for fault in faults if "light for a reader who wants it dark" in fault]
    assert [fault for fault in faults if "a button without a name" in fault]


@pytest.mark.browser
def test_a_table_a_little_wider_than_its_page_is_made_to_fit_but_not_on_a_telephone(tmp_path, browser):
    style, script = ((ROOT / "recipes" / "site" / name).read_text() for name in ("site.css", "site.js"))
    style += "html { font-size: 20px } th { min-width: 5rem }"  # as in the theme
    cells = "<th>a word" * 7
    frame = "<div class=md-typeset__scrollwrap style='overflow-x: auto; width: 600px'>"
    path = tmp_path / "a.html"
    body = f"<div class=md-typeset>{frame}<table><tr>{cells}</table></div></div>"
    path.write_text(page_of(body, f"<style>{style}</style><script>{script}</script>"))
    for width, kind in ((1280, "tight"), (390, "wide")):
        page = browser.open(path.as_uri(), width=width)
        page.wait_for("document.querySelector('[data-tight], [data-wide]') !== null")
        assert page.evaluate("Object.keys(document.querySelector('table').dataset)") == [kind]
        page.close()


@pytest.mark.browser
def test_a_table_wider_than_its_page_has_columns_that_can_be_read_and_short_names_stay_whole(tmp_path, browser):
    style, script = ((ROOT / "recipes" / "site" / name).read_text() for name in ("site.css", "site.js"))
    words = "<td>words that would take many lines in a column as narrow as the longest of them"
    frame = "<div class=md-typeset__scrollwrap style='overflow-x: auto; width: 300px'>"
    tables = "".join(f"{frame}<table><tr>{words * columns}</table></div>" for columns in (6, 1))
    body = f"<div class=md-typeset><p><code>--draft</code> <code>{'-long' * 10}</code></p>{tables}</div>"
    path = tmp_path / "a.html"
    path.write_text(page_of(body, f"<style>{style}</style><script>{script}</script>"))
    page = browser.open(path.as_uri(), width=390)
    page.wait_for("document.querySelector('[data-wide]') !== null")
    assert page.evaluate("[...document.querySelectorAll('table')].map((one) => 'wide' in one.dataset)") == [True, False]
    assert page.evaluate("document.querySelector('[data-wide] td').clientWidth") > 150
    page.press("Tab")
    assert page.evaluate("document.activeElement.contains(document.querySelector('[data-wide]'))")
    assert page.evaluate("document.activeElement.getAttribute('aria-label')")
    assert page.evaluate("[...document.querySelectorAll('code')].map((one) => one.style.whiteSpace)") == ["nowrap", ""]
    page.close()
