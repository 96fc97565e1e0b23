"""`batches.py` end to end, at a tiny size."""

import json
import sys

import batches
import ours
import pytest
import torch
from measuring import ROOT

from patchpad.config import SEPARATOR


def test_batches_and_the_pass_are_timed_in_turns_and_reported(monkeypatch, tmp_path):
    words = ["--models", "tiny", "--batches", "1", "3", "--run-bytes", "8", "--repeats", "2", "--rounds", "2"]
    monkeypatch.setattr(sys, "argv", [str(ROOT / "benchmarks" / "batches.py"), *words, "--out", str(tmp_path)])
    batches.main()
    (raw,) = tmp_path.glob("*.json")
    rows = json.loads(raw.read_text())["rows"]
    assert [row["name"] for row in rows] == ["1 rows", "3 rows", "full pass", "rounds"]
    single, several, whole, rounds = rows
    assert all(len(row["seconds"]) == len(row["bytes"]) == 2 for row in (single, several, whole))
    assert all(24 <= count <= 27 for count in several["bytes"])
    assert several["state_bytes"] > several["trunk_cache_bytes"] == 3 * single["trunk_cache_bytes"] > 0
    assert min(whole["bytes"]) > 3 * batches.SHORTEST_PROMPT
    assert len(rounds["resident_bytes"]) == 2
    (report,) = tmp_path.glob("*.md")
    assert "| tiny | 3 |" in report.read_text()


def test_text_is_sampled_without_end_and_the_pass_reads_its_newest_bytes():
    model = ours.build(ours.TINY).eval()
    with torch.no_grad():
        model.local_decoder.lm_head.weight[SEPARATOR] *= 100  # the end would be likely
    generation = batches.TextGeneration(model, [20, 33], bytes_per_row=16)
    generation.run()
    assert 32 <= generation.counts[0]["bytes"] <= 34
    full_pass = batches.FullPass(model, generation)
    full_pass.prepare()
    texts = [row.request.prompt + row.data for row in generation.rows]
    length = min(map(len, texts))
    assert full_pass.ids.tolist() == [[SEPARATOR, *text[-length:]] for text in texts]
    assert full_pass.amounts == [2 * length]


@pytest.mark.parametrize("words", [["--device", "cuda"], ["--compile"]])
def test_what_it_does_not_measure_is_refused(monkeypatch, words):
    monkeypatch.setattr(sys, "argv", ["batches.py", *words])
    with pytest.raises(SystemExit, match="plain steps on a CPU"):
        batches.main()
