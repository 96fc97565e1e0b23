"""Multiple choice with shared contexts read once, against a full pass of each choice, at equal batch size.

Usage: python benchmarks/choices_speed.py --data DIR [--tasks hellaswag piqa] [--examples 64] [--repeats 5]
Both score the same requests with the same model, in turn. The model is the preset's with random weights. Scratchpads
are forced at random at 3/16 per byte: entropies of random weights say nothing, but their head runs as ever.
"""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from choices_report import FULL, SHARED, report
from measuring import arguments, as_rows, prepare, time_interleaved, write_results
from sizes import SCRATCHPADS_PER_BYTE

from patchpad.config import load_config
from patchpad.model.build import build_model
from patchpad.model.language_model import LanguageModel
from patchpad.patching.triggers import RandomTrigger
from patchpad.tasks.choices import ChoicesTask, run_choices
from patchpad.tasks.compute import Compute, ComputeTally
from patchpad.tasks.definition import TaskOptions
from patchpad.tasks.full_passes import score_by_full_passes
from patchpad.tasks.kinds import load_task
from patchpad.tasks.scoring import DEFAULT_BATCH_POSITIONS, Request, Scored, Scorer, windows_of

SHOTS = {"hellaswag": 4, "piqa": 5, "arc_easy": 5, "mmlu": 2}
"""As many as fit 2,048 bytes with most examples."""
LARGEST_DIFFERENCE_NATS = 1e-3
"""Of a score; sums of hundreds of nats differ by rounding."""


class Recorder:
    """Keeps the requests of a task instead of scoring them."""

    def __init__(self) -> None:
        self.requests: list[Request] = []

    def score(self, requests: Sequence[Request]) -> list[Scored]:
        """Keeps requests."""
        self.requests += requests
        return [Scored(-1.0, False, 0, len(request.continuation)) for request in requests]

    def compute(self) -> Compute:
        """Returns zeros."""
        return Compute(**dict.fromkeys(Compute.__dataclass_fields__, 0))


def requests_of(name: str, data: Path, shots: int, examples: int) -> list[Request]:
    """Returns what has to be scored for the first examples of a task."""
    task = load_task(name)
    assert isinstance(task, ChoicesTask)
    recorder = Recorder()
    rows = task.rows(data, None)[:examples]
    run_choices(replace(task, unconditional_context=""), rows, recorder, TaskOptions(data=data, shots=shots))
    return recorder.requests


def build(preset: str, context_bytes: int, device: str) -> LanguageModel:
    """Returns a model with random weights; one with scratchpads fires them at random."""
    config = replace(load_config(preset).model, context_bytes=context_bytes)
    model = build_model(config).to(device).eval()
    if config.kind == "patch" and config.trigger.kind == "entropy":
        model.trigger = RandomTrigger(0)
        model.store_threshold(RandomTrigger.threshold_at(SCRATCHPADS_PER_BYTE, config.patchifier.target_patch_size))
    return model


def measure(model: LanguageModel, name: str, shots: int, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Times both ways on one task."""
    requests = requests_of(name, options.data, shots, options.examples)
    windows = [window for request in requests for window in windows_of(request, model.config.context_bytes)]
    num_examples = len({request.context for request in requests})

    def full() -> list[float]:
        tally = ComputeTally()
        scores = score_by_full_passes(model, windows, None, tally, batch_positions=options.batch_positions)
        return [score.nats for score in scores]

    def shared() -> list[float]:
        scored = Scorer(model, batch_positions=options.batch_positions).score(requests)
        return [-one.log_likelihood_nats for one in scored]

    difference = max(abs(one - other) for one, other in zip(full(), shared(), strict=True))
    assert difference < LARGEST_DIFFERENCE_NATS, difference
    scorer = Scorer(model, batch_positions=options.batch_positions)
    scored = scorer.score(requests)
    compute = scorer.compute()
    facts = {
        "preset": options.preset,
        "task": name,
        "shots": shots,
        "examples": num_examples,
        "cut": sum(one.num_cut_bytes > 0 for one in scored),
        "bytes_in_requests": compute.bytes_in_requests,
        "bytes_read": compute.bytes_read,
        "largest_difference_nats": difference,
    }
    return as_rows(
        time_interleaved({SHARED: shared, FULL: full}, repeats=options.repeats, device=options.device), **facts
    )


def main() -> None:
    """Measures each task without shots and with them."""
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the tasks' data")
    parser.add_argument("--tasks", nargs="+", default=list(SHOTS), choices=list(SHOTS))
    parser.add_argument("--preset", default="small-cpu-fixed16-entropy")
    parser.add_argument("--context-bytes", type=int, default=2048)
    parser.add_argument("--examples", type=int, default=64)
    parser.add_argument("--batch-positions", type=int, default=DEFAULT_BATCH_POSITIONS)
    options = parser.parse_args()
    prepare(options)
    model = build(options.preset, options.context_bytes, options.device)
    rows = [row for name in options.tasks for shots in (0, SHOTS[name]) for row in measure(model, name, shots, options)]
    write_results(options, "choices-speed", rows, report(rows))


if __name__ == "__main__":
    main()
