"""A dry run of `benchmarks/gpu_day.sh` at tiny sizes: each of its parts, as the script calls them, on this device."""

import json
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import gpu_parity  # noqa: E402
import gpu_report  # noqa: E402
import ours  # noqa: E402
import presets_gpu  # noqa: E402
import savings  # noqa: E402
from sizes import num_params  # noqa: E402

from patchpad.config import load_config  # noqa: E402


@pytest.fixture
def part(monkeypatch, tmp_path):
    """Runs a script of the day; returns the rows that it has kept."""
    monkeypatch.setattr(ours, "SEEDS", 10)

    def run(script, result: str, *words: str) -> list[dict]:
        path = BENCHMARKS / f"{script.__name__}.py"
        monkeypatch.setattr(sys, "argv", [str(path), *words, "--device", "cuda", "--out", str(tmp_path)])
        script.main()
        (file,) = tmp_path.glob(f"{result}_cuda_*.json")
        content = json.loads(file.read_text(encoding="utf-8"))
        assert content["provenance"]["device"] == "cuda"
        assert "memory_bytes" in content["provenance"]
        gpu_report.main(tmp_path)
        (page,) = tmp_path.glob("gpu-day_cuda_*.md")
        assert "No table" not in page.read_text(encoding="utf-8")
        return content["rows"]

    return run


TRAINING = ("--presets", "tiny", "--arms", "fixed16-entropy", "--rows", "1", "--repeats", "1")


def test_training_is_compiled_where_that_is_asked_for(part, record):
    step, product = part(presets_gpu, "gpu-training", "--parts", "training", *TRAINING, "--compile")
    assert step["compiled"]
    assert record.compiled["training_pass"] == 5  # two warm steps, one more before the timed one, one counted, and it
    assert step["bytes"] > 0
    assert product["moved_bytes"] == 0


def test_training_is_not_compiled_otherwise_and_memory_is_that_of_the_device(part, record):
    (row,) = part(presets_gpu, "gpu-memory", "--parts", "memory", *TRAINING)
    assert not record.compiled["training_pass"]
    assert row["peak_bytes"] > 4 * 4 * num_params(load_config("tiny-fixed16-entropy").model)


def test_generation_runs_with_captured_graphs_and_without(part, record):
    words = ("--parts", "generation", "--presets", "tiny", "--arms", "fixed16-entropy", "--batches", "1")
    rows = part(presets_gpu, "gpu-generation", *words, "--repeats", "1", "--compile")
    assert [row["compiled"] for row in rows] == [True, False]
    assert record.graphs_captured >= 3


def test_savings_are_measured_at_the_same_batches(part):
    words = (
        "--day",
        "--size",
        "tiny",
        "--batches",
        "1",
        "--prefill-bytes",
        "32",
        "--run-bytes",
        "16",
        "--repeats",
        "1",
    )
    rows = part(savings, "gpu-savings", *words)
    assert [row["part"] for row in rows] == ["prefill", "prefill", "generation", "generation"]


def test_parity_holds_in_both_types(part, monkeypatch):
    case = next(case for case in gpu_parity.cases(24) if case.name == "fixed-entropy")
    monkeypatch.setattr(gpu_parity, "cases", lambda positions: iter([case]))
    rows = part(gpu_parity, "gpu-parity", "--positions", "4", "--training-steps", "1", "--compile")
    assert {row["dtype"] for row in rows} == {"fp32", "bf16"}
    assert [row for row in rows if not row["ok"]] == []
