"""Runs a suite: every task at every threshold leaves a result file as soon as it is done, and is not done again."""

import hashlib
import json
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from patchpad.config.plugged import plain_section
from patchpad.errors import ConfigError, EvaluationError, EvaluationInterrupted, PatchpadError
from patchpad.files import sha256_of, strict_json, write_atomically
from patchpad.model.int8 import num_parameters
from patchpad.model.language_model import LanguageModel
from patchpad.model.wrapped import unwrapped
from patchpad.provenance import provenance
from patchpad.registry import command_line
from patchpad.run_lock import run_lock
from patchpad.tasks.curves import write_curves
from patchpad.tasks.folder import (
    RESULT,
    SUITE,
    Evaluation,
    StoredResult,
    overview_of,
    read_evaluation,
    read_result,
    require_same_inputs,
    require_same_tasks,
    result_path,
    write_result,
)
from patchpad.tasks.kinds import check_task, run_task
from patchpad.tasks.progress import LogSuiteProgress, SuiteProgress, bytes_of
from patchpad.tasks.result import RESULT_VERSION, TaskResult
from patchpad.tasks.rows import Row
from patchpad.tasks.suite import Entry, Suite
from patchpad.training.progress import duration

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class _Job:
    """A task at a threshold."""

    entry: Entry
    rows: list[Row]
    threshold: float
    """As it is recorded."""
    given: float | None
    """As the model takes it: None for the stored one."""
    inputs: dict[str, Any]
    path: Path
    name: str
    """For people."""

    @property
    def num_bytes(self) -> int:
        """About how many bytes its rows hold."""
        return sum(map(bytes_of, self.rows))


def run_suite(
    model: LanguageModel,
    suite: Suite,
    *,
    data: str | Path,
    out: str | Path,
    scratchpad_threshold_nats: Sequence[float] = (),
    run: str = "",
    command: Sequence[str] = (),
    reference: str | Path | None = None,
    progress: Callable[[int], SuiteProgress] = LogSuiteProgress,
) -> Evaluation:
    """Runs the tasks of a suite, at each threshold, and keeps the results in a folder; those that are there are kept.

    Args:
        model: in any mode; restored after.
        suite: what is run.
        data: the folder that the tasks' files lie in.
        out: the folder of results; made where it is absent.
        scratchpad_threshold_nats: several make a curve for each task; none: the stored one.
        run: names the model in results.
        command: words of the command line, for the hint on how to go on and as provenance.
        reference: a folder of results of another model on the same suite, whose points stand in the curves.
        progress: makes what shows progress, given the bytes of what is to be done.

    Raises:
        ConfigError: the folder holds results of other inputs, or the reference did not measure the same tasks alike.
        DataError: data that is missing or malformed; nothing was run then.
        InputError: a threshold that the model does not take; nothing was run then.
        SandboxError: programs that a model writes cannot be run safely here; nothing was run then.
        RunInUseError: another process is at work in the folder.
        EvaluationInterrupted: Ctrl-C; what is done is kept.
        EvaluationError: tasks failed; the others were finished first.
    """
    model, data, out = unwrapped(model), Path(data), Path(out)
    thresholds = _thresholds(model, scratchpad_threshold_nats)
    head, jobs = _prepare(model, suite, data, out, thresholds, run, command)
    compared = None if reference is None else read_evaluation(reference)
    if compared is not None:
        names = (f"the reference {reference}", "this suite")
        require_same_tasks(compared.suite, json.loads(strict_json(head)), names)
    with run_lock(out, "patchpad evaluate"):
        waiting = []
        for job in jobs:
            if job.path.exists():
                require_same_inputs(job.path, read_result(job.path).inputs, job.inputs)
            else:
                waiting.append(job)
        if len(waiting) < len(jobs):
            logger.info("%d of %d results are there already", len(jobs) - len(waiting), len(jobs))
        write_atomically(out / SUITE, strict_json(head, indent=1))
        again = command_line(command) if command else "the same call"
        with progress(sum(job.num_bytes for job in waiting)) as shown:
            failures = _run_all(model, waiting, data, head["provenance"], shown, again)
        done = [job for job in jobs if job.path.exists()]
        if done:
            overview = overview_of([read_result(job.path) for job in done], head, [job.path for job in done])
            write_atomically(out / RESULT, strict_json(overview, indent=1))
            write_curves(read_evaluation(out), compared)
        if failures:
            name, first = next(iter(failures.items()))
            message = f"{len(failures)} of {len(jobs)} results failed; {name}: {first.message}"
            raise EvaluationError(message, hint=first.hint)
        return read_evaluation(out)


def _run_all(
    model: LanguageModel,
    waiting: Sequence[_Job],
    data: Path,
    origin: dict[str, Any],
    shown: SuiteProgress,
    again: str,
) -> dict[str, PatchpadError]:
    """Runs jobs one after the other, and returns the errors of those that failed."""
    failures: dict[str, PatchpadError] = {}
    for number, job in enumerate(waiting):
        try:
            shown.begin(job.name, len(job.rows), job.num_bytes)
            began = time.perf_counter()
            options = replace(job.entry.options(data), scratchpad_threshold_nats=job.given, progress=shown.advance)
            result = run_task(job.entry.task, model, options, job.rows)
            seconds = time.perf_counter() - began
            write_result(job.path, StoredResult(inputs=job.inputs, provenance=origin, seconds=seconds, result=result))
            shown.finish(f"{job.name}: {described(result)}, {duration(seconds)}")
        except KeyboardInterrupt as error:
            raise EvaluationInterrupted(
                f"stopped at {job.name}; {number} of {len(waiting)} results were made and are kept",
                hint=f"Continue with: {again}",
            ) from error
        except PatchpadError as error:
            logger.warning("%s failed: %s", job.name, error.message)
            failures[job.name] = error
    return failures


def described(result: TaskResult) -> str:
    """Returns a result in words: `accuracy 0.2540 ± 0.0043 (chance 0.2500)`."""
    main = result.main
    error = "" if main.standard_error is None else f" ± {main.standard_error:.4f}"
    chance = "" if main.chance is None else f" (chance {main.chance:.4f})"
    return f"{result.main_metric} {main.value:.4f}{error}{chance}"


def _thresholds(model: LanguageModel, given: Sequence[float]) -> dict[float, float | None]:
    """Returns each threshold once: as it is recorded -> as the model takes it.

    Models keep thresholds in fp32, so those that are equal there are one, and may be the stored one.
    """
    stored = float(model.scratchpad_threshold_nats)
    if not given:
        return {stored: None}
    found: dict[np.float32, float] = {}
    for threshold in given:
        model.decisions(threshold, batch=1)  # says what is wrong with it
        kept = np.float32(threshold)
        found.setdefault(kept, stored if kept == np.float32(stored) else float(threshold))
    return {threshold: None if threshold == stored else threshold for threshold in found.values()}


def _name_below(folder: Path, file: Path) -> str:
    """Returns how results call a file of data: its path below the folder, or all of it where it lies elsewhere."""
    return file.relative_to(folder).as_posix() if file.is_relative_to(folder) else file.as_posix()


def _prepare(
    model: LanguageModel,
    suite: Suite,
    data: Path,
    out: Path,
    thresholds: dict[float, float | None],
    run: str,
    command: Sequence[str],
) -> tuple[dict[str, Any], list[_Job]]:
    """Reads all data, and returns what `suite.json` says and what is to be done."""
    if not data.is_dir():
        raise ConfigError(
            f"--data is {data}, which is not a folder", hint="Give the folder that holds the tasks' files."
        )
    facts = model_facts(model)
    checksums: dict[Path, str] = {}
    jobs, tasks = [], []
    for entry in suite.entries:
        files = entry.task.files(data)
        for file in files:
            if file not in checksums:
                checksums[file] = sha256_of(file)
        of_data = {_name_below(data, file): checksums[file] for file in files}
        rows = entry.task.rows(data, entry.fields.limit)
        check_task(entry.task, rows, entry.options(data))
        tasks.append({"name": entry.label, "data": of_data, "num_examples": len(rows), **entry.to_dict()})
        for threshold, given in thresholds.items():
            inputs = {
                **entry.to_dict(),
                "data": of_data,
                "model": {key: facts[key] for key in ("config", "weights_sha256")},
                "scratchpad_threshold_nats": threshold,
            }
            jobs.append(
                _Job(
                    entry=entry,
                    rows=rows,
                    threshold=threshold,
                    given=given,
                    inputs=inputs,
                    path=result_path(out, entry.label, threshold),
                    name=entry.label if len(thresholds) == 1 else f"{entry.label} at {threshold:.4g}",
                )
            )
    head = {
        "format_version": RESULT_VERSION,
        "suite": suite.name,
        "text": suite.text,
        "run": run,
        "model": facts,
        "scratchpad_thresholds_nats": list(thresholds),
        "tasks": tasks,
        "provenance": provenance(command, model.device),
    }
    return head, jobs


def model_facts(model: LanguageModel) -> dict[str, Any]:
    """Returns what results say of a model: its configuration, its size, and a checksum of its weights."""
    return {
        "config": plain_section(model.config, with_plugins=False),
        "num_params": num_parameters(model),
        "weights_sha256": weights_sha256(model),
    }


def weights_sha256(model: LanguageModel) -> str:
    """Returns a SHA-256 over the names, types, shapes and bytes of all tensors; the same in whatever file they lie."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        here = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {here.dtype} {tuple(here.shape)}\n".encode())
        digest.update(here.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
