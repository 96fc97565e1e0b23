"""The report of a study: made from result files alone, its numbers those of the files."""

import json
import shutil
import statistics
import subprocess
import sys
from dataclasses import replace
from xml.etree import ElementTree

import pytest

from patchpad.errors import DataError
from patchpad.study import plots as study_plots
from patchpad.study.report import write_study_report
from patchpad.study.results import RESULT_SHAPE, read_results
from patchpad.study.summary import summarize


@pytest.fixture
def results(finished, tmp_path):
    """A study's folder with its results alone."""
    shutil.copytree(finished / "results", tmp_path / "study" / "results")
    return tmp_path / "study"


def rows(report: str, heading: str) -> dict[str, dict[str, str]]:
    """The table whose headings begin so, by its first cell."""
    lines = report[report.index(f"| {heading}") :].splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    end = next((n for n, line in enumerate(lines) if not line), len(lines))
    return {row[0]: dict(zip(cells[0], row, strict=True)) for row in cells[2:end]}


def stored(folder, name):
    result = json.loads((folder / "results" / f"{name}.json").read_text())
    return result, next(point for point in result["measured"]["points"] if point["at"] == "stored")


def test_the_report_command_needs_no_torch_and_no_runs(results):
    code = "import sys; from patchpad.cli.app import main; code = main(['study', 'report', sys.argv[1]]); "
    code += "sys.exit(code or ('torch' in sys.modules) or ('numpy' in sys.modules))"
    environment = {"PYTHONPATH": ":".join(path for path in sys.path if path)}
    done = subprocess.run(
        [sys.executable, "-c", code, str(results)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(results / "report.md")


def test_numbers_in_the_report_are_those_of_the_results(results):
    report = write_study_report(results).read_text()
    table = rows(report, "arm | seeds | parameters")
    assert list(table) == [
        *("plain", "entropy", "random (exploratory)", "byte (exploratory)", "xz (compressor)", "bz2 (compressor)")
    ]
    pair = [stored(results, f"entropy-seed{seed}") for seed in (0, 1)]
    bits = [point["bits_per_byte"] for _, point in pair]
    row = table["entropy"]
    assert row["bits per byte"] == f"{statistics.fmean(bits):.4f} ± {statistics.stdev(bits):.4f}"
    assert row["FLOPs per byte"] == f"{statistics.fmean(point['flops_per_byte'] for _, point in pair):,.0f}"
    null = statistics.fmean(one["measured"]["null_context_bits_per_byte"] for one, _ in pair)
    assert row["without the trunk's context"] == f"{null:.4f}"
    assert row["seeds"] == "2"
    assert row["parameters"] == f"{sum(pair[0][0]['parameters'].values()):,}"
    assert table["xz (compressor)"]["bits per byte"] == f"{pair[0][0]['compressors']['xz']:.4f}"
    assert table["byte (exploratory)"]["without the trunk's context"] == "–"  # noqa: RUF001

    differences = rows(report, "arm | bits per byte, difference")
    plain = [stored(results, f"plain-seed{seed}")[1]["bits_per_byte"] for seed in (0, 1)]
    each = [one - other for one, other in zip(bits, plain, strict=True)]
    expected = f"{statistics.fmean(each):+.4f} ± {statistics.stdev(each):.4f}"
    assert differences["entropy"]["bits per byte, difference"] == expected
    assert differences["entropy"]["each seed"] == ", ".join(f"{value:+.4f}" for value in each)
    assert differences["random (exploratory)"]["seeds in common"] == "1"


def test_every_plot_that_the_report_shows_is_an_image_of_its_own(results):
    report = write_study_report(results).read_text()
    names = {line.split("(plots/")[1].rstrip(")") for line in report.splitlines() if line.startswith("![")}
    assert names == {path.name for path in (results / "plots").iterdir()}
    kinds = ("flops", "cache", "threshold", "positions", "letters", "classes", "training")
    assert names == {f"words-1.7k-{kind}.svg" for kind in kinds}
    for name in names:
        root = ElementTree.fromstring((results / "plots" / name).read_text())
        assert root.tag.endswith("svg")
        assert "prefers-color-scheme:dark" in ElementTree.tostring(root, encoding="unicode")


def test_positions_of_several_seeds_are_weighted_by_their_bytes(results):
    (comparison,) = summarize(read_results(results))
    arm = next(arm for arm in comparison.arms if arm.name == "entropy")
    tables = [one["measured"]["stored"]["bits_per_byte_by_position"] for one in arm.results]
    first = [table[0] for table in tables]
    mean = sum(row["bits_per_byte"] * row["num_bytes"] for row in first) / sum(row["num_bytes"] for row in first)
    assert arm.by_position("stored")[0] == (1, pytest.approx(mean, abs=1e-12))


def test_arms_that_saw_another_number_of_bytes_have_tables_and_plots_of_their_own(results):
    path = results / "results" / "random-seed0.json"
    result = json.loads(path.read_text())
    result["training"]["bytes_seen"] *= 2
    path.write_text(json.dumps(result))
    report = write_study_report(results).read_text()
    first, second = report.split("## Text: words, 3.3")[1].split("## Text: words, 1.6")
    assert next(iter(rows(first, "arm | seeds | parameters"))) == "random (exploratory)"
    assert "random (exploratory)" not in second
    assert "random (exploratory)" not in rows(report, "arm | bits per byte, difference")
    assert "(plots/words-3.3k-flops.svg)" in first
    assert "(plots/words-1.7k-flops.svg)" in second


def test_arms_whose_bytes_hardly_differ_have_plots_of_their_own_too(results):
    for path in (results / "results").glob("*-seed*.json"):
        result = json.loads(path.read_text())
        result["training"]["bytes_seen"] = 16_500 if result["arm"] == "random" else 16_000
        path.write_text(json.dumps(result))
    report = write_study_report(results).read_text()
    first, second = report.split("## Text: words")[1:]
    assert "(plots/words-16.5k-flops.svg)" in first
    assert "(plots/words-16k-flops.svg)" in second
    plots = [(results / "plots" / f"words-{size}-flops.svg").read_text() for size in ("16.5k", "16k")]
    assert [">random" in plot for plot in plots] == [True, False]


def test_results_of_different_texts_under_one_name_are_refused(results):
    path = results / "results" / "random-seed0.json"
    result = json.loads(path.read_text())
    result["data"]["training"]["sha256"] = "another"
    path.write_text(json.dumps(result))
    with pytest.raises(
        DataError, match="byte-seed0 and random-seed0 have different training texts under the name `words`"
    ):
        write_study_report(results)


def test_letters_are_compared_over_the_seeds_that_both_arms_have(results):
    def with_letters(name, bits):
        path = results / "results" / f"{name}.json"
        result = json.loads(path.read_text())
        rows = [{"letter": letter, "bits_per_byte": bits + letter, "num_bytes": 10} for letter in (0, 1)]
        result["measured"]["stored"]["bits_per_byte_by_letter"] = rows
        path.write_text(json.dumps(result))

    for name, bits in (("plain-seed0", 2.0), ("plain-seed1", 4.0), ("entropy-seed0", 1.5), ("entropy-seed1", 1.0)):
        with_letters(name, bits)
    (results / "results" / "plain-seed1.json").unlink()
    (comparison,) = summarize(read_results(results))
    plot = study_plots.letters([arm for arm in comparison.arms if arm.name in ("plain", "entropy")])
    assert [one.points for one in plot.series] == [[(0, -0.5), (1, -0.5)]]  # of seed 0 alone


def test_an_arm_has_one_colour_in_all_plots_also_in_those_that_leave_arms_out(results):
    (comparison,) = summarize(read_results(results))
    of_one_family = replace(comparison, arms=tuple(arm for arm in comparison.arms if arm.name != "byte"))
    plots = study_plots.study_plots(of_one_family)
    assert set(plots) >= {"flops", "threshold", "positions", "letters", "classes"}
    looks = {name: {one.look for one in plot.series if one.group == "entropy"} for name, plot in plots.items()}
    assert looks == dict.fromkeys(plots, looks["flops"])
    assert len(looks["flops"]) == 1


def test_a_plot_says_how_many_arms_it_leaves_out(results, monkeypatch):
    monkeypatch.setattr(study_plots, "MOST_ARMS", 1)
    plots = write_study_report(results).parent / "plots"
    assert "inside the patch (1 of 2 arms)</" in (plots / "words-1.7k-positions.svg").read_text()
    assert "arms)" not in (plots / "words-1.7k-classes.svg").read_text()


@pytest.mark.parametrize("most", [1, 2])
def test_positions_without_scratchpads_are_shown_where_there_is_room(results, monkeypatch, most):
    monkeypatch.setattr(study_plots, "MOST_TOLD_SWITCHED_OFF", most)
    plot = (write_study_report(results).parent / "plots" / "words-1.7k-positions.svg").read_text()
    assert ("entropy, switched off" in plot) == (most == 2)  # beside it stands `plain`, which has none to switch off
    assert "plain, switched off" not in plot


def test_an_unfinished_study_is_reported_as_far_as_it_got(results):
    for name in ("byte-seed0", "entropy-seed1"):
        (results / "results" / f"{name}.json").unlink()
    report = write_study_report(results).read_text()
    assert "\nNo result yet of: entropy (seed 1), byte.\n" in report
    assert rows(report, "arm | seeds | parameters")["entropy"]["seeds"] == "1"


def test_a_folder_without_results_and_a_broken_result_are_refused(results, tmp_path):
    with pytest.raises(DataError, match="holds no results of a study"):
        write_study_report(tmp_path)
    (results / "results" / "plain-seed0.json").write_text("{")
    with pytest.raises(DataError, match=r"cannot read .*plain-seed0.json"):
        write_study_report(results)


def keys_of(shape, path=()):
    """Yields the path to every key that a result must have; entries of lists are those of the first one."""
    for key, part in shape.items() if isinstance(shape, dict) else [(0, shape[0])] if isinstance(shape, list) else ():
        if key != 0:
            yield (*path, key)
        yield from keys_of(part, (*path, key))


def test_a_result_that_lacks_anything_or_has_another_type_is_refused_by_its_path(results):
    path = results / "results" / "plain-seed0.json"
    whole = path.read_text()
    for *above, key in keys_of(RESULT_SHAPE):
        for spoil in (lambda place, key: place.pop(key), lambda place, key: place.update({key: [{}, "x"]})):
            content = place = json.loads(whole)
            for step in above:
                place = place[step]
            spoil(place, key)
            path.write_text(json.dumps(content))
            with pytest.raises(DataError, match=rf"is not a result of a study: `[^`]*{key}[^`]*` is") as raised:
                read_results(results)
            assert raised.value.hint == f"Move {path} away, and run the study again."
