"""The files of runs and of step folders, and the manifest that has the SHA-256 of each. Imports no torch."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from patchpad.config import FORMAT_VERSION
from patchpad.config.reading import parse_json
from patchpad.errors import CheckpointError
from patchpad.files import sha256_of, strict_json, sync_folder, write_atomically
from patchpad.training.metrics import METRICS

CONFIG, MODEL, CALIBRATION, MANIFEST = "config.json", "model.safetensors", "calibration.json", "manifest.json"
TRAINER = "trainer.json"
"""Only in step folders: what the trainer needs to go on."""
EXTRA_FILES = ("tokenizer.json", "source_tokens.json")
"""What a kind of model keeps beside its weights; see `LanguageModel.extra_files`."""
WEIGHTS, OPTIMIZER, AVERAGED = "weights", "optimizer", "averaged"
"""Folders of tensors in a step folder."""
CHECKPOINTS = "checkpoints"
"""The folder of a run's step folders."""


def write_manifest(folder: Path, digests: Mapping[str, str]) -> None:
    """Writes the manifest of a folder; called last, it makes a checkpoint valid.

    Args:
        folder: of a run, or a step folder.
        digests: name of a file, below `folder` -> its SHA-256.
    """
    content = {"format_version": FORMAT_VERSION, "files": dict(digests)}
    write_atomically(folder / MANIFEST, strict_json(content, indent=1))
    sync_folder(folder)


def sign(folder: Path) -> None:
    """Writes the manifest of a folder without folders of tensors. Files that others put there are not named in it."""
    ours = (CONFIG, MODEL, CALIBRATION, METRICS, *EXTRA_FILES)
    write_manifest(folder, {name: sha256_of(folder / name) for name in ours if (folder / name).is_file()})


def read_manifest(folder: Path, hint: str) -> dict[str, str]:
    """Returns name -> SHA-256 of the files that a checkpoint has; they are not looked at yet.

    Args:
        folder: of a run, or a step folder.
        hint: what to do if it is damaged.

    Raises:
        CheckpointError: no manifest, one of another format, or a damaged one.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise CheckpointError(
            f"{folder} is not a patchpad checkpoint: it has no {MANIFEST}", hint="Give RUN or RUN/checkpoints/step-N."
        )
    manifest = read_json(path)
    version = manifest.get("format_version")
    if version != FORMAT_VERSION:
        raise CheckpointError(
            f"{path} has the format_version {version}; this version of patchpad reads {FORMAT_VERSION}",
            hint=_hint_for_version(version) or hint,
        )
    files = manifest.get("files")
    if not isinstance(files, dict) or CONFIG not in files or not (MODEL in files or _folder_names(files)):
        raise CheckpointError(f"{path} is not a manifest of patchpad", hint=hint)
    return files


def check_files(folder: Path, digests: Mapping[str, str], hint: str, *, rank: int = 0, num_ranks: int = 1) -> None:
    """Checks that the files of a checkpoint are those of its manifest; of several ranks each hashes some of them.

    Raises:
        CheckpointError: a file is missing or differs, or there is one that would be read and is not in the manifest.
    """
    for number, (name, digest) in enumerate(digests.items()):
        file = folder / name
        if not file.is_file():
            raise CheckpointError(f"{file} is missing", hint=hint)
        if number % num_ranks == rank and sha256_of(file) != digest:
            raise CheckpointError(
                f"{file} was altered or is incomplete: its SHA-256 differs from {MANIFEST}", hint=hint
            )
    for name in _folder_names(digests):
        for file in (folder / name).glob("*.safetensors"):
            if f"{name}/{file.name}" not in digests:
                raise CheckpointError(f"{file} is not in {MANIFEST}: it belongs to another checkpoint", hint=hint)


def _folder_names(digests: Mapping[str, str]) -> set[str]:
    return {name.partition("/")[0] for name in digests if "/" in name}


def read_json(path: Path) -> dict[str, Any]:
    """Returns the object of a JSON file of a checkpoint.

    Raises:
        CheckpointError: it cannot be read, or is not a JSON object.
    """
    try:
        content = parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"cannot read {path}: {error}", hint="Use another checkpoint of the run.") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} is not a JSON object", hint="Use another checkpoint of the run.")
    return content


def _hint_for_version(version: object) -> str | None:
    """Returns what to do with a run of another format; None where the version is not a number."""
    if not isinstance(version, int):
        return None
    if version > FORMAT_VERSION:
        return "Install a newer version of patchpad."
    return "Use the version of patchpad that wrote it, or train again with this one."
