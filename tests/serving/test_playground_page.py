"""What the playground shows, in headless Chromium against the real server over a tiny model."""

import json
import math
from dataclasses import replace

import pytest
from playground_page import NUM_BYTES, NUM_PROMPT, PROMPT, SEED, completed, expected_marks

import patchpad
from patchpad.serving.playground.next_byte import next_byte

pytestmark = [pytest.mark.browser, pytest.mark.unchecked]


def test_text_appears_byte_by_byte_with_the_marks_that_the_model_decides(opened, site):
    expected = completed(site.model)
    data = PROMPT.encode() + expected.data
    calls, patches = expected.trunk_calls, expected.trunk_cache_entries
    with opened(site) as page:
        page.generate()
        assert page.marks() == expected_marks(site.model, data, None)
        assert page.prompt_cells() == [False, *[place < NUM_PROMPT for place in range(len(data))]]
        assert page.text(".plain") == data.decode("utf-8", "replace")
        assert page.tile("calls-detail") == f"{calls} in all: {patches} patches, {calls - patches} scratchpads"
        assert page.tile("calls") == f"{calls / (len(data) - 1):.3f}", "nothing has read the last byte"
        assert page.tile("cache-detail").startswith(f"{patches} entries of ")
        assert (page.tile("new"), page.tile("new-detail")) == ("60", "the length was reached")
        assert float(page.tile("speed").replace(",", "")) > 0
        (body,) = page.sent("/v1/completions")
        assert body["byte_details"]
        assert not {"compute", "scratchpad_threshold"} & set(body), "the stored threshold is the server's own"


def test_meter_counts_the_marks_as_the_server_does(opened, site):
    with opened(site) as page:
        page.choose("every")
        page.generate()
        ends, pads = map(sum, page.marks())
        assert page.tile("calls-detail") == f"{ends + pads} in all: {ends} patches, {pads} scratchpads"
        assert pads > ends > 0
        assert page.sent("/v1/completions")[0]["scratchpad_threshold"] == "-inf"


def test_slider_and_number_choose_the_compute_by_keyboard(opened, site):
    table = site.model.calibration
    with opened(site) as page:
        page.evaluate("document.getElementById('compute-a').focus()")
        for key, threshold in (("Home", "inf"), ("End", "-inf")):
            page.press(key)
            page.generate(most_bytes=3)
            assert page.sent("/v1/completions")[-1]["scratchpad_threshold"] == threshold
            page.evaluate("document.getElementById('compute-a').focus()")
        page.press("PageDown")
        page.generate(most_bytes=3)
        compute = page.sent("/v1/completions")[-1]["compute"]
        assert table.least_compute < compute < 1
        threshold = f"threshold {table.threshold_for(compute):.3f}".replace("-", "−")  # noqa: RUF001
        assert page.text(".translation").startswith(threshold)
        page.put(number_a="0.4")
        page.generate(most_bytes=3)
        assert page.sent("/v1/completions")[-1]["compute"] == page.sent("/playground/marks")[-1]["compute"] == 0.4
        page.put(number_a="0.1")
        number, slider = "document.getElementById('number-a')", "document.getElementById('compute-a')"
        assert page.evaluate(f"{number}.getAttribute('aria-invalid')") == "true"
        assert page.evaluate(f"{slider}.getAttribute('aria-valuetext')").startswith("0.400 trunk calls per byte")


@pytest.mark.parametrize("commits_tokens", [False, True])
def test_dial_translates_compute_as_the_calibration_does(opened, site, commits_tokens):
    table = patchpad.load().calibration
    if commits_tokens:  # then the trunk is called up to 1 time more for each byte
        measured = [
            {**row, "trunk_calls_per_byte": table.least_compute + 1.3 * row["scratchpads_per_byte"]}
            for row in table.rows
        ]
        table = replace(table, rows=tuple(measured), commits_tokens=True)
    rows = [
        {
            "compute": row["trunk_calls_per_byte"],
            "scratchpad_threshold_nats": str(row["scratchpad_threshold_nats"]),
            "bits_per_byte": row["bits_per_byte"],
        }
        for row in table.rows
    ]
    span = table.most_compute - table.least_compute
    computes = [table.least_compute + span * step / 40 for step in range(41)]
    there_and_back = f"""
      import("/playground/dial.js").then(({{ Calibration }}) => {{
        const table = new Calibration({json.dumps(rows)}, {table.most_compute});
        return {json.dumps(computes)}.map((compute) => {{
          const threshold = table.thresholdAt(compute);
          return [String(threshold).replace("Infinity", "inf"), table.computeAt(threshold)];
        }});
      }})
    """
    with opened(site) as page:
        found = page.evaluate(there_and_back)
    for compute, (threshold, back) in zip(computes, found, strict=True):
        assert float(threshold) == pytest.approx(table.threshold_for(compute))
        assert back == pytest.approx(compute)


def test_two_settings_side_by_side_have_one_seed_and_their_first_difference_is_marked(opened, site):
    stored, plain = (completed(site.model, scratchpad_threshold_nats=one).data for one in (None, math.inf))
    first = next(place for place, pair in enumerate(zip(stored, plain, strict=True)) if pair[0] != pair[1])
    at = NUM_PROMPT + first
    flags = """
      Array.from(document.querySelectorAll("#text-LANE .flag"), (one) => one.nextElementSibling).map((next) =>
        Array.from(next.matches("i") ? [next] : next.querySelectorAll("i"), (cell) => Number(cell.dataset.i) - 1))
    """
    with opened(site) as page:
        page.click("#compare")
        page.generate()
        told = f"The texts first differ at byte {at}, marked ≠: {first} new bytes are the same."
        assert page.text("#difference") == told
        for lane, threshold, data in (("a", None, stored), ("b", math.inf, plain)):
            (flagged,) = page.evaluate(flags.replace("LANE", lane))
            assert at in flagged
            assert page.marks(lane) == expected_marks(site.model, PROMPT.encode() + data, threshold)
        one, other = sorted(page.sent("/v1/completions"), key=len)
        assert {**one, "scratchpad_threshold": "inf"} == other
        assert one["seed"] == SEED
        page.choose("stored", "b")
        page.generate()
        assert page.text("#difference") == "Both texts are the same, byte for byte."
        assert page.evaluate("document.querySelectorAll('.lanes .flag').length") == 0


def test_a_click_on_a_byte_shows_what_follows_with_and_without_a_scratchpad(opened, site):
    data = PROMPT.encode() + completed(site.model).data
    with opened(site, reduced_motion=True) as page:
        page.generate()
        ends, _ = page.marks()
        byte = next(place for place in range(20, 40) if not ends[place + 1])
        page.select(byte)
        expected = next_byte(site.model, data, position=byte)
        both = page.bars()
        assert [row[0] for row in both[0]] == [row[0] for row in both[1]], "rows can be compared across the lists"
        for key, rows in zip(("with", "without"), both, strict=True):
            values = expected[key]
            assert len(rows) == 8
            assert [row[1] for row in rows if row[2]] == [pytest.approx(100 * values[data[byte + 1]], abs=0.06)]
            longest = max(rows, key=lambda row: row[1])
            assert longest[1] == pytest.approx(100 * max(values), abs=0.06)
            assert longest[3] == max(row[3] for row in rows)
        assert f"{expected['patch_lag']} byte" in page.text("#probe-facts")
        assert f"{expected['entropy_nats']:.3f} nats" in page.text("#probe-facts")
        page.select(ends.index(True, 20) - 1)
        one, other = page.bars()
        assert one == other
        assert page.text("#probe-note").startswith("A patch ends here")


def test_arrow_keys_walk_the_bytes_and_escape_gives_the_focus_back(opened, site):
    last = f"byte {NUM_PROMPT + NUM_BYTES - 1} "
    walk = [("Home", "first byte"), ("ArrowRight", "byte 0 "), ("ArrowRight", "byte 1 "), ("ArrowLeft", "byte 0 ")]
    with opened(site) as page:
        page.generate()
        page.evaluate("document.getElementById('text-a').focus()")
        for key, expected in [*walk, ("End", last)]:
            page.press(key)
            assert expected in page.text("#probe-title")
        page.settle()
        assert page.evaluate("document.querySelectorAll('#text-a .at').length") == 1
        bottom = page.evaluate("document.querySelector('#text-a .at').getBoundingClientRect().bottom")
        assert bottom <= page.evaluate("document.getElementById('probe').getBoundingClientRect().top"), "not covered"
        page.wait_for("document.getElementById('announce').textContent.startsWith('Byte')")
        page.press("ArrowUp")
        assert last not in page.text("#probe-title")
        page.press("Escape")
        assert page.evaluate("[document.activeElement.id, document.getElementById('probe').hidden]") == ["text-a", True]


def test_escape_stops_the_row_and_keeps_what_came(opened, site):
    with opened(site) as page:
        page.put(prompt=PROMPT, most_bytes=16_000)
        page.click("#generate")
        page.wait_for("document.querySelectorAll('#text-a i').length > 20")
        page.press("Escape")
        page.wait_for("document.getElementById('status').textContent.startsWith('Stopped')")
        assert page.evaluate("document.activeElement.id") == "generate", "the focus stays"
        assert page.tile("new-detail") == "stopped"
        assert int(page.tile("new").replace(",", "")) == page.num_cells() - 1 - NUM_PROMPT
        page.wait_for("fetch('/health').then(() => true)")
        page.generate(most_bytes=5)
        assert page.text("#status").startswith("Done. 5 new bytes")
        assert site.scheduler.counts().rows_running == 0, "the server has dropped the row"


@pytest.mark.slow
def test_again_draws_with_another_seed(opened, site):
    with opened(site) as page:
        page.generate()
        page.evaluate("document.getElementById('status').textContent = ''")
        page.click("#again")
        page.wait_for("document.getElementById('status').textContent.startsWith('Done')")
        assert [body["seed"] for body in page.sent("/v1/completions")] == [SEED, SEED + 1]
        expected = PROMPT.encode() + completed(site.model, seed=SEED + 1).data
        assert page.text(".plain") == expected.decode("utf-8", "replace")
