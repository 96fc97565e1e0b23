"""The page of an inspection in a browser: it moves as the model does, and is read as people read."""

# ruff: noqa: RUF001

import json
import math
import re

import numpy as np
import pytest

from patchpad.inspection import along_threshold
from patchpad.inspection.inspection import NULL_CONTEXT, SEPARATOR_SLOT, inspect
from patchpad.inspection.page_data import Cells
from patchpad.testing import random_documents, sharp_model, tiny_model_config

pytestmark = pytest.mark.browser

CONTEXT_BYTES = 64
TEXT = (
    random_documents(7, [2 * CONTEXT_BYTES + 30])[0]
    + "<b>&amp;</script>é日🙂\u05e9\u0301\u202e\n".encode()
    + b"\xff\x00"
)
NUM_CELLS = len(TEXT) + -(-len(TEXT) // CONTEXT_BYTES)
ASCII = b"It was the best of times, it was the worst of times."
ARABIC = "مكتبة الإسكندرية كبيرة"
HEBREW = "ספרייה גדולה"

HELPERS = """
window.by = (id) => document.getElementById(id);
window.press = (key) =>
  by("bytes").dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true }));
window.field = (name) => document.querySelector(`#readout [data-field=${name}]`)?.textContent ?? null;
window.type = (t) => { by("number").value = t; by("number").dispatchEvent(new Event("input")); };
window.slide = (at) => { by("slider").value = at; by("slider").dispatchEvent(new Event("input")); };
window.level = (cell) =>
  (cell.classList.contains("lost") ? -1 : 1) * Number(/\\be(\\d+)\\b/.exec(cell.className)?.[1] ?? 0);
window.state = (count) => {
  const found = { number: by("number")?.value, cells: [] };
  for (const id of ["pads", "patches", "calls", "calls-detail", "bpb", "lag"]) found[id] = by(id).textContent;
  press("Home");
  for (let i = 0; i < count; i++) {
    const cell = document.querySelector(`#lines i[data-i="${i}"]`);
    const mark = cell && !cell.classList.contains("many") ? cell.classList.contains("pad") : null;
    found.cells.push([field("byte"), field("lag"), field("reads"), field("cost"), field("gain"), mark]);
    press("ArrowRight");
  }
  return found;
};
0
"""


@pytest.fixture(scope="module")
def model():
    return sharp_model(tiny_model_config("spacebyte", context_bytes=CONTEXT_BYTES))


@pytest.fixture(scope="module")
def one(model):
    return inspect(model, TEXT, scratchpad_threshold_nats=1.25, with_grid=True)


def state(page, num_cells):
    return page.evaluate(f"state({num_cells})")


def check_state(found, model, threshold):
    """What the page shows equals an inspection at that threshold."""
    one = inspect(model, TEXT, scratchpad_threshold_nats=threshold)
    cells = Cells.of(one)
    assert found["pads"] == f"{one.num_scratchpads:,}"
    assert found["patches"] == f"{one.num_patches:,}"
    assert found["calls"] == f"{one.point.trunk_calls_per_byte:.4f}"
    assert found["calls-detail"].startswith(f"{one.trunk_calls:,} in all")
    assert found["lag"] == f"{one.mean_patch_lag:.2f}"
    kinds = one.slot_kinds()
    marks = cells.scratchpad.tolist()
    for (byte_text, lag, reads, _, _, mark), byte, has_pad in zip(
        found["cells"], cells.byte.tolist(), marks, strict=True
    ):
        assert mark in (None, has_pad)
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
    return one


def open_with_helpers(page):
    page.evaluate(HELPERS)
    return page


def test_slider_and_number_move_the_scratchpads_as_inspect_does(opened, model, one):
    cells = Cells.of(one)
    # In float32 it lies on a score, in float64 below it: the comparison must be the model's own.
    on_a_score = float(np.sort(cells.score[~np.isnan(cells.score)])[60]) * (1 - 1e-9)
    counts = set()
    with opened(one) as page:
        open_with_helpers(page)
        low, high = page.evaluate("[Number(by('slider').min), Number(by('slider').max)]")
        asked = [
            "0",
            *(f"slide({low + share * (high - low)})" for share in (0.4, 1)),
            *(f"type({value!r})" for value in (repr(on_a_score), "inf", "\u2212\u221e")),
            *(f"by({name!r}).click()" for name in ("none", "every", "stored")),
        ]
        for command in asked:
            page.evaluate(command)
            found = state(page, len(cells.byte))
            threshold = on_a_score if repr(on_a_score) in command else float(found["number"].replace("−∞", "-inf"))
            counts.add(check_state(found, model, threshold).num_scratchpads)
        page.evaluate("type('many')")
        assert page.evaluate("by('number').getAttribute('aria-invalid')") == "true"
    assert len(counts) >= 5


def test_costs_and_gains_of_every_byte_are_the_measured_ones_and_marked_between(opened, one):
    with opened(one) as page:
        open_with_helpers(page)
        for at in (0, 3, len(one.along.points) - 1):
            point = one.along.points[at]
            page.evaluate(f"type({str(point.scratchpad_threshold_nats)!r})")
            found = state(page, NUM_CELLS)
            assert found["bpb"] == f"{point.bits_per_byte:.4f}"
            shown = [cell for cell in found["cells"] if cell[3] is not None]
            costs = [float(cell[3].removeprefix("cost").removesuffix(" bits")) for cell in shown]
            np.testing.assert_allclose(costs, one.along.nats[at] / math.log(2), atol=0.008)
            for cell, saved in zip(shown, one.along.bits_saved[at], strict=True):
                text = cell[4].removeprefix("gain")
                if text == "scratchpads change nothing":
                    assert abs(saved) < 0.011
                    continue
                sign = 1 if text.endswith("saved by scratchpads") else -1
                assert sign * float(text.split()[0]) == pytest.approx(saved, abs=0.011)
        measured = {point.scratchpad_threshold_nats for point in one.along.points}
        values = sorted(value for value in measured if math.isfinite(value))
        between = (values[2] + values[3]) / 2
        page.evaluate(f"type('{between}')")
        found = state(page, 5)
        low, high = (
            next(p.bits_per_byte for p in one.along.points if p.scratchpad_threshold_nats == value)
            for value in (values[2], values[3])
        )
        if found["bpb"].startswith("≈"):
            assert min(low, high) - 1e-4 <= float(found["bpb"][2:]) <= max(low, high) + 1e-4
            assert found["cells"][1][3].startswith("cost≈")
            assert "measured thresholds" in page.evaluate("by('shade-text').textContent")


def test_shades_are_those_of_the_values_and_gain_has_two_directions(opened, one):
    cells = Cells.of(one)
    with opened(one, height=3000) as page:
        open_with_helpers(page)
        numbers = json.loads(page.evaluate("by('data').textContent"))
        page.wait_for("document.querySelectorAll('#lines i').length >= 150")
        found = {}
        for shade in ("gain", "entropy", "cost", "lag"):
            page.evaluate(f"document.querySelector('input[value={shade}]').click()")
            found[shade] = page.evaluate(
                "Array.from(document.querySelectorAll('#lines i:not(.many)'), (c) => [Number(c.dataset.i), level(c)])"
            )
            assert page.evaluate("by('shade-text').textContent")
    at = [point.scratchpad_threshold_nats for point in one.along.points].index(1.25)
    gains, costs = one.along.bits_saved[at], one.along.nats[at] / math.log(2)
    expected = {
        "gain": lambda i: gains[cells.byte[i]] / numbers["fullGain"] if cells.byte[i] >= 0 else 0,
        "entropy": lambda i: np.nan_to_num(cells.entropy_nats[i]) / numbers["fullNats"],
        "cost": lambda i: costs[cells.byte[i]] / min(8, max(1, math.ceil(costs0))) if cells.byte[i] >= 0 else 0,
    }
    costs0 = (np.rint(one.along.nats[0] / math.log(2) * 256) / 256).max()
    for shade, value in expected.items():
        for place, level in found[shade]:
            assert level == pytest.approx(10 * max(-1, min(1, value(place))), abs=0.6), (shade, place)
    assert min(level for _, level in found["gain"]) < 0 < max(level for _, level in found["gain"])
    assert {level for _, level in found["lag"]} != {0}


def test_the_likeliest_next_bytes_stand_with_and_without_the_newest_scratchpad(opened, one):
    lists = """Array.from(document.querySelectorAll(".likely"), (one) => [one.querySelector("p").textContent,
      Array.from(one.querySelectorAll("li"), (item) => [item.querySelector(".glyph").textContent,
        item.querySelector(".percent").textContent, item.classList.contains("next")])])"""
    at = [point.scratchpad_threshold_nats for point in one.along.points].index(1.25)
    found = one.along.next_bytes

    def shown(ids, probabilities, following):
        def name(byte):
            return {32: "space", 10: "↵"}.get(byte, chr(byte) if 32 < byte < 127 else f"{byte:02X}")

        return [
            (name(byte), p, byte == following) for byte, p in zip(ids.tolist(), probabilities.tolist(), strict=True)
        ]

    kinds = set()
    with opened(one) as page:
        open_with_helpers(page)
        page.evaluate("press('Home')")
        for place in range(40):  # of the first window: a position is a cell
            reads = bool(found.reads_scratchpad[at, place])
            kinds.add(reads)
            columns = page.evaluate(lists)
            titles = ["with the newest scratchpad", "without it"] if reads else ["its newest slot is not a scratchpad"]
            assert [title for title, _ in columns] == titles
            sides = [(found.with_ids, found.with_probability), (found.without_ids, found.without_probability)]
            for (_, items), (ids, probabilities) in zip(columns, sides, strict=False):
                expected = shown(ids[at, place], probabilities[at, place], TEXT[place])
                assert len(items) == 5
                for (glyph, percent, is_next), (name, p, follows) in zip(items, expected, strict=True):
                    assert (glyph, is_next) == (name, follows)
                    value = 0.3 if percent.startswith("<") else float(percent.split()[0])
                    assert value == pytest.approx(100 * p, abs=1.0)
            page.evaluate("press('ArrowRight')")
    assert kinds == {True, False}


def test_what_a_byte_reads_is_framed_over_the_text(opened, model):
    one = inspect(model, ASCII, scratchpad_threshold_nats=1.25)
    frames = """Array.from(document.querySelectorAll("#over .over"), (one) => [one.className, one.dataset.label ?? "",
      one.getBoundingClientRect().left, one.getBoundingClientRect().right, one.getBoundingClientRect().top])"""
    lefts = """Array.from(document.querySelectorAll("#lines i"), (c) => [Number(c.dataset.i),
      c.getBoundingClientRect().left, c.getBoundingClientRect().right])"""
    kinds = set()
    with opened(one, width=1280) as page:
        open_with_helpers(page)
        page.evaluate("press('Home')")
        for place in range(1, 20):
            page.evaluate("press('ArrowRight')")
            byte = place - 1
            slot = int(one.slot_byte[byte])
            found = {
                name.split()[1]: (name, label, left, right) for name, label, left, right, _ in page.evaluate(frames)
            }
            assert "now" in found
            assert ("behind" in found) == (one.patch_lag[byte] > 0)
            if slot == NULL_CONTEXT:
                assert "reads" not in found
                continue
            cell = 0 if slot == SEPARATOR_SLOT else slot + 1
            kind = one.slot_kinds()[byte].replace("separator", "scratchpad")
            kinds.add(kind)
            name, label, frame_left, frame_right = found["reads"]
            ends = [end for end in np.flatnonzero(one.patch_end).tolist() if end < slot]
            first = ends[-1] + 2 if ends else 0
            places = {cell: (left, right) for cell, left, right in page.evaluate(lefts)}
            assert kind in name.split()
            assert label == kind
            assert frame_left == pytest.approx(places[first][0], abs=1)
            assert frame_right == pytest.approx(places[cell][1], abs=1)
            if "behind" in found:
                assert found["behind"][1] == f"lag {one.patch_lag[byte]}"
    assert kinds == {"commit", "scratchpad"}


def test_address_sets_the_threshold_and_keys_move_between_bytes(opened, model, one):
    with opened(one, fragment="#threshold=0.75") as page:
        open_with_helpers(page)
        at_address = check_state(state(page, NUM_CELLS), model, 0.75)
        assert page.evaluate("by('number').value") == "0.75"
        last = len(TEXT) - 1

        def after(*keys):
            for key in keys:
                page.evaluate(f"press({key!r})")
            return page.evaluate("field('byte')")

        assert after("Home", *["ArrowRight"] * 3) == f"byte2 = 0x{TEXT[2]:02X}"
        assert after("ArrowLeft") == f"byte1 = 0x{TEXT[1]:02X}"
        assert after("PageDown") == "separator"
        assert after("ArrowRight") == f"byte64 = 0x{TEXT[64]:02X}"
        assert after("PageUp", "PageUp") == "separator"
        assert after("End") == after("ArrowRight") == f"byte{last} = 0x{TEXT[last]:02X}"
        assert after("Enter").startswith(f"byte{at_address.slot_byte[last]} ")
        assert int(re.match(r"byte(\d+)", after("End", "ArrowUp"))[1]) < last
        assert after("Home", "ArrowLeft") == "separator"
        assert page.evaluate("by('bytes').tabIndex") == 0


def test_moving_the_slider_moves_the_address_and_is_announced(opened, model, one):
    with opened(one) as page:
        open_with_helpers(page)
        page.evaluate("slide(Number(by('slider').max) - 100)")
        threshold = float(page.evaluate("by('number').value"))
        page.wait_for("location.hash !== ''")
        assert page.evaluate("location.hash") == f"#threshold={threshold:g}"
        page.wait_for("by('announce').textContent !== ''")
        assert page.evaluate("by('announce').textContent === by('status').textContent")
        count = inspect(model, TEXT, scratchpad_threshold_nats=threshold).num_scratchpads
        assert page.evaluate("by('status').textContent").startswith(f"{count} scratchpads")


def test_page_without_a_slider_works_too(opened):
    stride = sharp_model(tiny_model_config(trigger="stride", context_bytes=CONTEXT_BYTES))
    with opened(inspect(stride, TEXT, with_grid=True)) as page:
        open_with_helpers(page)
        found = state(page, NUM_CELLS)
        check_state(found, stride, None)
        assert any("saved by scratchpads" in (cell[4] or "") for cell in found["cells"])


def test_tokens_are_framed_where_they_lie_and_lags_count_from_their_ends(opened):
    tokens = sharp_model(tiny_model_config("tokens", context_bytes=CONTEXT_BYTES))
    with opened(inspect(tokens, TEXT, scratchpad_threshold_nats=1.25, with_grid=True)) as page:
        open_with_helpers(page)
        for threshold in (1.25, math.inf):
            page.evaluate(f"type('{threshold}')")
            found = state(page, NUM_CELLS)
            one = inspect(tokens, TEXT, scratchpad_threshold_nats=threshold)
            cells = Cells.of(one)
            assert found["pads"] == f"{one.num_scratchpads:,}"
            for (_, lag, *_), byte in zip(found["cells"], cells.byte.tolist(), strict=True):
                if byte >= 0 and lag is not None:
                    assert lag.removeprefix("lag").split()[0] == str(one.patch_lag[byte])


def test_only_windows_near_the_view_have_cells_and_the_rest_is_text(opened, model, monkeypatch):
    monkeypatch.setattr(along_threshold, "LIKELIEST_BYTES", 1)
    text = b"".join(random_documents(5, [6000])).replace(b"\n", b" ")
    one = inspect(model, text)
    drawn = "new Set(Array.from(document.querySelectorAll('#lines i'), (c) => c.closest('.block').dataset.block)).size"
    with opened(one, height=600) as page:
        open_with_helpers(page)
        page.wait_for(f"{drawn} > 0")
        blocks = page.evaluate("document.querySelectorAll('.block').length")
        assert blocks == math.ceil(len(text) / CONTEXT_BYTES)
        assert page.evaluate(drawn) < blocks / 2
        height = page.evaluate("by('lines').offsetHeight")
        page.evaluate("by('bytes').focus(); press('End')")
        assert page.evaluate("field('byte')").startswith(f"byte{len(text) - 1:,} ")
        page.wait_for(f"{drawn} < {blocks // 2} && !document.querySelector('.block i')?.closest('[data-block=\"0\"]')")
        assert page.evaluate("by('lines').offsetHeight") == pytest.approx(height, rel=0.25)
        whole = page.evaluate("by('lines').textContent")
        assert whole.count("»") == blocks
        assert len(whole) > len(text.decode(errors="ignore"))


def test_right_to_left_text_runs_as_people_read_it_and_its_letters_join(opened):
    text = f"{HEBREW}\n{ARABIC}\nabc\n".encode()
    rects = """Array.from(document.querySelectorAll("#lines .block > div"), (line) => [getComputedStyle(line).direction,
      Array.from(line.querySelectorAll("i"), (c) => [c.textContent, c.getBoundingClientRect().left])])"""
    widths = """(() => {
      const line = document.querySelectorAll("#lines .block > div")[1], cells = Array.from(line.querySelectorAll("i"));
      by("bytes").style.fontFamily = "DejaVu Sans, sans-serif";
      const word = cells.slice(0, 5), box = document.createRange();
      box.setStartBefore(word[0]); box.setEndAfter(word[4]);
      const joined = box.getBoundingClientRect().width;
      const plain = document.createElement("span");
      plain.textContent = word.map((c) => c.textContent).join("");
      line.append(plain);
      const whole = plain.getBoundingClientRect().width;
      plain.textContent = word.map((c) => c.textContent).join("\u200c");
      return [joined, whole, plain.getBoundingClientRect().width];
    })()"""
    roomy = sharp_model(tiny_model_config("spacebyte", context_bytes=256))
    with opened(inspect(roomy, text, with_grid=True), height=3000) as page:
        open_with_helpers(page)
        page.wait_for("document.querySelector('#lines i') !== null")
        (hebrew, letters), (arabic, others), (latin, last), *_ = page.evaluate(rects)
        assert (hebrew, arabic, latin) == ("rtl", "rtl", "ltr")
        read = [text for text, _ in sorted(letters[1:-1], key=lambda one: -one[1])]
        assert "".join(read) == HEBREW, "from right to left"
        assert "".join(text for text, _ in others[:-1]) == ARABIC
        assert [text for text, _ in sorted(last, key=lambda one: one[1])][:3] == ["a", "b", "c"]
        page.evaluate("press('Home')")
        for byte in range(6):
            page.evaluate("press('ArrowRight')")
            assert page.evaluate("field('part')") == (
                f"of its character{byte % 2 + 1} of 2: "
                + " ".join(f"{value:02X}" for value in HEBREW.encode()[byte // 2 * 2 :][:2])
            )
        joined, whole, apart = page.evaluate(widths)
        if abs(whole - apart) > 1:  # the reader's font has letters of different forms
            assert joined == pytest.approx(whole, abs=0.5)


def test_marks_that_would_reorder_text_are_shown_and_characters_stay_whole(opened, model):
    text = "a\u202eb é日🙂 e\u0301 👩\u200d👧 کتاب\u200cها\n".encode() + b"\xff"
    with opened(inspect(model, text)) as page:
        page.wait_for("document.querySelector('#lines i') !== null")
        shown = page.evaluate("Array.from(document.querySelectorAll('#lines i'), (c) => c.textContent)")
        assert shown[:6] == ["»", "a", "E2", "80", "AE", "b"]
        assert {"é", "日", "🙂", "e\u0301", "👩\u200d👧", "↵", "FF"} <= set(shown)
        assert "\u202e" not in page.evaluate("document.getElementById('lines').textContent")


@pytest.mark.parametrize(("width", "dark"), [(390, False), (390, True), (1280, False), (1280, True)])
def test_page_fits_its_window_in_light_and_dark_and_everything_has_a_name(opened, one, width, dark):
    with opened(one, width=width, dark=dark) as page:
        open_with_helpers(page)
        page.evaluate("by('bytes').focus()")
        for _ in range(12):
            page.press("ArrowRight")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.evaluate("by('readout').offsetHeight") < 0.5 * page.evaluate("innerHeight")
        nodes = page.call("Accessibility.getFullAXTree")["nodes"]
        roles = {"slider", "textbox", "button", "radio", "application", "image", "region", "group"}
        named = [
            (node["role"]["value"], node.get("name", {}).get("value", ""))
            for node in nodes
            if not node.get("ignored") and node.get("role", {}).get("value") in roles
        ]
        assert {role for role, _ in named} >= {"slider", "textbox", "button", "radio", "application"}
        assert [role for role, name in named if not name] == []
        page.wait_for("by('announce').textContent.includes('byte')")
        colours = page.evaluate(
            "['--commit', '--scratchpad'].map((n) => getComputedStyle(document.documentElement).getPropertyValue(n))"
        )
        assert colours == (["#56b4e9", "#ff8f57"] if dark else ["#0072b2", "#d55e00"])
