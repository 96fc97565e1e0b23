"""What scratchpads at 16-byte patches save against a trunk call at every byte, where the trunk is most of the model.

Usage: python benchmarks/savings.py [--size 100M|20M|3M] [--batches 1 8 32] [--device cuda]
Both models have the same sizes and run on the same engine; fixed(1) has neither an entropy head nor scratchpads.
"""

import argparse
from collections.abc import Callable
from typing import Any

from gate import Gate
from measuring import add_to_results, arguments, as_rows, prepare, time_interleaved, write_results
from ours import Prefill, SteadyGeneration, build, config_named, ragged_lengths
from savings_report import report
from sizes import PRESET_SIZES, num_params, plain_patches

from patchpad.config import ModelConfig
from patchpad.cost import DTYPE_BYTES, Cost
from patchpad.model.byte_lm import ByteLM

SCRATCHPADS, PLAIN = "scratchpads at 16-byte patches", "fixed(1)"
SHORTEST_PROMPT = 20
PREFILL_BYTES = {"cpu": {1: 1024, 8: 256, 32: 64}, "cuda": {1: 8192, 8: 2048, 64: 256}}
"""Bytes per row that are read, by device and batch; elsewhere `OTHER_PREFILL_BYTES`."""
OTHER_PREFILL_BYTES = 64
RUN_BYTES = {1: 64, 8: 64}
"""Bytes per row that a run generates, by batch; elsewhere `OTHER_RUN_BYTES`."""
OTHER_RUN_BYTES = 16

RowList = list[dict[str, Any]]


def models(config: ModelConfig, device: str, *, compile: bool = False) -> dict[str, ByteLM]:
    """Returns both models, by name."""
    return {
        SCRATCHPADS: build(config, device, compile=compile),
        PLAIN: build(plain_patches(config, 1), device, compile=compile),
    }


def measure_prefill(sides: dict[str, ByteLM], batch_rows: int, options: argparse.Namespace) -> RowList:
    """Times reading prompts of equal length."""
    bytes_per_row = options.prefill_bytes or PREFILL_BYTES[options.device].get(batch_rows, OTHER_PREFILL_BYTES)
    readings = {name: Prefill(model, batch_rows, bytes_per_row) for name, model in sides.items()}
    rows = _timed({name: reading.run for name, reading in readings.items()}, sides, options)
    for row in rows:
        reading = readings[row["name"]]
        row |= {"part": "prefill", "batch_rows": batch_rows, "context_bytes": bytes_per_row}
        row |= {"bytes": reading.num_bytes, **_cost_facts(reading.cost())}
    return rows


def measure_generation(sides: dict[str, ByteLM], batch_rows: int, options: argparse.Namespace) -> RowList:
    """Times steady generation after prompts of different lengths."""
    lengths = ragged_lengths(batch_rows, SHORTEST_PROMPT)
    bytes_per_row = options.run_bytes or RUN_BYTES.get(batch_rows, OTHER_RUN_BYTES)
    generations = {
        name: SteadyGeneration(
            model, lengths, bytes_per_row=bytes_per_row, runs=1 + options.repeats, compile=options.compile
        )
        for name, model in sides.items()
    }
    rows = _timed({name: generation.run for name, generation in generations.items()}, sides, options)
    for row in rows:
        generation = generations[row["name"]]
        counts = generation.counts[1:]  # the first run was the warm-up
        row |= {key: [run[key] for run in counts] for key in counts[0]}
        row |= {"part": "generation", "batch_rows": batch_rows, "prompt_bytes": [lengths[0], lengths[-1]]}
        row["trunk_cache_bytes_per_byte"] = generation.trunk_cache_bytes_per_byte
    return rows


def _timed(tasks: dict[str, Callable[[], object]], sides: dict[str, ByteLM], options: argparse.Namespace) -> RowList:
    rows = as_rows(time_interleaved(tasks, repeats=options.repeats, device=options.device), size=options.size)
    for row in rows:
        row["num_params"] = num_params(sides[row["name"]].config)
    return rows


def _cost_facts(costs: Cost) -> dict[str, float]:
    return {
        "patches_per_byte": costs.patches_per_byte,
        "scratchpads_per_byte": costs.scratchpads_per_byte,
        "trunk_calls_per_byte": costs.trunk_calls_per_byte,
        "flops_per_byte": costs.flops_per_byte,
        "trunk_cache_bytes_per_byte": costs.trunk_cache_bytes_per_byte,
        "cache_value_bytes": DTYPE_BYTES[costs.cache_dtype],
    }


def main() -> None:
    """Measures prefill and generation at each batch."""
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--size", default="100M", choices=("3M", "20M", "100M", "tiny", *PRESET_SIZES))
    parser.add_argument("--batches", nargs="+", type=int, default=(1, 8, 32))
    parser.add_argument("--prefill-bytes", type=int, help="bytes per row that are read, at every batch")
    parser.add_argument("--run-bytes", type=int, help="bytes per row that a run generates, at every batch")
    parser.add_argument(
        "--day", action="store_true", help="add each batch to the results of gpu_day.sh as soon as it is measured"
    )
    options = parser.parse_args()
    prepare(options)
    sides = models(config_named(options.size), options.device, compile=options.compile)
    if options.gate:  # what is compiled for a model stays with it
        for batch_rows in options.batches:
            measure_generation(sides, batch_rows, options)
        Gate(options.gate).wait()
    rows: RowList = []
    for batch_rows in options.batches:
        new = measure_prefill(sides, batch_rows, options) + measure_generation(sides, batch_rows, options)
        if options.day:
            add_to_results(options, "gpu-savings", new)
        rows += new
    text = report(rows, SCRATCHPADS, PLAIN)
    if options.day:
        print(text)
    else:
        write_results(options, "savings", rows, text)


if __name__ == "__main__":
    main()
