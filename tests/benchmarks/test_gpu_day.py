"""The script for a day with a GPU: its order, limits and gates with a Python that only pretends, and its parts."""

import json
import os
import shutil
import stat
import subprocess
import sys

import gpu_parity
import gpu_report
import gpu_tests
import measuring
import origin
import ours
import pytest
import savings
import torch
from gate import Gate
from measuring import ROOT

SCRIPT = ROOT / "benchmarks" / "gpu_day.sh"
needs_coreutils = pytest.mark.skipif(
    not (sys.platform == "linux" and shutil.which("bash") and shutil.which("timeout")), reason="the script is for Linux"
)
FAKE_PYTHON = """#!/usr/bin/env bash
# Answers what packages are missing, and notes and ends all other commands as the test wants.
if [ "$1" = -c ]; then echo "$FAKE_MISSING"; exit; fi
gate=
for word in "$@"; do
  [ "$gate" = next ] && gate=$word
  [ "$word" = --gate ] && gate=next
done
if [ -n "$gate" ]; then
  touch "$gate.ready"
  while [ ! -e "$gate" ]; do sleep 0.02; done
fi
echo "$(basename "$1") ${*:2}" >> "$OUT/commands"
case "$*" in
  *gpu_parity*) echo "parity broke"; exit 3 ;;
  *memory* | *generation*) sleep 60 ;;
esac
"""


def day(tmp_path, *parts: str, **variables: str) -> tuple[int, str, list[str]]:
    """Runs the script with a fake Python; returns status, output and the commands in the order in which they ended."""
    fake = tmp_path / "python"
    fake.write_text(FAKE_PYTHON)
    fake.chmod(fake.stat().st_mode | stat.S_IXUSR)
    out = tmp_path / "out"
    settings = {"OUT": str(out), "PYTHON": str(fake), "DEVICE": "cpu", "LIMIT": "90", "FAKE_MISSING": ""}
    environment = {**os.environ, **settings, **variables}
    words = ["bash", str(SCRIPT), *parts]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False, timeout=60)
    commands = out / "commands"
    return done.returncode, done.stdout, commands.read_text().splitlines() if commands.exists() else []


def run_main(script, monkeypatch, out, *words: str) -> None:
    """Runs a benchmark's own `main` in this process."""
    path = ROOT / "benchmarks" / f"{script.__name__}.py"
    monkeypatch.setattr(sys, "argv", [str(path), *words, "--out", str(out)])
    script.main()


@needs_coreutils
def test_a_part_that_fails_or_hangs_does_not_stop_the_next(tmp_path):
    status, output, commands = day(tmp_path, MOST="1")
    assert status == 0
    scripts = [command.split()[0] for command in commands]
    assert scripts[:3] == ["gpu_tests.py", "gpu_tests.py", "gpu_parity.py"]
    assert scripts[3:] == [*["presets_gpu.py"] * 5, "savings.py", "presets_gpu.py", "gpu_report.py"]
    assert "-k finite" in commands[0]
    assert [command.split("--presets ")[1].split()[0] for command in commands[3:7]] == ["100m", "350m", "1b", "100m"]
    assert "parity broke" in output
    assert "parity: failed with status 3" in output
    assert "generation: cut off" in output  # at its gate
    assert "memory: cut off" in output
    assert "parity broke" in (tmp_path / "out" / "log.txt").read_text()


@needs_coreutils
def test_only_the_parts_that_are_asked_for_run(tmp_path):
    status, _, commands = day(tmp_path, "savings", "parity")
    assert status == 0
    assert [command.split()[0] for command in commands] == ["savings.py", "gpu_parity.py", "gpu_report.py"]
    status, output, _ = day(tmp_path, "speed")
    assert status == 2
    assert "allowed: tests parity training generation savings memory" in output


@needs_coreutils
def test_missing_packages_are_named(tmp_path):
    status, output, commands = day(tmp_path, FAKE_MISSING="numpy")
    assert status == 2
    assert "lacks: numpy; name a folder of wheels" in output
    assert not commands


def test_a_gate_says_that_somebody_waits_and_opens_with_its_file(tmp_path):
    Gate(None).wait()
    path = tmp_path / "one"
    gate = Gate(path)
    assert not gate.is_open
    path.touch()
    gate.wait()
    assert (tmp_path / "one.ready").exists()


def test_each_test_is_noted_as_it_ends(tmp_path):
    file = tmp_path / "test_some.py"
    file.write_text(
        "import pytest\n"
        "@pytest.mark.gpu\ndef test_good(): pass\n"
        "@pytest.mark.gpu\ndef test_bad(): assert 1 == 2\n"
        "@pytest.mark.gpu\n@pytest.mark.skip(reason='no')\ndef test_skipped(): pass\n"
        "def test_of_a_cpu(): pass\n"
    )
    recorder = gpu_tests.Recorder()
    written = []
    recorder.write = lambda: written.append(len(recorder.rows))
    assert gpu_tests.run([file], ["-c", os.devnull, "-W", "ignore", "-p", "no:xdist"], recorder) == 1
    assert [row["outcome"] for row in recorder.rows] == ["passed", "failed", "skipped"]
    assert written == [1, 2, 3]
    assert "assert 1 == 2" in recorder.rows[1]["reason"]
    table = gpu_report.tests_table(recorder.rows)
    assert "1 passed, 1 failed, 1 skipped" in table


def test_files_with_gpu_tests_are_found():
    assert ROOT / "tests" / "model" / "test_flex_attention.py" in gpu_tests.gpu_test_files()
    assert ROOT / "tests" / "test_device.py" not in gpu_tests.gpu_test_files()


@pytest.fixture
def without_git(monkeypatch):
    monkeypatch.setattr(origin, "_git", lambda *words: None)
    for cached in (origin.commit, origin.has_changed):
        cached.cache_clear()
    yield
    for cached in (origin.commit, origin.has_changed):
        cached.cache_clear()


@pytest.mark.parametrize(
    ("given", "commit", "changed"),
    [("0123456789", "0123456789", False), ("0123456789-dirty", "0123456789", True), (None, "unknown", None)],
)
def test_without_git_a_variable_names_the_commit(without_git, monkeypatch, given, commit, changed):
    monkeypatch.delenv("COMMIT", raising=False)
    if given:
        monkeypatch.setenv("COMMIT", given)
    assert (origin.commit(), origin.has_changed()) == (commit, changed)


def test_the_digest_follows_the_code(tmp_path):
    (tmp_path / "src").mkdir()
    file = tmp_path / "src" / "a.py"
    file.write_text("1")
    before = origin.source_digest(tmp_path)
    file.write_text("2")
    origin.source_digest.cache_clear()
    assert origin.source_digest(tmp_path) != before


def test_commands_are_kept_without_the_places_of_a_machine():
    words = ["--out", "/tmp/x", "--rows", "1", "--gate=/tmp/y", "--compile"]
    assert origin._without_places(words) == ["--rows", "1", "--compile"]


def test_commands_of_one_day_add_to_one_file(tmp_path, monkeypatch):
    options = measuring.arguments("").parse_args(["--out", str(tmp_path)])
    script = str(ROOT / "benchmarks" / "x.py")
    for number, words in enumerate((["--rows", "1"], ["--rows", "2"], ["--rows", "2"])):
        monkeypatch.setattr(sys, "argv", [script, *words, "--out", str(tmp_path)])
        path = measuring.add_to_results(options, "gpu-parity", [{"number": number}])
    content = json.loads(path.read_text())
    assert [row["number"] for row in content["rows"]] == [0, 1, 2]
    assert content["provenance"]["command"] == "python benchmarks/x.py --rows 1; python benchmarks/x.py --rows 2"
    assert len(list(tmp_path.iterdir())) == 1


def test_the_report_says_what_was_not_run_and_what_it_cannot_read(tmp_path):
    facts = {"hardware": "a card", "date": "2026-01-01", "commit": "0123456789", "torch": "2", "device": "cuda"}
    facts |= {"changes_since_commit": None, "driver": "580", "cuda": "13.0"}
    rows = {"gpu-tests": [{"test": "a", "outcome": "passed", "seconds": 1.0}], "gpu-memory": [{"odd": 1}]}
    for part, content in rows.items():
        file = tmp_path / f"{part}_cuda_2026-01-01_0123456789.json"
        file.write_text(json.dumps({"provenance": facts, "rows": content}))
    gpu_report.main(tmp_path)
    page = (tmp_path / "gpu-day_cuda_2026-01-01_0123456789.md").read_text()
    assert "a card, 2026-01-01" in page
    assert "driver 580" in page
    assert "1 passed" in page
    assert "## gpu-training\n\nNot run." in page
    assert "No table (KeyError" in page
    with pytest.raises(SystemExit, match="holds no result"):
        gpu_report.main(tmp_path / "empty")


def test_parity_holds_on_a_cpu(monkeypatch, tmp_path):
    one = next(iter(gpu_parity.cases(30)))
    monkeypatch.setattr(gpu_parity, "cases", lambda positions: iter([one]))
    run_main(gpu_parity, monkeypatch, tmp_path, "--device", "cpu", "--training-steps", "1")
    (file,) = tmp_path.glob("gpu-parity_cpu_*.json")
    rows = json.loads(file.read_text())["rows"]
    assert [row["check"].split(",")[0].split()[0] for row in rows] == ["gradients", *["pass"] * 3, "steps", "losses"]
    assert all(row["ok"] for row in rows), rows


def test_savings_of_the_day_wait_at_their_gate_and_are_kept_batch_by_batch(monkeypatch, tmp_path):
    gate = tmp_path / "gate"
    gate.touch()
    monkeypatch.setattr(ours, "SEEDS", 20)
    sizes = ["--size", "tiny", "--batches", "1", "--prefill-bytes", "32", "--run-bytes", "16", "--repeats", "1"]
    run_main(savings, monkeypatch, tmp_path, "--day", "--gate", str(gate), *sizes)
    assert (tmp_path / "gate.ready").exists()
    (file,) = tmp_path.glob("gpu-savings_cpu_*.json")
    rows = json.loads(file.read_text())["rows"]
    assert [row["part"] for row in rows] == ["prefill", "prefill", "generation", "generation"]
    assert "## Generation" in gpu_report.savings_tables(rows)


def test_a_check_that_raises_is_a_row_that_does_not_hold(capsys):
    row = gpu_parity.run({"check": "c", "case": "m", "dtype": "fp32"}, lambda: {}["key"])
    assert row["error"] == "KeyError: 'key'"
    assert not row["ok"]
    assert "**no**" in gpu_parity.report([row])


def test_numbers_are_compared_up_to_the_first_decision_that_differs():
    expected = torch.ones(1, 4, 2)
    found = expected.clone()
    found[0, 2:] = 7.0
    same = torch.tensor([[True, True, False, True]])
    facts = gpu_parity.distance(found, expected, same, 1e-4)
    assert facts["ok"]
    assert facts["compared"] == 0.5
    assert not gpu_parity.distance(found, expected, torch.ones_like(same), 1e-4)["ok"]
    assert not gpu_parity.distance(found * float("nan"), expected, same, 1e-4)["ok"]
