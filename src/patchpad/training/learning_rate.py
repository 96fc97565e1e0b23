"""Learning rate by step."""

import math

from patchpad.config import TrainConfig


def learning_rate(step: int, config: TrainConfig, planned_steps: int | float | None = None) -> float:
    """Learning rate of a step counted from 0: linear warm-up, then a fall that approaches the final ratio.

    It would reach it at step `planned_steps` (default: `config.steps`), one after the last. `cosine` falls from the
    end of warm-up on, `wsd` for the last `decay_fraction` of the steps.
    """
    steps = config.steps if planned_steps is None else planned_steps
    warmup = min(config.warmup_steps, steps)
    if step < warmup:
        return config.learning_rate * (step + 1) / (warmup + 1)
    if config.schedule == "wsd":
        stable = max(warmup, steps * (1 - config.decay_fraction))
        height = 1 - max(0.0, step - stable) / max(1, steps - stable)
    else:
        height = 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))
    floor = config.final_learning_rate_ratio
    return config.learning_rate * (floor + (1 - floor) * height)
