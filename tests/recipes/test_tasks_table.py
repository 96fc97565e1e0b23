"""The table of results is made of folders of results alone, and sets only the same examples beside each other."""

from pathlib import Path

import pytest
import tasks_table

from patchpad.errors import ConfigError
from patchpad.tasks.compute import Compute
from patchpad.tasks.folder import RESULT, Evaluation
from patchpad.tasks.result import Metric, TaskResult


def compute(threshold):
    counts = dict.fromkeys(("bytes_scored", "bytes_in_requests", "bytes_read"), 1)
    rates = dict.fromkeys(("patches_per_byte", "scratchpads_per_byte", "trunk_cache_bytes_per_byte"), 0.1)
    return Compute(
        scratchpad_threshold_nats=threshold, trunk_calls_per_byte=0.25, flops_per_byte=1.5e6, **counts, **rates
    )


def result(task, value, *, threshold=1.5, ids=("a:1", "a:2"), **metrics):
    accuracy = Metric(value=value, standard_error=0.05, chance=0.25)
    return TaskResult(
        task=task,
        kind="choices",
        num_examples=len(ids),
        metrics={"accuracy": accuracy, **{name: Metric(value=bits) for name, bits in metrics.items()}},
        main_metric="accuracy",
        compute=compute(threshold),
        examples=[{"id": one} for one in ids],
    )


def evaluation(name, *results, path="evaluations/x"):
    origin = {
        "command": "patchpad evaluate",
        "hardware": "a processor",
        "commit": "0123456789",
        "date": "2026-11-29T10",
    }
    tasks = {one.task: {"name": one.task, "task": {}, "num_examples": one.num_examples} for one in results}
    suite = {"run": name, "tasks": list(tasks.values()), "model": {"num_params": 1_500_000}, "provenance": origin}
    return Evaluation(path=Path(path), suite=suite, results=results)


def test_models_stand_side_by_side_with_what_they_took():
    ours = evaluation("ours", result("piqa", 0.6, gold_bits_per_byte=2.0), result("lambada", 0.1, bits_per_byte=1.5))
    plain = evaluation("plain", result("piqa", 0.5, gold_bits_per_byte=2.5))
    lines = tasks_table.table([ours, plain]).splitlines()
    assert lines[0].endswith("| ours | plain | ours, bits per byte | plain, bits per byte |")
    assert lines[2] == "| piqa | accuracy | 2 | 0.250 | 0.600 ± 0.050 | 0.500 ± 0.050 | 2.000 | 2.500 |"
    assert lines[3] == "| lambada | accuracy | 2 | 0.250 | 0.100 ± 0.050 | - | 1.500 | - |"
    assert lines[5].startswith("- ours: 1.50M parameters, threshold 1.5, 0.250 to 0.250 trunk calls and 1.5M to 1.5M")
    assert lines[5].endswith("commit 012345678, 2026-11-29")


def test_other_examples_and_several_thresholds_are_refused():
    ours = evaluation("ours", result("piqa", 0.6))
    with pytest.raises(
        ConfigError, match=r"ours and plain did not measure `piqa` alike.*`num_examples` was 2 and is 1"
    ):
        tasks_table.table([ours, evaluation("plain", result("piqa", 0.5, ids=("a:1",)))])
    with pytest.raises(ConfigError, match="several thresholds; allowed: one"):
        tasks_table.table([evaluation("ours", result("piqa", 0.6), result("piqa", 0.6, threshold=2.0))])


def test_the_block_of_the_page_is_filled_and_the_raw_results_are_kept(tmp_path, monkeypatch, capsys):
    page = tmp_path / "page.md"
    found = evaluation("ours", result("piqa", 0.6), path=tmp_path / "ours-nlu")
    monkeypatch.setattr(tasks_table, "read_evaluation", lambda folder: found)
    monkeypatch.setattr(tasks_table, "PAGE", page)
    (tmp_path / "ours-nlu").mkdir()
    (tmp_path / "ours-nlu" / RESULT).write_text("{}")
    page.write_text(f"before\n{tasks_table.BEGIN}\nearlier\n<!-- end of measured -->\nafter\n")
    tasks_table.main([Path("ours")], tmp_path / "kept")
    assert "| piqa |" in page.read_text()
    assert "earlier" not in page.read_text()
    assert page.read_text().endswith("after\n")
    assert (tmp_path / "kept" / "ours-nlu.json").read_text() == "{}"
    page.write_text("no block")
    tasks_table.main([Path("ours")], None)
    assert "| piqa |" in capsys.readouterr().out
