"""A simulated rank: what it holds, what it tells the others, and that `patchpad cost` says the same."""

import json

import pytest
import simulate_cluster
from cluster_report import report
from measuring import ROOT

from patchpad.config import load_config
from patchpad.cost import count_parameters

LAYERS, RANKS = 2, 8
PRESET = "100m-fixed16-entropy"
CLOSE = 0.15
"""Share by which the peak may differ from that of `cost`."""


@pytest.fixture(scope="module")
def rows() -> dict[str, dict]:
    cases = {
        "fsdp": simulate_cluster.Case(preset=PRESET, ranks=RANKS),
        "checkpointed": simulate_cluster.Case(preset=PRESET, ranks=RANKS, recomputes=True),
        "hsdp": simulate_cluster.Case(preset=PRESET, ranks=2 * RANKS, parallel="hsdp"),
    }
    return {name: simulate_cluster.simulated(case, LAYERS) for name, case in cases.items()}


def test_a_rank_holds_its_shard_and_the_others_parts_for_a_while(rows):
    parameters = sum(count_parameters(simulate_cluster.Case(preset=PRESET, ranks=RANKS).config(LAYERS).model).values())
    for row in rows.values():
        peak = row["peak_bytes"]
        assert peak["weights"] == pytest.approx(4 * parameters / RANKS, rel=0.01)  # shards are padded to whole rows
        assert peak["moments"] == 2 * peak["weights"]
        assert peak["gathered"] > peak["weights"]
        assert sum(peak.values()) == pytest.approx(row["counted_peak_bytes"], rel=CLOSE)
    assert rows["checkpointed"]["peak_bytes"]["activations"] < rows["fsdp"]["peak_bytes"]["activations"]


def test_collectives_are_those_of_fully_shard(rows):
    parameters = sum(count_parameters(simulate_cluster.Case(preset=PRESET, ranks=RANKS).config(LAYERS).model).values())
    groups = LAYERS + 3  # trunk blocks, encoder, decoder, and the rest; the entropy head has no layers
    for row in rows.values():
        counts, moved = row["collectives"], row["collective_bytes"]
        assert counts["reduce-scatter"] == groups
        assert counts["all-gather"] == 2 * groups - 1  # in the forward pass and the backward one; the rest stays
        assert moved["reduce-scatter"] == pytest.approx(4 * parameters, rel=0.01)
    assert rows["fsdp"]["collectives"]["all-reduce"] == 1  # of the gradients' norms
    hsdp = rows["hsdp"]
    assert hsdp["collectives"]["all-reduce"] == rows["fsdp"]["collectives"]["all-reduce"] + groups
    assert hsdp["collective_bytes"]["all-reduce"] == pytest.approx(4 * parameters / RANKS, rel=0.01)


def test_the_report_says_that_it_is_simulated_and_holds_every_case(rows):
    said = report(list(rows.values()))
    assert said.startswith("**Simulated: nothing ran on a GPU")
    assert said.count(f"| {PRESET}") == 3 * len(rows)
    assert f"{2 * RANKS}, hsdp 2 x {RANKS}" in said


def test_committed_results_are_of_the_preset_on_64_and_256_ranks():
    (newest, *_) = sorted((ROOT / "benchmarks" / "results").glob("simulated-cluster_*.json"), reverse=True)
    found = json.loads(newest.read_text(encoding="utf-8"))["rows"]
    assert {(row["preset"], row["ranks"]) for row in found} >= {("2b-fixed16-entropy", ranks) for ranks in (64, 256)}
    for row in found:
        assert sum(row["peak_bytes"].values()) == pytest.approx(row["counted_peak_bytes"], rel=CLOSE)
        assert row["rank_rows"] == load_config(row["preset"]).train.batch_rows
