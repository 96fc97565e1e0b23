"""`bench.py` and what it compares with: verdicts on made-up figures, and each figure's work at a tiny size."""

import json
import subprocess
import sys

import bench
import bench_compare
import bench_figures
import pytest
from bench_compare import Speed
from measuring import ROOT

SAME = {"hardware": "a machine", "torch": "2.13.0", "threads": 1}
STEADY = [1.0, 1.01, 0.99, 1.0, 1.0]
UNSTEADY = [1.0, 1.1, 0.9, 1.05, 0.95]


def scaled(values, factor):
    return [factor * value for value in values]


def verdict(new, old, *, is_same_machine=True):
    return bench_compare.against_record(Speed.of(new), Speed.of(old), is_same_machine=is_same_machine)


@pytest.mark.parametrize(
    ("factor", "word"), [(1.0, "as before"), (0.97, "as before"), (0.9, "slower"), (1.1, "faster"), (1.03, "as before")]
)
def test_a_steady_figure_is_judged_by_five_percent(factor, word):
    assert verdict(scaled(STEADY, factor), STEADY).word == word


def test_an_unsteady_figure_needs_a_larger_change():
    assert verdict(scaled(UNSTEADY, 0.8), UNSTEADY).word == "as before"
    assert verdict(scaled(UNSTEADY, 0.8), UNSTEADY).bound > 0.2
    assert verdict(scaled(UNSTEADY, 0.7), UNSTEADY).word == "slower"


def test_one_bad_run_changes_no_verdict():
    assert verdict([0.1, *STEADY, *STEADY], STEADY).word == "as before"


def test_on_another_machine_only_large_changes_count():
    assert verdict(scaled(STEADY, 0.8), STEADY, is_same_machine=False).word == "as before"
    assert verdict(scaled(STEADY, 0.6), STEADY, is_same_machine=False).word == "slower"
    assert bench_compare.same_machine(SAME, {**SAME, "commit": "other"})
    assert not bench_compare.same_machine(SAME, {**SAME, "hardware": "another"})


def test_pairs_see_a_small_change_through_the_moods_of_a_machine():
    moods = [1.0, 0.3, 0.9, 0.5, 1.2, 0.4, 0.8]
    old = [100 * mood for mood in moods]
    assert bench_compare.in_pairs(scaled(old, 0.93), old).word == "slower"
    assert bench_compare.in_pairs(scaled(old, 1.0), old).word == "as before"
    assert bench_compare.in_pairs(scaled(old, 1.07), old).word == "faster"


@pytest.mark.parametrize("values", [[1.0, 1.0], [1.0, 0.0, 1.0]])
def test_too_few_runs_or_none_are_refused(values):
    with pytest.raises(ValueError, match="at least 3, all above 0"):
        Speed.of(values)


def run_main(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["bench.py", *words])
    return bench.main()


def use_figures(monkeypatch, factor):
    """Has figures measured as made up: the yardstick does 1 a second."""

    def measure(name, size, turns):
        run = {"cpu": 1.0, "wall": 1.0, "amount": 1000.0}
        return {"runs": [run] * turns, "yardstick_runs": [run] * turns, "over_yardstick": scaled(STEADY, factor)}

    monkeypatch.setattr(bench, "measure", measure)


def test_figures_are_recorded_and_a_slower_one_ends_with_1(monkeypatch, tmp_path, capsys):
    record = tmp_path / "bench.json"
    use_figures(monkeypatch, 10.0)
    assert run_main(monkeypatch, "--record", str(record)) == 0
    assert "Nothing is on record yet" in capsys.readouterr().out
    assert not record.exists(), "only --update writes"
    assert run_main(monkeypatch, "--record", str(record), "--update") == 0
    assert list(json.loads(record.read_text())["figures"]) == list(bench_figures.FIGURES)
    capsys.readouterr()
    use_figures(monkeypatch, 9.0)
    assert run_main(monkeypatch, "--record", str(record)) == 1
    printed = capsys.readouterr().out
    assert printed.count("| -10.0% | 5.0% | slower |") == 5
    assert "On record: commit" in printed
    use_figures(monkeypatch, 9.9)
    assert run_main(monkeypatch, "--record", str(record)) == 0


def test_a_part_of_the_figures_is_no_record(monkeypatch, capsys):
    with pytest.raises(SystemExit):
        run_main(monkeypatch, "--figures", "prefill", "--update")
    assert "--update writes all figures" in capsys.readouterr().err


def test_something_else_than_a_version_is_refused(monkeypatch, tmp_path):
    with pytest.raises(SystemExit, match="neither a folder with src/patchpad in it nor a commit"):
        run_main(monkeypatch, "--against", str(tmp_path))


def test_a_commit_is_checked_out_for_the_time(tmp_path, monkeypatch):
    def git(*words):
        subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b", *words], cwd=repository, check=True)

    repository = tmp_path / "repository"
    package = repository / "src" / "patchpad"
    package.mkdir(parents=True)
    (package / "version.py").write_text("old")
    git("init", "--quiet")
    git("add", ".")
    git("commit", "--quiet", "-m", "old")
    (package / "version.py").write_text("new")
    monkeypatch.setattr(bench, "ROOT", repository)
    with bench.tree_of("HEAD") as tree:
        assert (tree / "src" / "patchpad" / "version.py").read_text() == "old"
    assert not tree.exists()
    with bench.tree_of(str(repository)) as tree:
        assert (tree / "src" / "patchpad" / "version.py").read_text() == "new"


@pytest.mark.parametrize("name", [name for name in bench_figures.FIGURES if name != "compiled"])
def test_a_figure_is_timed_beside_its_yardstick(name):
    found = bench.measure(name, "tiny", turns=3)
    size = bench_figures.SIZES["tiny"]
    most = {"training": 128, "prefill": 128, "plain": 17, "many": size.many_rows * (size.bytes_per_row + 1)}[name]
    assert all(most / 2 < run["amount"] <= most for run in found["runs"])
    assert all(run["amount"] == 1 for run in found["yardstick_runs"])
    assert len(found["over_yardstick"]) == 3


@pytest.mark.slow
def test_two_versions_take_turns_in_processes_of_their_own(monkeypatch, capsys):
    status = run_main(monkeypatch, "--figures", "prefill", "--size", "tiny", "--turns", "3", "--against", str(ROOT))
    assert status in (0, 1)  # how fast they are is not what is tested
    assert f"of {ROOT}" in capsys.readouterr().out


def test_a_process_that_fails_is_reported(tmp_path):
    (tmp_path / "src" / "patchpad").mkdir(parents=True)
    (tmp_path / "src" / "patchpad" / "__init__.py").write_text("raise SystemExit(3)")
    side = bench.Side("prefill", tmp_path, "tiny", 3)
    try:
        with pytest.raises(SystemExit, match="ended with status 3"):
            side.wait_until_ready()
    finally:
        side.close()
