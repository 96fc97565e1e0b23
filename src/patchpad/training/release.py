"""Released folders: a model for inference, with its weights in one file, from any step; and calibration tables."""

import os
import stat
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from patchpad.calibration_table import Calibration
from patchpad.config import Config, DataConfig
from patchpad.errors import CheckpointError
from patchpad.files import sha256_of, strict_json, write_atomically
from patchpad.model.language_model import LanguageModel
from patchpad.training.checkpoint import Checkpoint, list_steps, open_checkpoint
from patchpad.training.manifest import CALIBRATION, CONFIG, MODEL, read_manifest, sign, write_manifest
from patchpad.training.metrics import METRICS


def release(
    source: str | Path, out: str | Path, *, averaged: bool = False, dtype: torch.dtype = torch.float32
) -> LanguageModel:
    """Writes the model of a run or a step folder into a new folder, for inference only, without paths of this machine.

    Args:
        source: RUN or RUN/checkpoints/step-N.
        out: absent, or empty.
        averaged: take the averaged weights, of the run's newest step where `source` is a run.
        dtype: of the weights on disk. The calibration table goes along only if the weights are the same.

    Returns:
        The model as it was written: rounded to `dtype`, in fp32.

    Raises:
        CheckpointError: no usable checkpoint, no averaged weights, or `out` is not empty.
    """
    require_empty(Path(out))
    checkpoint = open_checkpoint(source)
    if averaged and not checkpoint.is_step and list_steps(checkpoint.path):
        checkpoint = open_checkpoint(source, for_resume=True)
    model = checkpoint.model(averaged=averaged)
    if averaged or dtype != torch.float32:
        model.calibration = None
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.to(dtype))
    save(model, released_config(checkpoint.config), out, dtype=dtype)
    return model


def released_config(config: Config) -> Config:
    """Returns a configuration without the places of training text and of an earlier run, which others do not have."""
    return replace(config, data=DataConfig(), train=replace(config.train, init_from=None))


def save(
    model: LanguageModel,
    config: Config,
    folder: str | Path,
    *,
    dtype: torch.dtype = torch.float32,
    beside: Mapping[str, str] | None = None,
) -> None:
    """Writes a model, with its threshold and calibration, into an empty folder, for inference only.

    Args:
        model: the model.
        config: what it was trained with.
        folder: absent, or empty.
        dtype: of the weights on disk; the threshold keeps its own.
        beside: name -> content of further files, which are written first and not named in the manifest.

    Raises:
        CheckpointError: the folder is not empty, or cannot be written.
    """
    path = Path(folder)
    require_empty(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
        for name, content in (beside or {}).items():
            write_atomically(path / name, content)
        _write_model(path, model, config, dtype)
        sign(path)
    except OSError as error:
        raise CheckpointError(
            f"cannot write {path}: {error}", hint="Free some space, or choose another folder."
        ) from error


def write_run_files(run: Path, step: Checkpoint) -> None:
    """Writes a finished run's own files beside its checkpoints, from its last step.

    Raises:
        OSError, SafetensorError: the disk is full or not writable.
    """
    _write_model(run, step.model(), step.config, torch.float32)
    write_atomically(run / METRICS, (step.path / METRICS).read_bytes())
    sign(run)


def store_calibration(folder: Path, calibration: Calibration) -> None:
    """Writes a checkpoint's calibration table and a new manifest. If stopped in between, it can still be loaded."""
    digests = read_manifest(folder, "Use another checkpoint of the run.")
    digests.pop(CALIBRATION, None)
    write_manifest(folder, digests)
    write_atomically(folder / CALIBRATION, calibration.to_json())
    write_manifest(folder, {**digests, CALIBRATION: sha256_of(folder / CALIBRATION)})


def require_empty(folder: Path, *, hint: str = "Choose another folder.") -> None:
    """Requires that a folder is absent or empty.

    Raises:
        CheckpointError: it holds something, or is a file; with the hint.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise CheckpointError(f"{folder} is not an empty folder", hint=hint)


def _write_model(folder: Path, model: LanguageModel, config: Config, dtype: torch.dtype) -> None:
    """Writes what a run and a released folder have in common, the manifest not yet."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    if dtype != torch.float32:
        tensors.update({name: tensor.detach().cpu().to(dtype) for name, tensor in model.named_parameters()})
    write_atomically(folder / CONFIG, strict_json(config.to_dict(), indent=1))
    _save_file(folder / MODEL, tensors)
    for name, content in model.extra_files().items():
        write_atomically(folder / name, content)
    if model.calibration is not None:
        write_atomically(folder / CALIBRATION, model.calibration.to_json())


def _save_file(path: Path, tensors: dict[str, Tensor]) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.touch()
        mode = stat.S_IMODE(temporary.stat().st_mode)
        save_file(tensors, temporary)  # in its place, safetensors puts a file that its owner alone may read
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        temporary.chmod(mode)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
