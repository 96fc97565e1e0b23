"""How long a run trains: a number of steps, or until a point in time."""

import statistics
import time
from collections import deque
from collections.abc import Callable
from typing import Protocol, runtime_checkable

RECENT_STEPS = 10
"""Steps whose median tells how fast steps are now."""
FIRST_GUESS = 1000.0
"""Steps to reckon with before the first one has shown how long it takes."""


@runtime_checkable
class Budget(Protocol):
    """Decides when training ends, and how many steps the schedules reckon with until then."""

    def planned_steps(self, step: int) -> int | float:
        """Returns the steps that the run will have made at its end, as it looks before step `step` (from 0).

        Learning rate and frozen thresholds follow `step / planned_steps(step)`, the share of training that is over.
        """
        ...

    def is_over(self, step: int) -> bool:
        """Whether training ends now that `step` steps have been made."""
        ...


class StepBudget:
    """A fixed number of steps: the same on every machine."""

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def planned_steps(self, step: int) -> int | float:
        """Returns the fixed number."""
        return self.steps

    def is_over(self, step: int) -> bool:
        """Whether all steps have been made."""
        return step >= self.steps


class ClockBudget:
    """Trains until a point in time, however fast the steps turn out to be; at least one step is made.

    The share of training that is over is the share of the time that is over: it depends on no forecast, so steps that
    become slower or faster on the way change how many there are, not how the schedules end. It never falls, once the
    first steps have shown how long a step takes.

    Args:
        ends_at: when everything is to be over, in seconds of `clock`.
        reserve: seconds that must be left after training, given the seconds per step of the last steps.
        clock: seconds from any origin.
    """

    def __init__(
        self, ends_at: float, reserve: Callable[[float], float], *, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self.ends_at = ends_at
        self.reserve = reserve
        self.clock = clock
        self.began = clock()
        self.share = 0.0
        self.first_plan: int | None = None
        """Steps that were expected after the first few, or None before them."""
        self._step_seconds: deque[float] = deque(maxlen=RECENT_STEPS)
        self._step_began: float | None = None

    @property
    def seconds_per_step(self) -> float:
        """Seconds of a step now, with what goes on between steps; 0 before the first step is over."""
        return statistics.median(self._step_seconds or [0.0])

    @property
    def seconds_left(self) -> float:
        """Seconds until training ends; below 0 when it should have ended."""
        return self.ends_at - self.reserve(self.seconds_per_step) - self.clock()

    def planned_steps(self, step: int) -> int | float:
        """Returns the steps made so far over the share of time that is over; call it once before each step."""
        now = self.clock()
        if self._step_began is not None:
            self._step_seconds.append(now - self._step_began)
        self._step_began = now
        left = max(0.0, self.seconds_left)
        if self.first_plan is None and len(self._step_seconds) == RECENT_STEPS:
            self.first_plan = step + round(left / max(self.seconds_per_step, 1e-9))
        if step == 0:
            return FIRST_GUESS
        elapsed = now - self.began
        self.share = max(self.share, elapsed / max(elapsed + left, 1e-9))
        planned = step / max(self.share, 1e-9)
        if self.first_plan is None:  # the very first step is slow, and warm-up must not be cut short by that
            planned = max(planned, step + left / max(min(self._step_seconds), 1e-9))
        return max(step + 1.0, planned)

    def is_over(self, step: int) -> bool:
        """Whether another step like the last ones would end too late."""
        if self._step_began is None:
            return False
        last = self.clock() - self._step_began
        return self.seconds_left < max(last, self.seconds_per_step)
