"""The table of `choices_speed.py` from made-up rows, and the script end to end on a few made-up questions."""

import json
import sys

import choices_report
import choices_speed
from measuring import ROOT


def test_the_speed_up_is_paired_and_stands_beside_the_bytes_saved():
    case = {"preset": "p", "task": "t", "shots": 0, "examples": 8, "cut": 1, "bytes_in_requests": 60, "bytes_read": 20}
    seconds = {choices_report.SHARED: (1, 2, 2), choices_report.FULL: (2, 6, 5)}
    rows = [
        {**case, "name": name, "seconds": [{"cpu": value, "wall": value} for value in values]}
        for name, values in seconds.items()
    ]
    assert "| t | 0 | 8 | 1 | 4.0 | 1.6 | 2.50 | 3.00 | 0.83 |" in choices_report.report(rows)


def test_the_script_runs_end_to_end(monkeypatch, tmp_path):
    folder = tmp_path / "arc_easy"
    folder.mkdir()
    for name in ("test", "validation"):
        lines = [
            {"id": f"{name}{number}", "question": f"What is {number}?", "choices": ["one", "two"], "gold": number % 2}
            for number in range(8)
        ]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    task = choices_speed.load_task("arc_easy")
    files = {"data": ("arc_easy/test.jsonl",), "shots_data": ("arc_easy/validation.jsonl",)}
    monkeypatch.setattr(choices_speed, "load_task", lambda name: choices_speed.replace(task, **files))
    words = ["--data", str(tmp_path), "--tasks", "arc_easy", "--preset", "tiny-fixed16-entropy", "--examples", "3"]
    path = ROOT / "benchmarks" / "choices_speed.py"
    monkeypatch.setattr(sys, "argv", [str(path), *words, "--repeats", "1", "--out", str(tmp_path)])
    choices_speed.main()
    (raw,) = tmp_path.glob("*.json")
    rows = json.loads(raw.read_text())["rows"]
    assert [(row["name"], row["shots"]) for row in rows] == [
        (name, shots) for shots in (0, 5) for name in (choices_report.SHARED, choices_report.FULL)
    ]
    assert all(row["examples"] == 3 and row["cut"] == 0 for row in rows)
    assert rows[0]["bytes_read"] < rows[0]["bytes_in_requests"]
    assert rows[2]["bytes_read"] < 0.3 * rows[2]["bytes_in_requests"]
