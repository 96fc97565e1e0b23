"""The main job in five minutes: train a small model with 16-byte patches and scratchpads, and see what they buy."""

import logging
import math
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from patchpad.config import Config, DataConfig, ModelConfig, TrainConfig
from patchpad.cost import count_parameters
from patchpad.data import cut_windows
from patchpad.data.bundled_text import bundled_novels
from patchpad.data.items import absolute_paths
from patchpad.errors import ConfigError, RunInUseError
from patchpad.evaluation.calibrate import calibration_of
from patchpad.launcher import require_one_process
from patchpad.quickstart.measuring import EVALUATED_BYTES, SecondsLeft, measure, sample
from patchpad.quickstart.record import (
    REPORT,
    RESULT,
    Course,
    QuickstartResult,
    Request,
    build_report,
    describe_run,
    measured_parts,
    write_result,
)
from patchpad.quickstart.report import write_report
from patchpad.training.budget import ClockBudget
from patchpad.training.progress import Progress
from patchpad.training.release import store_calibration
from patchpad.training.text import RunText
from patchpad.training.trainer import Trainer, new_run

logger = logging.getLogger(__name__)

MOST_RESERVED = 0.3
"""Share of the minutes that is kept for what follows training, at most: on a slow machine less is measured instead."""
STEPS_AFTER_TRAINING = 320
"""All that follows training takes as long as so many training steps, when everything is measured."""
STEPS_AFTER_MEASURING, STEPS_AFTER_SAMPLE = 15, 7
"""The same of a sample and the page, and of the page alone."""

CONFIG = Config(
    model=ModelConfig(byte_dim=48, window_bytes=8, trunk_dim=192),
    train=TrainConfig(
        batch_rows=2,
        learning_rate=4e-3,
        learning_rate_ratios={"patch_pooling": 0.25, "trunk": 0.25, "context_to_bytes": 0.25},
        validate_every=500,
        checkpoint_every=500,
        keep_checkpoints=1,
    ),
)
"""16-byte patches, entropy scratchpads at 3/16 per byte, thin local layers that see 8 bytes."""


def quickstart(
    request: Request,
    *,
    progress: Progress,
    began: float | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> QuickstartResult:
    """Trains for a time or a number of steps, evaluates along the threshold, samples, and writes `report.html`.

    With minutes, training goes by the clock: the learning rate and the frozen share of thresholds follow the time that
    is over, and what is kept for measuring follows the speed of the last steps. Where that is too little to measure
    everything, fewer bytes are measured. With steps, nothing looks at the clock, and the numbers can be repeated.

    Args:
        request: what the user asked for.
        progress: receives every training step.
        began: when the time began, by `clock`; default: now.
        clock: seconds from any origin.

    Raises:
        ConfigError: minutes or steps out of range, or `out` is not empty.
        DataError: unreadable or too little text.
        RunInUseError: another process is at work in `out`.
        TrainingInterrupted: stopped by a signal after saving.
    """
    check(request)
    require_one_process()
    began = clock() if began is None else began
    train = replace(CONFIG.train, seed=request.seed, device=request.device)
    if request.steps is not None:
        train = replace(train, steps=request.steps)
    data = DataConfig(paths=absolute_paths(request.data)) if request.data else bundled_novels()
    config = replace(CONFIG, data=data, train=train)
    with ExitStack() as stack:
        folder, text = _begin(stack, request.out, config)
        budget = None if request.minutes is None else clock_budget(began, 60 * request.minutes, clock)
        _announce(config, request)
        training_began = clock()
        run = Trainer(config, folder, text).run(progress, budget)
        model = run.model
        windows = cut_windows(text.validation, config.model.context_bytes).limit(EVALUATED_BYTES)
        course = Course(
            training_seconds=clock() - training_began,
            first_plan=None if budget is None else budget.first_plan,
            bytes_to_measure=int(windows.bounds.num_bytes.sum()),
        )
        logger.info("measuring held-out text along the threshold")
        measured = measure(model, windows, _seconds_left(budget, STEPS_AFTER_MEASURING))
        model.calibration = calibration_of(measured.points, measured.windows)
        store_calibration(run.path, model.calibration)
        completion = sample(model, seed=request.seed, seconds_left=_seconds_left(budget, STEPS_AFTER_SAMPLE))
        page_parts = measured_parts(model, measured, completion.data)
        result = QuickstartResult(
            run=run,
            points=measured.points,
            completion=completion,
            report_path=run.path / REPORT,
            seconds=clock() - began,
        )
        facts = describe_run(request, run, course, measured)
        write_result(result, request, course, measured, facts)
        write_report(result.report_path, build_report(result, request, facts, page_parts))
        return result


def check(request: Request) -> None:
    """Checks that a request has either minutes or steps, and that they are in range.

    Raises:
        ConfigError: they are not.
    """
    minutes, steps = request.minutes, request.steps
    if (minutes is None) == (steps is None):
        raise ConfigError(
            f"minutes is {minutes} and steps is {steps}; allowed: one of the two",
            hint="Give --minutes to train by the clock, or --steps to get numbers that can be repeated.",
        )
    if minutes is not None and not (math.isfinite(minutes) and minutes > 0):
        raise ConfigError(f"minutes is {minutes}; allowed: a number above 0", hint="Try --minutes 5.")
    if steps is not None and steps < 1:
        raise ConfigError(f"steps is {steps}; allowed: an integer of at least 1", hint="Try --steps 2000.")


def clock_budget(began: float, seconds: float, clock: Callable[[], float]) -> ClockBudget:
    """Returns what ends training in time to measure, sample and write the page.

    Args:
        began: when the time began, by `clock`.
        seconds: for everything.
        clock: seconds from any origin.
    """

    def reserve(seconds_per_step: float) -> float:
        return min(STEPS_AFTER_TRAINING * seconds_per_step, MOST_RESERVED * seconds)

    return ClockBudget(began + seconds, reserve, clock=clock)


def _seconds_left(budget: ClockBudget | None, steps: int) -> SecondsLeft | None:
    """Returns the seconds until a part of the work must be over that so many steps' time has to follow."""
    if budget is None:
        return None
    ends_at, clock = budget.ends_at - steps * budget.seconds_per_step, budget.clock
    return lambda: ends_at - clock()


def _begin(stack: ExitStack, out: Path | None, config: Config) -> tuple[Path, RunText]:
    """Returns the run's folder, locked until the stack is closed, and its text."""
    while True:
        folder = out or free_folder()
        try:
            return folder, stack.enter_context(new_run(folder, config, "patchpad quickstart", beside=(REPORT, RESULT)))
        except RunInUseError:
            if out is not None:
                raise  # else another quickstart has just taken it


def _announce(config: Config, request: Request) -> None:
    logger.info(
        "training %s parameters, %d bytes a step, %s",
        f"{sum(count_parameters(config.model).values()):,}",
        config.train.batch_rows * config.model.context_bytes,
        f"{request.steps:,} steps" if request.minutes is None else f"{request.minutes:g} minutes for everything",
    )


def free_folder() -> Path:
    """Returns runs/quickstart, or runs/quickstart-N with the first N from 2 that is free."""
    first = Path("runs/quickstart")
    candidates = [first, *(first.with_name(f"quickstart-{number}") for number in range(2, 10_000))]
    return next(folder for folder in candidates if not folder.exists())
