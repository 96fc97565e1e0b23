"""How busy other processes keep the processors that this one may use. Torch-free."""

import os
import time
from collections.abc import Callable
from pathlib import Path

STAT = Path("/proc/stat")
IDLE_COLUMNS = (3, 4)
"""Columns of a processor's line in /proc/stat that count no work: idle, and waiting for a disk."""
COLUMNS = 8
"""Columns that add up to all of the time; the later ones are counted twice."""
BUSY = 0.5
"""Processors' worth of other work from which on threads that wait for each other get in its way."""

WAITING_VARIABLES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
"""What users set to choose how OpenMP's threads wait."""


def usable_processors() -> set[int]:
    """Returns the numbers of the processors that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))


class OtherWork:
    """Measures the work of other processes between two readings."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.last = self._times()

    def processors(self) -> float | None:
        """Returns how many processors' worth of work others did since the last call, or since this was made.

        Where /proc/stat is missing, it is the system's load of the last minute; None where that is missing too.
        """
        before, self.last = self.last, self._times()
        elapsed, own = self.last[0] - before[0], self.last[1] - before[1]
        if elapsed <= 0:
            return None
        if before[2] is not None and self.last[2] is not None:
            return max(0.0, (self.last[2] - before[2] - own) / elapsed)
        try:
            return max(0.0, os.getloadavg()[0] - own / elapsed)
        except (AttributeError, OSError):
            return None

    def _times(self) -> tuple[float, float, float | None]:
        """Returns seconds now, of this process's own work, and of all work on the usable processors."""
        return self.clock(), time.process_time(), _busy_seconds()


def _busy_seconds() -> float | None:
    names = {f"cpu{number}" for number in usable_processors()}
    try:
        lines = [line.split() for line in STAT.read_text(encoding="ascii").splitlines()]
        rows = [list(map(int, line[1 : COLUMNS + 1])) for line in lines if line[0] in names]
        ticks = sum(sum(row) - sum(row[column] for column in IDLE_COLUMNS) for row in rows)
        return ticks / os.sysconf("SC_CLK_TCK") if rows else None
    except (OSError, ValueError, IndexError, AttributeError):
        return None
