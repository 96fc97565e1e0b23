import json
import sys

import long_contexts
import pytest


@pytest.mark.unchecked
def test_the_benchmark_of_long_contexts_reads_with_and_without_a_window(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(long_contexts, "LEAST_BYTES", 0)
    out = tmp_path / "found.json"
    arguments = ["--lengths", "600", "1300", "--windows", "0", "16", "--turns", "1", "--no-memory", "--out", str(out)]
    monkeypatch.setattr(sys, "argv", ["long_contexts.py", *arguments])
    long_contexts.main()
    rows = json.loads(out.read_text())["rows"]
    assert [(row["weights"], row["window"], row["length"]) for row in rows] == [
        (weights, window, length)
        for weights in ("shipped", "random")
        for window in (None, 16)
        for length in (600, 1300)
    ]
    assert rows[0]["bits_per_byte"] != pytest.approx(rows[2]["bits_per_byte"], abs=1e-6)
    assert all(row["trunk_calls_per_byte"] == pytest.approx(0.25, abs=0.1) for row in rows)
    assert len(capsys.readouterr().out.splitlines()) == len(rows) + 2
