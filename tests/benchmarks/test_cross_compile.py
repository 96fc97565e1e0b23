"""Estimates for a GPU: the roofline, the report, what the committed results promise, and the script at a tiny size."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys

import pytest
import sm90_report
from measuring import RESULTS, ROOT
from rows import chosen, only
from sm90_roofline import ATTENTION, GENERATED, LIBRARY, PRODUCT, Launch, seconds

KINDS = (GENERATED, ATTENTION, PRODUCT, LIBRARY)
LEAST_MFU = {"350m": 0.33, "1b": 0.46}
MOST_KERNELS = {"a byte": 60, "a trunk call": 120}


def launch(
    kind: str, *, num_bytes: int = 0, flops: float = 0, is_fp32: bool = False, is_backward: bool = False
) -> Launch:
    return Launch(kind, is_backward, num_bytes, flops, is_fp32, "name")


def test_a_launch_takes_as_long_as_its_flops_or_its_bytes_whichever_is_longer():
    assert seconds(launch(PRODUCT, flops=650e12, num_bytes=10)) == 1
    assert seconds(launch(PRODUCT, flops=1, num_bytes=2_850_000_000_000)) == 1
    assert seconds(launch(PRODUCT, flops=650e12, is_fp32=True)) == 13
    assert seconds(launch(ATTENTION, flops=800e12)) == 2
    assert seconds(launch(ATTENTION, flops=600e12, is_backward=True)) == 2
    assert seconds(launch(GENERATED)) == 2e-6
    assert seconds(launch(ATTENTION, is_backward=True)) == 10e-6


def counted(**facts: object) -> dict[str, object]:
    by_kind = {name: dict.fromkeys(KINDS, 2) for name in ("launches", "bytes", "flops", "estimated_seconds")}
    return {"generated_kernels": 20, "bytes_accessed": 3e9, **by_kind, **facts}


def test_report_adds_read_and_predict_and_shows_both_graphs_of_a_pass():
    shape = {"rows": 8, "context_bytes": 8192, "num_commits": 4000, "num_scratchpads": 12000, "mfu": 0.4567}
    shape |= {"part": "training", "preset": "1b", "room": {"commits": 4096, "scratchpads": 12928}}
    training = [counted(**shape, graph=graph) for graph in ("forward", "backward", "both")]
    decoding = [counted(part="decoding", preset="1b", rows=1, phase=phase) for phase in ("read", "refresh", "predict")]
    page = sm90_report.report(training + decoding)
    assert "| 1b, 8 x 8,192 bytes | 16,000 of 17,024 | 20 + 20 | 2 + 2 | 3.00 |" in page
    assert "| 8,000 | 0.457 |" in page
    assert "| 1b, 1 row: a byte | 40 | 4 | 4 | 6,000 |" in page
    assert "| 1b, 1 row: a trunk call | 20 | 2 | 2 | 3,000 |" in page


def test_committed_estimates_reach_their_goals():
    newest = sorted(RESULTS.glob("sm90-estimates_*.json"))[-1]
    rows = json.loads(newest.read_text())["rows"]
    for preset, least in LEAST_MFU.items():
        assert only(rows, part="training", preset=preset, graph="both")["mfu"] >= least
    for row in chosen(rows, part="decoding", phase="refresh"):
        read, predict = (only(rows, part="decoding", rows=row["rows"], phase=phase) for phase in ("read", "predict"))
        assert read["generated_kernels"] + predict["generated_kernels"] <= MOST_KERNELS["a byte"]
        assert row["generated_kernels"] <= MOST_KERNELS["a trunk call"]


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="needs triton; see benchmarks/sm90.py")
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
def test_training_and_decoding_compile_for_an_h100(tmp_path):
    script = ROOT / "benchmarks" / "cross_compile.py"
    words = [sys.executable, str(script), "--presets", "tiny", "--batches", "1", "3", "--out", str(tmp_path)]
    folders = {"TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "inductor"), "TRITON_CACHE_DIR": str(tmp_path / "triton")}
    environment = {**os.environ, **folders, "JAXTYPING_DISABLE": "1"}
    done = subprocess.run(words, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    (raw,) = tmp_path.glob("*.json")
    rows = json.loads(raw.read_text())["rows"]

    forward, backward = (only(rows, part="training", graph=graph) for graph in ("forward", "backward"))
    layers = 2 + forward["trunk_layers"] + 2  # of the encoder and decoder
    for graph in (forward, backward):
        assert graph["generated_kernels"] > 0
        assert graph["launches"][ATTENTION] == layers
    assert backward["flops"][ATTENTION] == 2.5 * forward["flops"][ATTENTION] > 0
    assert backward["flops"][PRODUCT] > 1.9 * forward["flops"][PRODUCT] > 0
    assert len(chosen(rows, part="decoding")) == 3 * 2

    cubins = chosen(rows, part="cubins")
    assert all(cubin["num_bytes"] > 0 for cubin in cubins)
    attention = [
        cubin for cubin in cubins if cubin["name"].startswith("triton_tem_fused") and "flex_attention" in cubin["name"]
    ]
    assert len(attention) == 2
    assert all(cubin["has_tensor_cores"] for cubin in attention)
