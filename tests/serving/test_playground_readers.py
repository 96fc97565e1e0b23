"""The playground for readers of every kind, and where things go wrong, in headless Chromium."""

import json
import re

import pytest
from chromium import CONTROL
from playground_page import NUM_PROMPT, PROMPT, completed

from patchpad.pages.marked_text import visible_units
from patchpad.testing import random_documents, sharp_baseline, sharp_model, tiny_model_config

pytestmark = [pytest.mark.browser, pytest.mark.unchecked]
FOCUS = """
(() => {
  const one = document.activeElement, style = getComputedStyle(one);
  const hasName = one.labels?.length || one.getAttribute("aria-label") || one.textContent.trim();
  return [one.id || one.dataset.preset || one.className || one.tagName, style.outlineStyle,
    parseFloat(style.outlineWidth), Boolean(hasName)];
})()
"""
TOO_WIDE = """
Array.from(document.querySelectorAll("main *"), (one) => [one.id || one.className, one.getBoundingClientRect().right])
  .filter(([, right]) => right > innerWidth + 1)
"""
WATCH = """
window.told = [];
for (const one of document.querySelectorAll("[role=status], [role=alert], [aria-live]")) {
  const watch = { childList: true, characterData: true, subtree: true };
  new MutationObserver(() => told.push(one.textContent)).observe(one, watch);
}
new MutationObserver(() => {
  window.motion = getComputedStyle(document.querySelector("#text-a > div:last-child"), "::after").animationName;
}).observe(document.getElementById("text-a"), { childList: true, subtree: true });
0
"""
IN_PIECES = """
(async () => {
  const { unitsOf } = await import("/playground/bytes.js"), { TextView } = await import("/playground/text_view.js");
  const data = DATA, slow = [], views = [0, 1].map(() => {
    const box = document.createElement("div");
    box.append(document.createElement("p"));
    document.body.append(box);
    return new TextView(box, () => 0);
  });
  views[0].begin(data, 0);
  views[1].begin(slow, 0);
  for (const byte of data) { slow.push(byte); views[1].grow(); }
  const shown = views.map((view) => view.box.innerHTML);
  for (const view of views) view.box.remove();
  return [unitsOf(data).map((unit) => [unit.start, unit.stop, unit.isEscape, unit.breaksLine]), ...shown];
})()
"""


def test_everything_is_reached_by_tab_with_a_name_and_a_focus_that_can_be_seen(opened, site):
    with opened(site) as page:
        page.click("#compare")
        page.evaluate("document.getElementById('more').open = true; document.getElementById('prompt').focus()")
        seen = [page.evaluate(FOCUS)]
        while len(seen) < 40 and seen[-1][0] not in ("", "BODY"):
            page.press("Tab")
            seen.append(page.evaluate(FOCUS))
        seen.pop()
        names = [name for name, *_ in seen]
        dial = ["none", "stored", "every"]
        fields = ["most-bytes", "temperature", "top-p", "seed", "stop-text", "key"]
        wanted = [
            "prompt",
            "number-a",
            *dial,
            "compute-a",
            "number-b",
            *dial,
            "compute-b",
            "compare",
            "SUMMARY",
            *fields,
        ]
        assert names == [*wanted, "generate", "stop", "again", "text-a", "text-b"]
        for name, style, width, has_name in seen:
            assert style != "none", name
            assert width >= 1, name
            assert has_name, name


@pytest.mark.parametrize("dark", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_nothing_scrolls_sideways_at_the_width_of_a_phone(opened, site, dark):
    sizes = "[document.documentElement.scrollWidth, innerWidth]"
    with opened(site, width=360, height=740, dark=dark) as page:
        assert page.evaluate(sizes) == [360, 360]
        page.click("#compare")
        page.evaluate("document.getElementById('more').open = true")
        page.generate(prompt="w" * 300 + " " + PROMPT)
        assert page.evaluate(sizes) == [360, 360]
        page.select(9, "b")
        assert page.evaluate(sizes) == [360, 360]
        assert page.evaluate(TOO_WIDE) == []
        paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert paper == ("rgb(22, 24, 27)" if dark else "rgb(255, 255, 255)")


def test_screen_readers_are_told_the_state_and_not_every_byte(opened, site):
    with opened(site, reduced_motion=True) as page:
        page.evaluate(WATCH)
        page.generate(most_bytes=300)
        told = [one for one in page.evaluate("told") if one]
        assert told[0] == "Writing …"
        assert told[-1].startswith("Done. 300 new bytes")
        assert len(told) <= 4
        assert page.evaluate("motion") == "none"


def test_characters_are_cut_as_in_all_pages_and_arrive_in_any_pieces(opened, site):
    hostile = "<b>é日🙂\u05e9\u0301\u202e\ufeff\xad\t\r\n".encode()
    hostile += b"\xed\xa0\x80\xf0\x9f\x99\xc3(\xf4\x90\x80\x80\xe2\x82"
    with opened(site) as page:
        for data in [hostile, *random_documents(11, [80, 120])]:
            units, whole, pieces = page.evaluate(IN_PIECES.replace("DATA", json.dumps(list(data))))
            expected = [[one.start, one.stop, one.is_escape, one.breaks_line] for one in visible_units(data)]
            assert units == expected
            assert pieces == whole
            assert whole.count("data-i=") == len(data) + 1
        page.generate(prompt="</div><img src=x onerror=alert(1)><script>1</script>", most_bytes=3)
        assert page.evaluate("document.querySelectorAll('main img, #text-a script').length") == 0


def test_a_key_is_asked_for_and_kept_nowhere_but_in_memory(opened, serve):
    with serve(api_keys=(b"open sesame",)) as server, opened(server, expected=["401"]) as page:
        page.wait_for("document.activeElement.id === 'key'")
        assert "API key" in page.text("#error")
        assert "API key" in page.text("#about")
        page.page.write("open sesame")
        page.press("Tab")
        page.wait_for("document.getElementById('about').textContent.startsWith('Model')")
        assert page.evaluate("errorBox.hidden")
        page.generate(most_bytes=5)
        assert page.text("#status").startswith("Done. 5 new bytes")
        kept = page.evaluate("[localStorage.length, sessionStorage.length, document.cookie, location.href]")
        assert kept == [0, 0, "", f"{server.url}/"]


def test_what_the_server_refuses_is_told_and_the_prompt_stays(opened, serve):
    with serve(max_prompt_bytes=30, max_new_bytes=50) as server, opened(server, expected=["400"]) as page:
        page.put(prompt="x" * 31)
        assert page.text("#prompt-size") == "31 bytes, and the server reads at most 30"
        page.press("Enter", CONTROL)
        page.wait_for("!errorBox.hidden")
        assert "30" in page.text("#error")
        assert page.evaluate("document.getElementById('prompt').value") == "x" * 31
        assert page.text("#status") == ""
        page.put(prompt="x", most_bytes=51)
        page.press("Enter", CONTROL)
        page.wait_for("errorBox.textContent.startsWith('Most new bytes')")
        assert page.text("#error") == "Most new bytes is “51”; allowed: a whole number from 1 to 50."
        assert page.evaluate("document.activeElement.id") == "most-bytes"
        page.put(most_bytes=5)
        page.press("Enter")
        page.wait_for("document.getElementById('status').textContent.startsWith('Done')")
        assert page.evaluate("errorBox.hidden")


def test_a_full_queue_is_told_with_what_to_do(opened, serve):
    body = json.dumps({"prompt": "x", "max_tokens": 16_000, "stream": True}).encode()
    with serve(batch_rows=1, max_waiting=1) as server, opened(server, expected=["429"]) as page:
        head = f"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nContent-Type: application/json\r\n"
        with server.connect() as one, server.connect() as other:
            for client in (one, other):
                client.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
                client.recv(10)
            page.generate(most_bytes=5)
            assert page.text("#error").endswith("Wait a moment, then press Generate again.")
            assert page.tile("new-detail") == "none came"
            assert page.num_cells() == 1 + NUM_PROMPT


def test_a_server_that_goes_away_is_told_and_what_came_is_kept(opened, serve):
    with serve() as server, opened(server, expected=["503", "ERR_"]) as page:
        page.put(prompt=PROMPT, most_bytes=16_000)
        page.press("Enter", CONTROL)
        page.wait_for("document.querySelectorAll('#text-a i').length > 20")
        count = page.num_cells()
        server.server.stop()
        server.server.stop(now=True)
        page.wait_for("!errorBox.hidden")
        assert re.search(r"broke off|shutting down|stopped|closed", page.text("#error"))
        assert page.num_cells() >= count
        server.thread.join(30)
        page.press("Enter", CONTROL)
        page.wait_for("errorBox.textContent.startsWith('The server does not answer')")


OFF = [
    pytest.param("stride", "its trigger is “stride”", True, marks=pytest.mark.slow),
    ("uncalibrated", "This model has no calibration", False),
    ("byte", "A “byte” model has no scratchpads", True),
]


@pytest.mark.parametrize(("kind", "reason", "slider_is_off"), OFF)
def test_a_control_that_is_off_says_why(opened, serve, kind, reason, slider_is_off):
    model = {
        "stride": lambda: sharp_model(tiny_model_config(trigger="stride", context_bytes=96)),
        "uncalibrated": lambda: sharp_model(tiny_model_config(context_bytes=96)),
        "byte": lambda: sharp_baseline("byte", context_bytes=96),
    }[kind]()
    with serve(model=model) as server, opened(server) as page:
        assert reason in page.text(".dial .why")
        assert page.evaluate("document.getElementById('compute-a').disabled") == slider_is_off
        assert page.evaluate("document.getElementById('compute-a').getAttribute('aria-describedby')") == "why-a"
        if kind == "uncalibrated":
            page.put(number_a="0.75")
        elif kind == "stride":
            page.choose("every")
        page.generate(most_bytes=20)
        body = page.sent("/v1/completions")[0]
        assert body.get("scratchpad_threshold") == {"uncalibrated": 0.75, "stride": "-inf", "byte": None}[kind]
        page.select(3)
        assert len(page.bars()) == (1 if kind == "byte" else 2)
        if kind == "byte":
            assert page.evaluate("document.getElementById('compare').disabled")
            assert page.tile("calls-detail").endswith(" in all")


def test_tokens_of_a_bpe_model_show_all_their_bytes(opened, serve):
    pytest.importorskip("tokenizers")
    model = sharp_baseline("bpe", context_bytes=96)
    expected = completed(model).data
    with serve(model=model) as server, opened(server, expected=["400"]) as page:
        page.generate()
        assert page.num_cells() == 1 + NUM_PROMPT + len(expected)
        assert page.text(".plain") == (PROMPT.encode() + expected).decode("utf-8", "replace")
        page.select(3)
        assert "predicts tokens" in page.text("#probe-note")
