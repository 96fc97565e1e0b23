import re
from html.parser import HTMLParser

import pytest

from patchpad.pages.page_style import PAGE_CSS
from patchpad.serving.playground import PAGE_POLICY, read_files

VOID = {"meta", "br", "hr", "img", "link", "input"}


@pytest.fixture(scope="module")
def files():
    return {name: content.decode("utf-8") for name, (content, _) in read_files().items()}


class Page(HTMLParser):
    """Checks that tags balance and ids are unique; keeps all attributes."""

    def __init__(self, source):
        super().__init__()
        self.open, self.attributes = [], []
        self.feed(source)
        self.close()
        assert self.open == []
        ids = [value for _, name, value in self.attributes if name == "id"]
        assert len(ids) == len(set(ids))

    def handle_starttag(self, tag, attrs):
        self.attributes += [(tag, name, value) for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_files_have_their_media_types_and_the_style_of_all_pages_comes_first(files):
    types = {name: media_type for name, (_, media_type) in read_files().items()}
    assert types["index.html"] == "text/html; charset=utf-8"
    assert types["style.css"] == "text/css; charset=utf-8"
    assert types["icon.svg"] == "image/svg+xml"
    assert {types[name] for name in types if name.endswith(".js")} == {"text/javascript; charset=utf-8"}
    assert not [name for name in types if name.endswith(".py")]
    assert files["style.css"].startswith(PAGE_CSS)


def test_page_has_no_inline_script_or_style_and_names_its_own_files_alone(files):
    page = Page(files["index.html"])
    named = [value for _, name, value in page.attributes if name in ("src", "href", "srcset", "action", "data")]
    assert {value.removeprefix("/playground/") for value in named} <= set(files)
    assert all(value.startswith("/playground/") for value in named)
    assert not [name for _, name, _ in page.attributes if name == "style" or name.startswith("on")]
    assert not re.search(r"<script[^>]*>[^<]", files["index.html"])
    assert "<style" not in files["index.html"]


def test_no_file_names_another_host_and_none_writes_markup_from_text(files):
    for name, source in files.items():
        assert set(re.findall(r"https?://[^\"'\s)]*", source)) <= {"http://www.w3.org/2000/svg"}, name
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|\bstyle=\"", source
        )
        assert not re.search(r"localStorage|sessionStorage|indexedDB|document\.cookie", source), (
            "the key stays in memory"
        )
        if name.endswith(".css"):
            assert not re.search(r"url\(|@import", source)


def test_every_module_that_is_imported_is_there(files):
    for name, source in files.items():
        if name.endswith(".js"):
            imported = re.findall(r'^import .* from "\./([^"]+)";$', source, re.MULTILINE)
            assert set(imported) <= set(files)


def test_policy_lets_the_page_load_and_ask_its_own_server_alone():
    rules = dict(rule.split(" ", 1) for rule in PAGE_POLICY.split("; "))
    assert rules.pop("default-src") == "'none'"
    assert set(rules.values()) == {"'self'", "'none'"}
    assert {name for name, value in rules.items() if value == "'self'"} == {
        "script-src",
        "style-src",
        "img-src",
        "connect-src",
    }
