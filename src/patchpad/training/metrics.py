"""The lines of `metrics.jsonl`: how they come about, are written and read. Imports no torch."""

import json
import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from patchpad.config import Config
from patchpad.errors import CheckpointError
from patchpad.files import strict_json, write_atomically
from patchpad.training.learning_rate import learning_rate
from patchpad.training.sums import StepSums

logger = logging.getLogger(__name__)

METRICS = "metrics.jsonl"
CLOCK_KEYS = (
    "bytes_per_second",
    "data_wait_share",
    "seconds",
    "seconds_left",
    "flops_per_second",
    "mfu",
    "host_memory_bytes",
    "device_memory_bytes",
)
"""What differs between two runs that are equal to the last bit."""


@dataclass(frozen=True, kw_only=True)
class Readings:
    """What the host read from the device when it last did, beside sums."""

    gradient_norm: float
    """Of the newest step, before clipping."""
    part_gradient_norms: Mapping[str, float]
    """The same of each part of the model."""
    scratchpad_threshold_nats: float
    """The stored one."""
    patch_threshold_nats: float
    """The stored one; nan for patchifiers without."""
    skipped_steps: int = 0
    """Since the run began."""


def describe(
    config: Config,
    sums: StepSums,
    readings: Readings,
    *,
    step: int,
    bytes_seen: int,
    planned_steps: int | float,
    seconds_before: float = 0.0,
) -> dict[str, Any]:
    """Returns a line of metrics.

    Args:
        config: of the run.
        sums: over the steps since the last line.
        readings: of the newest step.
        step: steps that have been made.
        bytes_seen: since the run began.
        planned_steps: of the whole run, as the newest step reckoned with.
        seconds_before: time in training steps until the last line.
    """
    num_bytes = max(1, sums.num_counted_bytes)
    line = {
        "step": step,
        "bytes_seen": bytes_seen,
        "train/bpb": sums.bits_per_byte(sums.nats),
        "learning_rate": learning_rate(step - 1, config.train, planned_steps),
        "gradient_norm": readings.gradient_norm,
        "scratchpads_per_byte": sums.num_scratchpads / num_bytes,
        "patches_per_byte": sums.num_commits / num_bytes,
        "mean_patch_size": num_bytes / sums.num_commits if sums.num_commits else None,
        "scratchpad_threshold_nats": readings.scratchpad_threshold_nats,
        "bytes_per_second": sums.num_bytes / sums.seconds,
        "seconds": seconds_before + sums.seconds,
        "data_wait_share": sums.data_wait_seconds / sums.seconds,
        "padding_share": sums.num_padding / max(1, sums.num_positions),
    }
    if config.train.max_skipped_steps:
        line["skipped_steps"] = readings.skipped_steps
    if config.model.cuts_by_entropy:
        line["patch_threshold_nats"] = readings.patch_threshold_nats
    if config.model.reads_entropy:
        line["train/entropy_head_bpb"] = sums.bits_per_byte(sums.head_nats)
    return line | {f"gradient_norm/{part}": norm for part, norm in readings.part_gradient_norms.items()}


@dataclass
class MetricsFile:
    """The lines of a run, and the file that they are written to."""

    path: Path
    lines: list[str] = field(default_factory=list)
    """In strict JSON."""
    newest: dict[str, Any] = field(default_factory=dict)
    """The last of them."""
    is_written: bool = False
    """Whether the file holds all lines but those that will be added: a new one can then be appended."""

    @property
    def text(self) -> str:
        """Content of the file."""
        return "".join(line + "\n" for line in self.lines)

    def add(self, line: dict[str, Any]) -> None:
        """Adds a line and writes it. What is nan becomes null."""
        self.newest = {key: None if _is_nan(value) else value for key, value in line.items()}
        self.lines.append(strict_json(self.newest))
        try:
            if self.is_written:
                self.is_written = False
                with open(self.path, "a", encoding="utf-8") as file:
                    file.write(self.lines[-1] + "\n")
            else:
                write_atomically(self.path, self.text)
            self.is_written = True
        except OSError as error:  # a full disk must not end a run that can still be saved later
            logger.warning("cannot write %s: %s", self.path, error)

    def restore(self, folder: Path) -> None:
        """Takes over the lines of a checkpoint; the next line that is added replaces the file."""
        saved = folder / METRICS
        self.lines = saved.read_text(encoding="utf-8").split("\n")[:-1] if saved.exists() else []
        self.newest = json.loads(self.lines[-1]) if self.lines else {}
        self.is_written = False


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)


def read_metrics(run: str | Path) -> list[dict[str, Any]]:
    """Returns the lines of a run's metrics, be it finished or not: a last line that is half-written is left out.

    Args:
        run: its folder, one of its steps, or a file of metrics.

    Raises:
        CheckpointError: there is no such file, or a line before its last is not one of ours.
    """
    path = Path(run)
    path = path if path.is_file() else path / METRICS
    try:
        texts = path.read_text(encoding="utf-8", errors="replace").removesuffix("\n").split("\n")
    except OSError as error:
        raise CheckpointError(
            f"cannot read {path}: {error.strerror}", hint="Give a folder that `patchpad train --out` wrote."
        ) from error
    lines: list[dict[str, Any]] = []
    for number, text in enumerate(texts, 1):
        try:
            line = json.loads(text)
        except ValueError:
            line = None
        if not isinstance(line, dict):
            if number == len(texts):  # it is being written, or its writer was killed
                break
            raise CheckpointError(
                f"line {number} of {path} is not a line of metrics: {text.strip()[:60]!r}",
                hint="Remove that line, or copy the file again from the run.",
            )
        lines.append(line)
    return lines
