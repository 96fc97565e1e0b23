"""Kernels, bytes moved and FLOPs of training steps and of generation, on the pretended device.

`tests/cuda/kernels.json` holds what they are at present, so that a change of them shows. Write it anew with

    PYTHONPATH=tests/cuda python -m pretended_cuda tests/cuda/kernel_table.py

Kernels are those of code that is not compiled; they are counts, not times.
"""

import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import pretended_cuda
import torch
from cuda_models import CASES, PhasePerStep, never_ending, run_config, small_config

from patchpad.config import Config
from patchpad.files import write_atomically
from patchpad.inference.generator import Generation
from patchpad.testing import BASELINE_KINDS, tiny_baseline_config
from patchpad.training.trainer import train

TABLE = Path(__file__).with_name("kernels.json")
STEP = 3
"""The step of a run that is counted: neither the first one nor the last."""
NUM_ADVANCES = 8
"""Bytes of each row that are counted together."""

Row = dict[str, int]


def torch_version() -> str:
    """Returns the version of torch, on which the kernels of an operation depend."""
    return ".".join(torch.__version__.split(".")[:2])


def rows() -> dict[str, Callable[[], Row]]:
    """Returns what is counted, by name."""
    configs = {"-".join(case): small_config(*case) for case in CASES}
    configs |= {kind: tiny_baseline_config(kind, context_bytes=256) for kind in BASELINE_KINDS}
    runs = {name: run_config(model_config, steps=STEP + 1) for name, model_config in configs.items()}
    runs["fixed-entropy, spread thresholds"] = run_config(small_config(), steps=STEP + 1, threshold_spread=0.25)
    runs["fixed-entropy, two passes"] = run_config(small_config(), steps=STEP + 1, accumulation_steps=2)
    found: dict[str, Callable[[], Row]] = {}
    for name, config in runs.items():
        found[f"training step, {name}"] = lambda config=config: training_step(config)
    for patchifier, trigger in (CASES[0], CASES[3]):
        for compile in (False, True):
            words = "with graphs" if compile else "without graphs"
            found[f"generation {words}, {patchifier}-{trigger}"] = lambda case=(patchifier, trigger), compile=compile: (
                generation(case, compile)
            )
    return found


def training_step(config: Config) -> Row:
    """Counts one step of a run."""
    with pretended_cuda.recording() as record, tempfile.TemporaryDirectory() as folder:
        train(config, out=Path(folder) / "run", progress=PhasePerStep(record))
    return counts(record, f"step {STEP}")


def generation(case: tuple[str, str], compile: bool) -> Row:
    """Counts some bytes of three rows, decoded together."""
    with pretended_cuda.recording() as record:
        model = never_ending(small_config(*case)).to("cuda")
        running = Generation(model, [b"abc", b"It is", b""], max_new_bytes=40, temperature=0.0, compile=compile)
        for _ in range(6):
            running.engine.advance()
        with record.in_phase("bytes"):
            for _ in range(NUM_ADVANCES):
                running.engine.advance()
    row = counts(record, "bytes")
    return {**row, "kernels_in_graphs": record.replayed["bytes"]} if compile else row


def counts(record: pretended_cuda.Record, phase: str) -> Row:
    """Returns what the table says of a phase, and prints where the host has waited."""
    print(record.describe_waits(phase))
    return {
        "kernels": record.num_kernels(phase),
        "bytes_moved": record.num_bytes_moved(phase),
        "flops": record.num_flops(phase),
        "waits": record.num_waits(phase),
    }


def main() -> None:
    """Writes the table."""
    torch.set_num_threads(1)
    table = {"torch": torch_version(), "rows": {name: count() for name, count in rows().items()}}
    write_atomically(TABLE, json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    main()
