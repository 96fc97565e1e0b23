"""Reports of `limits.py` and `presets_gpu.py` from made-up rows, and both scripts end to end at a tiny size."""

import json
import sys
from dataclasses import replace

import limits
import limits_report
import machine
import ours
import presets_gpu
import presets_report
import pytest
from measuring import ROOT


def timed(*seconds: float) -> list[dict[str, float]]:
    """CPU seconds as given, twice as many of wall time."""
    return [{"cpu": value, "wall": 2 * value} for value in seconds]


def run_script(script, monkeypatch, tmp_path, *words: str) -> tuple[list[dict], str]:
    path = ROOT / "benchmarks" / f"{script.__name__}.py"
    monkeypatch.setattr(sys, "argv", [str(path), *words, "--out", str(tmp_path)])
    script.main()
    (raw,) = tmp_path.glob("*.json")
    return json.loads(raw.read_text())["rows"], raw.with_suffix(".md").read_text()


def test_share_of_the_best_product_is_paired():
    rows = [
        {"name": "step", "flops": 6.0, "seconds": timed(1, 2, 3)},
        {"name": "product 8 x 8 x 8", "flops": 10.0, "seconds": timed(1, 2, 1)},
        {"name": "product 4 x 4 x 4", "flops": 1.0, "seconds": timed(1, 1, 1)},
    ]
    assert limits_report.best_product(rows, "cpu")["name"] == "product 8 x 8 x 8"
    assert limits_report.share_of_product(rows, "step", "cpu") == pytest.approx(0.6)
    assert limits_report.share_of_product(rows, "step", "wall") == pytest.approx(0.6)


def test_share_of_memory_counts_local_weights_once_and_the_others_per_trunk_call():
    rows = [
        {
            "name": "generation",
            "bytes": [8, 8],
            "trunk_calls": [1, 3],
            "local_weights": 10,
            "weights_per_trunk_call": 40,
            "weight_bytes": 4,
            "seconds": timed(1, 1),
        },
        {"name": "copy", "moved_bytes": 3200, "seconds": timed(1, 1)},
    ]
    assert limits_report.bytes_read(rows[0]) == 4 * (10 + 40 / 4)
    assert limits_report.share_of_memory(rows, "cpu") == pytest.approx(8 / (3200 / 80))


def test_context_ratios_are_per_byte_and_over_2k():
    rows = [
        {"context_bytes": 2048, "bytes": 100, "memory_before": 50, "memory_peak": 150, "seconds": timed(1, 2)},
        {"context_bytes": 4096, "bytes": 200, "memory_before": 50, "memory_peak": 350, "seconds": timed(3, 6)},
    ]
    assert limits_report.context_ratios(rows, rows[0], "cpu") == (1, 1, 1)
    assert limits_report.context_ratios(rows, rows[1], "cpu") == pytest.approx((1.5, 1.5, 350 / 300))


@pytest.mark.parametrize("ngram_vocab_size", [0, 4096])
def test_weights_read_are_all_but_the_entries_of_embeddings_that_a_byte_does_not_read(ngram_vocab_size):
    config = replace(ours.TINY, ngram_vocab_size=ngram_vocab_size)
    model = ours.build(config)
    encoder = model.local_encoder
    tables = [encoder.embedding.weight, *(encoder.ngrams.parameters() if ngram_vocab_size else ())]
    entries = 1 + (len(config.ngram_sizes) if ngram_vocab_size else 0)
    local, per_call = limits.weights_read(config)
    everything = sum(weights.numel() for weights in model.parameters())
    assert local + per_call == everything - sum(table.numel() for table in tables) + entries * config.byte_dim


def test_copies_count_both_ways_and_reads_one():
    assert machine.copy(4096, "cpu").moved_bytes == 8192
    assert machine.read(2**16, "cpu").moved_bytes == 2**16
    (product,) = machine.products([(256, 256, 256)], "cpu").values()
    assert product.flops >= machine.LEAST_FLOPS["cpu"]
    assert product.flops % (2 * 256**3) == 0


def test_known_cards_have_a_data_sheet():
    assert machine.data_sheet_flops("NVIDIA H100 PCIe") == 756e12
    assert machine.data_sheet_flops("NVIDIA H100 80GB HBM3") == 989.4e12
    assert machine.data_sheet_flops("unheard of") is None


def test_limits_run_end_to_end(monkeypatch, tmp_path):
    monkeypatch.setattr(machine, "LEAST_FLOPS", {"cpu": 1e6})
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "src"))
    words = ("--size", "tiny", "--repeats", "1", "--contexts", "64", "--bytes-per-step", "128")
    rows, report = run_script(limits, monkeypatch, tmp_path, *words)
    assert {row["part"] for row in rows} == set(limits.PARTS)
    assert all(row["seconds"] for row in rows)
    for title in ("Training step\n", "Generation, ", "Prefill, ", "Training step by context"):
        assert f"## {title}" in report
    contexts = [row for row in rows if row["part"] == "contexts"]
    assert [row["context_bytes"] for row in contexts] == [64]
    assert all(row["memory_peak"] > row["memory_before"] > 0 for row in contexts)


def test_mfu_is_over_the_product_and_over_the_data_sheet():
    rows = [
        {"name": "step", "flops": 30.0, "data_sheet_flops": 50.0, "seconds": timed(1, 1)},
        {"name": "product 8 x 8 x 8", "flops": 40.0, "seconds": timed(1, 1)},
    ]
    assert presets_report.share_of_product(rows) == pytest.approx(0.75)
    assert presets_report.share_of_data_sheet(rows[0]) == pytest.approx(15 / 50)
    assert presets_report.share_of_data_sheet(rows[0] | {"data_sheet_flops": None}) is None


def test_what_does_not_fit_into_memory_is_in_the_report():
    lost = {"preset": "1b", "rows": 1, "compiled": True, "out_of_memory": True}
    rows = [{**lost, "part": part, "arm": arm} for part in presets_gpu.PARTS for arm in presets_gpu.ARMS]
    assert presets_report.report(rows).count("out of memory") == 6


def test_presets_run_end_to_end_on_a_cpu(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(ours, "SEEDS", 20)
    words = ("--device", "cpu", "--presets", "tiny", "--rows", "1", "--batches", "1", "2", "--repeats", "1")
    monkeypatch.setattr(sys, "argv", [str(ROOT / "benchmarks" / "presets_gpu.py"), *words, "--out", str(tmp_path)])
    presets_gpu.main()
    for part in presets_gpu.PARTS:
        (raw,) = tmp_path.glob(f"gpu-{part}_cpu_*.json")
        rows = json.loads(raw.read_text())["rows"]
        assert {row["arm"] for row in rows} == set(presets_gpu.ARMS)
        assert {row["part"] for row in rows} == {part}
    printed = capsys.readouterr().out
    for title in ("Training", "Generation", "Memory of training"):
        assert f"## {title}" in printed


def test_presets_say_that_a_gpu_is_missing(monkeypatch, tmp_path):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(SystemExit, match="no CUDA device"):
        run_script(presets_gpu, monkeypatch, tmp_path)
