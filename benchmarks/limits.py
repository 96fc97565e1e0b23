"""How close training and generation come to what the machine can do: matrix products, and memory.

Usage: python benchmarks/limits.py [--size SIZE|all] [--parts training generation prefill contexts] [--device cuda]
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import machine
import torch
from limits_report import report
from machine import Work, work_rows
from measuring import arguments, prepare, write_results
from ours import Prefill, SteadyGeneration, TrainingStep, build, config_named, text_batch
from sizes import num_params

from patchpad.config import NUM_INPUT_IDS, ModelConfig
from patchpad.cost import count_parameters
from patchpad.data import Batch

TRAINING_SIZES = ("6.6M", "20M")
GENERATION_SIZES = ("6.6M", "20M", "100M")
CONTEXTS_SIZE = "6.6M"
PARTS = ("training", "generation", "prefill", "contexts")
SHAPES = ((4, 1024), (1, 4096))
"""Rows and bytes per row of a training step."""
SQUARES = (1024, 1536, 2048)
PROMPT_BYTES, BYTES_PER_RUN, PREFILL_BYTES = 128, 64, 4096
CONTEXTS = (1024, 2048, 4096, 8192, 32_768)
BYTES_PER_STEP = 32_768
BUFFER_BYTES = 2**29
LOCAL_PARTS = ("local_encoder", "entropy_head", "local_decoder")
"""Parts that run at every byte; the others run at every trunk call."""

RowList = list[dict[str, Any]]


def model_products(config: ModelConfig, positions: int) -> list[machine.Shape]:
    """Returns the feed-forward products of the local parts and of the trunk, for 1/4 trunk call per byte."""
    return [
        (positions, config.byte_dim, config.byte_hidden_dim),
        (positions // 4, config.trunk_dim, config.trunk_hidden_dim),
    ]


def measure_training(name: str, options: argparse.Namespace) -> RowList:
    """Times training steps, with and without the optimizer, among matrix products."""
    config, rows = config_named(name), []
    for batch_rows, context_bytes in options.shapes:
        step = TrainingStep(
            build(config, options.device, compile=options.compile),
            text_batch(batch_rows, context_bytes, options.device),
        )
        costs, num_bytes = step.cost(), step.num_bytes
        flops = costs.training_flops_per_byte * num_bytes
        squares = [(side, side, side) for side in options.squares]
        works = {
            "step": Work(step.run, flops=flops),
            "passes": Work(step.run_passes, flops=flops),
            **machine.products([*squares, *model_products(config, num_bytes)], options.device),
        }
        rows += work_rows(
            works,
            repeats=options.repeats,
            device=options.device,
            part="training",
            size=name,
            num_params=num_params(config),
            rows=batch_rows,
            context_bytes=context_bytes,
            bytes=num_bytes,
            patches_per_byte=costs.patches_per_byte,
            scratchpads_per_byte=costs.scratchpads_per_byte,
            training_flops_per_byte=costs.training_flops_per_byte,
        )
    return rows


def weights_read(config: ModelConfig) -> tuple[int, int]:
    """Returns the weights that every byte needs, one entry of each embedding among them, and every trunk call."""
    counts = count_parameters(config)
    unread = NUM_INPUT_IDS - 1
    if config.ngram_vocab_size:
        unread += len(config.ngram_sizes) * (config.ngram_vocab_size - 1)
    local = sum(counts[part] for part in LOCAL_PARTS) - unread * config.byte_dim
    return local, sum(count for part, count in counts.items() if part not in LOCAL_PARTS)


def measure_generation(name: str, options: argparse.Namespace) -> RowList:
    """Times generation of one row among copies and reads of a large buffer."""
    config = config_named(name)
    generation = SteadyGeneration(
        build(config, options.device, compile=options.compile),
        [options.prompt_bytes],
        bytes_per_row=options.run_bytes,
        runs=1 + options.repeats,
        compile=options.compile,
    )
    works = {
        "generation": Work(generation.run),
        "copy": machine.copy(options.buffer_bytes, options.device),
        "read": machine.read(options.buffer_bytes, options.device),
    }
    local, per_call = weights_read(config)
    rows = work_rows(
        works,
        repeats=options.repeats,
        device=options.device,
        part="generation",
        size=name,
        num_params=num_params(config),
        prompt_bytes=options.prompt_bytes,
        local_weights=local,
        weights_per_trunk_call=per_call,
        weight_bytes=torch.empty(0, dtype=machine.compute_dtype(options.device)).element_size(),
        cpu_cache_bytes=machine.cache_bytes(),
    )
    counts = generation.counts[1:]
    rows[0] |= {"bytes": [run["bytes"] for run in counts], "trunk_calls": [run["trunk_calls"] for run in counts]}
    return rows


def measure_prefill(name: str, options: argparse.Namespace) -> RowList:
    """Times the prefill of one prompt among matrix products."""
    config = config_named(name)
    reading = Prefill(build(config, options.device, compile=options.compile), 1, options.prefill_bytes)
    costs = reading.cost()
    works = {
        "prefill": Work(reading.run, flops=costs.flops_per_byte * reading.num_bytes),
        **machine.products([(side, side, side) for side in options.squares], options.device),
    }
    return work_rows(
        works,
        repeats=options.repeats,
        device=options.device,
        part="prefill",
        size=name,
        num_params=num_params(config),
        bytes=reading.num_bytes,
        patches_per_byte=costs.patches_per_byte,
        scratchpads_per_byte=costs.scratchpads_per_byte,
        flops_per_byte=costs.flops_per_byte,
    )


def measure_contexts(name: str, options: argparse.Namespace) -> RowList:
    """Times training steps of equal bytes at several contexts in turn; memory is measured in a process for each."""
    memory = {context: _in_own_process(name, context, options) for context in options.contexts}
    step = TrainingStep(build(config_named(name), options.device), text_batch(1, 64, options.device))
    batches = {
        context: text_batch(options.bytes_per_step // context, context, options.device) for context in options.contexts
    }
    works = {f"step at {context}": Work(_step_on(step, batch)) for context, batch in batches.items()}
    facts = {"part": "contexts", "size": name, "num_params": num_params(config_named(name))}
    rows = work_rows(works, repeats=options.repeats, device=options.device, **facts)
    for row, (context, batch) in zip(rows, batches.items(), strict=True):
        step.use(batch)
        costs = step.cost()
        row |= {
            "context_bytes": context,
            "rows": len(batch.byte_ids),
            "bytes": batch.num_bytes,
            "flops": costs.training_flops_per_byte * batch.num_bytes,
            "trunk_calls_per_byte": costs.trunk_calls_per_byte,
            **memory[context],
        }
    return rows


def _step_on(step: TrainingStep, batch: Batch) -> Callable[[], None]:
    def run() -> None:
        step.use(batch)
        step.run()

    return run


def _in_own_process(name: str, context: int, options: argparse.Namespace) -> dict[str, int]:
    """Returns what `measure_memory` prints in a process of its own."""
    words = ["--size", name, "--device", options.device, "--threads", str(options.threads)]
    words += ["--memory-of", str(context), "--bytes-per-step", str(options.bytes_per_step)]
    command = [sys.executable, str(Path(__file__).resolve()), *words]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout)


def measure_memory(name: str, context: int, options: argparse.Namespace) -> dict[str, int]:
    """Returns the memory before a training step and at most in it; the optimizer's state is there before."""
    step = TrainingStep(build(config_named(name), options.device), text_batch(1, 64, options.device))
    step.run()
    step.optimizer.zero_grad(set_to_none=True)
    step.use(text_batch(options.bytes_per_step // context, context, options.device))
    if options.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step.run()
        return {"memory_before": before, "memory_peak": torch.cuda.max_memory_allocated()}
    machine.forget_peak()
    before = machine.resident_bytes()
    step.run()
    return {"memory_before": before, "memory_peak": machine.peak_resident_bytes()}


def parse() -> argparse.Namespace:
    """Returns the options; the sizes of what is measured are options for tests alone."""
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--size", default="all", choices=("3M", "6.6M", "20M", "100M", "tiny", "all"))
    parser.add_argument("--parts", nargs="+", default=PARTS, choices=PARTS)
    parser.add_argument("--contexts", nargs="+", type=int, default=CONTEXTS)
    parser.add_argument("--bytes-per-step", type=int, default=BYTES_PER_STEP, help="of each context")
    parser.add_argument("--memory-of", type=int, help="only print the memory of a step at this context, as JSON")
    options = parser.parse_args()
    is_tiny = options.size == "tiny"
    options.shapes = ((2, 64), (1, 128)) if is_tiny else SHAPES
    options.squares = (64,) if is_tiny else (8192,) if options.device == "cuda" else SQUARES
    options.prompt_bytes, options.run_bytes = (20, 16) if is_tiny else (PROMPT_BYTES, BYTES_PER_RUN)
    options.prefill_bytes = 100 if is_tiny else PREFILL_BYTES
    options.buffer_bytes = 2**20 if is_tiny else BUFFER_BYTES
    return options


def main() -> None:
    """Measures the chosen parts at the chosen sizes."""
    options = parse()
    prepare(options)
    if options.memory_of:
        print(json.dumps(measure_memory(options.size, options.memory_of, options)))
        return
    is_all = options.size == "all"
    measures = {
        "training": (measure_training, TRAINING_SIZES),
        "generation": (measure_generation, GENERATION_SIZES),
        "prefill": (measure_prefill, GENERATION_SIZES),
        "contexts": (measure_contexts, (CONTEXTS_SIZE,)),
    }
    rows: RowList = []
    for part in options.parts:
        measure, all_sizes = measures[part]
        for name in all_sizes if is_all else (options.size,):
            rows += measure(name, options)
    write_results(options, "limits", rows, report(rows))


if __name__ == "__main__":
    main()
