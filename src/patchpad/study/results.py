"""Result files of a study: one per arm and seed, small, strict JSON. Torch-free.

DIR/results/<arm>-seed<N>.json and DIR/results/study.json; DIR/runs/<arm>-seed<N>/ are the trained models.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from patchpad.config import Config
from patchpad.errors import ConfigError, DataError
from patchpad.files import strict_json, write_atomically
from patchpad.study.definition import ArmRun, Study, first_difference, learned_from

RESULT_VERSION, STUDY_VERSION = 1, 2
STUDY = "study.json"
RESULTS_OF_RUNS = "*-seed*.json"
EVALUATED = "evaluated"
PARTS_OF_TEXTS = {"training": "training texts", "validation": "validation texts", EVALUATED: "measured windows"}
"""Keys of `data` in a result, and what they are."""
TRAINING = "training.json"
"""Beside a run that is being trained, or was: its text, commits and times."""
SECONDS = ("wall_seconds", "processor_seconds")


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
            hint=f"Choose another --out. If the study was renamed: rm {path}",
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
    study = read_json(results / STUDY, STUDY_VERSION)
    order = {arm["name"]: number for number, arm in enumerate(study["arms"])}
    runs = [read_json(path) for path in sorted(results.glob(RESULTS_OF_RUNS))]
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
                model = "" if part == EVALUATED else f" {results.parent / 'runs' / names[1]}"  # can be measured again
                raise DataError(
                    f"{results}: {names[0]} and {names[1]} have different {words} under the name `{run['text']}`",
                    hint=f"Make one of them anew: rm -r {results / names[1]}.json{model}",
                )


def read_json(path: Path, version: int = RESULT_VERSION) -> dict[str, Any]:
    """Reads one result file, or another of a study with its version.

    Raises:
        DataError: it cannot be read, or is of another version.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(
            f"cannot read {path}: {error}", hint=f"Remove it, and run the study again: rm {path}"
        ) from error
    if not isinstance(content, dict) or content.get("format_version") != version:
        raise DataError(
            f"{path} is no result of this version of patchpad", hint=f"Remove it, and run the study again: rm {path}"
        )
    return content


def require_same_arm(
    run: ArmRun, folder: StudyFolder, evaluation: dict[str, Any], text: Mapping[str, Any], again: str
) -> dict[str, Any] | None:
    """Checks that what a folder holds of a run was made by the study's definition of it.

    Args:
        run: the arm and seed.
        folder: the study's.
        evaluation: the study's evaluation fields.
        text: what `data` of a result says of its text; parts that are not there are not compared.
        again: the command that runs the study.

    Returns:
        Its result, if it has one.

    Raises:
        ConfigError: the definition has changed.
    """
    result_path, run_path = folder.result(run), folder.run(run)
    new = learned_from(run.config)
    if result_path.exists():
        result = read_json(result_path)
        old = learned_from(Config.from_dict(result["config"], source=str(result_path)))
        trained = {part: facts for part, facts in text.items() if part != EVALUATED}  # the text that the model has seen
        difference = first_difference(old, new) or _another_text(result["data"], trained)
        if difference is not None:
            raise _changed(run, result_path, difference, f"rm -r {result_path} {run_path}", again)
        difference = first_difference(result["evaluation"], json.loads(strict_json(evaluation)), "evaluation")
        difference = difference or _another_text(result["data"], text)
        if difference is not None:  # the trained model can be measured again
            raise _changed(run, result_path, difference, f"rm {result_path}", again)
        return result
    for path in (run_path / "config.json", *sorted(run_path.glob("checkpoints/step-*/config.json"))):
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except OSError:  # not there, or another process has just replaced it
            continue
        difference = first_difference(learned_from(Config.from_dict(values, source=str(path))), new)
        if difference is not None:
            raise _changed(run, run_path, difference, f"rm -r {run_path}", again)
    if (run_path / TRAINING).exists():
        difference = _another_text(read_json(run_path / TRAINING)["text"], text)
        if difference is not None:
            raise _changed(run, run_path, difference, f"rm -r {run_path}", again)
    return None


def _another_text(old: Mapping[str, Any], new: Mapping[str, Any]) -> str | None:
    """Returns which part of a text differs, of those in `new`; both are what `data` of a result says."""
    different = (part for part in new if part in old and old[part]["sha256"] != new[part]["sha256"])
    return next((f"other {PARTS_OF_TEXTS[part]}" for part in different), None)


def _changed(run: ArmRun, path: Path, difference: str, remove: str, again: str) -> ConfigError:
    return ConfigError(
        f"arm `{run.arm.name}` has changed since {path} was made: {difference}",
        hint=f"Rename the arm, choose another --out, or make it anew: {remove} && {again}",
    )


def seconds_per_byte(result: dict[str, Any]) -> float:
    """Returns how long a result's training took per byte."""
    return result["training"]["wall_seconds"] / max(1, result["training"]["bytes_seen"])


def point_at(result: dict[str, Any], at: str = "stored") -> dict[str, Any] | None:
    """Returns the point of a result at `never`, a rate, `stored` or `always`."""
    points: Sequence[dict[str, Any]] = result["measured"]["points"]
    return next((point for point in points if point["at"] == at), None)
