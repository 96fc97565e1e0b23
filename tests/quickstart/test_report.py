import html
import math
import os
import re
from html.parser import HTMLParser

import pytest

from patchpad.pages.curves import smoothed
from patchpad.pages.marked_text import visible_units
from patchpad.quickstart.content import Report
from patchpad.quickstart.report import render_report, write_report

VOID = {"meta", "br", "hr", "img", "link", "input"}
LOADING = {"script", "img", "link", "iframe", "object", "embed", "audio", "video", "source", "base", "use", "image"}


class Page(HTMLParser):
    """Checks that tags balance and ids are unique; keeps what a test may ask about."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(source)
        self.close()
        assert self.open == []
        ids = [attributes["id"] for _, attributes in self.tags if "id" in attributes]
        assert len(ids) == len(set(ids))

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def point(threshold, scratchpads: float, bits: float) -> dict:
    return {
        "scratchpad_threshold_nats": threshold,
        "bits_per_byte": bits,
        "num_bytes": 4096,
        "scratchpads_per_byte": scratchpads,
        "patches_per_byte": 0.0625,
        "trunk_calls_per_byte": 0.0625 + scratchpads,
        "flops_per_byte": 9e5 + 4e6 * scratchpads,
        "trunk_cache_bytes_per_byte": 128.0,
    }


POINTS = [point(math.inf, 0.0, 2.5), point(1.75, 0.1875, 2.375), point(-math.inf, 0.9375, 2.25)]
PROMPT, SAMPLE = "Über ", "caf\u00e9\n\u200b <i>".encode() + b"\xff\x00\xe2\x80"


def report(**changes) -> Report:
    count = len(PROMPT.encode()) + len(SAMPLE)
    values = {
        "title": "A run",
        "summary": "It costs 2.375 bits per byte.",
        "facts": {"parameters": "12,345", "hardware": "2 CPU threads"},
        "points": POINTS,
        "stored_threshold_nats": 1.75,
        "baselines": {"xz": 2.6, "bz2": 9.5},
        "training": [
            {"bytes_seen": 1000 * step, "train/bpb": 2 + 6 / step, **({"val/bpb": 2.4} if step % 50 == 0 else {})}
            for step in range(1, 201)
        ],
        "sample_prompt": PROMPT,
        "sample": SAMPLE,
        "sample_scratchpads": [n % 5 == 0 for n in range(count)],
        "sample_patch_ends": [n % 16 == 15 for n in range(count)],
        "sample_entropy_nats": [n % 7 / 2 for n in range(count)],
        "command": "patchpad quickstart --out x",
        "reproduce": "line one\nline two",
    }
    return Report(**{**values, **changes})


BARE = {
    "facts": {},
    "points": [],
    "baselines": {},
    "training": [],
    "sample_prompt": "",
    "sample": b"",
    "sample_scratchpads": [],
    "sample_patch_ends": [],
    "sample_entropy_nats": [],
    "command": "",
    "reproduce": "",
}
NO_MARKS = {"sample_scratchpads": [], "sample_patch_ends": [], "sample_entropy_nats": []}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        BARE,
        {"points": POINTS[:1]},
        {"points": [point(math.inf, 0.0, 0.0)]},
        {"points": [POINTS[0]] * 3},
        {"stored_threshold_nats": 7},
        {"stored_threshold_nats": math.inf},
        {"training": [{"bytes_seen": 5, "train/bpb": math.nan}, {"bytes_seen": 0, "val/bpb": 3.0}]},
        {"training": [{"bytes_seen": 16, "train/bpb": 8.0}]},
        {**NO_MARKS, "sample": b""},
        {"sample_entropy_nats": [0.0] * (len(PROMPT.encode()) + len(SAMPLE))},
    ],
)
def test_the_page_is_well_formed_and_loads_nothing(changes):
    source = render_report(report(**changes))
    page = Page(source)
    assert not LOADING & {tag for tag, _ in page.tags}
    assert not any({"src", "href", "srcset", "data", "action"} & set(attributes) for _, attributes in page.tags)
    assert not re.search(r"https?:|@import|url\(", source)
    assert "nan" not in page.text.replace("\n", " ").split()


def test_text_from_outside_is_escaped():
    hostile = "<script>alert('&')</script>"
    source = render_report(
        report(
            title=hostile,
            summary=hostile,
            facts={hostile: hostile},
            baselines={hostile: 2.4, hostile * 2: 99.0},
            sample_prompt=hostile,
            sample=hostile.encode(),
            command=hostile + "\udcff",
            reproduce=hostile + "\x00",
            **NO_MARKS,
        )
    )
    assert "<script" not in source
    assert source.count(html.escape(hostile)) >= 8
    Page(source)
    source.encode("utf-8")


def test_infinite_thresholds_show_as_signs_and_may_come_from_json():
    for points in (POINTS, [point("inf", 0.0, 2.5), point(1.75, 0.1875, 2.375), point("-inf", 0.9375, 2.25)]):
        source = render_report(report(points=points))
        assert '<th scope="row">∞</th>' in source
        assert '<th scope="row">-∞</th>' in source
        assert not re.search(r"\binf\b", Page(source).text)


def test_only_the_stored_row_is_marked():
    rows = re.findall(r"<tr.*?</tr>", render_report(report(baselines={})), re.DOTALL)
    (marked,) = [row for row in rows if "stored" in row]
    assert "1.750" in marked
    assert "class=chosen" in marked
    assert "2.3750" in marked
    assert "-5.00 %" in marked


def test_a_far_baseline_is_named_below_the_plot_instead_of_squeezing_it():
    source = render_report(report())
    assert "Outside the plot lies bz2 (9.500)." in source
    assert ">xz 2.600</text>" in source


def test_every_byte_of_a_sample_is_visible_once():
    units = visible_units(PROMPT.encode() + SAMPLE)
    assert [unit.text for unit in units] == [
        *("Ü", "b", "e", "r", " ", "c", "a", "f", "é", "\\n", "\\xE2\\x80\\x8B", " ", "<", "i", ">"),
        *("\\xFF", "\\x00", "\\xE2", "\\x80"),
    ]
    assert [unit.start for unit in units[1:]] == [unit.stop for unit in units[:-1]]
    everything = bytes(range(256)) * 2
    assert visible_units(everything)[-1].stop == len(everything)
    assert all(unit.text.isprintable() for unit in visible_units(everything))


def test_marks_of_all_bytes_of_a_character_land_on_it():
    data = "aé"
    source = render_report(
        report(
            sample_prompt="",
            sample=data.encode(),
            sample_scratchpads=[False, True, False],
            sample_patch_ends=[False, False, True],
            sample_entropy_nats=[0.0, 0.25, 2.0],
        )
    )
    assert '<i title="0.00 nats">a</i><i class="e10 pad end" title="2.00 nats, scratchpad, patch end">é</i>' in source


def test_marks_need_one_value_for_each_byte():
    with pytest.raises(ValueError, match="sample_scratchpads has 1 values for"):
        report(sample_scratchpads=[True])


def test_smoothing_keeps_the_ends_and_the_mean_of_a_line():
    line = [(float(x), 3.0 - 0.001 * x) for x in range(2000)]
    result = smoothed(line, 41)
    assert len(result) <= 800
    assert result[-1] == line[-1]
    assert all(y == pytest.approx(3.0 - 0.001 * x) for x, y in result)


def test_a_failed_write_leaves_the_old_page_and_no_other_file(tmp_path, monkeypatch):
    path = tmp_path / "report.html"
    write_report(path, report())
    before = path.read_bytes()

    def fail(*_):
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", fail)
        with pytest.raises(OSError, match="disk full"):
            write_report(path, report(title="another"))
    with pytest.raises(KeyError):
        write_report(path, report(points=[{"scratchpad_threshold_nats": 1.0}]))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
