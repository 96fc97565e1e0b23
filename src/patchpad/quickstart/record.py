"""What a finished quickstart leaves beside the run: a file of results, and the content of its report."""

import platform
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from patchpad.cost import count_parameters
from patchpad.evaluation.bits_per_byte import Point
from patchpad.evaluation.compressors import compressors_bits_per_byte
from patchpad.files import strict_json, write_atomically
from patchpad.inference.generator import Completion
from patchpad.inspection.inspection import inspect
from patchpad.model.language_model import LanguageModel
from patchpad.quickstart.content import Report
from patchpad.quickstart.measuring import PROMPT, Measured
from patchpad.training.budget import RECENT_STEPS
from patchpad.training.metrics import read_metrics
from patchpad.training.trainer import Run
from patchpad.version import __version__

REPORT, RESULT = "report.html", "quickstart.json"
"""What lies beside the run's own files."""
DEFAULT_MINUTES, DEFAULT_DEVICE = 5.0, "cpu"
ABOUT_EQUAL = 0.05
"""Share by which the steps made may differ from the first plan without a word about why."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """What the user asked for."""

    out: Path | None = None
    """Run directory; None for one that is free."""
    minutes: float | None = None
    """For everything; None when `steps` is given."""
    steps: int | None = None
    """Training steps; None when the clock decides."""
    data: tuple[str, ...] = ()
    """The user's files; empty: the bundled novels."""
    seed: int = 0
    device: str = DEFAULT_DEVICE

    def command_line(self, **changes: Any) -> str:
        """Returns the command for this, without what is the default; `changes` replace fields."""
        values = {**vars(self), **changes}
        words = ["patchpad", "quickstart"]
        if values["out"] is not None:
            words += ["--out", str(values["out"])]
        if values["steps"] is not None:
            words += ["--steps", str(values["steps"])]
        elif values["minutes"] not in (None, DEFAULT_MINUTES):
            words += ["--minutes", str(values["minutes"]).removesuffix(".0")]
        for path in values["data"]:
            words += ["--data", path]
        if values["seed"] != 0:
            words += ["--seed", str(values["seed"])]
        if values["device"] != DEFAULT_DEVICE:
            words += ["--device", values["device"]]
        return shlex.join(words)


@dataclass(frozen=True, kw_only=True)
class Course:
    """How the time went."""

    training_seconds: float
    first_plan: int | None
    """Steps that the clock gave hope for after the first few; None with a fixed number, or fewer steps than that."""
    bytes_to_measure: int
    """Held-out bytes that are measured when there is time."""


@dataclass(frozen=True, kw_only=True)
class QuickstartResult:
    """What the command prints."""

    run: Run
    points: tuple[Point, ...]
    completion: Completion
    report_path: Path
    seconds: float

    @property
    def without_scratchpads(self) -> Point:
        """The point at +inf."""
        return self.points[0]

    @property
    def stored(self) -> Point:
        """The point at the stored threshold."""
        stored = float(self.run.model.scratchpad_threshold_nats)
        return next(point for point in self.points if point.scratchpad_threshold_nats == stored)

    @property
    def change_percent(self) -> float:
        """Change of bits per byte from no scratchpads to the stored threshold; below 0 is better."""
        return 100 * (self.stored.bits_per_byte / self.without_scratchpads.bits_per_byte - 1)


def time_text(request: Request, course: Course, steps_made: int) -> str:
    """Returns what became of the time: minutes, steps planned and made, and why they differ."""
    if request.minutes is None:
        return f"as long as {steps_made:,} steps take (--steps)"
    text = f"{request.minutes:g} minutes for everything; training went by the clock and made {steps_made:,} steps"
    if course.first_plan is None:
        return text
    text += f", {course.first_plan:,} were planned after the first {RECENT_STEPS}"
    ratio = course.first_plan / steps_made
    if ratio > 1 + ABOUT_EQUAL:
        return f"{text}: on average, steps then took {ratio:.2g} times as long"
    if ratio < 1 - ABOUT_EQUAL:
        return f"{text}: on average, steps then took {ratio:.2g} of that time"
    return text


def measured_text(measured: Measured, course: Course) -> str:
    """Returns how much was measured, and whether time cut it short."""
    num_bytes = int(measured.windows.bounds.num_bytes.sum())
    text = f"{num_bytes:,} held-out bytes at {len(measured.points)} thresholds"
    if num_bytes < course.bytes_to_measure:
        return f"{text}; there was no time for all {course.bytes_to_measure:,} bytes"
    return text


def describe_run(request: Request, run: Run, course: Course, measured: Measured) -> dict[str, str]:
    """Returns the facts that stand beside the numbers."""
    config, last = run.config, read_metrics(run.path)[-1]
    return {
        "Parameters": f"{sum(count_parameters(config.model).values()):,}",
        "Patch size": f"{config.model.patchifier.target_patch_size} bytes ({config.model.patchifier.kind})",
        "Scratchpads": f"{config.model.trigger.kind} trigger, {config.train.scratchpads_per_byte} per byte in training",
        "Trained on": f"{last['bytes_seen'] / 1e6:.2f} MB seen, {last['step']:,} steps",
        "Training time": f"{course.training_seconds:.0f} s on {torch.get_num_threads()} threads ({run.model.device})",
        "Time": time_text(request, course, last["step"]),
        "Measured": measured_text(measured, course),
        "Hardware": platform.processor() or platform.machine(),
        "Versions": f"patchpad {__version__}, torch {torch.__version__}, Python {platform.python_version()}",
        "Seed": str(config.train.seed),
    }


def write_result(
    result: QuickstartResult, request: Request, course: Course, measured: Measured, facts: Mapping[str, str]
) -> None:
    """Writes `quickstart.json`: every number that the page and the table show."""
    content = {
        "points": [point.to_dict() for point in result.points],
        "stored_threshold_nats": result.stored.scratchpad_threshold_nats,
        "change_percent": result.change_percent,
        "seconds": result.seconds,
        "budget": {
            "minutes": request.minutes,
            "steps": request.steps,
            "steps_planned_at_first": course.first_plan,
            "steps_made": result.run.config.train.steps,
            "training_seconds": course.training_seconds,
            "bytes_to_measure": course.bytes_to_measure,
            "bytes_measured": int(measured.windows.bounds.num_bytes.sum()),
            "sample_bytes": len(result.completion.data),
        },
        "facts": dict(facts),
        "sample": result.completion.text,
    }
    write_atomically(result.run.path / RESULT, strict_json(content, indent=1))


def reproduce_text(request: Request, run: Run) -> str:
    """Returns how to get the same numbers again."""
    again = Path(f"{run.path}-again")
    if request.steps is not None:
        return f"On the same machine, this gives the same model and numbers:\n{request.command_line(out=again)}"
    command = request.command_line(out=again, steps=run.config.train.steps)
    return (
        "The clock decided how many steps there were and how the learning rate fell, so no other run gives exactly "
        f"these numbers.\nAs many steps without the clock, the same each time on the same machine:\n{command}"
    )


def build_report(
    result: QuickstartResult, request: Request, facts: dict[str, str], page_parts: dict[str, Any]
) -> Report:
    """Collects what the page shows; `page_parts` are those of `measured_parts`."""
    never, chosen = result.without_scratchpads, result.stored
    return Report(
        title="Scratchpad Patching, the first run",
        summary=(
            f"On held-out text, scratchpads take the same weights from {never.bits_per_byte:.4f} to "
            f"{chosen.bits_per_byte:.4f} bits per byte ({result.change_percent:+.2f} %), with "
            f"{chosen.trunk_calls_per_byte:.3f} instead of {never.trunk_calls_per_byte:.3f} trunk calls per byte "
            f"and a trunk cache of the same size. One seed, a small model, {never.num_bytes:,} bytes of text."
        ),
        facts=facts,
        points=[point.to_dict() for point in result.points],
        stored_threshold_nats=chosen.scratchpad_threshold_nats,
        training=read_metrics(result.run.path),
        sample_prompt=PROMPT,
        sample=result.completion.data,
        command=request.command_line(),
        reproduce=reproduce_text(request, result.run),
        **page_parts,
    )


def measured_parts(model: LanguageModel, measured: Measured, sampled: bytes) -> dict[str, Any]:
    """Returns fields of the report that take work: compressors on the same text, and the marks of the sample."""
    inspection = inspect(model, PROMPT.encode() + sampled)
    assert inspection.entropy_nats is not None
    return {
        "baselines": compressors_bits_per_byte(measured.windows.as_corpus()),
        "sample_scratchpads": inspection.scratchpad.tolist(),
        "sample_patch_ends": inspection.patch_end.tolist(),
        "sample_entropy_nats": inspection.entropy_nats.tolist(),
    }
