"""`drafts.py` end to end, at a tiny size and on a text of a few pieces."""

import json
import sys
from pathlib import Path

import drafts
import pytest


def run(monkeypatch, *words: str) -> list[dict]:
    monkeypatch.setattr(sys, "argv", ["drafts.py", *words])
    drafts.main()
    return json.loads(Path(words[1]).read_text(encoding="utf-8"))["results"]


def test_bytes_of_drafts_are_counted_by_temperature_threshold_and_limits(monkeypatch, tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("It was the best of times, it was the worst of times. " * 40)
    monkeypatch.setattr(drafts, "ALL_LIMITS", drafts.ALL_LIMITS[:3])
    monkeypatch.setattr(drafts, "TEMPERATURES", (0.0, 0.8))
    words = ("kept", str(tmp_path / "out.json"), str(text), "--prompts", "2", "--bytes", "8", "--computes", "0.25")
    results = run(monkeypatch, *words)
    assert len(results) == 2 * 3 * 3
    for steps, *drafted in zip(results[::3], results[1::3], results[2::3], strict=True):
        assert steps["kept_calls"] == steps["passes"]
        assert steps["drafts"] == 0
        for one in drafted:
            assert (one["bytes"], one["kept_calls"]) == (steps["bytes"], steps["kept_calls"])
            assert 1 <= one["kept_per_draft"] <= one["drafted_per_draft"] <= one["most_bytes"]
            assert one["passes"] <= one["drafts"]


def test_speed_is_measured_with_as_many_right_guesses_as_were_asked_for(monkeypatch, tmp_path):
    monkeypatch.setattr(drafts, "ALL_LIMITS", drafts.ALL_LIMITS[:3])
    out = str(tmp_path / "out.json")
    results = run(monkeypatch, "speed", out, "--size", "tiny", "--rows", "1", "2", "--bytes", "20", "--repeats", "1")
    assert [(one["rows"], one["most_slots"]) for one in results] == [
        (1, None),
        (1, 2),
        (1, 3),
        (2, None),
        (2, 2),
        (2, 3),
    ]
    for one in results:
        assert one["bytes_per_second"] == pytest.approx(one["bytes"] / one["seconds"])
