"""The large presets on one GPU: training bytes/s and share of the peak FLOP/s, generation, peak memory.

Usage: python benchmarks/presets_gpu.py [--presets 350m 1b] [--rows 4]
Smoke test without a GPU: python benchmarks/presets_gpu.py --device cpu --presets tiny --batches 1 4
"""

import argparse
import gc
from typing import Any

import machine
import torch
from machine import Work, work_rows
from measuring import arguments, prepare, write_results
from ours import SteadyGeneration, TrainingStep, build, ragged_lengths, text_batch
from presets_report import PLAIN_ARM, report
from sizes import num_params

from patchpad.config import Config, load_config

ARMS = ("fixed16-entropy", PLAIN_ARM)
PRESETS = ("350m", "1b", "tiny")
PRODUCT_SIDE = {"cuda": 8192, "cpu": 512}
PROMPT_BYTES = {"cuda": 512, "cpu": 32}
RUN_BYTES = {"cuda": 64, "cpu": 16}
"""Bytes per row that a run generates."""

RowList = list[dict[str, Any]]


def preset(name: str, arm: str) -> Config:
    """Returns the configuration of an arm of a preset."""
    return load_config(f"{name}-{arm}")


def measure_training(name: str, arm: str, options: argparse.Namespace) -> RowList:
    """Times training steps among large matrix products, with as many rows as fit, up to `--rows`."""
    batch_rows = options.rows
    while True:
        try:
            return _training_rows(name, arm, batch_rows, options)
        except torch.OutOfMemoryError:
            if batch_rows == 1:
                return [{"part": "training", "preset": name, "arm": arm, "rows": 1, "out_of_memory": True}]
        batch_rows //= 2  # outside of the handler, whose traceback keeps the tensors
        release()


def _training_rows(name: str, arm: str, batch_rows: int, options: argparse.Namespace) -> RowList:
    config = preset(name, arm)
    context_bytes = config.model.context_bytes
    batch = text_batch(batch_rows, context_bytes, options.device)
    step = TrainingStep(build(config.model, options.device), batch, config.train)
    costs = step.cost()
    step.run()  # the first step makes the optimizer's state
    forget_peak(options.device)
    side = PRODUCT_SIDE[options.device]
    products = machine.products([(side, side, side)], options.device)
    step.run()
    peak = peak_bytes(options.device)
    return work_rows(
        {"step": Work(step.run, flops=costs.training_flops_per_byte * step.num_bytes), **products},
        repeats=options.repeats,
        device=options.device,
        part="training",
        preset=name,
        arm=arm,
        num_params=num_params(config.model),
        rows=batch_rows,
        context_bytes=context_bytes,
        bytes=step.num_bytes,
        trunk_calls_per_byte=costs.trunk_calls_per_byte,
        training_flops_per_byte=costs.training_flops_per_byte,
        data_sheet_flops=machine.data_sheet_flops(torch.cuda.get_device_name()) if options.device == "cuda" else None,
        peak_bytes=peak,
    )


def measure_generation(name: str, arm: str, batch_rows: int, options: argparse.Namespace) -> RowList:
    """Times steady generation of a batch; the prompts' lengths are 7 bytes apart."""
    config = preset(name, arm).model
    facts = {"part": "generation", "preset": name, "arm": arm, "rows": batch_rows, "num_params": num_params(config)}
    forget_peak(options.device)
    try:
        generation = SteadyGeneration(
            build(config, options.device, compile=options.compile),
            ragged_lengths(batch_rows, PROMPT_BYTES[options.device]),
            bytes_per_row=RUN_BYTES[options.device],
            runs=1 + options.repeats,
            compile=options.compile,
        )
        works = {"generation": Work(generation.run)}
        (row,) = work_rows(works, repeats=options.repeats, device=options.device, **facts)
    except torch.OutOfMemoryError:
        return [{**facts, "out_of_memory": True}]
    counts = generation.counts[1:]
    row |= {key: [run[key] for run in counts] for key in counts[0]}
    row |= {"prompt_bytes": PROMPT_BYTES[options.device], "peak_bytes": peak_bytes(options.device)}
    return [row]


def release() -> None:
    """Gives back the memory of what was measured before."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def forget_peak(device: str) -> None:
    """Lets `peak_bytes` count from now on."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    else:
        machine.forget_peak()


def peak_bytes(device: str) -> int:
    """Returns the most memory of the device that tensors have had; on a CPU, that of the process."""
    return torch.cuda.max_memory_allocated() if device == "cuda" else machine.peak_resident_bytes()


def main() -> None:
    """Measures each preset, with scratchpads and with a trunk call at every byte."""
    parser = arguments(__doc__.splitlines()[0])
    parser.set_defaults(device="cuda")
    parser.add_argument("--presets", nargs="+", default=PRESETS[:2], choices=PRESETS)
    parser.add_argument(
        "--rows", type=int, default=4, help="rows of a training step; halved as long as they do not fit"
    )
    parser.add_argument("--batches", nargs="+", type=int, default=(1, 8, 64), help="rows of a generation")
    options = parser.parse_args()
    prepare(options)
    rows: RowList = []
    for name in options.presets:
        for arm in ARMS:
            rows += measure_training(name, arm, options)
            release()
            for batch_rows in options.batches:
                rows += measure_generation(name, arm, batch_rows, options)
                release()
    write_results(options, "presets", rows, report(rows))


if __name__ == "__main__":
    main()
