"""The explainer shows what the model gives, its committed page is up to date, and its controls move the figure."""

import base64
import hashlib
import html
import json
import math
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from explainer_curves import change, lag_costs, settings_of
from explainer_drawings import Totals
from explainer_measuring import measure
from explainer_page import PAGE, figure_data, newest, render
from explainer_texts import ReadText, Slots, read_text

import patchpad
from patchpad.config import SEPARATOR, PatchifierConfig
from patchpad.data import Corpus, cut_windows
from patchpad.evaluation.bits_per_byte import evaluate
from patchpad.patching.patchifiers import FixedPatchifier
from patchpad.testing import random_documents, safe_threshold, sharp_model, tiny_model_config

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
TEXTS = {"First": "A <b>bold</b> line & more.\nThe end,", "Second": "x = {1: 'one', 2: \"two\"}"}
SIZE, SIZES = 4, (1, 2, 4)
BITS = 0.0006
"""Costs are kept in thousandths of a bit; the rest is rounding of the model's own."""
FACTS = {"date": "2000-01-01T00:00:00", "torch_version": "0", "commit": "0123456789"}


@pytest.fixture(scope="module")
def model():
    model = sharp_model(tiny_model_config(patch_size=SIZE, max_patch_size=SIZE))
    ids = torch.tensor([[SEPARATOR, *TEXTS["First"].encode()]])
    with torch.no_grad():
        model.store_threshold(safe_threshold(model(ids, math.inf).entropy_nats, 0.25))
    return model


@pytest.fixture(scope="module")
def data(model):
    return figure_data(model, TEXTS)


@pytest.fixture(scope="module")
def measured(model):
    documents = random_documents(3, [150, 90, 200])
    corpora = {name: _corpus(name, documents) for name in ("one text", "another <text>")}
    return measure(model, corpora) | {"provenance": FACTS}


@pytest.fixture(scope="module")
def page(data, measured, model):
    return render(data, measured, model.config, "2000-01-01-explainer.json")


def _corpus(name, documents):
    return Corpus(tuple(np.frombuffer(one, dtype=np.uint8) for one in documents), (name,) * len(documents))


def _run(model, text, size, threshold):
    """One row, by itself: layout, and what each byte costs in bits."""
    patchifier = FixedPatchifier(PatchifierConfig(kind="fixed", target_patch_size=size))
    decisions = replace(model.decisions(threshold, batch=1), patchifier=patchifier)
    ids = torch.tensor([[SEPARATOR, *text]])
    with torch.no_grad():
        output = model(ids, decisions=decisions)
    nats = -output.logits[0, :-1].double().log_softmax(-1).gather(1, ids[0, 1:, None])[:, 0]
    return output.layout, nats.numpy() / math.log(2)


@pytest.mark.parametrize("size", SIZES)
def test_slots_and_costs_of_the_figure_are_those_of_the_model_at_every_number_of_scratchpads(model, data, size):
    for one in data["texts"]:
        text = ReadText.from_dict(one)
        num_rows = len(text.millibits[size])
        assert num_rows == 1 + int((~Slots.of(text.entropy_nats, size, math.inf).patch_end).sum())
        eligible = np.sort(text.entropy_nats[~Slots.of(text.entropy_nats, size, math.inf).patch_end])[::-1]
        middle = num_rows // 3
        between = (float(eligible[middle - 1]) + float(eligible[middle])) / 2
        for threshold in (math.inf, between, -math.inf):
            slots = Slots.of(text.entropy_nats, size, threshold)
            layout, bits = _run(model, text.text, size, threshold)
            assert slots.patch_end.tolist() == layout.patch_end_mask[0].tolist()
            assert slots.scratchpad.tolist() == layout.scratchpad_mask[0].tolist()
            assert slots.lag.tolist() == layout.patch_lag[0].tolist()
            newest_slot = layout.newest_slot[0]
            byte = torch.where(newest_slot > 0, layout.slot_byte[newest_slot.clamp_min(1) - 1], -1)
            assert slots.slot.tolist() == byte.tolist()
            np.testing.assert_allclose(text.bits(size, slots.num_scratchpads), bits, atol=BITS)


def test_text_that_no_threshold_can_tell_apart_is_refused(model):
    flat = sharp_model(tiny_model_config(patch_size=SIZE, max_patch_size=SIZE))
    with torch.no_grad():
        flat.entropy_head.lm_head.weight.zero_()
    with pytest.raises(ValueError, match="no threshold gives exactly 1 scratchpads with patches of 4 bytes"):
        read_text(flat, "flat", "all alike", [SIZE])


def test_measured_settings_are_those_of_an_evaluation(model, measured):
    corpus = _corpus("one text", random_documents(3, [150, 90, 200]))
    windows = cut_windows(corpus, model.config.context_bytes)
    stored = float(model.scratchpad_threshold_nats)
    points = evaluate(model, windows, scratchpad_threshold_nats=[math.inf, stored, -math.inf], limit_bytes=0)
    (text, _) = measured["texts"]
    assert text["num_bytes"] == 440
    for name, point in zip(("never", "stored", "always"), points, strict=True):
        (found,) = settings_of(text, name)
        for key in ("bits_per_byte", "scratchpads_per_byte", "trunk_calls_per_byte"):
            assert found[key] == pytest.approx(getattr(point, key), rel=1e-6)
    (never,) = settings_of(text, "never")
    assert [lag for lag, _, _ in never["by_lag"]] == list(range(SIZE))
    assert [bits for _, bits, _ in never["by_lag"]] == pytest.approx(never["by_place"]), "lag is the place, from 0"
    (always,) = settings_of(text, "always")
    assert always["mean_patch_lag"] == 0
    (without,) = settings_of(text, "trunk not read")
    assert without["bits_per_byte"] != pytest.approx(never["bits_per_byte"], rel=1e-4)
    assert len(settings_of(text, "random")) == 12
    own = [one for one in measured["patch_sizes"] if one["patch_size"] == SIZE]
    assert [one["bits_per_byte"] for one in own] == pytest.approx([point.bits_per_byte for point in points[:2]])
    assert {one["patch_size"] for one in measured["patch_sizes"]} == set(SIZES)


class Parsed(HTMLParser):
    def __init__(self, source):
        super().__init__()
        self.columns, self.texts, self.links, self.tags, self.ids, self._id = [], {}, [], set(), [], None
        self.feed(source)
        self.close()

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.tags.add(tag)
        self._id = values.get("id")
        if self._id:
            self.ids.append(self._id)
        self.links += [values[name] for name in ("href", "src") if name in values]
        if tag == "span" and "col" in values.get("class", "").split():
            self.columns.append([values["class"].split(), values["style"], ""])

    def handle_data(self, text):
        if self._id:
            self.texts.setdefault(self._id, text)
            self._id = None
        elif self.columns and len(self.columns[-1][2]) < 1:
            self.columns[-1][2] += text


def test_page_shows_a_first_state_without_its_script(page, data, measured):
    parsed = Parsed(page)
    text, size = ReadText.from_dict(data["texts"][0]), data["patchSize"]
    slots = Slots.of(text.entropy_nats, size, data["threshold"])
    bits = text.bits(size, slots.num_scratchpads)
    assert len(parsed.columns) == len(text.text) + 1
    assert 0 < slots.num_scratchpads < len(text.text)
    for n, (classes, style, shown) in enumerate(parsed.columns):
        assert ("end" in classes, "pad" in classes) == (slots.patch_end[n], slots.scratchpad[n])
        cost = bits[n - 1] if n else 0
        assert style == f"--bits:{cost:.3f};--behind:{slots.lag[n]}"
        assert shown == ("»" if n == 0 else {" ": "␣", "\n": "↵"}.get(chr(text.text[n - 1]), chr(text.text[n - 1])))
    totals = Totals.of(text, slots, size, data["entryBytes"])
    assert parsed.texts["calls"] == totals.calls == str(slots.num_patches + slots.num_scratchpads)
    assert parsed.texts["cache"] == totals.cache == str(len(text.text) // size)
    assert parsed.texts["bits"] == f"{bits.mean():.3f}"
    assert parsed.texts["lag"] == f"{slots.lag[1:].mean():.2f}"
    assert "$" not in re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)


def test_page_loads_nothing_and_runs_its_own_script_only(page):
    parsed = Parsed(page)
    assert len(parsed.ids) == len(set(parsed.ids))
    assert not parsed.tags & {"img", "link", "iframe", "object", "embed", "audio", "video"}
    pages = {f"{file.stem}.html" for file in PAGE.parent.glob("*.md")}
    assert set(parsed.links) - pages == {"https://arxiv.org/abs/2605.09630"}
    (script,) = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'" in page
    assert not re.search(r"url\(|@import|fetch\(|XMLHttpRequest", page)


def _data_of(page):
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)[1])


def test_committed_page_is_what_the_recipe_makes_of_its_numbers():
    committed = PAGE.read_text(encoding="utf-8")
    name, measured = newest()
    made = render(_data_of(committed), measured, patchpad.load().config, name)
    assert made == committed, "run python recipes/explainer_page.py"
    assert len(committed.encode()) < 600_000


def test_numbers_of_the_committed_page_are_those_of_the_shipped_model():
    data, model = _data_of(PAGE.read_text(encoding="utf-8")), patchpad.load()
    assert data["threshold"] == float(model.scratchpad_threshold_nats)
    for one in data["texts"]:
        text = ReadText.from_dict(one)
        inspection = patchpad.inspect(model, text.text)
        assert data["entryBytes"] == inspection.trunk_cache_bytes_per_entry
        slots = Slots.of(text.entropy_nats, data["patchSize"], data["threshold"])
        assert slots.scratchpad[1:].tolist() == inspection.scratchpad.tolist()
        assert slots.lag[1:].tolist() == inspection.patch_lag.tolist()
        shown = text.bits(data["patchSize"], slots.num_scratchpads)
        np.testing.assert_allclose(shown, inspection.nats / math.log(2), atol=0.002)
        np.testing.assert_allclose(text.entropy_nats[1:], inspection.entropy_nats, atol=0.001)
        for size in (1, 2, 4, 8, 16):
            _, bits = _run(model, text.text, size, math.inf)
            np.testing.assert_allclose(text.bits(size, 0), bits, atol=0.002)


JOBS = """
const results = [], by = (id) => document.getElementById(id);
const state = () => ({
  classes: Array.from(document.querySelectorAll("#strip .col"), (one) => one.className.split(" ")),
  lags: Array.from(document.querySelectorAll("#strip .col"), (one) => one.textContent.slice(1)),
  costs: Array.from(document.querySelectorAll("#strip .col"), (one) => one.style.getPropertyValue("--bits")),
  ...Object.fromEntries(["calls", "cache", "lag", "bits-detail", "readout"].map((id) => [id, by(id).textContent])),
  mean: by("bits").textContent, warns: by("outside").classList.contains("now"), hidden: by("controls").hidden,
});
const pick = (name, value) => document.querySelector(`input[name=${name}][value="${value}"]`).click();
const slide = (value) => { by("threshold").value = value; by("threshold").dispatchEvent(new Event("input")); };
const press = (key) => by("strip").dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
try {
  WORK
} catch (error) { results.push({ error: String(error.stack) }); }
const out = document.createElement("pre");
out.id = "result";
out.textContent = JSON.stringify(results);
document.body.append(out);
"""


@pytest.fixture
def in_browser(tmp_path):
    """Runs JavaScript in a copy of the page, under the page's own policy, and returns what it pushed to `results`."""
    if CHROMIUM is None:
        pytest.skip("no chromium, chromium-browser, google-chrome or chrome on the path")

    def run(source, work, width=1000):
        script = JOBS.replace("WORK", work)
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        source = source.replace("script-src ", f"script-src 'sha256-{digest}' ", 1)
        file = tmp_path / "page.html"
        file.write_text(source.replace("</body>", f"<script>{script}</script></body>"), encoding="utf-8", newline="")
        flags = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
        more = ["--disable-component-update", "--disable-sync", f"--user-data-dir={tmp_path / 'profile'}"]
        called = subprocess.run(
            [
                CHROMIUM,
                *flags.split(),
                *more,
                f"--window-size={width},900",
                "--virtual-time-budget=2000",
                "--dump-dom",
                file.as_uri(),
            ],
            capture_output=True,
            timeout=120,
            check=True,
        )
        dom = called.stdout.decode("utf-8")
        results = json.loads(html.unescape(re.search(r'<pre id="result">(.*?)</pre>', dom, re.DOTALL)[1]))
        assert not [one for one in results if isinstance(one, dict) and "error" in one], results
        return results

    return run


def check_state(found, text, size, threshold):
    """What the figure shows is what the model gave for this patch size and threshold."""
    slots = Slots.of(text.entropy_nats, size, threshold)
    bits = text.bits(size, slots.num_scratchpads)
    assert [("end" in one, "pad" in one) for one in found["classes"]] == list(
        zip(slots.patch_end.tolist(), slots.scratchpad.tolist(), strict=True)
    )
    assert [float(one) for one in found["costs"]] == pytest.approx([0, *bits], abs=0.0006)
    assert found["lags"] == [str(lag) for lag in slots.lag]
    assert found["calls"] == str(slots.num_patches + slots.num_scratchpads)
    assert found["cache"] == str(len(text.text) // size)
    assert float(found["lag"]) == pytest.approx(slots.mean_lag, abs=0.0051)
    assert float(found["mean"]) == pytest.approx(bits.mean(), abs=0.00051)
    assert found["hidden"] is False
    assert found["warns"] == (size != SIZE)


@pytest.mark.browser
def test_controls_move_the_figure_as_the_model_does(in_browser, page, data):
    first, second = map(ReadText.from_dict, data["texts"])
    work = """
      results.push(state());
      pick("size", 1); results.push(state());
      pick("size", 2); slide(120); results.push(state());
      by("none").click(); results.push(state());
      by("every").click(); results.push(state());
      pick("text", 1); slide(200); results.push(state());
      pick("size", 4); by("stored").click(); results.push(state());
      slide(by("threshold").min); results.push(by("shown").textContent);
      slide(by("threshold").max); results.push(by("shown").textContent);
    """
    *states, lowest, highest = in_browser(page, work)
    stored = data["threshold"]
    expected = [
        *((first, 4, stored), (first, 1, stored), (first, 2, 1.2), (first, 2, math.inf), (first, 2, -math.inf)),
        *((second, 2, 2.0), (second, 4, stored)),
    ]
    for found, (text, size, threshold) in zip(states, expected, strict=True):
        check_state(found, text, size, threshold)
    assert len({found["calls"] for found in states}) >= 5
    assert states[3]["bits-detail"] == "without scratchpads"
    assert (lowest, highest) == ("−∞", "∞")  # noqa: RUF001


@pytest.mark.browser
def test_keys_show_what_a_byte_reads_and_what_the_next_one_costs(in_browser, page, data):
    text = ReadText.from_dict(data["texts"][0])
    slots = Slots.of(text.entropy_nats, SIZE, data["threshold"])
    work = """
      results.push(by("strip").tabIndex);
      press("ArrowRight");
      for (let n = 0; n < COUNT; n++) { results.push(state()); press("ArrowRight"); }
    """.replace("COUNT", str(len(text.text) + 1))
    tab_index, *states = in_browser(page, work)
    assert tab_index == 0
    costs = text.bits(SIZE, slots.num_scratchpads)
    for n, found in enumerate(states):
        marked = {name: [m for m, one in enumerate(found["classes"]) if name in one] for name in ("at", "read", "pool")}
        slot = int(slots.slot[n])
        first = max(0, (slot - 1) // SIZE * SIZE + 1)
        first = 0 if first == 1 else first
        assert marked == {"at": [n], "read": [slot] if slot >= 0 else [], "pool": list(range(first, max(slot, first)))}
        assert f"lag {slots.lag[n]}." in found["readout"]
        kind = "nothing from the trunk" if slot < 0 else "the commit" if slots.patch_end[slot] else "the scratchpad"
        assert kind in found["readout"]
        if n < len(text.text):
            assert f"costs {costs[n]:.2f} bits" in found["readout"]
    assert "The text ends here." in states[-1]["readout"]


@pytest.mark.browser
def test_committed_page_fits_a_phone_in_every_state(in_browser):
    # The window is narrow enough for the style of phones; no window of this browser is narrower.
    work = """
      const main = document.querySelector("main");
      main.style.width = "360px";
      document.querySelector("details").open = true;
      for (const text of [0, 1, 2]) {
        pick("text", text); pick("size", 2); by("every").click(); press("End");
        results.push([main.clientWidth, main.scrollWidth]);
      }
    """
    assert in_browser(PAGE.read_text(encoding="utf-8"), work, width=500) == [[360, 360]] * 3


def test_what_the_page_says_of_its_measurements_holds_in_them():
    _, measured = newest()
    assert len(measured["texts"]) == 3
    for text in measured["texts"]:
        (stored,) = settings_of(text, "stored")
        random = settings_of(text, "random", is_stored_rate=True)
        assert change(text, [stored]) < 0
        assert change(text, [stored]) < change(text, random)
        (always,) = settings_of(text, "always")
        assert always["bits_per_byte"] > stored["bits_per_byte"], "beyond the stored threshold bits rise again"
        costs = lag_costs(text)
        assert np.mean(costs[12:]) > 2 * np.mean(costs[:4]), "the longer the lag, the more it costs"
    plain = {one["patch_size"]: one["bits_per_byte"] for one in measured["patch_sizes"] if one["places"] == "never"}
    assert sorted(plain, key=plain.__getitem__) == [16, 8, 4, 2, 1], "smaller patches are worse in this model"
