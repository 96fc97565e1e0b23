"""Sums over training passes, as the host has read them."""

import math
from dataclasses import dataclass, field


@dataclass
class StepSums:
    """Sums over the passes of a step, or over the steps between two lines of metrics."""

    nats: float = 0.0
    head_nats: float = 0.0
    num_bytes: int = 0
    num_skipped_bytes: int = 0
    """Those of skipped steps, whose nats, commits and scratchpads are left out."""
    num_scratchpads: int = 0
    num_commits: int = 0
    num_positions: int = 0
    """Of rows, padding included."""
    num_padding: int = 0
    seconds: float = 0.0
    """Time in training steps alone: no validation, no saving."""
    data_wait_seconds: float = field(default=0.0, compare=False)
    """Time of `seconds` in which the steps waited for their batches."""

    def add(self, nats: float, head_nats: float, num_commits: float, num_scratchpads: float) -> None:
        """Adds what passes have summed; see `PassResult.sums`."""
        self.nats += nats
        self.head_nats += head_nats
        self.num_commits += int(num_commits)
        self.num_scratchpads += int(num_scratchpads)

    @property
    def num_counted_bytes(self) -> int:
        """Bytes that nats, commits and scratchpads are of."""
        return self.num_bytes - self.num_skipped_bytes

    def bits_per_byte(self, nats: float) -> float:
        """Returns nats as bits per byte."""
        return nats / (math.log(2) * max(1, self.num_counted_bytes))
