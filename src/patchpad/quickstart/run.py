"""The main job in five minutes: train a small model with 16-byte patches and scratchpads, and see what they buy."""

import logging
import math
import platform
import shlex
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from patchpad.config import Config, DataConfig, ModelConfig, TrainConfig
from patchpad.cost import count_parameters
from patchpad.data import Windows, cut_windows
from patchpad.data.bundled_text import bundled_novels
from patchpad.errors import ConfigError, RunInUseError
from patchpad.evaluation.bits_per_byte import Point
from patchpad.evaluation.calibrate import calibration_of, calibration_points
from patchpad.evaluation.compressors import compressors_bits_per_byte
from patchpad.files import strict_json, write_atomically
from patchpad.inference.generator import Completion, complete
from patchpad.inspection.inspection import inspect
from patchpad.model.byte_lm import ByteLM
from patchpad.model.language_model import LanguageModel
from patchpad.quickstart.report import Report, write_report
from patchpad.training.checkpoint import store_calibration
from patchpad.training.progress import Progress
from patchpad.training.run_folder import require_one_process
from patchpad.training.text import RunText, absolute_paths
from patchpad.training.trainer import Run, StepSums, Trainer, new_run, read_metrics
from patchpad.version import __version__

logger = logging.getLogger(__name__)

TRAINING_SHARE = 0.7
"""Share of the minutes that training takes; the rest is for measuring, a sample and the page."""
TIMED_STEPS = 12
LEAST_STEPS = 20
EVALUATED_BYTES = 80_000
REPORT, RESULT = "report.html", "quickstart.json"
"""What lies beside the run's own files."""
DEFAULT_MINUTES, DEFAULT_DEVICE = 5.0, "cpu"
PROMPT = "It was"
SAMPLE_BYTES = 400

CONFIG = Config(
    model=ModelConfig(byte_dim=48, window_bytes=8, trunk_dim=192),
    train=TrainConfig(
        batch_rows=2,
        learning_rate=4e-3,
        trunk_learning_rate_ratio=0.25,
        validate_every=500,
        checkpoint_every=500,
        keep_checkpoints=1,
    ),
)
"""16-byte patches, entropy scratchpads at 3/16 per byte, thin local layers that see 8 bytes."""


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
    def calibrated(self) -> Point:
        """The point at the stored threshold."""
        stored = float(self.run.model.scratchpad_threshold_nats)
        return next(point for point in self.points if point.scratchpad_threshold_nats == stored)

    @property
    def change_percent(self) -> float:
        """Change of bits per byte from no scratchpads to the stored threshold; below 0 is better."""
        return 100 * (self.calibrated.bits_per_byte / self.without_scratchpads.bits_per_byte - 1)


def quickstart(
    *,
    out: Path | None = None,
    minutes: float = DEFAULT_MINUTES,
    data: Sequence[str] = (),
    seed: int = 0,
    device: str = DEFAULT_DEVICE,
    progress: Progress,
) -> QuickstartResult:
    """Trains within a time budget, evaluates along the threshold, samples, and writes `report.html`.

    Args:
        out: run directory, absent or empty; None for `runs/quickstart`, or the next that is free.
        minutes: budget for everything; the number of steps follows from the measured speed.
        data: the user's files; empty: the bundled novels, one of them held out.
        seed: of initialisation, data order and sample.
        device: as in the configuration.
        progress: receives every training step.

    Raises:
        ConfigError: minutes out of range, or `out` is not empty.
        DataError: unreadable or too little text.
        TrainingInterrupted: stopped by a signal after saving.
    """
    if not (math.isfinite(minutes) and minutes > 0):
        raise ConfigError(f"minutes is {minutes}; allowed: a number above 0", hint="Try --minutes 5.")
    require_one_process()
    began = time.perf_counter()
    command = command_line(out=out, minutes=minutes, data=data, seed=seed, device=device)
    config = replace(CONFIG, data=data_config(data), train=replace(CONFIG.train, seed=seed, device=device))
    with ExitStack() as stack:
        folder, text = _begin(stack, out, config)
        seconds_per_step = time_step(config, text)
        left = 60 * minutes * TRAINING_SHARE - (time.perf_counter() - began)
        config = replace(config, train=replace(config.train, steps=max(LEAST_STEPS, int(left / seconds_per_step))))
        _announce(config, seconds_per_step)
        training_began = time.perf_counter()
        run = Trainer(config, folder, text).run(progress)
        assert isinstance(run.model, ByteLM)
        training_seconds = time.perf_counter() - training_began

        logger.info("measuring held-out text along the threshold")
        windows = cut_windows(text.validation, config.model.context_bytes).limit(EVALUATED_BYTES)
        points = calibration_points(run.model, windows)
        run.model.calibration = calibration_of(points, windows)
        store_calibration(run.path, run.model.calibration)
        completion = complete(run.model, [PROMPT], max_new_bytes=SAMPLE_BYTES, seed=seed)[0]
        result = QuickstartResult(
            run=run,
            points=tuple(points),
            completion=completion,
            report_path=run.path / REPORT,
            seconds=time.perf_counter() - began,
        )
        facts = describe_run(config, run, training_seconds)
        write_result(result, facts)
        write_report(result.report_path, build_report(result, facts, windows, command))
        return result


def _begin(stack: ExitStack, out: Path | None, config: Config) -> tuple[Path, RunText]:
    """Returns the run's folder, locked until the stack is closed, and its text."""
    while True:
        folder = out or free_folder()
        try:
            return folder, stack.enter_context(new_run(folder, config, "patchpad quickstart", beside=(REPORT, RESULT)))
        except RunInUseError:
            if out is not None:
                raise  # else another quickstart has just taken it


def _announce(config: Config, seconds_per_step: float) -> None:
    logger.info(
        "training %s parameters for %d steps of %d bytes, about %.1f minutes",
        f"{sum(count_parameters(config.model).values()):,}",
        config.train.steps,
        config.train.batch_rows * config.model.context_bytes,
        config.train.steps * seconds_per_step / 60,
    )


def free_folder() -> Path:
    """Returns runs/quickstart, or runs/quickstart-N with the first N from 2 that is free."""
    first = Path("runs/quickstart")
    candidates = [first, *(first.with_name(f"quickstart-{number}") for number in range(2, 10_000))]
    return next(folder for folder in candidates if not folder.exists())


def command_line(*, out: Path | None, minutes: float, data: Sequence[str], seed: int, device: str) -> str:
    """Returns the command that runs `quickstart` with these arguments, without those that are the defaults."""
    words = ["patchpad", "quickstart"]
    if out is not None:
        words += ["--out", str(out)]
    if minutes != DEFAULT_MINUTES:
        words += ["--minutes", str(minutes).removesuffix(".0")]
    for path in data:
        words += ["--data", path]
    if seed != 0:
        words += ["--seed", str(seed)]
    if device != DEFAULT_DEVICE:
        words += ["--device", device]
    return shlex.join(words)


def data_config(data: Sequence[str]) -> DataConfig:
    """Returns the user's files, or the bundled novels with one held out."""
    return DataConfig(paths=absolute_paths(data)) if data else bundled_novels()


def time_step(config: Config, text: RunText) -> float:
    """Returns the seconds of a training step, measured on a few that are thrown away."""
    trainer = Trainer(config, Path(), text)  # saves nothing
    times = []
    for _ in range(TIMED_STEPS):
        began = time.perf_counter()
        trainer.train_step(StepSums())
        times.append(time.perf_counter() - began)
    return float(np.median(times[2:]))


def describe_run(config: Config, run: Run, training_seconds: float) -> dict[str, str]:
    """Returns the facts that stand beside the numbers."""
    last = read_metrics(run.path)[-1]
    return {
        "Parameters": f"{sum(count_parameters(config.model).values()):,}",
        "Patch size": f"{config.model.patchifier.target_patch_size} bytes ({config.model.patchifier.kind})",
        "Scratchpads": f"{config.model.trigger.kind} trigger, {config.train.scratchpads_per_byte} per byte in training",
        "Trained on": f"{last['bytes_seen'] / 1e6:.2f} MB seen, {last['step']:,} steps",
        "Training time": f"{training_seconds:.0f} s on {torch.get_num_threads()} threads ({run.model.device})",
        "Hardware": platform.processor() or platform.machine(),
        "Versions": f"patchpad {__version__}, torch {torch.__version__}, Python {platform.python_version()}",
        "Seed": str(config.train.seed),
    }


def write_result(result: QuickstartResult, facts: dict[str, str]) -> None:
    """Writes `quickstart.json`: every number that the page and the table show."""
    content = {
        "points": [point.to_dict() for point in result.points],
        "calibrated_threshold_nats": result.calibrated.scratchpad_threshold_nats,
        "change_percent": result.change_percent,
        "seconds": result.seconds,
        "facts": facts,
        "sample": result.completion.text,
    }
    write_atomically(result.run.path / RESULT, strict_json(content, indent=1))


def build_report(result: QuickstartResult, facts: dict[str, str], windows: Windows, command: str) -> Report:
    """Collects what the page shows; `command` is the one that was run."""
    never, chosen = result.without_scratchpads, result.calibrated
    model = result.run.model
    assert isinstance(model, ByteLM)
    folder = result.run.path
    again = ["patchpad", "train", "--config", str(folder / "config.json"), "--out", f"{folder}-again"]
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
        calibrated_threshold_nats=chosen.scratchpad_threshold_nats,
        baselines=compressors_bits_per_byte(windows.as_corpus()),
        training=read_metrics(result.run.path),
        sample_prompt=PROMPT,
        sample=result.completion.data,
        command=command,
        reproduce=(
            f"The number of steps follows from the machine's speed. To repeat this run exactly on the same machine:\n"
            f"{shlex.join(again)}"
        ),
        **sample_marks(model, PROMPT.encode() + result.completion.data),
    )


def sample_marks(model: LanguageModel, data: bytes) -> dict[str, Any]:
    """Returns scratchpads, patch ends and entropies of each byte of a text of one window, as the report takes them."""
    inspection = inspect(model, data)
    assert inspection.entropy_nats is not None
    return {
        "sample_scratchpads": inspection.scratchpad.tolist(),
        "sample_patch_ends": inspection.patch_end.tolist(),
        "sample_entropy_nats": inspection.entropy_nats.tolist(),
    }
