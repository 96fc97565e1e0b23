"""Compiles training passes and decoding for an H100 (sm_90) without a GPU, and estimates what they would take there.

Nothing is run, so no number here is a measured time. Kernels, bytes and FLOPs are Inductor's own metrics; milliseconds
and the share of the peak are the estimates of `sm90_roofline.py`.

Usage: python benchmarks/cross_compile.py [--presets 100m 350m 1b]
It needs g++, and triton, which a torch for the CPU comes without: it says how to install it. Half an hour on a CPU.
"""

import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import sm90  # noqa: F401 - before torch

# isort: split
import torch
from measuring import arguments, write_results
from ours import TINY
from sizes import num_params
from sm90_graphs import Graph, cubins
from sm90_passes import decoding_graphs, training_graphs, training_shape, trunk_graphs
from sm90_report import report
from sm90_roofline import ATTENTION, GENERATED, LIBRARY, PEAK_FLOPS, PRODUCT, total_seconds

from patchpad.config import Config, TrainConfig, load_config

ARM = "fixed16-entropy"
PRESETS = ("100m", "350m", "1b", "tiny")
PARTS = ("training", "decoding", "cubins")
KINDS = (GENERATED, ATTENTION, PRODUCT, LIBRARY)
CAPACITY = 512
"""Places of the trunk's cache: 8,192 bytes in patches of 16."""

RowList = list[dict[str, Any]]


def configuration(name: str, layers: int | None) -> Config:
    """Returns a preset with scratchpads.

    Args:
        name: of the preset, without its arm.
        layers: of the trunk; None for those of the preset.
    """
    config = load_config(f"{name}-{ARM}") if name != "tiny" else Config(model=TINY, train=TrainConfig(batch_rows=2))
    return config if layers is None else replace(config, model=replace(config.model, trunk_layers=layers))


def counts(graphs: Sequence[Graph]) -> dict[str, Any]:
    """Returns what a result file tells of graphs."""
    launches = [launch for graph in graphs for launch in graph.launches]
    by_kind = {kind: [launch for launch in launches if launch.kind == kind] for kind in KINDS}
    return {
        "generated_kernels": sum(graph.num_generated for graph in graphs),
        "bytes_accessed": sum(graph.num_bytes for graph in graphs),
        "launches": {kind: len(found) for kind, found in by_kind.items()},
        "bytes": {kind: sum(launch.num_bytes for launch in found) for kind, found in by_kind.items()},
        "flops": {kind: sum(launch.flops for launch in found) for kind, found in by_kind.items()},
        "estimated_seconds": {kind: total_seconds(found) for kind, found in by_kind.items()},
    }


def training_rows(name: str, layers: int | None) -> RowList:
    """Compiles the training pass of a preset: its forward graph and its backward one."""
    config = configuration(name, layers)
    shape = training_shape(config)
    begin = time.perf_counter()
    graphs = training_graphs(config, shape)
    seconds = time.perf_counter() - begin
    assert [graph.is_backward for graph in graphs] == [False, True]
    facts = {
        "part": "training",
        "preset": name,
        "trunk_layers": config.model.trunk_layers,
        "num_params": num_params(config.model),
        "activation_checkpointing": config.train.activation_checkpointing,
        "context_bytes": config.model.context_bytes,
        **asdict(shape) | {"blocks": [[*key, value] for key, value in shape.blocks.items()]},
    }
    total = total_seconds(launch for graph in graphs for launch in graph.launches)
    return [
        {**facts, "graph": "backward" if graph.is_backward else "forward", **counts([graph])} for graph in graphs
    ] + [
        {
            **facts,
            "graph": "both",
            **counts(graphs),
            "mfu": shape.model_flops / total / PEAK_FLOPS,
            "compile_seconds": seconds,
        }
    ]


def decoding_rows(name: str, rows: int, layers: int | None) -> RowList:
    """Compiles the kernels of a decoding step of a preset."""
    config = configuration(name, layers).model
    return [
        {
            "part": "decoding",
            "preset": name,
            "trunk_layers": config.trunk_layers,
            "rows": rows,
            "phase": phase,
            **counts(graphs),
        }
        for phase, graphs in decoding_graphs(config, rows, CAPACITY).items()
    ]


def cubin_rows(name: str) -> RowList:
    """Compiles a trunk of one layer to machine code, forward and backward, FlexAttention included."""
    config = configuration(name, 1)
    graphs = trunk_graphs(config.model, training_shape(config))
    return [{"part": "cubins", "preset": name, **asdict(cubin)} for cubin in cubins(graphs)]


def main() -> None:
    """Compiles what is asked for."""
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--presets", nargs="+", default=PRESETS[:3], choices=PRESETS)
    parser.add_argument("--parts", nargs="+", default=PARTS, choices=PARTS)
    parser.add_argument("--batches", nargs="+", type=int, default=(1, 8, 64), help="rows of a decoding step")
    parser.add_argument("--layers", type=int, help="layers of the trunk, in the place of the preset's")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows: RowList = []
    for name in options.presets:
        if "training" in options.parts:
            rows += training_rows(name, options.layers)
    largest = options.presets[-1]
    if "decoding" in options.parts:
        for batch_rows in options.batches:
            rows += decoding_rows(largest, batch_rows, options.layers)
    if "cubins" in options.parts:
        rows += cubin_rows(largest)
    write_results(options, "sm90-estimates", rows, report(rows), ["triton"])


if __name__ == "__main__":
    main()
