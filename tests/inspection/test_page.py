"""The page of an inspection as a file: what it holds, and that nothing can leave its place."""

import base64
import hashlib
import html
import json
import math
import re
import zlib
from html.parser import HTMLParser

import numpy as np
import pytest

from patchpad.inspection import along_threshold
from patchpad.inspection.inspection import inspect
from patchpad.inspection.page import render_page, write_page
from patchpad.inspection.page_data import Cells
from patchpad.testing import random_documents, sharp_model, tiny_model_config

CONTEXT_BYTES = 64
TEXT = random_documents(7, [2 * CONTEXT_BYTES + 30])[0] + "<b>&amp;</script>é日🙂\n".encode() + b"\xff\x00"
VOID = {"meta", "br", "hr", "img", "link", "input"}


@pytest.fixture(scope="module")
def model():
    return sharp_model(tiny_model_config("spacebyte", context_bytes=CONTEXT_BYTES))


@pytest.fixture(scope="module")
def one(model):
    return inspect(model, TEXT, scratchpad_threshold_nats=1.25, with_grid=True)


class Page(HTMLParser):
    """Checks that tags balance and ids are unique; keeps all attributes and words."""

    def __init__(self, source):
        super().__init__()
        self.open, self.attributes, self.words = [], [], ""
        self.feed(source)
        self.close()
        assert self.open == []
        ids = [value for _, name, value in self.attributes if name == "id"]
        assert len(ids) == len(set(ids))

    def handle_starttag(self, tag, attrs):
        self.attributes += [(tag, name, value) for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_data(self, data):
        self.words += data

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def unpacked(source):
    """The numbers and arrays of a page, read as its script does."""
    numbers = json.loads(re.search(r'id="data">(.*?)</script>', source, re.DOTALL)[1])
    flat = zlib.decompress(base64.b64decode(re.search(r'id="arrays">(.*?)</script>', source, re.DOTALL)[1]))
    arrays, at = {}, 0
    for part in numbers["parts"]:
        size = part["itemBytes"] * part["count"]
        planes = np.frombuffer(flat[at : at + size], dtype=np.uint8).reshape(part["itemBytes"], -1)
        arrays[part["name"]] = np.ascontiguousarray(planes.T).view({1: "u1", 2: "<u2", 4: "<f4"}[part["itemBytes"]])[
            :, 0
        ]
        at += size
    assert at == len(flat)
    return numbers, arrays


def test_page_loads_nothing_and_runs_its_own_script_only(one):
    source = render_page(one, name="a.txt", model_name="runs/x", note="the first 5 of 9 bytes")
    page = Page(source)
    assert not {tag for tag, _, _ in page.attributes} & {"img", "link", "iframe", "object", "embed", "audio", "video"}
    assert not [entry for entry in page.attributes if entry[1] in ("src", "href", "srcset", "action")]
    assert not re.search(r"url\(|@import|fetch\(|XMLHttpRequest", source)
    assert set(re.findall(r"https?://[^\"']*", source)) <= {"http://www.w3.org/2000/svg"}, "a name, not an address"
    policy = next(value for _, name, value in page.attributes if name == "content" and "default-src" in value)
    script = re.findall(r"<script>(.*?)</script>", source, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script[0].encode()).digest()).decode()
    assert len(script) == 1
    assert policy == f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"


def test_arrays_of_the_page_give_the_inspection_back(one):
    numbers, arrays = unpacked(render_page(one, name="a.txt"))
    cells, rows = Cells.of(one), len(one.along.points)
    assert bytes(arrays["value"]) == TEXT
    np.testing.assert_array_equal(arrays["flags"], cells.flags)
    np.testing.assert_array_equal(arrays["score"], cells.score)
    assert np.flatnonzero(cells.byte < 0).tolist() == [65 * window for window in range(len(one.windows))]
    assert cells.scratchpad.sum() == one.num_scratchpads > 0
    assert "entropy" not in arrays, "it is the score"
    bits = np.cumsum(arrays["cost"].reshape(rows, -1), axis=0, dtype=np.uint16) / numbers["costSteps"]
    np.testing.assert_allclose(bits, one.along.nats / math.log(2), atol=0.5 / 256 + 1e-6)
    assert [point["bpb"] for point in numbers["points"]] == [point.bits_per_byte for point in one.along.points]
    found = one.along.next_bytes
    with_ids, with_steps = (
        np.cumsum(arrays[name].reshape(found.with_ids.shape), axis=0, dtype=np.uint8)
        for name in ("likelyIds", "likelySteps")
    )
    without_ids = arrays["otherIds"].reshape(with_ids.shape) + with_ids
    without_steps = arrays["otherSteps"].reshape(with_ids.shape) + with_steps
    np.testing.assert_array_equal(with_ids, found.with_ids)
    np.testing.assert_array_equal(without_ids, found.without_ids)
    for steps, probability in ((with_steps, found.with_probability), (without_steps, found.without_probability)):
        np.testing.assert_allclose((steps / 255) ** 2, probability, atol=0.004)


def test_entropies_that_are_not_the_score_are_kept_too():
    jump = sharp_model(tiny_model_config(trigger="entropy_jump", context_bytes=CONTEXT_BYTES))
    one = inspect(jump, TEXT)
    _, arrays = unpacked(render_page(one, name="a.txt"))
    np.testing.assert_array_equal(arrays["entropy"], Cells.of(one).entropy_nats)


def test_a_long_text_takes_few_bytes_of_the_page_for_each_of_its_own(model, monkeypatch):
    monkeypatch.setattr(along_threshold, "SHORT_BYTES", 100)
    monkeypatch.setattr(along_threshold, "LIKELIEST_BYTES", 1)
    monkeypatch.setattr(along_threshold, "PASS_BYTES", CONTEXT_BYTES)
    sizes = [
        len(render_page(inspect(model, text, with_grid=True), name="a")) for text in random_documents(5, [300, 1300])
    ]
    assert (sizes[1] - sizes[0]) / 1000 < 30


def test_text_cannot_leave_its_place_in_the_page(model):
    hostile = b"</div></script><script>x()</script>\xe2\x80\xa8<!--"
    source = render_page(inspect(model, hostile), name="<i>&.txt", model_name="<u>", note="<s>")
    Page(source)
    assert bytes(unpacked(source)[1]["value"]) == hostile
    assert source.count("<script>") == 1
    assert "x()" not in source
    for name in ("<u>", "<s>", "<i>&.txt"):
        assert html.escape(name) in source
    assert "<h1><i>" not in source


def test_a_model_without_a_threshold_in_nats_has_no_slider_and_the_page_says_why():
    stride = sharp_model(tiny_model_config(trigger="stride", context_bytes=CONTEXT_BYTES))
    source = render_page(inspect(stride, TEXT), name="a.txt")
    assert 'id="slider"' not in source
    assert "its trigger is <code>stride</code>" in source
    assert 'value="entropy"' not in source
    assert 'id="curve"' not in source


def test_gain_is_the_first_shade_where_it_was_measured_and_is_not_offered_where_not(model, one):
    assert re.search(r'value="gain" checked', render_page(one, name="a.txt"))
    source = render_page(inspect(model, TEXT), name="a.txt")
    assert 'value="gain"' not in source
    assert re.search(r'value="entropy" checked', source)


def test_page_says_what_it_shows(one):
    page = Page(render_page(one, name="a.txt", model_name="runs/x", note="the first 5 of 9 bytes"))
    for words in (
        "The first 5 of 9 bytes · Model runs/x",
        "spacebyte patches at word ends",
        f"{one.num_patches:,}",
        f"{one.trunk_cache_entries:,} entries of {one.trunk_cache_bytes_per_entry:,} bytes",
        "of one window, all start empty",
        "8 = no model",
        "Bits per byte against trunk calls per byte",
    ):
        assert words in page.words, words


def test_page_is_written_whole_or_not_at_all(one, tmp_path):
    write_page(tmp_path / "page.html", one, name="a.txt")
    assert (tmp_path / "page.html").read_text(encoding="utf-8") == render_page(one, name="a.txt")
    assert [file.name for file in tmp_path.iterdir()] == ["page.html"]
    with pytest.raises(OSError, match="missing"):
        write_page(tmp_path / "missing" / "page.html", one, name="a.txt")
