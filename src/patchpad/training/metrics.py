"""The lines of `metrics.jsonl`: how they come about, are written and read."""

import json
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from patchpad.config import Config
from patchpad.files import strict_json, write_atomically
from patchpad.training import checkpoint as files
from patchpad.training.learning_rate import learning_rate
from patchpad.training.sums import StepSums

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Readings:
    """What the host read from the device when it last did, beside sums."""

    gradient_norm: float
    """Of the newest step, before clipping."""
    scratchpad_threshold_nats: float
    """The stored one."""
    patch_threshold_nats: float
    """The stored one; nan for patchifiers without."""


def describe(
    config: Config, sums: StepSums, readings: Readings, *, step: int, bytes_seen: int, planned_steps: int | float
) -> dict[str, Any]:
    """Returns a line of metrics.

    Args:
        config: of the run.
        sums: over the steps since the last line.
        readings: of the newest step.
        step: steps that have been made.
        bytes_seen: since the run began.
        planned_steps: of the whole run, as the newest step reckoned with.
    """
    num_bytes = max(1, sums.num_bytes)
    line = {
        "step": step,
        "bytes_seen": bytes_seen,
        "train/bpb": sums.bits_per_byte(sums.nats),
        "learning_rate": learning_rate(step - 1, config.train, planned_steps),
        "gradient_norm": readings.gradient_norm,
        "scratchpads_per_byte": sums.num_scratchpads / num_bytes,
        "patches_per_byte": sums.num_commits / num_bytes,
        "scratchpad_threshold_nats": readings.scratchpad_threshold_nats,
        "bytes_per_second": sums.num_bytes / sums.seconds,
    }
    if config.model.cuts_by_entropy:
        line["patch_threshold_nats"] = readings.patch_threshold_nats
    if config.model.reads_entropy:
        line["train/entropy_head_bpb"] = sums.bits_per_byte(sums.head_nats)
    return line


@dataclass
class MetricsFile:
    """The lines of a run, and the file that they are written to."""

    path: Path
    lines: list[str] = field(default_factory=list)
    """In strict JSON."""

    @property
    def text(self) -> str:
        """Content of the file."""
        return "".join(line + "\n" for line in self.lines)

    def add(self, line: dict[str, Any]) -> None:
        """Adds a line and writes the file."""
        self.lines.append(strict_json(line))
        try:
            write_atomically(self.path, self.text)
        except OSError as error:  # a full disk must not end a run that can still be saved later
            logger.warning("cannot write %s: %s", self.path, error)

    def restore(self, folder: Path) -> None:
        """Takes over the lines of a checkpoint."""
        saved = folder / files.METRICS
        self.lines = saved.read_text(encoding="utf-8").splitlines() if saved.exists() else []


def read_metrics(run: str | Path) -> list[dict[str, Any]]:
    """Returns the lines of a run's metrics."""
    path = Path(run) / files.METRICS
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
