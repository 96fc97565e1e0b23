"""Training one run of a study: anew, resumed, or found finished; with its times and a short curve."""

import itertools
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from patchpad.config import Config
from patchpad.errors import TrainingInterrupted
from patchpad.files import strict_json, write_atomically
from patchpad.model.language_model import LanguageModel
from patchpad.model.precision import select_device
from patchpad.study.study_file import ArmRun
from patchpad.study.study_progress import StudyProgress
from patchpad.study.study_results import RESULT_VERSION, read_json
from patchpad.training import checkpoint as files
from patchpad.training.trainer import Trainer, read_metrics

CLOCK = "clock.json"
SECONDS_BETWEEN_CLOCKS = 2.0
CURVE_POINTS = 40


class Clock:
    """Wall and processor seconds that a run has spent on training, kept beside it while it is trained.

    Steps that were lost when a process was killed count too: they were spent.
    """

    def __init__(self, run: ArmRun, folder: Path, progress: StudyProgress) -> None:
        self.run, self.path, self.progress = run, folder / CLOCK, progress
        before = read_json(self.path) if self.path.exists() else {"wall_seconds": 0.0, "processor_seconds": 0.0}
        self.wall_seconds, self.processor_seconds = before["wall_seconds"], before["processor_seconds"]
        self.last = time.perf_counter(), time.process_time()
        self.written = self.last[0]

    def update(self, step: int, total_steps: int, metrics: dict[str, Any]) -> None:
        """Takes note of a training step."""
        now = time.perf_counter(), time.process_time()
        self.wall_seconds += now[0] - self.last[0]
        self.processor_seconds += now[1] - self.last[1]
        self.last = now
        if step == total_steps or now[0] - self.written > SECONDS_BETWEEN_CLOCKS:
            self.write()
        self.progress.trained(self.run.name, metrics)

    def write(self) -> None:
        """Saves the times."""
        self.written = time.perf_counter()
        times = {"wall_seconds": self.wall_seconds, "processor_seconds": self.processor_seconds}
        write_atomically(self.path, strict_json({"format_version": RESULT_VERSION, **times}))


def train_arm(run: ArmRun, config: Config, folder: Path, progress: StudyProgress) -> LanguageModel:
    """Returns the trained model: new, resumed, or as it was left by a process that did not get to measuring it.

    Raises:
        TrainingInterrupted: stopped by a signal after saving, be it in the last step.
    """
    if (folder / files.MANIFEST).exists():
        return files.load(folder, device=select_device(config.train.device))
    steps = files.list_steps(folder)
    if not steps and folder.exists():
        shutil.rmtree(folder)  # stopped before its first checkpoint
    trainer = Trainer(config, folder)
    if steps:
        trainer.restore(files.open_checkpoint(folder, for_resume=True))
    clock = Clock(run, folder, progress)
    try:
        model = trainer.run(clock).model
    finally:
        if folder.exists():
            clock.write()
    if trainer.was_signalled:
        raise TrainingInterrupted(f"stopped when {run.name} was trained but not yet measured; everything is saved")
    return model


def training_facts(run_folder: Path) -> dict[str, Any]:
    """Returns bytes, times and a short curve of a finished run."""
    lines, clock = read_metrics(run_folder), read_json(run_folder / CLOCK)
    seen = [0, *(line["bytes_seen"] for line in lines)]
    sizes = [after - before for before, after in itertools.pairwise(seen)]
    seconds = sum(size / line["bytes_per_second"] for size, line in zip(sizes, lines, strict=True))
    return {
        "steps": lines[-1]["step"],
        "bytes_seen": lines[-1]["bytes_seen"],
        "wall_seconds": clock["wall_seconds"],
        "processor_seconds": clock["processor_seconds"],
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
