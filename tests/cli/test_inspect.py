"""`patchpad inspect`: what it prints, writes and refuses."""

import gzip
import io
import json
import math
import os
import re
import shlex
import sys

import pytest

import patchpad as package
from patchpad.cli.reading_progress import ReadingProgress
from patchpad.data.bundled_text import bundled_excerpt


@pytest.fixture
def short(tmp_path):
    path = tmp_path / "short.txt"
    path.write_bytes("The größer cat sat. 日本\n\x00\x07 שלום".encode() + b"\xff" + b"mat " * 30)
    return path


def as_json(called):
    assert called.code == 0, called.err
    return json.loads(called.out, parse_constant=pytest.fail)


@pytest.mark.parametrize("threshold", [None, "inf", "-inf", "5.5"])
def test_counts_equal_those_of_evaluate(patchpad, finished, short, threshold):
    options = [] if threshold is None else ["--scratchpad-threshold", threshold]
    found = as_json(patchpad("inspect", finished, "--text", short, "--json", *options))
    evaluated = as_json(patchpad("evaluate", finished, "--data", short, "--limit-bytes", "0", "--json", *options))
    point = evaluated["points"][0]
    for key in ("scratchpad_threshold_nats", "bits_per_byte", "num_bytes", "trunk_calls_per_byte", "flops_per_byte"):
        assert found[key] == point[key], key
    assert found["num_patches"] == round(point["patches_per_byte"] * point["num_bytes"])
    assert found["num_scratchpads"] == round(point["scratchpads_per_byte"] * point["num_bytes"])
    assert found["trunk_calls"] == found["num_patches"] + found["num_scratchpads"]
    assert bytes(found["bytes"]["value"]) == short.read_bytes()


def test_view_is_plain_where_stdout_is_no_terminal_and_states_the_totals(patchpad, finished, short):
    called = patchpad("inspect", finished, "--text", short)
    assert called.code == 0
    assert "\x1b" not in called.out
    assert "\u202d" not in called.out
    found = as_json(patchpad("inspect", finished, "--text", short, "--json"))
    assert f"short.txt: {found['num_bytes']} bytes in 3 windows of up to 64" in called.out
    assert f"trunk calls    {found['trunk_calls']} (" in called.out
    assert called.out.count("●") - 1 == found["num_patches"], "the legend has one more"
    assert called.out.count("○") - 1 == found["num_scratchpads"]


def run_alone(command, arguments, **environment):
    kept = {name: value for name, value in command.environment.items() if name not in ("NO_COLOR", "FORCE_COLOR")}
    return command.run(*arguments, check=True, env={**kept, "TERM": "xterm-256color", **environment}).stdout


@pytest.mark.slow
def test_colour_follows_the_environment_and_the_text_is_the_same_without(command, finished, short):
    arguments = ["inspect", finished, "--text", short, "--limit-bytes", "40"]
    plain = run_alone(command, arguments, FORCE_COLOR="1", NO_COLOR="1", PYTHONIOENCODING="utf-8").decode()
    coloured = run_alone(command, arguments, FORCE_COLOR="1", PYTHONIOENCODING="utf-8").decode()
    assert "\x1b" not in plain
    assert "\x1b[" in coloured
    without = [line.rstrip() for line in re.sub(r"\x1b\[[0-9;]*m", "", coloured).splitlines()]
    assert without == [line.rstrip() for line in plain.splitlines()]


@pytest.mark.slow
def test_an_output_that_holds_ascii_alone_gets_ascii_marks(command, finished, short):
    out = run_alone(command, ["inspect", finished, "--text", short], PYTHONIOENCODING="ascii", COLUMNS="60")
    text = out.decode("ascii")
    assert "\\u" not in text
    assert "\\x" not in text
    assert "| commit" in text
    assert "o scratchpad" in text
    assert "??er" in text


def test_html_leaves_the_summary_and_its_path_and_goes_with_json(patchpad, finished, short, tmp_path):
    page = tmp_path / "page.html"
    called = patchpad("inspect", finished, "--text", short, "--html", page)
    assert called.code == 0, called.err
    assert called.out.splitlines()[-1] == f"page: {page}"
    assert "●" not in called.out
    source = page.read_text(encoding="utf-8")
    page.unlink()
    found = as_json(patchpad("inspect", finished, "--text", short, "--html", page, "--json"))
    assert page.read_text(encoding="utf-8") == source
    assert f'id="pads">{found["num_scratchpads"]}<' in source
    assert f'id="bpb">{found["bits_per_byte"]:.4f}<' in source


def test_long_texts_say_how_far_they_are_read_and_quiet_ones_do_not(
    patchpad, finished, text, tmp_path, caplog, monkeypatch
):
    monkeypatch.setattr("patchpad.cli.reading_progress.SECONDS_BETWEEN_LINES", 0.0)
    monkeypatch.setattr("patchpad.inspection.along_threshold.PASS_BYTES", 64)
    options = ("inspect", finished, "--text", text, "--limit-bytes", "250", "--html", tmp_path / "page.html")
    assert patchpad(*options).code == 0
    found = [record.message for record in caplog.records if "is read" in record.message]
    assert len(found) == 3
    assert re.fullmatch(r"26 % is read, \d+ (s|min) left", found[0])
    assert found[-1].startswith("77 % is read")
    caplog.clear()
    assert patchpad(*options, "--quiet").code == 0
    assert "is read" not in caplog.text


def test_a_bar_on_a_terminal_goes_to_the_end():
    with ReadingProgress(shows_bar=True) as progress:
        progress(3, 10)
        progress(10, 10)
        assert progress.bar.tasks[0].completed == progress.bar.tasks[0].total == 10


def test_longer_text_is_cut_and_that_is_said(patchpad, finished, text, tmp_path, caplog):
    page, size = tmp_path / "page.html", text.stat().st_size
    called = patchpad("inspect", finished, "--text", text, "--limit-bytes", "70", "--html", page)
    assert called.code == 0
    assert f"the first 70 of {size:,} bytes" in caplog.text
    assert f"he first 70 of {size:,} bytes" in page.read_text(encoding="utf-8")
    assert as_json(patchpad("inspect", finished, "--text", text, "--limit-bytes", "70", "--json"))["num_bytes"] == 70
    everything = patchpad("inspect", finished, "--text", text, "--limit-bytes", "0", "--json")
    assert as_json(everything)["num_bytes"] == size
    assert everything.err == ""


def test_without_arguments_the_shipped_model_reads_the_excerpt_and_its_gain_is_said(patchpad, tmp_path, caplog):
    excerpt, page = bundled_excerpt(), tmp_path / "page.html"
    called = patchpad("inspect")
    assert called.code == 0, called.err
    assert f"{excerpt.source}: {excerpt.shown_bytes:,} bytes" in called.out
    assert called.out.splitlines()[-1] == excerpt.what_scratchpads_save()
    assert f"the first {excerpt.shown_bytes:,} of {len(excerpt.text):,} bytes" in caplog.text
    assert patchpad("inspect", "--html", page).code == 0
    assert excerpt.what_scratchpads_save() in page.read_text(encoding="utf-8")
    without, stored = (
        as_json(patchpad("inspect", *options, "--json"))["bits_per_byte"]
        for options in (("--scratchpad-threshold", "inf"), ())
    )
    assert 1 - stored / without == pytest.approx(excerpt.shown_saved, abs=0.0005)


def test_what_is_said_of_the_excerpt_is_left_out_where_it_is_not_true(patchpad, finished):
    for options in ((finished,), ("--limit-bytes", "300"), ("--scratchpad-threshold", "1"), ("--compute", "0.2")):
        called = patchpad("inspect", *options)
        assert called.code == 0, called.err
        assert "The Moonstone by Wilkie Collins" in called.out
        assert bundled_excerpt().what_scratchpads_save() not in called.out


def test_text_may_be_packed_or_come_from_stdin(patchpad, finished, short, tmp_path, monkeypatch):
    expected = as_json(patchpad("inspect", finished, "--text", short, "--json"))
    (tmp_path / "short.txt.gz").write_bytes(gzip.compress(short.read_bytes()))
    assert as_json(patchpad("inspect", finished, "--text", tmp_path / "short.txt.gz", "--json")) == expected
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(short.read_bytes())))
    assert as_json(patchpad("inspect", finished, "--text", "-", "--json")) == expected
    assert as_json(patchpad("inspect", finished, "--words", os.fsdecode(short.read_bytes()), "--json")) == expected


def test_compute_chooses_the_threshold(patchpad, fails, run, text, short):
    assert "no calibration" in fails(2, "inspect", run, "--text", short, "--compute", "0.5")
    assert patchpad("calibrate", run, "--data", text).code == 0
    found = as_json(patchpad("inspect", run, "--text", short, "--compute", "1", "--json"))
    assert found["scratchpad_threshold_nats"] == "-inf"
    both = ("--compute", "0.5", "--scratchpad-threshold", "1.0")
    assert "both compute and scratchpad_threshold_nats" in fails(2, "inspect", run, "--text", short, *both)


def test_wrong_inputs_give_two_lines(fails, finished, short, tmp_path):
    (tmp_path / "empty.txt").write_bytes(b"")
    (tmp_path / "broken.gz").write_bytes(gzip.compress(bytes(range(256)))[:-20])
    missing = fails(1, "inspect", finished, "--text", tmp_path / "it's missing")
    assert f"no file is at {tmp_path}/it's missing" in missing
    words = missing.splitlines()[1].partition("patchpad inspect ")[2]
    assert shlex.split(words) == ["--words", f"{tmp_path}/it's missing"]
    assert "both --text and --words were given" in fails(2, "inspect", finished, "--text", "a", "--words", "b")
    assert "words is empty" in fails(1, "inspect", finished, "--words", "")
    assert "no file is at aaa" in fails(1, "inspect", finished, "--text", "a" * 5000)
    assert "is a directory" in fails(1, "inspect", finished, "--text", tmp_path)
    assert "empty.txt is empty" in fails(1, "inspect", finished, "--text", tmp_path / "empty.txt")
    assert "cannot read" in fails(1, "inspect", finished, "--text", tmp_path / "broken.gz")
    inspecting = ("inspect", finished, "--text", short)
    assert "does not exist" in fails(1, *inspecting, "--html", tmp_path / "none" / "page.html")
    assert "is not a folder" in fails(1, *inspecting, "--html", tmp_path / "empty.txt" / "page.html")
    assert "is a directory" in fails(1, *inspecting, "--html", tmp_path)
    assert "limit_bytes is -1" in fails(2, *inspecting, "--limit-bytes", "-1")
    assert "scratchpad_threshold_nats is nan" in fails(2, *inspecting, "--scratchpad-threshold", "nan")


def test_python_gives_the_same(finished, short, patchpad):
    model = package.load(finished)
    found = package.inspect(model, short.read_bytes(), scratchpad_threshold_nats=math.inf)
    assert isinstance(found, package.Inspection)
    expected = as_json(patchpad("inspect", finished, "--text", short, "--scratchpad-threshold", "inf", "--json"))
    assert json.loads(json.dumps(found.to_dict()))["bytes"] == expected["bytes"]


def test_a_page_never_replaces_the_text_or_what_is_no_file(fails, finished, short, tmp_path):
    before = short.read_bytes()
    link = tmp_path / "link.html"
    link.symlink_to(short)
    for page in (short, link):
        message = fails(1, "inspect", finished, "--text", short, "--html", page)
        assert f"{page} is the text itself; the page would replace it" in message
    os.mkfifo(tmp_path / "pipe")
    assert "is not a regular file" in fails(1, "inspect", finished, "--text", short, "--html", tmp_path / "pipe")
    assert short.read_bytes() == before
    assert (tmp_path / "pipe").is_fifo()


def test_a_page_behind_a_link_is_written_where_the_link_leads(patchpad, finished, short, tmp_path):
    page, link = tmp_path / "page.html", tmp_path / "link.html"
    page.write_text("old")
    link.symlink_to(page)
    assert patchpad("inspect", finished, "--text", short, "--html", link).code == 0
    assert link.is_symlink()
    assert page.read_text().lower().startswith("<!doctype html>")
