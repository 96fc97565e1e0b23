"""Learning rate by step."""

import math

from patchpad.config import TrainConfig


def learning_rate(step: int, config: TrainConfig, planned_steps: int | float | None = None) -> float:
    """Learning rate of a step counted from 0: linear warm-up, then a cosine that approaches the final ratio.

    It would reach it at step `planned_steps` (default: `config.steps`), one after the last.
    """
    steps = config.steps if planned_steps is None else planned_steps
    warmup = min(config.warmup_steps, steps)
    if step < warmup:
        return config.learning_rate * (step + 1) / (warmup + 1)
    progress = (step - warmup) / max(1, steps - warmup)
    floor = config.final_learning_rate_ratio
    return config.learning_rate * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress)))
