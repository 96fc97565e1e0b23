"""Peak memory of training steps on a CPU, beside what `patchpad cost` says.

Two peaks are measured: the tensors that torch's allocator had at once, from torch's profiler, and the resident memory
of a fresh process over what it had before the model was made. The second has in addition what the allocator of the C
library and torch's libraries keep for themselves.

Usage: python benchmarks/training_memory.py
"""

import gc
import json
import os
import subprocess
import sys
from dataclasses import dataclass, replace
from typing import Any

from machine import forget_peak, peak_resident_bytes, resident_bytes
from measuring import arguments, markdown_table, prepare, write_results
from trainer_steps import TrainerSteps, novels

from patchpad.config import Config, load_config
from patchpad.cost import Devices, training_memory
from patchpad.testing.memory import peak_tensor_bytes

STEPS = 2
"""The first step makes the optimizer's moments, so the second is the largest."""
ALLOCATOR = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": "65536"}
"""Lets glibc give freed memory back at once, so that resident memory follows tensors."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """Steps to measure."""

    preset: str
    batch_rows: int
    accumulation_steps: int = 1
    recomputes: bool = False

    @property
    def config(self) -> Config:
        """The preset, with or without activation checkpointing."""
        config = load_config(self.preset)
        return replace(config, train=replace(config.train, activation_checkpointing=self.recomputes))

    def steps(self) -> TrainerSteps:
        """Returns the steps, of which none is made yet."""
        rows, passes = self.batch_rows, self.accumulation_steps
        return TrainerSteps(self.config, "cpu", batch_rows=rows, accumulation_steps=passes)


CASES = (
    Case(preset="small-cpu-fixed16-entropy", batch_rows=4),
    Case(preset="small-cpu-fixed16-entropy", batch_rows=16),
    Case(preset="small-cpu-fixed16-entropy", batch_rows=8, accumulation_steps=2, recomputes=True),
    Case(preset="small-cpu-fixed1-never", batch_rows=4),
    Case(preset="bundled-7m-fixed16-entropy", batch_rows=8, accumulation_steps=2),
    Case(preset="tiny-entropy-entropy", batch_rows=32, accumulation_steps=2),
    Case(preset="tiny-hnet-entropy", batch_rows=32),
    Case(preset="tiny-byte", batch_rows=32),
    Case(preset="tiny-megabyte4", batch_rows=32),
)


def tensor_peak(case: Case) -> tuple[int, TrainerSteps]:
    """Returns the most bytes that tensors had at once while steps were made, and the steps."""
    made: list[TrainerSteps] = []

    def run() -> None:
        made.append(case.steps())
        for _ in range(STEPS):
            made[0].run()

    return peak_tensor_bytes(run), made[0]


def resident_peak(case: Case) -> int:
    """Returns the most resident memory of this process while steps are made, over what it has now."""
    novels()
    gc.collect()
    before = resident_bytes()
    forget_peak()
    steps = case.steps()
    for _ in range(STEPS):
        steps.run()
    return peak_resident_bytes() - before


def counted_peak(case: Case, steps: TrainerSteps) -> int:
    """Returns what `patchpad cost` says, at the rates of the steps."""
    sums = steps.read()
    return training_memory(
        steps.config,
        Devices(kind="cpu"),
        patches_per_byte=sums.num_commits / sums.num_bytes,
        scratchpads_per_byte=sums.num_scratchpads / sums.num_bytes,
    ).peak_bytes


def measured(number: int, threads: int) -> dict[str, Any]:
    """Measures a case in processes of its own."""
    case = CASES[number]
    row: dict[str, Any] = {
        "preset": case.preset,
        "batch_rows": case.batch_rows,
        "accumulation_steps": case.accumulation_steps,
        "activation_checkpointing": case.recomputes,
        "num_params": sum(part.numel() for part in case.steps().training.model.parameters()),
    }
    for what in ("tensors", "resident"):
        words = [sys.executable, __file__, "--threads", str(threads), "--case", str(number), "--what", what]
        done = subprocess.run(words, env=os.environ | ALLOCATOR, capture_output=True, text=True, check=True)
        row |= json.loads(done.stdout.splitlines()[-1])
    return row


def report(rows: list[dict[str, Any]]) -> str:
    """Returns the table."""
    lines = [
        [
            f"{row['preset']}{', trunk blocks computed again' if row['activation_checkpointing'] else ''}",
            f"{row['batch_rows']} x {row['accumulation_steps']}",
            f"{row['counted_bytes'] / 1e6:,.0f}",
            f"{row['tensor_bytes'] / 1e6:,.0f}",
            f"{row['counted_bytes'] / row['tensor_bytes']:.3f}",
            f"{row['resident_bytes'] / 1e6:,.0f}",
            f"{row['counted_bytes'] / row['resident_bytes']:.3f}",
        ]
        for row in rows
    ]
    header = (
        "steps",
        "rows x passes",
        "by `cost`, MB",
        "tensors, MB",
        "cost / tensors",
        "resident, MB",
        "cost / resident",
    )
    return (
        f"The largest of {STEPS} steps. Tensors: the most that torch's allocator had at once. Resident: the peak of a "
        "fresh process over what it had before the model was made, about 30 MB of which are the libraries' own; glibc "
        "gives freed memory back at once (MALLOC_MMAP_THRESHOLD_=65536), without which it keeps up to 150 MB more.\n\n"
        + markdown_table(header, lines)
    )


def main() -> None:
    """Measures all cases, or one of them in this process."""
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--case", type=int, help="measure this case here and print it")
    parser.add_argument("--what", choices=("tensors", "resident"), default="tensors")
    options = parser.parse_args()
    prepare(options)
    if options.case is None:
        rows = [measured(number, options.threads) for number in range(len(CASES))]
        write_results(options, "training-memory", rows, report(rows))
        return
    case = CASES[options.case]
    if options.what == "resident":
        print(json.dumps({"resident_bytes": resident_peak(case)}))
        return
    most, steps = tensor_peak(case)
    print(json.dumps({"tensor_bytes": most, "counted_bytes": counted_peak(case, steps)}))


if __name__ == "__main__":
    main()
