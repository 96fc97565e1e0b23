"""The training loop of a run: of one process, or of several ranks that all go through it."""

import logging
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from patchpad.config import Config
from patchpad.data.items import FileState, file_states
from patchpad.device import select_device
from patchpad.errors import CheckpointError, ConfigError, TrainingError, TrainingInterrupted
from patchpad.files import strict_json
from patchpad.model.language_model import LanguageModel
from patchpad.model.precision import trainable
from patchpad.registry import command_line
from patchpad.run_lock import run_lock
from patchpad.training import checkpoint as files
from patchpad.training import manifest
from patchpad.training.budget import Budget, StepBudget
from patchpad.training.init_from import Source
from patchpad.training.metrics import MetricsFile, describe
from patchpad.training.optimizer import load_optimizer, optimizer_tensors
from patchpad.training.parallel import Parallel
from patchpad.training.progress import LogProgress, Progress, TimeLeft
from patchpad.training.release import write_run_files
from patchpad.training.run_folder import require_new, require_outside
from patchpad.training.samples import Samples
from patchpad.training.saver import StepSaver
from patchpad.training.signals import signals_noted
from patchpad.training.speed import SpeedWatch
from patchpad.training.starting import joined, start_parallel
from patchpad.training.step_folders import StepContent, remove_unfinished_steps
from patchpad.training.steps import TrainingSteps
from patchpad.training.sums import StepSums
from patchpad.training.text import RunText, with_absolute_paths
from patchpad.training.threshold_schedule import ThresholdSchedule
from patchpad.training.tracking import Trackers, require_trackers
from patchpad.training.usage import usage
from patchpad.training.validation import validation_metrics

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Run:
    """A finished training run."""

    path: Path
    model: LanguageModel
    config: Config


def train(
    config: Config,
    *,
    data: str | Path | Sequence[str | Path] | None = None,
    out: str | Path,
    init_from: str | Path | Source | None = None,
    progress: Progress | None = None,
) -> Run:
    """Trains a model into a new run directory.

    Args:
        config: the whole configuration.
        data: files, globs or directories; None for `config.data.paths`.
        out: run directory; must be absent or empty.
        init_from: run, step folder or `bundled` whose weights to start from; None for `config.train.init_from`.
        progress: receives every step; default: log lines.

    Raises:
        ConfigError: `out` is not empty, the device is absent, or the model cannot start from the other one.
        DataError: text that is missing, unreadable or too little.
        CheckpointError: no model to start from, or the run cannot be saved; earlier checkpoints are intact.
        RunInUseError: another process trains in `out`.
        MissingExtraError: the library of a tracker is not installed.
        TrainingInterrupted: stopped by a signal after saving.
        OtherRankError, LostRankError: another of several ranks has failed, or has ended.
    """
    if data is not None:
        paths = [data] if isinstance(data, str | Path) else list(data)
        config = replace(config, data=replace(config.data, paths=tuple(map(str, paths))))
    config = replace(config, data=with_absolute_paths(config.data))
    with joined() as ranks:
        with ranks.together():
            require_trackers(config.train.trackers, config.train.tracker_plugins)
            if init_from is not None:
                source = init_from if isinstance(init_from, Source) else Source.open(init_from)
                source.require_fits(config.model)
            else:
                source = Source.of(config)
        if source is not None:
            config = replace(config, train=replace(config.train, init_from=source.name))
        with new_run(Path(out), config, "patchpad train", parallel=ranks) as text:
            return _run(config, Path(out), text, progress, source=source)


@contextmanager
def new_run(
    out: Path, config: Config, doing: str, *, beside: Sequence[str] = (), parallel: Parallel | None = None
) -> Iterator[RunText]:
    """Opens the text of a run that is to begin in a folder, and holds the folder's lock.

    Args:
        out: absent or empty.
        config: the paths of its data are absolute.
        doing: the command, for the message that another process gets.
        beside: names of further files that the caller puts into the folder.
        parallel: this rank and the others, which all call it; None for one process.

    Raises:
        ConfigError: `out` is not empty, lies in the text, or cannot be made.
        DataError: text that is missing, unreadable or too little.
        RunInUseError: another process is at work in `out`.
    """
    ranks = parallel or Parallel(torch.device("cpu"))
    with ranks.together():
        if ranks.is_main:
            require_new(out)
        require_outside(out, config.data, steps=config.train.steps, beside=beside)
        text = RunText.open(config.data)
    with lock_of_ranks(out, doing, ranks):
        with ranks.together():
            if ranks.is_main:
                require_new(out)
        yield text


@contextmanager
def lock_of_ranks(out: Path, doing: str, parallel: Parallel) -> Iterator[None]:
    """Holds the lock of a run's folder on the main rank, for all of them.

    Raises:
        RunInUseError: another process is at work in `out`.
        ConfigError: the folder cannot be made or written to.
    """
    with ExitStack() as stack:
        with parallel.together():
            if parallel.is_main:
                stack.enter_context(run_lock(out, doing))
        yield


def resume(run: str | Path, *, progress: Progress | None = None) -> Run:
    """Continues a run from its newest checkpoint, with the same losses as an uninterrupted run.

    A run that has finished is left as it is, and needs no text.

    Raises:
        CheckpointError: no usable checkpoint.
        MissingPluginError: a plug-in of the run is not loaded.
        DataError: the text is gone or has changed since.
        RunInUseError: another process is at work in the run's folder.
        TrainingInterrupted: stopped by a signal after saving.
        OtherRankError, LostRankError: another of several ranks has failed, or has ended.
    """
    out = Path(run)
    with joined() as ranks:
        with ranks.together():
            files.require_run(out)
        with lock_of_ranks(out, "patchpad train --resume", ranks):
            if ranks.any(files.is_finished(out)):
                return _finished(out)
            checkpoint = open_to_resume(out, ranks)
            config = checkpoint.config
            with ranks.together():
                require_trackers(config.train.trackers, config.train.tracker_plugins)
                require_outside(out, config.data, steps=config.train.steps)
                text = RunText.open(config.data)
            return _run(config, out, text, progress, checkpoint=checkpoint)


def _run(
    config: Config,
    out: Path,
    text: RunText,
    progress: Progress | None,
    *,
    source: Source | None = None,
    checkpoint: files.Checkpoint | None = None,
) -> Run:
    """Trains to the end, from the start or from a checkpoint. The trainer is gone when it returns; see `joined`."""
    trainer = Trainer(config, out, text, source=source, parallel=start_parallel(config))
    if checkpoint is not None:
        trainer.restore(checkpoint)
    return trainer.run(progress or LogProgress())


def open_to_resume(out: Path, parallel: Parallel) -> files.Checkpoint:
    """Returns the newest step of a run, of which each rank has checked a part.

    Raises:
        CheckpointError: no usable checkpoint.
    """
    with parallel.together():
        newest = files.newest_step(out)
    folder, hint = parallel.exchange([str(newest.folder), newest.hint])[0]  # another rank may not see it yet
    with parallel.together():
        return files.check(files.Found(Path(folder), hint), rank=parallel.rank, num_ranks=parallel.num_ranks)


def _finished(out: Path) -> Run:
    checkpoint = files.open_checkpoint(out)
    config = checkpoint.config
    logger.info("%s has finished all of its %d steps: nothing is left to train", out, config.train.steps)
    return Run(out, checkpoint.model().to(select_device(config.train.device)), config)


class Trainer(TrainingSteps):
    """A run: its steps, its folder and its text."""

    @trainable()
    def __init__(
        self,
        config: Config,
        out: Path,
        text: RunText,
        *,
        source: Source | None = None,
        parallel: Parallel | None = None,
    ) -> None:
        super().__init__(replace(config, data=text.data), text.mixture, source, parallel)
        self.source_facts = None if source is None else source.facts()
        """What is stored of the model whose weights the run began with."""
        self.out = out
        self.text = text
        self.text_facts: dict[str, Any] | None = None
        """What is stored of the text that the run began with; made by the first step."""
        self.file_states = {path: text.file_states[path] for path in text.late_files}
        """Last known state of the files that are read while the run goes on."""
        self.metrics = MetricsFile(out / manifest.METRICS)
        """Written by the main rank alone."""
        self.samples = Samples(out)
        self.trackers = Trackers.of(config.train.trackers if self.parallel.is_main else (), out)
        self.saver = StepSaver(out, config.train, self.device, self.parallel.process_group_for_saving)
        self.line: dict[str, Any] = {}
        """The newest metrics, as they were last read."""
        self.interval = StepSums()
        """Sums since the last line of metrics; saved, so that a resumed run writes the same lines."""
        self.was_signalled = False
        """Whether a signal came in the last step, too late to stop the run."""
        self.resume_command = command_line(["train", "--resume", str(out)])
        """Goes on with the run."""

    @trainable()
    def run(self, progress: Progress, budget: Budget | None = None) -> Run:
        """Trains to the last step, saving as configured.

        Args:
            progress: is told of every step.
            budget: decides which step is the last; default: `train.steps`. The saved configuration has the steps that
                were made, or at a checkpoint those that were planned then, so that a resumed run goes on by steps.
        """
        self.text_facts = self.text_facts or self.text.facts()
        self.model.prepare(self.text.training.documents)
        train_config, parallel = self.config.train, self.parallel
        with parallel.together():
            self._make_folder()
        budget = budget or StepBudget(train_config.steps)
        time_left = TimeLeft()
        time_left.note(self.step)
        watches = self.device.type == "cpu" and parallel.is_main
        watch = SpeedWatch(self.resume_command) if watches else None
        with (
            signals_noted(is_launched=parallel.num_ranks > 1) as stop,
            self.saver,
            self.prefetching(),
            closing(self.trackers),
            parallel.reporting(),  # at once, before anything is waited for
        ):
            is_end = budget.is_over(self.step)
            while not is_end:
                self.planned_steps = budget.planned_steps(self.step)
                started, seen = time.perf_counter(), self.bytes_seen
                self.train_step(self.interval)
                self.step += 1
                is_end = budget.is_over(self.step)
                validates = is_end or _is_due(self.step, train_config.validate_every)
                has_line = validates or self.step % train_config.log_every == 0
                if has_line or not self.line:
                    self.read(self.interval)
                seconds = time.perf_counter() - started
                self.interval.seconds += seconds
                if watch is not None:
                    watch.step(self.bytes_seen - seen, seconds)
                line = self._newest_line()
                if is_end:
                    self.planned_steps = self.step
                if has_line:
                    if validates:
                        line |= self.validate()
                    line |= self.epochs()
                    line |= usage(self.config, line, self.device, parallel.num_ranks)
                    line["seconds_left"] = time_left.seconds(self.step, self.planned_steps)
                    time_left.note(self.step)
                    if parallel.is_main:
                        self.metrics.add(line)
                    self.trackers.log(line, self.config)
                    self.interval = StepSums()
                if _is_due(self.step, train_config.sample_every):
                    self.sample()
                with suppress(OSError):  # a terminal that was closed must not keep the run from being saved
                    progress.update(self.step, round(self.planned_steps), line)
                save_failed, stops = parallel.any_of(self.saver.has_failed, stop.is_set())
                if save_failed:
                    self.saver.wait()
                if is_end or stops or _is_due(self.step, train_config.checkpoint_every):
                    self.save()
                if stops and not is_end:
                    self.saver.wait()
                    raise TrainingInterrupted(
                        f"stopped at step {self.step} of {round(self.planned_steps)}; everything is saved",
                        hint=f"Continue with: {self.resume_command}",
                    )
            self.was_signalled = stop.is_set()
        self.finish()
        return Run(self.out, self.model.eval(), self.config)

    def _newest_line(self) -> dict[str, Any]:
        """Returns the newest metrics; what is still on the device is as it was last read."""
        if self.unread_sums is None and self.readings is not None:
            self.line = describe(
                self.config,
                self.interval,
                self.readings,
                step=self.step,
                bytes_seen=self.bytes_seen,
                planned_steps=self.planned_steps,
                seconds_before=self.metrics.newest.get("seconds", 0.0),
            )
        return {**self.line, "step": self.step, "bytes_seen": self.bytes_seen}

    def validate(self) -> dict[str, float]:
        """Returns bits per byte on the held-out text at the stored threshold; see `validation_metrics`."""
        self.guard.finish()
        try:
            return validation_metrics(self.model, self.text, self.config.train.validation_bytes, self.parallel)
        except TrainingError:  # it says nothing of this run
            self.guard.require_finite(math.nan, "validation loss", self.step)
            raise

    def sample(self) -> None:
        """Lets the model write on the main rank, for `samples.jsonl` and trackers."""
        self.guard.finish()
        model = self.parallel.whole_model(self.model)
        if model is not None:
            text = self.samples.add(model, self.config, step=self.step, bytes_seen=self.bytes_seen)
            self.trackers.text("sample", text, self.step, self.config)

    def save(self) -> None:
        """Saves a step folder, in the background where that is configured, and removes old ones.

        Raises:
            TrainingError: a step that was not checked yet has diverged.
            CheckpointError: this step, or the one before, could not be written.
        """
        self.read(self.interval)
        self._report_changed_files()
        steps = round(self.planned_steps)
        if steps != self.config.train.steps:
            self.config = replace(self.config, train=replace(self.config.train, steps=steps))
        trainer_state = {
            "step": self.step,
            "bytes_seen": self.bytes_seen,
            "schedule": self.schedule.state(),
            "guard": self.guard.state(),
            "interval": asdict(self.interval),
            "text": self.text_facts,
            "init_from": self.source_facts,
        }
        self.saver.save(
            StepContent(
                step=self.step,
                tensors={
                    manifest.WEIGHTS: self.model.state_dict(),
                    manifest.OPTIMIZER: optimizer_tensors(self.model, self.optimizer),
                    manifest.AVERAGED: {} if self.averaged is None else self.averaged.tensors,
                },
                files={
                    manifest.CONFIG: strict_json(self.config.to_dict(), indent=1),
                    manifest.TRAINER: strict_json(trainer_state, indent=1),
                    manifest.METRICS: self.metrics.text,
                    **self.model.extra_files(),
                },
            )
        )

    def _report_changed_files(self) -> None:
        states = file_states(self.file_states)
        changed = [path for path, state in states.items() if _content(state) != _content(self.file_states[path])]
        if changed:
            logger.warning(
                "%s changed while the run reads it; it can be resumed only with the text that it began with",
                ", ".join(changed),
            )
        self.file_states = states

    @trainable()
    def restore(self, checkpoint: files.Checkpoint) -> None:
        """Takes over model, optimizer, schedule and metrics of a step folder; removes what was left half-saved.

        Raises:
            DataError: the text differs from the one that the run began with.
        """
        with self.parallel.together():
            state = checkpoint.trainer_state()
            self.text.require_same(state["text"])
            if self.parallel.is_main:
                remove_unfinished_steps(self.out)
            load_optimizer(checkpoint.path / manifest.OPTIMIZER, self.model, self.optimizer)
            checkpoint.load_weights(self.model)
            self.model.read_extra_files(checkpoint.path)
            if self.averaged is not None:
                checkpoint.load_averaged(self.averaged.tensors)
        self.text_facts = {**state["text"], "files": self.text.file_states}
        self.source_facts = state["init_from"]
        self.schedule = ThresholdSchedule(self.config, self.device)
        self.schedule.restore(state["schedule"])
        self.guard.restore(state["guard"])
        self.step, self.bytes_seen = int(state["step"]), int(state["bytes_seen"])
        self.interval = StepSums(**state["interval"])
        self.metrics.restore(checkpoint.path)
        if self.parallel.is_main:
            self.samples.restore(self.step)
        logger.info("resuming %s at step %d", self.out, self.step)

    def _make_folder(self) -> None:
        try:
            (self.out / manifest.CHECKPOINTS).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(
                f"cannot make the run directory {self.out}: {error}", hint="Choose another --out."
            ) from error

    def finish(self) -> None:
        """Writes the run's own files beside its checkpoints, on the main rank; the others wait for it.

        Raises:
            CheckpointError: the disk is full or not writable.
        """
        with self.parallel.together():
            if not self.parallel.is_main:
                return
            try:
                write_run_files(self.out, files.Checkpoint(files.list_steps(self.out)[-1], self.config))
            except (OSError, SafetensorError) as error:
                raise CheckpointError(
                    f"cannot save {self.out}: {error}; its newest checkpoint is intact",
                    hint=f"Free some space, then run: {self.resume_command}",
                ) from error


def _content(state: FileState | None) -> tuple[int, ...] | None:
    """Returns size and time of the last change of a file's content."""
    return state and state[:2]


def _is_due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0
