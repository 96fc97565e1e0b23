"""Runs a study: every arm from every seed is trained, measured, and leaves one small result file."""

import logging
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from patchpad.config import DataConfig
from patchpad.cost import count_parameters
from patchpad.data import Corpus, Windows, cut_windows
from patchpad.data.bundled_text import bundled_novels
from patchpad.errors import ConfigError, PatchpadError, RunInUseError, StudyError, TrainingInterrupted
from patchpad.evaluation.breakdown import measure
from patchpad.evaluation.compressors import compressors_bits_per_byte
from patchpad.files import strict_json, write_atomically
from patchpad.launcher import require_one_process
from patchpad.provenance import provenance
from patchpad.registry import command_line
from patchpad.run_lock import run_lock
from patchpad.study.arm_training import train_arm, training_facts
from patchpad.study.changes import require_same_arm
from patchpad.study.definition import BUNDLED, ArmRun, Study, choose_runs, with_data
from patchpad.study.progress import LogStudyProgress, StudyProgress
from patchpad.study.results import (
    EVALUATED,
    RESULT_VERSION,
    TRAINING,
    StudyFolder,
    read_result,
    write_study,
)
from patchpad.training.manifest import CHECKPOINTS
from patchpad.training.run_folder import require_outside
from patchpad.training.text import RunText

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Text:
    """A study's text, opened."""

    opened: RunText

    @cached_property
    def facts(self) -> dict[str, Any]:
        """Returns what a result says of it."""
        return {
            part: {"num_documents": len(c.documents), "num_bytes": c.num_bytes, "sha256": c.fingerprint()}
            for part, c in (("training", self.opened.training), ("validation", self.opened.validation))
        }

    def windows(self, context_bytes: int, num_bytes: int) -> Windows:
        """Returns what arms of this context are measured on, about `num_bytes` of the held-out text; 0: all."""
        return cut_windows(self.opened.validation, context_bytes).limit(num_bytes)


@dataclass(frozen=True, kw_only=True)
class _Job:
    """What the runs of a call share."""

    study: Study
    folder: StudyFolder
    texts: dict[str, Text]
    device: str | None
    command: Sequence[str]
    progress: StudyProgress

    @property
    def again(self) -> str:
        """The command that goes on with the study."""
        return command_line(self.command)

    def check(self, runs: Sequence[ArmRun]) -> None:
        """Refuses arms that have changed, takes note of those that are done, and makes the folders.

        Arms that were not chosen are checked too where they have results: reports set them beside the others.
        """
        evaluation = asdict(self.study.fields.evaluation)
        for run in self.study.runs:
            text = self.texts.get(run.text)
            if run in runs and text is not None:
                steps = run.config.train.steps
                require_outside(self.folder.run(run), text.opened.data, steps=steps, beside=(TRAINING,))
            if run not in runs and not self.folder.result(run).exists():
                continue
            facts = {} if text is None else self.facts(run, text)
            result = require_same_arm(run, self.folder, evaluation, facts, self.again)
            if result is not None and run in runs:
                self.progress.finished(run.name, result)
        try:
            for path in (self.folder.results, self.folder.path / "runs"):
                path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            message = f"cannot make the study's folder {self.folder.path}: {error}"
            raise ConfigError(message, hint="Choose another --out.") from error
        write_study(self.folder, self.study)

    def facts(self, run: ArmRun, text: Text) -> dict[str, Any]:
        """Returns what a result of a run says of its text."""
        windows = text.windows(run.config.model.context_bytes, self.study.fields.evaluation.bytes)
        return {**text.facts, EVALUATED: evaluated_facts(windows.as_corpus())}

    def finish(self, run: ArmRun) -> None:
        """Trains a run to its end, measures it, writes its result, and removes its checkpoints."""
        config = run.config
        if self.device is not None:
            config = replace(config, train=replace(config.train, device=self.device))
        run_folder = self.folder.run(run)
        text = self.texts[run.text]
        model = train_arm(run, config, run_folder, text.opened, text.facts, self.progress)
        self.progress.became(run.name, "measuring")
        began = time.perf_counter()
        fields = self.study.fields
        windows = text.windows(config.model.context_bytes, fields.evaluation.bytes)
        evaluated = windows.as_corpus()
        measured = measure(model, windows, fields.evaluation.scratchpads_per_byte)
        compressed = compressors_bits_per_byte(evaluated)
        seconds = time.perf_counter() - began
        self.progress.measuring_seconds.append(seconds)
        result = {
            "format_version": RESULT_VERSION,
            "study": fields.name,
            "arm": run.arm.name,
            "seed": run.seed,
            "text": run.text,
            "tier": run.arm.tier,
            "exploratory": run.arm.exploratory,
            "provenance": provenance(self.command, model.device),
            "config": {key: value for key, value in config.to_dict().items() if key != "data"},
            "data": {**text.facts, EVALUATED: evaluated_facts(evaluated)},
            "evaluation": asdict(fields.evaluation),
            "parameters": count_parameters(config.model),
            "training": training_facts(run_folder),
            "measured": measured,
            "measuring_seconds": seconds,
            "compressors": compressed,
        }
        write_atomically(self.folder.result(run), strict_json(result))
        shutil.rmtree(run_folder / CHECKPOINTS, ignore_errors=True)
        self.progress.finished(run.name, result)


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
        StudyError: arms that failed; the others were finished first.
    """
    require_one_process()
    runs = choose_runs(study, arms, seeds)
    job = _Job(
        study=study,
        folder=StudyFolder(Path(out)),
        texts=open_texts(study, runs, data, validation_data),
        device=device,
        command=command or ("study", str(study.path), "--out", str(out)),
        progress=progress or LogStudyProgress(runs),
    )
    job.check(runs)
    failures: dict[str, PatchpadError] = {}
    for run in runs:
        with _claimed(job.folder.run(run)) as is_mine:
            if job.folder.result(run).exists():  # found at the start, or made by another process since
                if job.progress.rows[run.name].state != "done":
                    job.progress.finished(run.name, read_result(job.folder.result(run)))
                continue
            if not is_mine:
                job.progress.became(run.name, "elsewhere")
                continue
            try:
                job.finish(run)
            except TrainingInterrupted as error:
                raise TrainingInterrupted(error.message, hint=f"Continue with: {job.again}") from error
            except KeyboardInterrupt as error:
                raise TrainingInterrupted(f"stopped at {run.name}", hint=f"Continue with: {job.again}") from error
            except PatchpadError as error:
                logger.warning("%s failed: %s", run.name, error.message)
                failures[run.name] = error
                job.progress.became(run.name, "failed")
    if failures:
        name, first = next(iter(failures.items()))
        raise StudyError(f"{len(failures)} of {len(runs)} runs failed; {name}: {first.message}", hint=first.hint)
    return [job.folder.result(run) for run in runs if job.folder.result(run).exists()]


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
        if BUNDLED in config.paths:
            config = _bundled(name, config)
        if not config.paths:
            option = "" if name == next(iter(study.fields.data)) else f"{name}="
            hint = f"Give them: --data {option}PATH --validation-data {option}PATH"
            raise ConfigError(f"the study's text `{name}` has no files", hint=hint)
        opened[name] = Text(RunText.open(config))
    return opened


def _bundled(name: str, given: DataConfig) -> DataConfig:
    """Returns the novels that ship with the package, held out what was given for it, or one of them.

    Raises:
        ConfigError: other files stand beside them.
    """
    if given.paths != (BUNDLED,):
        raise ConfigError(
            f"the study's text `{name}` is {list(given.paths)}; allowed: `{BUNDLED}` alone, or files",
            hint=f"Leave out `{BUNDLED}`, or the files.",
        )
    novels = bundled_novels()
    return replace(novels, validation_paths=given.validation_paths or novels.validation_paths)


@contextmanager
def _claimed(run_folder: Path) -> Iterator[bool]:
    """Claims a run for this process; the claim ends with the process, however it ends."""
    with ExitStack() as stack:
        try:
            stack.enter_context(run_lock(run_folder, "patchpad study"))
        except RunInUseError as error:
            logger.info("%s", error.message)
            yield False
            return
        yield True


def evaluated_facts(evaluated: Corpus) -> dict[str, Any]:
    """Returns what a result says of the windows that it was measured on."""
    return {"num_bytes": evaluated.num_bytes, "sha256": evaluated.fingerprint()}
