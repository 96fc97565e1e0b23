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


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """A path, and the results in it."""
    folder = tmp_path_factory.mktemp("kept")
    (folder / "text.txt").write_text("It was the best of times, it was the worst of times. " * 40)
    out = folder / "out.json"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(drafts, "ALL_LIMITS", drafts.ALL_LIMITS[:3])
        patch.setattr(drafts, "TEMPERATURES", (0.0, 0.8))
        texts, less = str(folder / "text.txt"), ("--prompts", "2", "--bytes", "8", "--computes", "0.25")
        return out, run(patch, "kept", str(out), texts, *less)


def test_bytes_of_drafts_are_counted_by_temperature_threshold_and_limits(kept):
    _, results = kept
    assert len(results) == 2 * 3 * 3
    for steps, *drafted in zip(results[::3], results[1::3], results[2::3], strict=True):
        assert steps["kept_calls"] == steps["passes"]
        assert steps["drafts"] == 0
        for one in drafted:
            assert (one["bytes"], one["kept_calls"]) == (steps["bytes"], steps["kept_calls"])
            assert len(one["kept_lengths"]) == one["drafts"]
            assert one["kept"] <= sum(one["kept_lengths"]) <= one["drafted"]
            assert 1 <= one["kept_per_draft"] <= one["drafted_per_draft"] <= one["most_bytes"]
            assert one["passes"] <= one["drafts"]


def test_speed_is_measured_with_the_lengths_of_a_trained_model(monkeypatch, tmp_path, kept):
    recorded = drafts.recorded_lengths(kept[0])
    assert list(recorded) == list(drafts.ALL_LIMITS[1:3])
    monkeypatch.setattr(drafts, "recorded_lengths", lambda path: {limits: [2] for limits in recorded})
    monkeypatch.setattr(drafts, "ALL_LIMITS", drafts.ALL_LIMITS[:3])
    out = str(tmp_path / "out.json")
    results = run(
        monkeypatch, "speed", out, str(kept[0]), "--size", "tiny", "--rows", "1", "2", "--bytes", "20", "--repeats", "1"
    )
    assert [(one["rows"], one["most_slots"]) for one in results] == [
        (1, None),
        (1, 2),
        (1, 3),
        (2, None),
        (2, 2),
        (2, 3),
    ]
    for one in results:
        assert one["drafts"] == 0 or 1.5 < one["kept_per_draft"] <= 2
        assert one["bytes_per_second"] == pytest.approx(one["bytes"] / one["seconds"])
