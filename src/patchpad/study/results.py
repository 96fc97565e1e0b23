"""Result files of a study: one per arm and seed, small, strict JSON. Torch-free.

DIR/results/<arm>-seed<N>.json and DIR/results/study.json; DIR/runs/<arm>-seed<N>/ are the trained models.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from patchpad.errors import ConfigError, DataError, quoted
from patchpad.files import strict_json, write_atomically
from patchpad.study.definition import ArmRun, Study

RESULT_VERSION, STUDY_VERSION = 1, 2
STUDY = "study.json"
RESULTS_OF_RUNS = "*-seed*.json"
EVALUATED = "evaluated"
PARTS_OF_TEXTS = {"training": "training texts", "validation": "validation texts", EVALUATED: "measured windows"}
"""Keys of `data` in a result, and what they are."""
TRAINING = "training.json"
"""Beside a run that is being trained, or was: its text, commits and times."""
SECONDS = ("wall_seconds", "processor_seconds")

NUMBER, NUMBER_OR_NULL = (int, float), (int, float, type(None))
TYPE_WORDS = {int: "an integer", float: "a number", str: "text", bool: "true or false", dict: "an object"}
TYPE_WORDS |= {list: "a list", type(None): "null"}
POINT_NUMBERS = ("bits_per_byte", "num_bytes", "scratchpads_per_byte", "trunk_calls_per_byte", "flops_per_byte")
RESULT_SHAPE = {
    "arm": str,
    "seed": int,
    "text": str,
    "config": {"model": {"context_bytes": int}, "train": dict},
    "data": {part: {"num_bytes": int, "sha256": str} for part in PARTS_OF_TEXTS},
    "evaluation": dict,
    "parameters": dict,
    "provenance": {"commit": (str, type(None)), "date": str},
    "training": {
        "bytes_seen": int,
        **dict.fromkeys((*SECONDS, "bytes_per_second"), NUMBER),
        "curve": [{"bytes_seen": int, "training_bits_per_byte": NUMBER}],
    },
    "measured": {
        "points": [
            {
                "at": str,
                **dict.fromkeys(POINT_NUMBERS, NUMBER),
                "trunk_cache_bytes_per_byte": NUMBER,
            }
        ],
        **dict.fromkeys(("entropy_head_bits_per_byte", "null_context_bits_per_byte"), NUMBER_OR_NULL),
        **dict.fromkeys(("without_scratchpads", "stored"), (dict, type(None))),
    },
    "compressors": dict,
}
"""What reports and checks read of a result."""
TRAINING_SHAPE = {
    "text": {part: {"sha256": str} for part in PARTS_OF_TEXTS if part != EVALUATED},
    "commits": list,
    **dict.fromkeys(SECONDS, NUMBER),
}
STUDY_SHAPE = {
    "name": str,
    "text": str,
    "references": dict,
    "arms": [{"name": str, "text": str, "tier": int, "exploratory": bool, "seeds": [int]}],
}


@dataclass(frozen=True)
class StudyFolder:
    """Where a study keeps what."""

    path: Path

    @property
    def results(self) -> Path:
        """The folder of result files."""
        return self.path / "results"

    def result(self, run: ArmRun) -> Path:
        """The result file of a run."""
        return self.results / f"{run.name}.json"

    def run(self, run: ArmRun) -> Path:
        """The run's folder."""
        return self.path / "runs" / run.name


@dataclass(frozen=True)
class Results:
    """All results of a study, as plain data."""

    study: dict[str, Any]
    """Name, text, references and arms in order."""
    runs: tuple[dict[str, Any], ...]
    """In the order of arms, then seeds."""


def write_study(folder: StudyFolder, study: Study) -> None:
    """Writes what the report has to know of the study's file.

    Raises:
        ConfigError: the folder is another study's.
    """
    fields = study.fields
    path = folder.results / STUDY
    try:
        other = json.loads(path.read_text(encoding="utf-8"))["name"]
    except (OSError, ValueError, LookupError, TypeError):  # none yet, or one that says nothing
        other = fields.name
    if other != fields.name:
        raise ConfigError(
            f"{folder.path} holds the study `{other}`; this one is `{fields.name}`",
            hint=f"Choose another --out. If the study was renamed, move {quoted(path)} away.",
        )
    content = {
        "format_version": STUDY_VERSION,
        "name": fields.name,
        "text": fields.text,
        "references": {name: list(study.references(name)) for name in fields.data},
        "arms": [
            {
                "name": arm.name,
                "text": study.text_of(arm),
                "tier": arm.tier,
                "exploratory": arm.exploratory,
                "seeds": list(arm.seeds or fields.seeds),
            }
            for arm in fields.arms
        ],
    }
    write_atomically(path, strict_json(content, indent=1))


def read_results(folder: str | Path) -> Results:
    """Reads the results in a study's folder.

    Raises:
        DataError: there are none, or a file is not one of them.
    """
    results = StudyFolder(Path(folder)).results
    if not (results / STUDY).is_file():
        raise DataError(
            f"{folder} holds no results of a study", hint="Give the folder of `patchpad study FILE --out DIR`."
        )
    return read_result_files(results)


def read_result_files(results: Path) -> Results:
    """Reads the result files of a study from the folder that they lie in.

    Raises:
        DataError: there are none, or a file is not one of them.
    """
    study = _read_json(results / STUDY, STUDY_VERSION, STUDY_SHAPE)
    order = {arm["name"]: number for number, arm in enumerate(study["arms"])}
    runs = [read_result(path) for path in sorted(results.glob(RESULTS_OF_RUNS))]
    known = [run for run in runs if run["arm"] in order]
    if not known:
        raise DataError(f"{results} holds no result yet", hint="Run `patchpad study FILE --out DIR` first.")
    _require_one_text(known, results)
    return Results(study, tuple(sorted(known, key=lambda run: (order[run["arm"]], run["seed"]))))


def _require_one_text(runs: Sequence[dict[str, Any]], results: Path) -> None:
    """Refuses results that go by one text's name and come of different files, or of other windows of equal size."""
    first: dict[tuple[str, str, int], dict[str, Any]] = {}
    for run in runs:
        for part, words in PARTS_OF_TEXTS.items():
            size = run["config"]["model"]["context_bytes"] if part == EVALUATED else 0
            other = first.setdefault((run["text"], part, size), run)
            if other["data"][part]["sha256"] != run["data"][part]["sha256"]:
                names = [f"{one['arm']}-seed{one['seed']}" for one in (other, run)]
                away = quoted(results / f"{names[1]}.json")
                if part != EVALUATED:  # else the model that is there can be measured again
                    away += f" and {quoted(results.parent / 'runs' / names[1])}"
                raise DataError(
                    f"{results}: {names[0]} and {names[1]} have different {words} under the name `{run['text']}`",
                    hint=f"Move {away} away, and run the study again.",
                )


def read_result(path: Path) -> dict[str, Any]:
    """Reads one result file.

    Raises:
        DataError: it cannot be read, is of another version, or lacks what a result has.
    """
    return _read_json(path, RESULT_VERSION, RESULT_SHAPE)


def read_training(path: Path) -> dict[str, Any]:
    """Reads what stands beside a run about its training; the errors are those of `read_result`."""
    return _read_json(path, RESULT_VERSION, TRAINING_SHAPE)


def _read_json(path: Path, version: int, shape: Mapping[str, Any]) -> dict[str, Any]:
    hint = f"Move {quoted(path)} away, and run the study again."
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read {path}: {error}", hint=hint) from error
    found = content.get("format_version") if isinstance(content, dict) else None
    if found != version:
        message = f"{path} has the format_version {found}; this version of patchpad reads {version}"
        raise DataError(message, hint=hint)
    wrong = misfit(content, shape)
    if wrong is not None:
        raise DataError(f"{path} is not a result of a study: {wrong}", hint=hint)
    return content


def misfit(value: Any, shape: Any, path: str = "") -> str | None:
    """Returns the first place at which a value has not the shape that is asked for; None if it has.

    Args:
        value: of a JSON file.
        shape: a dictionary of the keys that must be there, with their shapes; a list of the shape of all entries; or a
            type, or several in a tuple.
        path: of the value inside the file.
    """
    if isinstance(shape, Mapping):
        if not isinstance(value, dict):
            return f"`{path}` is {_short(value)}; allowed: an object"
        for key, part in shape.items():
            inside = f"{path}.{key}" if path else key
            if key not in value:
                return f"`{inside}` is missing"
            wrong = misfit(value[key], part, inside)
            if wrong is not None:
                return wrong
        return None
    if isinstance(shape, list):
        if not isinstance(value, list):
            return f"`{path}` is {_short(value)}; allowed: a list"
        found = (misfit(entry, shape[0], f"{path}[{number}]") for number, entry in enumerate(value))
        return next((wrong for wrong in found if wrong is not None), None)
    types = shape if isinstance(shape, tuple) else (shape,)
    if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
        words = " or ".join(TYPE_WORDS[one] for one in types)
        return f"`{path}` is {_short(value)}; allowed: {words}"
    return None


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def seconds_per_byte(result: dict[str, Any]) -> float:
    """Returns how long a result's training took per byte."""
    return result["training"]["wall_seconds"] / max(1, result["training"]["bytes_seen"])


def point_at(result: dict[str, Any], at: str = "stored") -> dict[str, Any] | None:
    """Returns the point of a result at `never`, a rate, `stored` or `always`."""
    points: Sequence[dict[str, Any]] = result["measured"]["points"]
    return next((point for point in points if point["at"] == at), None)
