"""A gate before what is timed: processes get ready side by side, which takes minutes, and are timed one by one."""

import time
from pathlib import Path

SECONDS_BETWEEN_LOOKS = 0.1


class Gate:
    """Opens when a file appears.

    Args:
        path: the file; None for a gate that is open from the start. `<path>.ready` says that somebody waits.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path

    @property
    def is_open(self) -> bool:
        """Whether the file is there."""
        return self.path is None or self.path.exists()

    def wait(self) -> None:
        """Says that this process is ready, and returns when the gate is open."""
        if self.path is None:
            return
        self.path.with_name(f"{self.path.name}.ready").touch()
        while not self.is_open:
            time.sleep(SECONDS_BETWEEN_LOOKS)
