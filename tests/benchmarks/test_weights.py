"""`weights.py` end to end, at a tiny size."""

import json
import sys

import pytest
import weights
from measuring import ROOT


def test_weights_are_timed_in_turns_and_reported(monkeypatch, tmp_path):
    words = ["--size", "tiny", "--batches", "1", "2", "--run-bytes", "8", "--repeats", "2", "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", [str(ROOT / "benchmarks" / "weights.py"), *words])
    weights.main()
    (raw,) = tmp_path.glob("*.json")
    rows = json.loads(raw.read_text())["rows"]
    assert [(row["name"], row["batch_rows"]) for row in rows] == [
        (kind, batch_rows) for batch_rows in (1, 2) for kind in ("fp32", "int8", "int8-all")
    ]
    plain, trunk, everything = rows[:3]
    assert plain["speed_ratio"] == 1
    assert plain["weight_bytes"] > trunk["weight_bytes"] > everything["weight_bytes"]
    assert all(len(row["seconds"]) == len(row["bytes"]) == 2 for row in rows)
    (report,) = tmp_path.glob("*.md")
    assert "| int8-all | 2 |" in report.read_text()


def test_a_gpu_is_refused(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["weights.py", "--device", "cuda"])
    with pytest.raises(SystemExit, match="int8 weights are for the CPU"):
        weights.main()
