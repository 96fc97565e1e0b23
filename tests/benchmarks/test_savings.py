"""The report of `savings.py` from made-up rows, and the script end to end at a tiny size."""

import json
import sys

import pytest
import savings
import savings_report
from measuring import ROOT

SIDES = (savings.SCRATCHPADS, savings.PLAIN)


def timed(*seconds: float) -> list[dict[str, float]]:
    return [{"cpu": value, "wall": value} for value in seconds]


def test_ratios_are_of_bytes_per_second_and_paired():
    common = {"part": "generation", "batch_rows": 8}
    rows = [
        {**common, "name": SIDES[0], "bytes": [60, 80], "trunk_calls": [15, 20], "seconds": timed(1, 2)},
        {**common, "name": SIDES[1], "bytes": [40, 40], "trunk_calls": [40, 40], "seconds": timed(2, 4)},
    ]
    assert savings_report.speed_ratio(rows, "generation", 8, SIDES, "cpu") == pytest.approx((3 + 4) / 2)
    assert savings_report.trunk_calls_per_byte(rows[0]) == 0.25


def test_savings_run_end_to_end(monkeypatch, tmp_path):
    words = ["--size", "tiny", "--batches", "1", "3", "--prefill-bytes", "48", "--run-bytes", "16", "--repeats", "2"]
    path = ROOT / "benchmarks" / "savings.py"
    monkeypatch.setattr(sys, "argv", [str(path), *words, "--out", str(tmp_path)])
    savings.main()
    (raw,) = tmp_path.glob("*.json")
    rows = json.loads(raw.read_text())["rows"]
    assert len(rows) == 2 * 2 * 2
    for row in rows:
        wanted = 1 / 4 if row["name"] == savings.SCRATCHPADS else 1
        tolerance = 0.5 / 48 + 1e-9 if row["part"] == "prefill" else 0.06
        assert savings_report.trunk_calls_per_byte(row) == pytest.approx(wanted, abs=tolerance)
        assert len(row["seconds"]) == 2
    prefill = {row["name"]: row for row in rows if row["part"] == "prefill" and row["batch_rows"] == 1}
    ours, plain = (prefill[name] for name in SIDES)
    assert plain["trunk_cache_bytes_per_byte"] == 16 * ours["trunk_cache_bytes_per_byte"]
    report = raw.with_suffix(".md").read_text()
    for title in ("Prefill", "Generation", "Cost"):
        assert f"## {title}" in report
