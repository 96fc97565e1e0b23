"""`patchpad plot`: curves of runs over one another, finished or not, and what it says of what cannot be drawn."""

import itertools
import json
import math
import re
import struct
import sys
import xml.etree.ElementTree as ET

import pytest

from patchpad.cli.app import main
from patchpad.errors import CheckpointError, ConfigError
from patchpad.pages.curves import MAX_CURVE_POINTS, smoothed, thinned
from patchpad.pages.line_plot import Series, legend_lines
from patchpad.pages.png import flat, png_of
from patchpad.training.metrics import read_metrics
from patchpad.training.run_plot import NAMES, run_plot

SVG = "{http://www.w3.org/2000/svg}"


def write_run(folder, bits=(6.0, 4.0, 3.0), last="", finished=True, **keys):
    """A run of which every second line has a validation."""
    (folder / "checkpoints").mkdir(parents=True)
    lines = []
    for number, value in enumerate(bits, 1):
        line = {"step": 10 * number, "bytes_seen": 500_000 * number, "seconds": 90.0 * number, "train/bpb": value}
        line |= {key.replace("__", "/"): values for key, values in keys.items()}
        lines.append(line | ({"val/bpb": value + 0.1} if number % 2 else {}))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + last)
    if finished:
        (folder / "manifest.json").write_text("{}")
    return folder


def drawn(svg):
    """Texts, lines as (colour, dashed, opacity, points), and the number of markers outside of the legend."""
    root = ET.fromstring(svg)
    texts = [element.text for element in root.iter(f"{SVG}text")]
    lines = [
        (
            re.search(r"plot-(\d)", element.get("style"))[1],
            element.get("stroke-dasharray") is not None,
            "opacity" in element.get("style"),
            [tuple(map(float, pair.split(","))) for pair in element.get("points").split()],
        )
        for element in root.iter(f"{SVG}polyline")
    ]
    markers = [element for element in root.iter(f"{SVG}path") if element.find(f"{SVG}title") is not None]
    return texts, lines, len(markers)


def test_runs_lie_over_one_another_with_legend_units_and_how_far_those_are_that_go_on(tmp_path):
    first = write_run(tmp_path / "first")
    second = write_run(tmp_path / "second", bits=(5.0, 3.5, 2.5, 2.4), finished=False, last='{"step": 50, "by')
    texts, lines, markers = drawn(run_plot([first, second]))
    assert texts[0] == "Bits per byte on held-out text"
    assert {"first", "second (step 40 so far)", "bits per byte", "training text seen (kB)"} <= set(texts)
    assert [line[:3] for line in lines] == [("1", False, False), ("2", False, False)]
    assert [len(line[3]) for line in lines] == [2, 2], "the lines with a validation"
    assert markers == 4
    assert lines[0][3][-1][1] > lines[0][3][0][1], "the axis points up"


@pytest.mark.parametrize(
    ("x", "label", "last"),
    [
        ("step", "training step", "30"),
        ("seconds", "time in training (minutes)", "5"),
        ("bytes_seen", "seen (MB)", "2.5"),
    ],
)
def test_the_horizontal_axis_is_steps_time_or_text(tmp_path, x, label, last):
    texts, lines, _ = drawn(run_plot([write_run(tmp_path / "run", bits=[3.0] * (5 if x == "bytes_seen" else 3))], x=x))
    assert any(text.endswith(label) for text in texts)
    assert last in texts
    at = [point[0] for point in lines[0][3]]
    assert at == sorted(at)


def test_a_logarithmic_axis_spreads_the_beginning(tmp_path):
    run = write_run(tmp_path / "run", bits=range(1, 10))
    even, spread = (drawn(run_plot([run], ["train/bpb"], log_x=log))[1][0][3] for log in (False, True))
    gaps = [[after[0] - before[0] for before, after in itertools.pairwise(line)] for line in (even, spread)]
    assert max(gaps[0]) - min(gaps[0]) < 0.3
    assert gaps[1] == sorted(gaps[1], reverse=True)


def test_smoothing_draws_means_over_the_faint_values(tmp_path):
    run = write_run(tmp_path / "run", bits=[3 + (-1) ** number for number in range(60)])
    texts, (faint, line), markers = drawn(run_plot([run], ["train/bpb"], smooth=11))
    assert texts[0] == "Bits per byte on training text, run run; means of 11 lines"
    assert faint[:3] == ("1", False, True)
    assert line[:3] == ("1", False, False)
    assert markers == 0
    heights = [[y for _, y in points[6:-6]] for points in (faint[3], line[3])]
    assert max(heights[1]) - min(heights[1]) < (max(heights[0]) - min(heights[0])) / 5


def test_parts_share_a_title_and_several_keys_of_several_runs_are_told_apart(tmp_path):
    keys = {"gradient_norm__trunk": 1.0, "gradient_norm__local_decoder": 0.5, "val__books__bpb": 3.0}
    runs = [write_run(tmp_path / name / "run", **keys) for name in ("a", "b")]
    texts, lines, _ = drawn(run_plot(runs, ["gradient_norm/trunk", "gradient_norm/local_decoder"]))
    assert texts[0] == "Gradient norm before clipping"
    assert {"a/run, trunk", "b/run, local_decoder", "norm"} <= set(texts)
    assert [line[0] for line in lines] == ["1", "2", "3", "4"]
    texts, _, _ = drawn(run_plot(runs[:1], ["val/bpb", "train/bpb", "val/books/bpb"]))
    assert texts[0] == "Bits per byte, run run"
    assert {"bits per byte on training text", "bits per byte on held-out text, books"} <= set(texts)


def test_more_than_eight_lines_are_dashed_and_more_than_sixteen_refused(tmp_path):
    runs = [write_run(tmp_path / f"{number}") for number in range(17)]
    _, lines, _ = drawn(run_plot(runs[:16]))
    assert [line[1] for line in lines] == [False] * 8 + [True] * 8
    with pytest.raises(ConfigError, match="17 runs with 1 keys each make 17 lines; allowed: 16"):
        run_plot(runs)


def test_without_a_key_a_run_that_was_not_validated_yet_shows_its_training(tmp_path):
    run = write_run(tmp_path / "run", finished=False)
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    (run / "metrics.jsonl").write_text(json.dumps({k: v for k, v in lines[0].items() if k != "val/bpb"}) + "\n")
    texts, _, markers = drawn(run_plot([run]))
    assert texts[0] == "Bits per byte on training text, run run (step 10 so far)"
    assert markers == 1


def test_a_file_of_metrics_and_a_step_are_drawn_like_a_run(tmp_path):
    run = write_run(tmp_path / "run")
    copy = tmp_path / "copied.jsonl"
    copy.write_text((run / "metrics.jsonl").read_text())
    texts, _, _ = drawn(run_plot([run / "metrics.jsonl", copy]))
    assert {"run", "copied.jsonl"} <= set(texts)


@pytest.mark.parametrize(
    ("keys", "options", "message", "hint"),
    [
        (["val/bpbs"], {}, r"--key is val/bpbs, which no line of .*run has; allowed: step, bytes_seen, ", "`val/bpb`"),
        (["mfu"], {}, r"--key is mfu, which has no finite number in .*run, only null", "another --key"),
        (["threshold"], {}, r"only inf", "another --key"),
        (["val/bpb", "step"], {}, "the keys have several units: bits per byte, step; allowed: one", "each unit"),
        ([], {"smooth": 0}, "--smooth is 0; allowed: an integer of at least 1", ""),
        ([], {"x": "seconds"}, r"--x is seconds, which no line of .*run has", "another --x"),
    ],
)
def test_what_cannot_be_drawn_is_an_error_that_says_what_can(tmp_path, keys, options, message, hint):
    run = write_run(tmp_path / "run", mfu=None, threshold="inf")
    text = (run / "metrics.jsonl").read_text()
    if "x" in options:
        (run / "metrics.jsonl").write_text(text.replace('"seconds"', '"clock"'))
    with pytest.raises(ConfigError, match=message) as caught:
        run_plot([run], keys, **options)
    assert hint in caught.value.hint


def test_a_run_without_the_key_is_named_beside_one_that_has_it(tmp_path):
    runs = [write_run(tmp_path / "has", other=1.0), write_run(tmp_path / "has not")]
    with pytest.raises(ConfigError, match=r"no line of .*has not has"):
        run_plot(runs, ["other"])


def test_a_run_without_lines_or_files_is_an_error(tmp_path):
    run = write_run(tmp_path / "run", bits=(), last='{"step": 1')
    with pytest.raises(CheckpointError, match="run has no line of metrics yet"):
        run_plot([run])
    with pytest.raises(CheckpointError, match="No such file"):
        run_plot([tmp_path / "none"])


def test_curves_of_a_hundred_thousand_lines_stay_small_and_keep_their_peaks():
    pairs = [(float(x), math.sin(x / 9000)) for x in range(100_000)]
    pairs[50_123] = (50_123.0, 7.0)
    thin = thinned(pairs)
    assert len(thin) <= 2 * MAX_CURVE_POINTS + 2
    assert max(y for _, y in thin) == 7.0
    assert thin[0] == pairs[0]
    assert thin[-1] == pairs[-1]
    assert thin == sorted(thin)
    smooth = smoothed(pairs, 1001)
    assert len(smooth) <= 2 * MAX_CURVE_POINTS
    assert max(y for _, y in smooth) < 1.05
    assert thinned(pairs[:300]) == pairs[:300]


def test_keys_that_are_explained_or_written_are_on_the_page_of_file_formats(request, finished):
    page = (request.config.rootpath / "docs" / "files.md").read_text(encoding="utf-8")
    written = {key.split("/")[0] if key.startswith("gradient_norm") else key for key in read_metrics(finished)[-1]}
    assert [key for key in {*NAMES, *written} if f"`{key}`" not in page] == []


def test_a_legend_is_given_the_lines_that_it_takes():
    labels = ["a run with a long name"] * 7
    svg_lines = len({text.get("y") for text in legend_texts(labels, 600)})
    assert legend_lines(labels, 600) == svg_lines > 1
    assert legend_lines(labels[:1], 600) == 1


def legend_texts(labels, width):
    from patchpad.pages.line_plot import line_plot

    series = [Series(label, [(1, 2), (2, 3)]) for label in labels]
    plot = line_plot(series, title="t", x_label="x", y_label="y", width=width, standalone=True)
    return [element for element in ET.fromstring(plot).iter(f"{SVG}text") if element.text in labels]


def test_the_command_writes_an_svg_and_says_where(tmp_path, capsys):
    run = write_run(tmp_path / "run")
    out = tmp_path / "plot.svg"
    arguments = ["plot", str(run), "--key", "train/bpb", "--x", "step", "--smooth", "3", "--log-x", "--out", str(out)]
    assert main(arguments) == 0
    assert capsys.readouterr().out == f"{out}\n"
    assert drawn(out.read_text(encoding="utf-8"))[0][0].startswith("Bits per byte on training text")
    assert main([*arguments, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"out": str(out)}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out", "plot.svg"], "no RUN is given"),
        (["run", "--out", "plot.gif"], "--out is plot.gif; allowed: a name that ends in .svg or .png or .pdf"),
        (["run", "--out", "plot.svg", "--x", "hours"], "hours"),
        (["run", "--out", "plot.svg"], "cannot read run/metrics.jsonl: No such file or directory"),
    ],
)
def test_the_command_refuses_what_it_cannot_do_in_two_lines(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert main(["plot", *arguments]) in (1, 2)
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) <= 2
    assert list(tmp_path.iterdir()) == []


def test_a_png_without_its_library_names_the_pip_line_before_anything_is_read(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "vl_convert", None)
    assert main(["plot", str(tmp_path / "none"), "--out", str(tmp_path / "plot.png")]) == 1
    assert 'pip install "patchpad[plot]"' in capsys.readouterr().err


def test_a_pdf_needs_its_library_too_and_is_written_with_it(tmp_path, monkeypatch, capsys):
    run, out = write_run(tmp_path / "run"), tmp_path / "plot.pdf"
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "matplotlib", None)
        assert main(["plot", str(tmp_path / "none"), "--out", str(out)]) == 1
    assert 'pip install "patchpad[plot]"' in capsys.readouterr().err
    pytest.importorskip("matplotlib")
    assert main(["plot", str(run), "--out", str(out)]) == 0
    assert out.read_bytes().startswith(b"%PDF-")


def test_a_png_has_the_light_colours_text_and_two_pixels_to_a_unit(tmp_path):
    pytest.importorskip("vl_convert")
    runs = [write_run(tmp_path / "first"), write_run(tmp_path / "second", bits=(5.0, 3.5, 2.5))]
    out = tmp_path / "plot.png"
    assert main(["plot", *map(str, runs), "--out", str(out)]) == 0
    picture = out.read_bytes()
    assert picture.startswith(b"\x89PNG\r\n\x1a\n")
    assert struct.unpack(">II", picture[16:24]) == (2 * 720, 2 * 380)
    plot = flat(run_plot(runs))
    assert not re.search(r"var\(|@media|font:", plot)
    assert {"fill:#fff", "stroke:#0072b2", "stroke:#d55e00"} <= set(re.findall(r"(?:fill|stroke):#\w+", plot))
    without_text = png_of(re.sub(r"<text.*?</text>", "", plot))
    assert len(picture) > len(without_text) + 20_000, "text is drawn, be there fonts in the system or not"
