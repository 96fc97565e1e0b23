import base64
import hashlib
import html
import json
import math
import re
import shutil
import subprocess
from html.parser import HTMLParser

import numpy as np
import pytest

from patchpad.inspection.inspection import NULL_CONTEXT, SEPARATOR_SLOT, inspect
from patchpad.inspection.page import Cells, render_page, write_page
from patchpad.testing import random_documents, sharp_model, tiny_model_config

CONTEXT_BYTES = 64
TEXT = (
    random_documents(7, [2 * CONTEXT_BYTES + 30])[0]
    + "<b>&amp;</script>é日🙂\u05e9\u0301\u202e\n".encode()
    + b"\xff\x00"
)
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
VOID = {"meta", "br", "hr", "img", "link", "input"}


@pytest.fixture(scope="module")
def model():
    return sharp_model(tiny_model_config("spacebyte", context_bytes=CONTEXT_BYTES))


@pytest.fixture(scope="module")
def one(model):
    return inspect(model, TEXT, scratchpad_threshold_nats=1.25, with_grid=True)


class Page(HTMLParser):
    """Checks that tags balance and ids are unique; keeps the text's cells and all attributes."""

    def __init__(self, source):
        super().__init__()
        self.open, self.attributes, self.cells, self.words = [], [], [], ""
        self.feed(source)
        self.close()
        assert self.open == []
        ids = [value for _, name, value in self.attributes if name == "id"]
        assert len(ids) == len(set(ids))

    def handle_starttag(self, tag, attrs):
        self.attributes += [(tag, name, value) for name, value in attrs]
        if tag not in VOID:
            self.open.append((tag, dict(attrs)))
        if tag == "i" and ("div", "bytes") in [(name, found.get("id")) for name, found in self.open]:
            self.cells.append([dict(attrs).get("class", "").split(), ""])

    def handle_data(self, data):
        if self.open and self.open[-1][0] == "i" and self.cells:
            self.cells[-1][1] += data
        self.words += data

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag


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


def test_every_byte_and_every_separator_has_a_cell_with_its_marks(one):
    page, cells = Page(render_page(one, name="a.txt")), Cells.of(one)
    assert len(page.cells) == len(cells.byte) == len(TEXT) + len(one.windows)
    for place, (classes, text) in enumerate(page.cells):
        byte = int(cells.byte[place])
        is_separator = byte < 0
        assert ("sep" in classes) == is_separator
        assert ("end" in classes) == (not is_separator and bool(one.patch_end[byte]))
        assert ("pad" in classes) == bool(cells.scratchpad[place])
        if "x" in classes and text != "↵":
            assert text == f"{TEXT[byte]:02X}"
        elif text == "↵":
            assert TEXT[byte] == 0x0A
        elif text and not is_separator:
            assert text.encode() == TEXT[byte : byte + 1]
    assert np.flatnonzero(cells.byte < 0).tolist() == [65 * window for window in range(4)]
    assert cells.scratchpad.sum() == one.num_scratchpads > 0


def test_characters_of_several_bytes_are_one_glyph_above_their_cells(one):
    source = render_page(one, name="a.txt")
    for glyph, count in (("é", 2), ("日", 3), ("🙂", 4), ("◌\u0301", 2)):
        assert re.search(f'<span class="u u{count}"><b>{glyph}</b>(<i[^>]*></i>){{{count}}}</span>', source), glyph
    assert "\u202e" not in source, "it would reorder what follows"


def test_text_cannot_leave_its_place_in_the_page(model):
    hostile = b"</div></script><script>x()</script>\xe2\x80\xa8<!--"
    source = render_page(inspect(model, hostile), name="<i>&.txt", model_name="<u>", note="<s>")
    assert len(Page(source).cells) == len(hostile) + 1
    assert source.count("<script>") == 1
    for name in ("<u>", "<s>", "<i>&.txt"):
        assert html.escape(name) in source
    assert "<h1><i>" not in source


def test_a_model_without_a_threshold_in_nats_has_no_slider_and_the_page_says_why():
    stride = sharp_model(tiny_model_config(trigger="stride", context_bytes=CONTEXT_BYTES))
    page = Page(render_page(inspect(stride, TEXT, with_grid=True), name="a.txt"))
    assert not [entry for entry in page.attributes if entry[1:] == ("id", "slider")]
    assert "its trigger is stride" in page.words
    assert "entropy of the next byte" not in page.words


def test_page_is_whole_or_absent(one, tmp_path):
    write_page(tmp_path / "page.html", one, name="a.txt")
    assert (tmp_path / "page.html").read_text(encoding="utf-8") == render_page(one, name="a.txt")
    assert [file.name for file in tmp_path.iterdir()] == ["page.html"]
    with pytest.raises(OSError, match="missing"):
        write_page(tmp_path / "missing" / "page.html", one, name="a.txt")


WALK = """
const by = (id) => document.getElementById(id), box = by("bytes");
const press = (key) => box.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true }));
const field = (name) => document.querySelector(`#readout [data-field=${name}]`)?.textContent ?? null;
const state = () => {
  const found = { number: by("number")?.value, slider: by("slider")?.value, cells: [] };
  for (const id of ["pads", "patches", "calls", "calls-detail", "bpb", "lag"]) found[id] = by(id).textContent;
  found.marked = Array.from(document.querySelectorAll("#bytes i"), (cell) => cell.classList.contains("pad"));
  press("Home");
  for (let i = 0; i < found.marked.length; i++) {
    const blue = document.querySelectorAll("#bytes .pool, #bytes .slot").length;
    found.cells.push([field("byte"), field("lag"), field("reads"), blue]);
    press("ArrowRight");
  }
  return found;
};
const results = [];
try { JOBS } catch (error) { results.push({ error: String(error.stack) }); }
const out = document.createElement("pre");
out.id = "result";
out.textContent = JSON.stringify(results);
document.body.append(out);
"""


@pytest.fixture
def in_browser(tmp_path):
    """Runs JavaScript in a copy of a page, under the page's own policy, and returns what it pushed to `results`."""
    if CHROMIUM is None:
        pytest.skip("no chromium, chromium-browser, google-chrome or chrome on the path")

    def run(source, jobs, fragment=""):
        script = WALK.replace("JOBS", jobs)
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        source = source.replace("script-src ", f"script-src 'sha256-{digest}' ", 1)
        path = tmp_path / "page.html"
        path.write_text(source.replace("</body>", f"<script>{script}</script></body>"), encoding="utf-8", newline="")
        flags = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
        more = ["--disable-component-update", "--disable-sync", f"--user-data-dir={tmp_path / 'profile'}"]
        more += ["--virtual-time-budget=3000", "--dump-dom"]
        called = subprocess.run(
            [CHROMIUM, *flags.split(), *more, path.as_uri() + fragment], capture_output=True, timeout=120, check=True
        )
        dom = called.stdout.decode("utf-8")
        results = json.loads(html.unescape(re.search(r'<pre id="result">(.*?)</pre>', dom, re.DOTALL)[1]))
        assert not [entry for entry in results if isinstance(entry, dict) and "error" in entry], results
        return results

    return run


def check_state(found, model, threshold):
    """What the page shows equals an inspection at that threshold."""
    one = inspect(model, TEXT, scratchpad_threshold_nats=threshold)
    cells = Cells.of(one)
    assert found["pads"] == f"{one.num_scratchpads:,}"
    assert found["patches"] == f"{one.num_patches:,}"
    assert found["calls"] == f"{one.point.trunk_calls_per_byte:.4f}"
    assert found["calls-detail"].startswith(f"{one.trunk_calls:,} in all")
    assert found["lag"] == f"{one.mean_patch_lag:.2f}"
    assert found["marked"] == cells.scratchpad.tolist()
    kinds = one.slot_kinds()
    for (byte_text, lag, reads, num_blue), byte in zip(found["cells"], cells.byte.tolist(), strict=True):
        if byte < 0:
            assert byte_text == "separator"
            continue
        assert byte_text == f"byte{byte:,} = 0x{TEXT[byte]:02X}"
        if kinds[byte] is None:
            assert lag is None
            assert "not read" in reads
            continue
        assert lag.removeprefix("lag").split()[0] == str(one.patch_lag[byte])
        slot = int(one.slot_byte[byte])
        expected = {
            NULL_CONTEXT: "readsthe null context",
            SEPARATOR_SLOT: "readsscratchpad at the separator,",
        }.get(slot, f"reads{kinds[byte]} at byte {slot:,},")
        assert reads.startswith(expected)
        pooled = re.search(r"pools (\d+) positions", reads)
        assert num_blue == (0 if slot == NULL_CONTEXT else int(pooled[1]) if pooled else 1)
    return one


@pytest.mark.browser
def test_slider_and_number_move_the_scratchpads_as_inspect_does(in_browser, model, one):
    scores = Cells.of(one).score
    # In float32 it lies on a score, in float64 below it: the comparison must be the model's own.
    on_a_score = float(np.sort(scores[~np.isnan(scores)])[60]) * (1 - 1e-9)
    jobs = f"""
      results.push(state());
      const slide = (at) => {{ by("slider").value = at; by("slider").dispatchEvent(new Event("input")); }};
      const type = (t) => {{ by("number").value = t; by("number").dispatchEvent(new Event("input")); }};
      const low = Number(by("slider").min), high = Number(by("slider").max);
      for (const share of [0.2, 0.5, 0.8, 1, 0]) {{ slide(low + share * (high - low)); results.push(state()); }}
      for (const t of ["{on_a_score!r}", "inf", "-inf", "\\u2212\\u221e"]) {{ type(t); results.push(state()); }}
      type("many"); results.push(by("number").getAttribute("aria-invalid"));
      for (const id of ["none", "every", "stored"]) {{ by(id).click(); results.push(state()); }}
    """
    results = in_browser(render_page(one, name="a.txt"), jobs)
    assert results.pop(10) == "true"
    thresholds = [float(found["number"].replace("\u2212\u221e", "-inf")) for found in results]
    stored = float(model.scratchpad_threshold_nats)
    ends = [math.inf, -math.inf]
    assert thresholds[0] == 1.25
    assert thresholds[4:] == [*ends, pytest.approx(on_a_score), *ends, -math.inf, *ends, pytest.approx(stored)]
    assert thresholds[1] < thresholds[2] < thresholds[3]
    counts = set()
    for found, threshold in zip(results, [*thresholds[:6], on_a_score, *thresholds[7:]], strict=True):
        counts.add(check_state(found, model, threshold).num_scratchpads)
    assert len(counts) >= 6


@pytest.mark.browser
def test_bits_per_byte_are_exact_on_the_grid_and_marked_between(in_browser, one):
    points = {point.scratchpad_threshold_nats: point for point in one.grid}
    calls = sorted(point.trunk_calls_per_byte for point in one.grid)
    jobs = """
      for (const t of THRESHOLDS) {
        by("number").value = t;
        by("number").dispatchEvent(new Event("input"));
        const dot = document.querySelector("#curve .now");
        results.push([by("bpb").textContent, by("calls").textContent, dot.getAttribute("cx")]);
      }
    """
    between = [1.0 + step / 10 for step in range(30)]
    asked = [*points, *between]
    results = in_browser(
        render_page(one, name="a.txt"), jobs.replace("THRESHOLDS", json.dumps([str(value) for value in asked]))
    )
    for threshold, (bits, *_) in zip(points, results, strict=False):
        assert bits == f"{points[threshold].bits_per_byte:.4f}", threshold
    assert any(bits.startswith("≈ ") for bits, *_ in results[len(points) :])
    for bits, rate, _ in results[len(points) :]:
        if bits.startswith("≈"):
            assert calls[0] < float(rate) < calls[-1]
            values = [point.bits_per_byte for point in one.grid]
            assert min(values) <= float(bits[2:]) + 1e-4
            assert float(bits[2:]) - 1e-4 <= max(values)
    rates = [(float(rate), float(x)) for _, rate, x in results]
    assert [x for _, x in sorted(rates)] == sorted(x for _, x in rates), "the dot is further right with more compute"


@pytest.mark.browser
def test_address_sets_the_threshold_and_keys_move_between_bytes(in_browser, model, one):
    jobs = """
      results.push(state());
      press("Home"); press("ArrowRight"); press("ArrowRight"); press("ArrowRight"); results.push(field("byte"));
      press("ArrowLeft"); results.push(field("byte"));
      press("End"); results.push(field("byte"));
      press("ArrowRight"); results.push(field("byte"));
      press("Enter"); results.push(field("byte"));
      press("ArrowUp"); results.push(Number(document.querySelector(".at").dataset.i) < LAST);
      press("Home"); press("ArrowLeft"); results.push(field("byte"));
      results.push([box.tabIndex, document.querySelectorAll("#bytes .at").length]);
      for (const shade of ["nats", "lag", "entropy"]) {
        const radio = document.querySelector(`input[value=${shade}]`);
        radio.checked = true;
        radio.dispatchEvent(new Event("change"));
        results.push(Array.from(document.querySelectorAll("#bytes i"), (cell) =>
          Number(/\\be(\\d+)\\b/.exec(cell.className)?.[1] ?? 0)));
      }
    """.replace("LAST", str(len(TEXT)))
    found, right, left, end, beyond, slot, is_above, home, focus, *shades = in_browser(
        render_page(one, name="a.txt"), jobs, "#threshold=0.75"
    )
    at_address = check_state(found, model, 0.75)
    assert found["number"] == "0.75"
    last = len(TEXT) - 1
    assert (right, left) == (f"byte2 = 0x{TEXT[2]:02X}", f"byte1 = 0x{TEXT[1]:02X}")
    assert end == beyond == f"byte{last} = 0x{TEXT[last]:02X}"
    assert slot.startswith(f"byte{at_address.slot_byte[last]} ")
    assert is_above
    assert home == "separator"
    assert focus == [0, 1]
    cells = Cells.of(one)  # costs are those of the threshold at which the page was made
    full = [min(5.5, math.ceil(2 * np.nanmax(values)) / 2) for values in (cells.nats, cells.entropy_nats)]
    for shade, values, deepest in ((shades[0], cells.nats, full[0]), (shades[2], cells.entropy_nats, full[1])):
        np.testing.assert_allclose(shade, 10 * np.minimum(np.nan_to_num(values) / deepest, 1), atol=0.5001)
    lags = np.insert(at_address.patch_lag, at_address.windows.first_byte, 0)
    longest = inspect(model, TEXT, scratchpad_threshold_nats=math.inf).patch_lag.max()
    np.testing.assert_allclose(shades[1], 10 * np.maximum(lags, 0) / longest, atol=0.5001)


@pytest.mark.browser
def test_moving_the_slider_moves_the_shades_of_lags_and_the_address(in_browser, model, one):
    jobs = """
      const shaded = () => document.querySelectorAll(SHADES).length;
      document.querySelector("input[value=lag]").click();
      for (const t of ["inf", "-inf"]) {
        by("number").value = t;
        by("number").dispatchEvent(new Event("input"));
        results.push(shaded());
      }
      setTimeout(() => {
        by("slider").value = Number(by("slider").max) - 100;
        by("slider").dispatchEvent(new Event("input"));
        results.push(Number(by("number").value));
      }, 700);
      setTimeout(() => {
        results.push(location.hash, by("announce").textContent, by("status").textContent);
        out.textContent = JSON.stringify(results);
      }, 2000);
    """.replace("SHADES", json.dumps(",".join(f"#bytes .e{level}" for level in range(1, 11))))
    before, shaded, threshold, address, said, shown = in_browser(render_page(one, name="a.txt"), jobs)
    assert before > 10
    assert shaded == 0, "the trunk at every byte leaves no lag"
    assert address == f"#threshold={threshold:g}"
    assert said == shown
    count = inspect(model, TEXT, scratchpad_threshold_nats=threshold).num_scratchpads
    assert said.startswith(f"{count} scratchpads")


@pytest.mark.browser
def test_page_without_a_slider_works_too(in_browser):
    stride = sharp_model(tiny_model_config(trigger="stride", context_bytes=CONTEXT_BYTES))
    check_state(in_browser(render_page(inspect(stride, TEXT), name="a"), "results.push(state());")[0], stride, None)
