"""The playground over HTTP: its page, its files and nothing else, and what it asks the model."""

import math

import pytest

from patchpad.serving.playground import PAGE_POLICY, read_files
from patchpad.serving.playground.marks import marks
from patchpad.serving.playground.next_byte import next_byte


def test_the_page_and_its_files_are_served_with_their_policy(served):
    page = served.ask("GET", "/")
    files = read_files()
    assert page.body == files["index.html"][0]
    assert page.headers["content-security-policy"] == PAGE_POLICY
    for name, (content, kind) in files.items():
        reply = served.ask("GET", f"/playground/{name}")
        assert (reply.body, reply.headers["content-type"]) == (content, kind)
        assert reply.headers["cache-control"] == "no-cache"
        assert reply.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    "path",
    [
        "../app.py",
        "..%2fapp.py",
        "%2e%2e/app.py",
        "next_byte.py",
        "",
        "index.html/",
        "./index.html",
        "x\\..\\app.py",
        "%00",
    ],
)
def test_no_path_leads_to_another_file(served, path):
    reply = served.ask("GET", f"/playground/{path}")
    assert reply.status == 404
    assert reply.error["code"] == "not_found"


def test_the_page_needs_no_key_and_its_questions_do(serve):
    with serve(api_keys=(b"k" * 20,)) as server:
        assert server.ask("GET", "/").status == 200
        assert server.ask("GET", "/playground/style.css").status == 200
        assert server.post("/playground/next-byte", prompt="It was").status == 401


def test_questions_are_answered_as_the_library_does(served, tiny):
    asked = {"prompt": "größer", "position": 3, "scratchpad_threshold": "-inf"}
    reply = served.post("/playground/next-byte", **asked)
    expected = next_byte(tiny, "größer", position=3, scratchpad_threshold_nats=-math.inf)
    assert reply.json["byte"] == expected["byte"]
    assert reply.json["with"] == pytest.approx(expected["with"], abs=1e-6)
    assert reply.json["without"] == pytest.approx(expected["without"], abs=1e-6)
    reply = served.post("/playground/marks", prompt=list("größer".encode()))
    expected = marks(tiny, "größer")
    assert reply.json["ends_patch"] == expected["ends_patch"]


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"prompt": "a", "position": 1}, "position is 1; allowed: -1"),
        ({"prompt": ["a", "b"]}, "one prompt"),
        ({"prompt": "a" * 20_000}, "20000 bytes; allowed: 16384"),
        ({"prompt": "a", "compute": 0.5}, "no calibration"),
        ({}, "`prompt` is missing"),
    ],
)
def test_questions_that_are_none_are_refused(served, asked, says):
    reply = served.post("/playground/next-byte", **asked)
    assert reply.status == 400
    assert says in reply.error["message"]
