"""The main job end to end, on a tiny model and the user's own file."""

import json
import math
from dataclasses import replace

import patchpad
from patchpad.cli.app import main
from patchpad.config import ModelConfig
from patchpad.study import quickstart as job
from patchpad.testing import random_documents

TINY = ModelConfig(byte_dim=16, window_bytes=4, trunk_dim=16, trunk_heads=2, trunk_layers=1, context_bytes=128)


def test_quickstart_on_the_users_file_leaves_a_run_a_table_and_a_report(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(job, "CONFIG", replace(job.CONFIG, model=TINY))
    text = tmp_path / "own.txt"
    text.write_bytes(b"\n".join(random_documents(1, [60] * 150)))
    out = tmp_path / "run"
    assert main(["quickstart", "--data", str(text), "--out", str(out), "--minutes", "0.02", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    stored = json.loads((out / "quickstart.json").read_text())
    assert printed["points"] == stored["points"]
    thresholds = [float(point["scratchpad_threshold_nats"]) for point in stored["points"]]
    assert thresholds == sorted(thresholds, reverse=True)
    assert (thresholds[0], thresholds[-1]) == (math.inf, -math.inf)
    assert "Scratchpad Patching" in (out / "report.html").read_text()
    model = patchpad.load(out)
    assert model.calibration is not None
    assert float(model.scratchpad_threshold_nats) in thresholds


def test_quickstart_refuses_a_budget_that_is_no_time(tmp_path, capsys):
    assert main(["quickstart", "--out", str(tmp_path / "run"), "--minutes", "nan"]) == 2
    assert "minutes is nan" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_the_bundled_text_is_split_by_document():
    config = job.data_config(())
    training = patchpad.data.open_corpus(config.paths)
    held_out = patchpad.data.open_corpus(config.validation_paths)
    assert (len(training.documents), len(held_out.documents)) == (5, 1)
    assert training.num_bytes > 3_500_000
    start = held_out.documents[0][1000:1200].tobytes()
    assert not any(start in document.tobytes() for document in training.documents)
