"""The folder of a suite's results: one file for each task and threshold, whole or absent, and what they hold together.

DIR/suite.json             what is measured, written before anything is
DIR/<task>@<threshold>.json    one result with a value for each example, as soon as it is done
DIR/result.json            all results of the last call, without their examples, when all are done
"""

import functools
import json
import operator
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from patchpad.errors import ConfigError, DataError, quoted
from patchpad.files import json_float, strict_json, write_atomically
from patchpad.tasks.result import RESULT_VERSION, TaskResult

SUITE, RESULT = "suite.json", "result.json"
READ = (
    ("run",),
    ("suite",),
    ("model", "config", "kind"),
    *(("model", key) for key in ("num_params", "weights_sha256")),
    *(("provenance", key) for key in ("commit", "package_version", "torch_version", "hardware", "date")),
)
"""Keys of a `suite.json` that are read, beside those of tasks and thresholds."""
NOT_COMPARED = ("title", "text")
"""Keys of a task that change no result."""


@dataclass(frozen=True, kw_only=True)
class StoredResult:
    """A result as its file has it."""

    inputs: dict[str, Any]
    """Everything that it depends on: task, options, checksums of data and weights, threshold."""
    provenance: dict[str, Any]
    """Commit, versions and hardware that made it."""
    seconds: float
    result: TaskResult

    def to_dict(self) -> dict[str, Any]:
        """Returns the content of its file."""
        return {
            "format_version": RESULT_VERSION,
            "inputs": self.inputs,
            "provenance": self.provenance,
            "seconds": self.seconds,
            "result": self.result.to_dict(),
        }


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What a folder of results holds together."""

    path: Path
    suite: dict[str, Any]
    """The content of `suite.json`: run, model, tasks with their options and data."""
    results: tuple[TaskResult, ...]
    """With their examples, in the order of the suite, then of thresholds."""


def result_path(folder: Path, label: str, threshold: float) -> Path:
    """Returns the file of a task at a threshold."""
    return folder / result_name(label, threshold)


def result_name(label: str, threshold: float) -> str:
    """Returns the name of that file; thresholds are kept in fp32, which nine digits tell apart."""
    return f"{label}@{threshold:.9g}.json"


def write_result(path: Path, stored: StoredResult) -> None:
    """Writes a result, whole or not at all."""
    write_atomically(path, strict_json(stored.to_dict()))


def read_result(path: Path) -> StoredResult:
    """Reads a result.

    Raises:
        DataError: it cannot be read, is of another version, or is not a result.
    """
    content = read_json(path)
    try:
        return StoredResult(
            inputs=content["inputs"],
            provenance=content["provenance"],
            seconds=content["seconds"],
            result=TaskResult.from_dict(content["result"], str(path)),
        )
    except KeyError as error:
        raise DataError(f"{path} has no {error}", hint=_away(path)) from error


def read_json(path: Path) -> dict[str, Any]:
    """Reads a file of a folder of results.

    Raises:
        DataError: it cannot be read, or is of another version.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read {path}: {error}", hint=_away(path)) from error
    version = content.get("format_version") if isinstance(content, dict) else None
    if version != RESULT_VERSION:
        raise DataError(
            f"{path} has the format_version {version}; this version of patchpad reads {RESULT_VERSION}",
            hint=_away(path),
        )
    return content


def read_evaluation(path: str | Path) -> Evaluation:
    """Reads a folder that `patchpad evaluate --suite` wrote, finished or not.

    Args:
        path: the folder, or the `result.json` in it.

    Raises:
        DataError: there are no results, or a file is not a result.
    """
    folder = Path(path).parent if Path(path).name in (RESULT, SUITE) else Path(path)
    overview = folder / SUITE
    if not overview.is_file():
        raise DataError(
            f"{path} holds no results of tasks", hint="Give the folder that `patchpad evaluate --suite` wrote."
        )
    suite = read_json(overview)
    try:
        for keys in READ:
            functools.reduce(operator.getitem, keys, suite)
        wanted = [
            result_path(folder, entry["name"], json_float(threshold))
            for entry in suite["tasks"]
            if dict(entry["task"])
            for threshold in suite["scratchpad_thresholds_nats"]
        ]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{overview} is not the overview of a suite: {error!r}", hint=_away(overview)) from error
    results = tuple(read_result(file).result for file in wanted if file.is_file())
    if not results:
        raise DataError(f"{folder} holds no result yet", hint="Run `patchpad evaluate` to its end first.")
    return Evaluation(path=folder, suite=suite, results=results)


def require_same_inputs(path: Path, stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Refuses to go on where a result that is there was made of something else.

    Args:
        path: of the result.
        stored: its inputs.
        wanted: those of this call.

    Raises:
        ConfigError: they differ; the message says in what.
    """
    now = json.loads(strict_json(wanted))
    found = list(differences(stored, now))
    if found:
        more = f", and {len(found) - 3} more" if len(found) > 3 else ""
        raise ConfigError(
            f"{path} is there already and was made of other inputs: {'; '.join(found[:3])}{more}",
            hint="Choose another --out, or move the folder away.",
        )


def require_same_tasks(one: Mapping[str, Any], other: Mapping[str, Any], names: tuple[str, str]) -> None:
    """Refuses results that differ in anything but the model and the threshold, at a task that both have.

    Args:
        one: the content of a `suite.json`.
        other: of another one.
        names: of the two, for the message.

    Raises:
        ConfigError: they differ; the message says in what. Or they have no task in common.
    """
    ours, theirs = _inputs(one), _inputs(other)
    shared = [task for task in ours if task in theirs]
    if not shared:
        raise ConfigError(
            f"{names[0]} and {names[1]} have no task in common: {', '.join(ours)}; and {', '.join(theirs)}",
            hint="Evaluate both with the same suite.",
        )
    for task in shared:
        found = list(differences(ours[task], theirs[task]))
        if found:
            more = f", and {len(found) - 3} more" if len(found) > 3 else ""
            raise ConfigError(
                f"{names[0]} and {names[1]} did not measure `{task}` alike, so they cannot be compared: "
                f"{'; '.join(found[:3])}{more}",
                hint="Evaluate both with the same patchpad, suite, --data, --limit and --shots.",
            )


def _inputs(suite: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Returns what each task was measured on and how."""
    return {
        entry["name"]: {
            **entry,
            "task": {key: value for key, value in entry["task"].items() if key not in NOT_COMPARED},
        }
        for entry in suite["tasks"]
    }


def differences(stored: Any, wanted: Any, place: str = "") -> Iterator[str]:
    """Yields where two nested values differ, as "`place` was this and is that"."""
    if isinstance(stored, Mapping) and isinstance(wanted, Mapping):
        for key in dict.fromkeys((*stored, *wanted)):
            inside = f"{place}.{key}" if place else str(key)
            yield from differences(stored.get(key), wanted.get(key), inside)
    elif stored != wanted:
        yield f"`{place}` was {_short(stored)} and is {_short(wanted)}"


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _away(path: Path) -> str:
    return f"Move {quoted(path)} away, and run `patchpad evaluate` again."


def overview_of(stored: Sequence[StoredResult], head: Mapping[str, Any], files: Sequence[Path]) -> dict[str, Any]:
    """Returns the content of `result.json`: what is measured, and every result without its examples."""
    results = [
        {
            **one.result.to_dict(with_examples=False),
            "file": file.name,
            "seconds": one.seconds,
            "commit": one.provenance["commit"],
        }
        for one, file in zip(stored, files, strict=True)
    ]
    return {**head, "results": results}
