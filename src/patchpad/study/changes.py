"""Whether what a study's folder holds of an arm was made by the study's definition of it. Torch-free."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from patchpad.config import Config
from patchpad.config.plugged import plain_section
from patchpad.errors import ConfigError, DataError, MissingPluginError, quoted
from patchpad.files import strict_json
from patchpad.study.definition import ArmRun
from patchpad.study.results import EVALUATED, PARTS_OF_TEXTS, TRAINING, StudyFolder, read_result, read_training

NOT_PART_OF_AN_ARM = (
    "device",
    "compile",
    "validate_every",
    "validation_bytes",
    "checkpoint_every",
    "keep_checkpoints",
    "keep_every",
    "checkpoint_async",
    "log_every",
)
"""Fields of `train` that change what is shown or kept, not what is learned."""


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
        result = read_result(result_path)
        old = learned_from(Config.from_dict(result["config"], source=str(result_path)))
        trained = {part: facts for part, facts in text.items() if part != EVALUATED}  # the text that the model has seen
        difference = first_difference(old, new) or _another_text(result["data"], trained)
        if difference is not None:
            raise _changed(run, difference, (result_path, run_path), again)
        difference = first_difference(result["evaluation"], json.loads(strict_json(evaluation)), "evaluation")
        difference = difference or _another_text(result["data"], text)
        if difference is not None:  # the trained model can be measured again
            raise _changed(run, difference, (result_path,), again)
        return result
    for path in (run_path / "config.json", *sorted(run_path.glob("checkpoints/step-*/config.json"))):
        config = _config_of_run(path, run_path, again)
        difference = config and first_difference(learned_from(config), new)
        if difference:
            raise _changed(run, difference, (run_path,), again)
    if (run_path / TRAINING).exists():
        difference = _another_text(read_training(run_path / TRAINING)["text"], text)
        if difference is not None:
            raise _changed(run, difference, (run_path,), again)
    return None


def _config_of_run(path: Path, run_path: Path, again: str) -> Config | None:
    """Returns the configuration of a run or of one of its steps; None where there is none yet.

    Raises:
        DataError: the file is spoilt.
        MissingPluginError: the run used a plug-in that is not loaded.
    """
    hint = f"Move {quoted(run_path)} away, then run: {again}"
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(values, dict):
            return Config.from_dict(values, source=str(path))
    except OSError:  # not there, or another process has just replaced it
        return None
    except MissingPluginError:
        raise
    except ValueError as error:
        reason = error.message if isinstance(error, ConfigError) else f"cannot read {path}: {error}"
        raise DataError(reason, hint=hint) from error
    raise DataError(f"{path} is not a configuration: it holds {type(values).__name__}, not an object", hint=hint)


def _another_text(old: Mapping[str, Any], new: Mapping[str, Any]) -> str | None:
    """Returns which part of a text differs, of those in `new`; both are what `data` of a result says."""
    different = (part for part in new if part in old and old[part]["sha256"] != new[part]["sha256"])
    return next((f"other {PARTS_OF_TEXTS[part]}" for part in different), None)


def _changed(run: ArmRun, difference: str, made: Sequence[Path], again: str) -> ConfigError:
    """Returns the error of an arm that is not what it was when `made` were written; they stand in the way of it."""
    away = " and ".join(map(quoted, made))
    return ConfigError(
        f"arm `{run.arm.name}` has changed since {made[0]} was made: {difference}",
        hint=f"Rename the arm, or choose another --out, or move {away} away and run: {again}",
    )


def learned_from(config: Config) -> dict[str, Any]:
    """Returns the part of a configuration that what is learned depends on, the text left out."""
    values = plain_section(config, with_plugins=False)
    train = {key: value for key, value in values["train"].items() if key not in NOT_PART_OF_AN_ARM}
    if not config.model.reads_entropy:
        del train["entropy_head_weight"]
    return {"model": values["model"], "train": train}


def first_difference(old: Any, new: Any, path: str = "") -> str | None:
    """Returns the first dotted key at which two nested dictionaries differ, with both values; None if there is none."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            found = first_difference(old.get(key), new.get(key), f"{path}.{key}" if path else key)
            if found:
                return found
        return None
    return None if old == new else f"{path} {old!r}, now {new!r}"
