"""Training by the clock: a fake one, whose steps take as long as a test says."""

import json
import math
import os
import signal
from collections.abc import Callable
from itertools import pairwise

import pytest

from patchpad.config import DataConfig
from patchpad.errors import TrainingInterrupted
from patchpad.training.budget import RECENT_STEPS, ClockBudget
from patchpad.training.learning_rate import learning_rate
from patchpad.training.text import RunText
from patchpad.training.trainer import Trainer, resume


class Clock:
    """A clock that moves when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def course(
    seconds_of_step: Callable[[float, int], float], *, seconds: float = 300.0, reserve_steps: float = 100.0
) -> tuple[list[float], float, ClockBudget]:
    """Makes steps until the budget is over.

    Args:
        seconds_of_step: of seconds since the start and the step's number.
        seconds: for everything.
        reserve_steps: what follows training takes as long as so many steps, but at most 30 % of the time.

    Returns:
        The share of training that was over before each step, the seconds it all took, and the budget.
    """
    clock = Clock()
    budget = ClockBudget(
        clock.now + seconds, lambda per_step: min(reserve_steps * per_step, 0.3 * seconds), clock=clock
    )
    shares, step = [], 0
    while not budget.is_over(step):
        shares.append(step / budget.planned_steps(step))
        clock.now += seconds_of_step(clock.now - 1000.0, step)
        step += 1
    return shares, clock.now - 1000.0, budget


def busy_between(begin: float, end: float, *, slower: float = 10.0) -> Callable[[float, int], float]:
    return lambda now, _: 0.1 * (slower if begin <= now < end else 1.0)


COURSES = {
    "free": (busy_between(0, 0), 290.0),
    "always busy": (busy_between(0, 1e9), 210.0),
    "busy at the start": (busy_between(0, 100), 290.0),
    "busy in the middle": (busy_between(80, 160), 290.0),
    "busy from the middle on": (busy_between(150, 1e9), 210.0),
    "busy near the end": (busy_between(200, 1e9), 210.0),
    "a slow first step": (lambda now, step: 8.0 if step == 0 else 0.1, 290.0),
    "a pause now and then": (lambda now, step: 5.0 if step % 300 == 299 else 0.1, 290.0),
}


@pytest.mark.parametrize("name", COURSES)
def test_training_ends_in_time_and_the_schedule_is_through_by_then(name):
    seconds_of_step, ends = COURSES[name]
    shares, took, _ = course(seconds_of_step)
    assert took == pytest.approx(ends, abs=8.0)
    assert took <= ends + 0.1
    assert shares[0] < 0.01
    known = shares[RECENT_STEPS + 1 :]
    assert all(later >= share - 1e-12 for share, later in pairwise(known)), "it never falls"
    assert 0.96 < shares[-1] < 1.0


def test_a_steady_clock_gives_nearly_the_schedule_of_a_fixed_number_of_steps(tools):
    shares, _, budget = course(busy_between(0, 0))
    steps = len(shares)
    config = tools.config(steps=steps, warmup_steps=50).train
    assert budget.first_plan == pytest.approx(steps, rel=0.01)
    for step, share in enumerate(shares):
        by_clock = learning_rate(step, config, step / share if step else math.inf)
        assert by_clock == pytest.approx(learning_rate(step, config), rel=0.02)


def test_the_first_plan_and_the_steps_made_tell_that_the_machine_became_slower():
    shares, _, budget = course(busy_between(100, 1e9))
    assert budget.first_plan is not None
    assert len(shares) < budget.first_plan / 2
    assert budget.seconds_per_step == pytest.approx(1.0)


@pytest.mark.parametrize(("seconds", "per_step"), [(1.0, 30.0), (0.0, 0.1), (-5.0, 0.1)])
def test_one_step_is_made_even_when_there_is_no_time(seconds, per_step):
    shares, took, _ = course(lambda now, step: per_step, seconds=seconds)
    assert (len(shares), took) == (1, pytest.approx(per_step))


@pytest.mark.unchecked
def test_a_run_by_the_clock_saves_the_steps_it_made_and_ends_with_low_rates_and_frozen_thresholds(
    tmp_path, text, tools
):
    clock = Clock()
    config = tools.config(steps=7, checkpoint_every=5, warmup_steps=4)
    run = Trainer(config, tmp_path / "run", RunText.open(DataConfig(paths=(str(text),))))
    frozen, planned = [], []

    def pass_time() -> None:
        clock.now += 1.0 if 3 <= run.step < 12 else 0.25
        frozen.append(float(run.schedule.scratchpad.nats))
        planned.append(run.planned_steps)

    original = run.optimizer.step
    run.optimizer.step = lambda: original() or pass_time()
    result = run.run(tools.Hook(), ClockBudget(clock.now + 20.0, lambda per_step: 2.0, clock=clock))
    made = len(frozen)
    assert run.step == result.config.train.steps == made
    assert 25 < made < 60
    assert json.loads((tmp_path / "run" / "config.json").read_text())["train"]["steps"] == made
    lines = tools.losses(tmp_path / "run")
    rates = [line["learning_rate"] for line in lines]
    assert "val/bpb" in lines[-1]
    assert rates == [learning_rate(step, config.train, steps) for step, steps in enumerate(planned)]
    assert rates[-1] < 0.15 * config.train.learning_rate
    share = [step / steps for step, steps in enumerate(planned)]
    first_frozen = next(step for step, one in enumerate(share) if one >= 0.9)
    assert len(set(frozen[first_frozen:])) == 1
    assert len(set(frozen[first_frozen - 3 : first_frozen + 1])) > 1
    half = json.loads((tmp_path / "run" / "checkpoints" / f"step-{made}" / "config.json").read_text())
    assert half["train"]["steps"] == made


def test_a_run_by_the_clock_that_was_stopped_goes_on_to_the_steps_that_were_planned(tmp_path, text, tools):
    clock = Clock()
    config = tools.config(steps=7)
    run = Trainer(config, tmp_path / "run", RunText.open(DataConfig(paths=(str(text),))))
    original = run.optimizer.step

    def one_second_a_step() -> None:
        original()
        clock.now += 1.0

    run.optimizer.step = one_second_a_step
    stop = tools.Hook(12, lambda: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(TrainingInterrupted, match="stopped at step 12 of 18"):
        run.run(stop, ClockBudget(clock.now + 20.0, lambda per_step: 2.0, clock=clock))
    go_on = tools.Hook()
    resume(tmp_path / "run", progress=go_on)
    assert go_on.steps[-1] == 18
