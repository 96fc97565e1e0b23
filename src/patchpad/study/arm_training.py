"""Training one run of a study: anew, resumed, or found finished; with its times and a short curve."""

import itertools
import logging
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from patchpad.config import Config
from patchpad.errors import TrainingInterrupted
from patchpad.files import strict_json, write_atomically
from patchpad.model.language_model import LanguageModel
from patchpad.provenance import commit
from patchpad.study.definition import ArmRun
from patchpad.study.progress import StudyProgress
from patchpad.study.results import RESULT_VERSION, SECONDS, TRAINING, read_training
from patchpad.training import checkpoint as files
from patchpad.training.init_from import Source
from patchpad.training.metrics import read_metrics
from patchpad.training.text import RunText
from patchpad.training.trainer import Trainer

logger = logging.getLogger(__name__)

SECONDS_BETWEEN_WRITES = 2.0
CURVE_POINTS = 40


class TrainingRecord:
    """What a run was trained on, at which commits, and the seconds that it took; kept beside it from its first step on.

    Steps that were lost when a process was killed count too: they were spent.
    """

    def __init__(self, run: ArmRun, folder: Path, text: Mapping[str, dict[str, Any]], progress: StudyProgress) -> None:
        self.run, self.path, self.progress = run, folder / TRAINING, progress
        before = read_training(self.path) if self.path.exists() else {}
        self.text = text
        self.commits: list[str | None] = before.get("commits", [])
        if not self.commits or self.commits[-1] != commit():
            self.commits.append(commit())
        self.wall_seconds, self.processor_seconds = (before.get(key, 0.0) for key in SECONDS)
        self.last = time.perf_counter(), time.process_time()
        self.written = -math.inf

    def update(self, step: int, total_steps: int, metrics: dict[str, Any]) -> None:
        """Takes note of a training step."""
        now = time.perf_counter(), time.process_time()
        self.wall_seconds += now[0] - self.last[0]
        self.processor_seconds += now[1] - self.last[1]
        self.last = now
        if step == total_steps or now[0] - self.written > SECONDS_BETWEEN_WRITES:
            self.write()
        self.progress.trained(self.run.name, metrics)

    def write(self) -> None:
        """Saves it; a failure ends no training, since a later write makes up for it."""
        self.written = time.perf_counter()
        seconds = dict(zip(SECONDS, (self.wall_seconds, self.processor_seconds), strict=True))
        content = {"format_version": RESULT_VERSION, "text": self.text, "commits": self.commits, **seconds}
        try:
            write_atomically(self.path, strict_json(content))
        except OSError as error:
            logger.warning("cannot write %s: %s", self.path, error)


def train_arm(
    run: ArmRun,
    config: Config,
    folder: Path,
    text: RunText,
    facts: Mapping[str, dict[str, Any]],
    progress: StudyProgress,
) -> LanguageModel:
    """Returns the trained model: new, resumed, or as it was left by a process that did not get to measuring it.

    Args:
        run: the arm and seed.
        config: complete, but for its data.
        folder: the run's; this process holds its lock.
        text: to train and validate on.
        facts: what `data` of a result says of the text.
        progress: is told of every step.

    Raises:
        TrainingInterrupted: stopped by a signal after saving, be it in the last step.
    """
    if files.is_finished(folder):
        return files.load(folder, device=config.train.device)
    is_begun = bool(files.list_steps(folder))
    trainer = Trainer(config, folder, text, source=None if is_begun else Source.of(config))
    if is_begun:
        trainer.restore(files.open_checkpoint(folder, for_resume=True))
    record = TrainingRecord(run, folder, facts, progress)
    try:
        model = trainer.run(record).model
    finally:
        if folder.exists():
            record.write()
    if trainer.was_signalled:
        raise TrainingInterrupted(f"stopped when {run.name} was trained but not yet measured; everything is saved")
    return model


def training_facts(run_folder: Path) -> dict[str, Any]:
    """Returns bytes, times, commits and a short curve of a finished run."""
    lines, record = read_metrics(run_folder), read_training(run_folder / TRAINING)
    seen = [0, *(line["bytes_seen"] for line in lines)]
    sizes = [after - before for before, after in itertools.pairwise(seen)]
    seconds = sum(size / line["bytes_per_second"] for size, line in zip(sizes, lines, strict=True))
    return {
        "steps": lines[-1]["step"],
        "bytes_seen": lines[-1]["bytes_seen"],
        **{key: record[key] for key in (*SECONDS, "commits")},
        "bytes_per_second": lines[-1]["bytes_seen"] / seconds,
        "curve": training_curve(lines, sizes),
    }


def training_curve(lines: Sequence[dict[str, Any]], sizes: Sequence[int]) -> list[dict[str, Any]]:
    """Returns bits per byte while training, each point the mean over the bytes since the one before."""
    group = -(-len(lines) // CURVE_POINTS)
    curve = []
    for first in range(0, len(lines), group):
        part, weights = lines[first : first + group], sizes[first : first + group]
        total = sum(line["train/bpb"] * size for line, size in zip(part, weights, strict=True))
        validations = [line["val/bpb"] for line in part if "val/bpb" in line]
        curve.append(
            {
                "bytes_seen": part[-1]["bytes_seen"],
                "training_bits_per_byte": total / sum(weights),
                "validation_bits_per_byte": validations[-1] if validations else None,
            }
        )
    return curve
