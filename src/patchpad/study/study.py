"""Runs a study: every arm from every seed is trained, measured, and leaves one small result file."""

import itertools
import logging
import os
import shlex
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TextIO

from patchpad.config import Config, DataConfig
from patchpad.cost import count_parameters
from patchpad.data import Corpus, Windows, cut_windows
from patchpad.errors import ConfigError, PatchpadError, TrainingInterrupted
from patchpad.evaluation.breakdown import measure
from patchpad.evaluation.compressors import compressors_bits_per_byte
from patchpad.files import strict_json, write_atomically
from patchpad.model.language_model import LanguageModel
from patchpad.model.precision import select_device
from patchpad.study.provenance import provenance
from patchpad.study.quickstart import data_config, evaluated_texts
from patchpad.study.study_file import BUNDLED, ArmRun, Study, choose_runs, with_data
from patchpad.study.study_progress import LogStudyProgress, StudyProgress
from patchpad.study.study_results import (
    RESULT_VERSION,
    StudyFolder,
    point_at,
    read_json,
    require_same_arm,
    seconds_per_byte,
    write_study,
)
from patchpad.training import checkpoint as files
from patchpad.training.trainer import Trainer, open_data, read_metrics

try:
    import fcntl
except ImportError:  # Windows: two processes must not share a study there
    fcntl = None

logger = logging.getLogger(__name__)

CLOCK = "clock.json"
SECONDS_BETWEEN_CLOCKS = 2.0
CURVE_POINTS = 40


@dataclass(frozen=True)
class Text:
    """A study's text, opened."""

    data: DataConfig
    training: Corpus
    validation: Corpus

    def facts(self) -> dict[str, Any]:
        """Returns what a result says of it."""
        return {
            part: {"num_documents": len(c.documents), "num_bytes": c.num_bytes, "sha256": c.fingerprint()}
            for part, c in (("training", self.training), ("validation", self.validation))
        }


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


def run_study(
    study: Study,
    *,
    out: str | Path,
    arms: Sequence[str] = (),
    seeds: Sequence[int] = (),
    data: Sequence[str] = (),
    validation_data: Sequence[str] = (),
    device: str | None = None,
    command: Sequence[str] = (),
    progress: StudyProgress | None = None,
) -> list[Path]:
    """Trains and measures what is still missing of a study; run again, it goes on where it was stopped.

    Several processes may share a folder: each takes runs that no other is at.

    Args:
        study: from `load_study`.
        out: the study's folder; may hold earlier results of it.
        arms: only these; empty for all.
        seeds: only these; empty for all.
        data: files to train on, `PATH` for the study's first text, `NAME=PATH` for another.
        validation_data: the same, held out.
        device: replaces `train.device` of every arm.
        command: words of the command line, kept with each result.
        progress: made for the chosen runs; default: log lines.

    Returns:
        The result files of all chosen runs that are done.

    Raises:
        ConfigError: unknown arms or seeds, no text, or an arm that has changed since it was trained.
        DataError: text that is missing or unreadable.
        TrainingInterrupted: stopped by a signal after saving.
        PatchpadError: arms that failed; the others were finished first.
    """
    runs = choose_runs(study, arms, seeds)
    folder = StudyFolder(Path(out))
    again = shlex.join(["patchpad", *command]) if command else f"patchpad study {study.path} --out {out}"
    texts = open_texts(study, runs, data, validation_data)
    facts = {name: text.facts() for name, text in texts.items()}
    evaluation = asdict(study.fields.evaluation)
    progress = progress or LogStudyProgress(runs)
    for run in runs:
        result = require_same_arm(run, folder, evaluation, facts, again)
        if result is not None:
            stored = point_at(result)
            progress.became(run.name, "done", stored and stored["bits_per_byte"], seconds_per_byte(result))
    _make_folders(folder)
    write_study(folder, study)
    failures: dict[str, PatchpadError] = {}
    for run in runs:
        with _claimed(folder.run(run)) as is_mine:
            if folder.result(run).exists():
                continue
            if not is_mine:
                progress.became(run.name, "elsewhere")
                continue
            config = replace(run.config, data=texts[run.text].data)
            if device is not None:
                config = replace(config, train=replace(config.train, device=device))
            try:
                result = _finish(run, config, folder, texts[run.text], study, command, progress)
            except TrainingInterrupted as error:
                raise TrainingInterrupted(error.message, hint=f"Go on with: {again}") from error
            except KeyboardInterrupt as error:
                raise TrainingInterrupted(f"stopped at {run.name}", hint=f"Go on with: {again}") from error
            except PatchpadError as error:
                logger.warning("%s failed: %s", run.name, error.message)
                failures[run.name] = error
                progress.became(run.name, "failed")
                continue
            write_atomically(folder.result(run), strict_json({**result, "data": {**facts[run.text], **result["data"]}}))
            shutil.rmtree(folder.run(run) / files.CHECKPOINTS, ignore_errors=True)
            stored = point_at(result)
            progress.became(run.name, "done", stored and stored["bits_per_byte"], seconds_per_byte(result))
    if failures:
        name, first = next(iter(failures.items()))
        raise PatchpadError(f"{len(failures)} of {len(runs)} runs failed; {name}: {first.message}", hint=first.hint)
    return [folder.result(run) for run in runs if folder.result(run).exists()]


def open_texts(
    study: Study, runs: Sequence[ArmRun], data: Sequence[str], validation_data: Sequence[str]
) -> dict[str, Text]:
    """Opens the texts that runs need.

    Raises:
        ConfigError: a text has no files.
        DataError: files that are missing or unreadable.
    """
    opened = {}
    for name, config in with_data(study, data, validation_data).items():
        if not any(run.text == name for run in runs):
            continue
        if config.paths == (BUNDLED,):
            config = data_config(())
        if not config.paths:
            option = "" if name == next(iter(study.fields.data)) else f"{name}="
            hint = f"Give them: --data {option}PATH --validation-data {option}PATH"
            raise ConfigError(f"the study's text `{name}` has no files", hint=hint)
        config = replace(config, paths=_absolute(config.paths), validation_paths=_absolute(config.validation_paths))
        opened[name] = Text(config, *open_data(Config(data=config)))
    return opened


def _absolute(paths: Sequence[str]) -> tuple[str, ...]:
    return tuple(str(Path(path).absolute()) for path in paths)


def _make_folders(folder: StudyFolder) -> None:
    try:
        for path in (folder.results, folder.path / "runs"):
            path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"cannot make the study's folder {folder.path}: {error}", hint="Choose another --out."
        ) from error


@contextmanager
def _claimed(run_folder: Path) -> Iterator[bool]:
    """Claims a run for this process; the claim ends with the process, however it ends."""
    if fcntl is None:
        yield True
        return
    file: TextIO
    with open(run_folder.with_name(f".{run_folder.name}.lock"), "w", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
            return
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield True


def _finish(
    run: ArmRun,
    config: Config,
    folder: StudyFolder,
    text: Text,
    study: Study,
    command: Sequence[str],
    progress: StudyProgress,
) -> dict[str, Any]:
    """Trains a run to its end and measures it; returns its result."""
    run_folder = folder.run(run)
    model = _train(run, config, run_folder, progress)
    progress.became(run.name, "measuring")
    began = time.perf_counter()
    fields = study.fields
    windows = cut_windows(text.validation, config.model.context_bytes).limit(fields.evaluation.bytes)
    evaluated = windows_corpus(windows)
    measured = measure(model, windows, fields.evaluation.scratchpads_per_byte)
    compressed = compressors_bits_per_byte(evaluated)
    seconds = time.perf_counter() - began
    progress.measuring_seconds.append(seconds)
    return {
        "format_version": RESULT_VERSION,
        "study": fields.name,
        "arm": run.arm.name,
        "seed": run.seed,
        "text": run.text,
        "tier": run.arm.tier,
        "exploratory": run.arm.exploratory,
        "provenance": provenance(command, model.device),
        "config": {key: value for key, value in config.to_dict().items() if key != "data"},
        "data": {"evaluated": {"num_bytes": evaluated.num_bytes, "sha256": evaluated.fingerprint()}},
        "evaluation": asdict(fields.evaluation),
        "parameters": count_parameters(config.model),
        "training": training_facts(run_folder),
        "measured": measured,
        "measuring_seconds": seconds,
        "compressors": compressed,
    }


def _train(run: ArmRun, config: Config, folder: Path, progress: StudyProgress) -> LanguageModel:
    """Returns the trained model: new, resumed, or as it was left by a process that did not get to measuring it."""
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
        return trainer.run(clock).model
    finally:
        if folder.exists():
            clock.write()


def windows_corpus(windows: Windows) -> Corpus:
    """Returns the bytes of windows as documents."""
    return Corpus(tuple(evaluated_texts(windows)), tuple(str(index) for index in range(len(windows))))


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
