"""Notices when other processes make training far slower than it was."""

import logging
import os

import torch

from patchpad.processors import BUSY, WAITING_VARIABLES, OtherWork

logger = logging.getLogger(__name__)

WINDOW_SECONDS = 5.0
SLOW_RATIO = 3.0
SLOW_SECONDS = 30.0
"""Training that has been below a third of its best speed for so long is slow."""


class SpeedWatch:
    """Says once what to do when training has become slow while others are busy.

    Args:
        resume_command: goes on with the run.
        other_work: measures what others do.
    """

    def __init__(self, resume_command: str, other_work: OtherWork | None = None) -> None:
        self.resume_command = resume_command
        self.other_work = other_work or OtherWork()
        # a single thread waits for none, and who has set a variable has chosen
        self.is_over = torch.get_num_threads() == 1 or any(name in os.environ for name in WAITING_VARIABLES)
        self.num_bytes, self.seconds = 0, 0.0
        self.best, self.slow_seconds = 0.0, 0.0

    def step(self, num_bytes: int, seconds: float) -> None:
        """Takes note of a training step: its bytes and how long it took."""
        self.num_bytes += num_bytes
        self.seconds += seconds
        if self.is_over or self.seconds < WINDOW_SECONDS:
            return
        speed, busy = self.num_bytes / self.seconds, self.other_work.processors()
        self.best = max(self.best, speed)
        self.slow_seconds = self.slow_seconds + self.seconds if SLOW_RATIO * speed < self.best else 0.0
        self.num_bytes, self.seconds = 0, 0.0
        if self.slow_seconds >= SLOW_SECONDS and busy is not None and busy >= BUSY:
            self.is_over = True
            logger.warning(
                "training fell from %.1f to %.1f kB/s while other processes use %.1f processors. It is faster if "
                "threads sleep while they wait: stop with Ctrl-C, which saves, and continue with: "
                "OMP_WAIT_POLICY=PASSIVE %s",
                *(self.best / 1e3, speed / 1e3, busy, self.resume_command),
            )
