"""The large presets on one GPU: training bytes/s and share of the peak FLOP/s, generation, peak memory.

Usage: python benchmarks/presets_gpu.py --compile [--parts training] [--presets 350m 1b] [--arms fixed16-entropy]
Smoke test without a GPU: python benchmarks/presets_gpu.py --device cpu --presets tiny --batches 1 4

Each part adds its rows to a result file of its own as soon as a preset's arm is measured. With `--compile`, training
runs compiled passes, and generation is measured with captured graphs and without; otherwise nothing is compiled.
"""

import argparse
import time
from typing import Any

import machine
import torch
from device_facts import (
    forget_peak,
    graphs_compiled,
    kernels_of,
    num_syncs,
    peak_bytes,
    release,
    warnings_of_patchpad,
)
from gate import Gate
from machine import Work, work_rows
from measuring import add_to_results, arguments, prepare
from ours import SteadyGeneration, build, ragged_lengths
from presets_report import PLAIN_ARM, report
from sizes import num_params
from trainer_steps import TrainerSteps

from patchpad.config import Config, load_config
from patchpad.model.byte_lm import ByteLM

PARTS = ("training", "generation", "memory")
ARMS = ("fixed16-entropy", PLAIN_ARM)
OTHER_ARMS = ("fixed16-never",)
PRESETS = ("100m", "350m", "1b", "tiny")
RUNS_AFTER = 2
"""Runs of a generation that are not timed: one counts waits for the device, one is profiled."""
WARM_STEPS = 2
"""Steps before the timed ones: the first compiles and makes the optimizer's state."""
SECONDS_TO_RETRY = 3
"""Until a step that found too little memory beside other processes is tried again."""
TINY = "tiny"
PRODUCT_SIDE, TINY_PRODUCT_SIDE, TINY_PRODUCT_FLOPS = 8192, 256, 1e6
PROMPT_BYTES, TINY_PROMPT_BYTES = 512, 10
RUN_BYTES, TINY_RUN_BYTES = 64, 6
"""Bytes per row that a run generates."""

RowList = list[dict[str, Any]]


def preset(name: str, arm: str) -> Config:
    """Returns the configuration of an arm of a preset."""
    return load_config(f"{name}-{arm}")


def steps_of(name: str, arm: str, batch_rows: int, options: argparse.Namespace, *, compile: bool) -> TrainerSteps:
    """Returns a trainer of an arm of a preset on the device of the options."""
    return TrainerSteps(
        preset(name, arm), options.device, batch_rows=batch_rows, accumulation_steps=options.passes, compile=compile
    )


def warm(steps: TrainerSteps, gate: Gate) -> None:
    """Makes the first steps. Before the gate, other processes may have the memory, so a step is tried again."""
    while len(steps.seconds) < WARM_STEPS:
        try:
            steps.run()
        except torch.OutOfMemoryError:
            if gate.is_open:
                raise
            time.sleep(SECONDS_TO_RETRY)
            release()
    release()


def measure_training(name: str, arm: str, options: argparse.Namespace) -> RowList:
    """Times steps of the trainer among large matrix products; halves the rows as long as they do not fit."""
    batch_rows = options.rows or preset(name, arm).train.batch_rows
    while True:
        try:
            return _training_rows(name, arm, batch_rows, options)
        except torch.OutOfMemoryError:
            if batch_rows == 1:
                return [{"part": "training", "preset": name, "arm": arm, "rows": 1, "out_of_memory": True}]
        batch_rows //= 2  # outside of the handler, whose traceback keeps the tensors
        release()


def _training_rows(name: str, arm: str, batch_rows: int, options: argparse.Namespace) -> RowList:
    gate = Gate(options.gate)
    with (
        warnings_of_patchpad() as warned,
        steps_of(name, arm, batch_rows, options, compile=options.compile) as steps,
    ):
        warm(steps, gate)
        rows = _timed_rows(name, arm, batch_rows, steps, options)
    return [row | {"warnings": warned} for row in rows]


def _timed_rows(name: str, arm: str, batch_rows: int, steps: TrainerSteps, options: argparse.Namespace) -> RowList:
    gate = Gate(options.gate)
    gate.wait()
    forget_peak(options.device)
    side, least_flops = (TINY_PRODUCT_SIDE, TINY_PRODUCT_FLOPS) if name == TINY else (PRODUCT_SIDE, None)
    products = machine.products([(side, side, side)], options.device, least_flops)
    graphs = graphs_compiled()
    costs, num_bytes, model = steps.cost(), steps.bytes_per_step(), steps.config.model
    timed, *others = work_rows(
        {"step": Work(steps.run, flops=costs.training_flops_per_byte * num_bytes), **products},
        repeats=options.repeats,
        device=options.device,
        part="training",
        preset=name,
        arm=arm,
        compiled=options.compile,
        num_params=num_params(model),
        rows=batch_rows,
        rows_of_preset=preset(name, arm).train.batch_rows,
        passes=options.passes,
        context_bytes=model.context_bytes,
        bytes=num_bytes,
        trunk_calls_per_byte=costs.trunk_calls_per_byte,
        training_flops_per_byte=costs.training_flops_per_byte,
        data_sheet_flops=machine.data_sheet_flops(torch.cuda.get_device_name()) if options.device == "cuda" else None,
    )
    timed |= {
        "first_step_seconds": steps.seconds[0],
        "graphs": graphs,
        "graphs_of_timed_steps": graphs_compiled() - graphs,
        "peak_bytes": peak_bytes(options.device),
        "syncs_per_step": num_syncs(steps.run),
        "profile": kernels_of(steps.run),
        "bits_per_byte": steps.sums.bits_per_byte(steps.read().nats),
    }
    return [timed, *others]


def measure_generation(model: ByteLM, name: str, arm: str, batch_rows: int, options: argparse.Namespace) -> RowList:
    """Times steady generation of a batch, with `--compile` also compiled; prompts' lengths are 7 bytes apart."""
    rows: RowList = []
    for compile in (True, False) if options.compile else (False,):
        facts = {"part": "generation", "preset": name, "arm": arm, "rows": batch_rows, "compiled": compile}
        try:
            sizes = (TINY_PROMPT_BYTES, TINY_RUN_BYTES) if name == TINY else (PROMPT_BYTES, RUN_BYTES)
            with warnings_of_patchpad() as warned:
                row = _generation_row(model, batch_rows, compile, *sizes, options)
            rows.append(facts | row | {"warnings": warned})
        except torch.OutOfMemoryError:
            rows.append(facts | {"out_of_memory": True})
        release()
    return rows


def _generation_row(
    model: ByteLM, batch_rows: int, compile: bool, prompt_bytes: int, run_bytes: int, options: argparse.Namespace
) -> dict[str, Any]:
    forget_peak(options.device)
    generation = SteadyGeneration(
        model,
        ragged_lengths(batch_rows, prompt_bytes),
        bytes_per_row=run_bytes,
        runs=1 + options.repeats + RUNS_AFTER,
        compile=compile,
    )
    (row,) = work_rows({"generation": Work(generation.run)}, repeats=options.repeats, device=options.device)
    counts = generation.counts[1:]  # the first run was the warm-up
    row |= {key: [run[key] for run in counts] for key in counts[0]}
    row |= {"num_params": num_params(model.config), "prompt_bytes": prompt_bytes}
    row["peak_bytes"] = peak_bytes(options.device)
    row |= {"syncs": num_syncs(generation.run), "profile": kernels_of(generation.run)}
    return row | {"counts_after": generation.counts[-RUNS_AFTER:]}  # of the two runs that were not timed


def measure_memory(name: str, arm: str, options: argparse.Namespace) -> RowList:
    """Returns the peak memory of uncompiled training at the preset's own rows: what `patchpad cost` estimates."""
    config = preset(name, arm)
    batch_rows = options.rows or config.train.batch_rows
    facts = {"part": "memory", "preset": name, "arm": arm, "rows": batch_rows}
    forget_peak(options.device)
    try:
        with steps_of(name, arm, batch_rows, options, compile=False) as steps:
            warm(steps, Gate(None))
    except torch.OutOfMemoryError:
        return [facts | {"out_of_memory": True}]
    return [
        facts | {"peak_bytes": peak_bytes(options.device), "trunk_calls_per_byte": steps.cost().trunk_calls_per_byte}
    ]


def measure(part: str, name: str, arm: str, options: argparse.Namespace) -> RowList:
    """Returns the rows of one part of an arm of a preset."""
    if part == "training":
        return measure_training(name, arm, options)
    if part == "memory":
        return measure_memory(name, arm, options)
    model = build(preset(name, arm).model, options.device)
    if options.gate:  # what is compiled for a model stays with it
        for batch in options.batches:
            measure_generation(model, name, arm, batch, options)
        Gate(options.gate).wait()
    return [row for batch in options.batches for row in measure_generation(model, name, arm, batch, options)]


def main() -> None:
    """Measures each part of each preset, with scratchpads and with a trunk call at every byte."""
    parser = arguments(__doc__.splitlines()[0])
    parser.set_defaults(device="cuda")
    parser.add_argument("--parts", nargs="+", default=PARTS, choices=PARTS)
    parser.add_argument("--presets", nargs="+", default=PRESETS[:3], choices=PRESETS)
    parser.add_argument("--arms", nargs="+", default=ARMS, choices=(*ARMS, *OTHER_ARMS))
    parser.add_argument("--rows", type=int, help="rows of a pass; default: the preset's, halved until they fit")
    parser.add_argument("--passes", type=int, default=1, help="passes of a step")
    parser.add_argument("--batches", nargs="+", type=int, default=(1, 8, 64), help="rows of a generation")
    options = parser.parse_args()
    prepare(options)
    for part in options.parts:
        found: RowList = []
        for name in options.presets:
            for arm in options.arms:
                rows = measure(part, name, arm, options)
                release()
                found += rows
                if rows:
                    add_to_results(options, f"gpu-{part}", rows)
        print(report(found))


if __name__ == "__main__":
    main()
