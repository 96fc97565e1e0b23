"""Runs and checkpoints on disk: safetensors and JSON, a manifest of checksums, and nothing half-written.

RUN/  config.json  model.safetensors  calibration.json  metrics.jsonl  manifest.json  checkpoints/step-N/
"""

import functools
import logging
import os
import re
import shutil
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_bytes
from safetensors.torch import load_file, save_file
from torch import Tensor

import patchpad.data
from patchpad.calibration_table import Calibration
from patchpad.config import FORMAT_VERSION, Config
from patchpad.config.reading import parse_json
from patchpad.device import select_device
from patchpad.errors import CheckpointError, ConfigError, quoted
from patchpad.files import sha256_of, strict_json, sync_folder, write_atomically
from patchpad.model.build import build_model
from patchpad.model.language_model import LanguageModel
from patchpad.training.metrics import METRICS

logger = logging.getLogger(__name__)

CONFIG, MODEL, CALIBRATION, MANIFEST = "config.json", "model.safetensors", "calibration.json", "manifest.json"
OPTIMIZER, TRAINER = "optimizer.safetensors", "trainer.json"
EXTRA_FILES = ("tokenizer.json",)
"""What a kind of model keeps beside its weights; see `LanguageModel.extra_files`."""
CHECKPOINTS = "checkpoints"
BUNDLED_MODEL = Path(patchpad.data.__file__).parent / "bundled" / "model"
"""The small model that ships with the package; its card lies beside it."""


@dataclass(frozen=True)
class Checkpoint:
    """A checked checkpoint on disk."""

    path: Path
    config: Config

    def model(self) -> LanguageModel:
        """Builds the model and loads its weights.

        Raises:
            CheckpointError: the weights do not fit the configuration, or are not finite.
        """
        model = build_model(self.config.model)
        try:
            model.load_state_dict(_load_tensors(self.path / MODEL))
        except (SafetensorError, RuntimeError, OSError) as error:
            raise _does_not_fit(self.path / MODEL, error) from error
        _require_finite(model, self.path / MODEL)
        model.read_extra_files(self.path)
        model.calibration = Calibration.read(self.path / CALIBRATION) if (self.path / CALIBRATION).exists() else None
        return model.eval()

    def optimizer_tensors(self) -> dict[str, Tensor]:
        """Returns the optimizer's tensors of a step folder."""
        try:
            return _load_tensors(self.path / OPTIMIZER)
        except (SafetensorError, OSError) as error:
            raise _does_not_fit(self.path / OPTIMIZER, error) from error

    def trainer_state(self) -> dict[str, Any]:
        """Returns the trainer's state of a step folder."""
        return _read_json(self.path / TRAINER)


def _require_finite(model: LanguageModel, file: Path) -> None:
    """Refuses weights that are nan or inf; a threshold, which is a buffer, may be inf or -inf."""
    parameters = dict(model.named_parameters())
    for name, tensor in model.state_dict().items():
        if not tensor.is_floating_point():
            continue
        found = tensor.isfinite() if name in parameters else ~tensor.isnan()
        if not bool(found.all()):
            raise CheckpointError(
                f"{file} holds nan or inf in `{name}`; allowed: finite weights",
                hint="Training had probably diverged: use an earlier checkpoint, or train with a lower learning rate.",
            )


def _does_not_fit(path: Path, error: Exception) -> CheckpointError:
    detail = " ".join(str(error).split())[:200]
    return CheckpointError(f"cannot load {path}: {detail}", hint="Use another checkpoint of the run.")


def open_checkpoint(path: str | Path, *, for_resume: bool = False) -> Checkpoint:
    """Finds and checks a checkpoint: a run, or one of its step folders.

    Args:
        path: RUN or RUN/checkpoints/step-N. A run that has not finished gives its newest step.
        for_resume: take the newest step, which has the optimizer's state, even where the run has finished.

    Raises:
        CheckpointError: nothing there, not one of ours, a file missing, or a checksum that differs.
    """
    given = Path(path)
    require_run(given)
    folder = given
    hint = "Use another checkpoint of the run, or copy it again."
    if (given / CHECKPOINTS).is_dir() and (for_resume or not (given / MANIFEST).exists()):
        steps = list_steps(given)
        if not steps:
            raise CheckpointError(
                f"{given} does not hold a checkpoint yet",
                hint="Wait for its first one; or, if the run has stopped, train again into a new folder.",
            )
        folder = steps[-1]
        if for_resume:
            hint = "Train again into a new folder: there is no earlier checkpoint."
            if len(steps) > 1:
                hint = (
                    f"Move {quoted(folder)} to another place; then this goes on from {steps[-2].name}: "
                    f"patchpad train --resume {quoted(given)}"
                )
    manifest_path = folder / MANIFEST
    if not manifest_path.is_file():
        raise CheckpointError(
            f"{folder} is not a patchpad checkpoint: it has no {MANIFEST}", hint="Give RUN or RUN/checkpoints/step-N."
        )
    manifest = _read_json(manifest_path)
    version = manifest.get("format_version")
    if version != FORMAT_VERSION:
        raise CheckpointError(
            f"{manifest_path} has the format_version {version}; this version of patchpad reads {FORMAT_VERSION}",
            hint=_hint_for_version(version) or hint,
        )
    files = manifest.get("files")
    if not isinstance(files, dict) or not {CONFIG, MODEL} <= files.keys():
        raise CheckpointError(f"{manifest_path} is not a manifest of patchpad", hint=hint)
    for name, digest in files.items():
        file = folder / name
        if not file.is_file():
            raise CheckpointError(f"{file} is missing", hint=hint)
        if sha256_of(file) != digest:
            raise CheckpointError(
                f"{file} was altered or is incomplete: its SHA-256 differs from {MANIFEST}", hint=hint
            )
    return Checkpoint(folder, _read_config(folder / CONFIG))


def _hint_for_version(version: object) -> str | None:
    """Returns what to do with a run of another format; None where the version is not a number."""
    if not isinstance(version, int):
        return None
    if version > FORMAT_VERSION:
        return "Install a newer version of patchpad."
    return "Use the version of patchpad that wrote it, or train again with this one."


def require_run(folder: Path) -> None:
    """Requires that a folder is there, before it is known whether it holds a run.

    Raises:
        CheckpointError: there is none.
    """
    if not folder.is_dir():
        raise CheckpointError(f"no run is at {folder}", hint="Give a folder that `patchpad train --out` wrote.")


def is_finished(run: Path) -> bool:
    """Whether a folder holds a run that was trained to its last step; a step folder is none."""
    return (run / MANIFEST).is_file() and (run / METRICS).is_file() and not (run / TRAINER).exists()


def list_steps(run: Path) -> list[Path]:
    """Returns the step folders of a run, oldest first."""
    names = (path for path in (run / CHECKPOINTS).glob("step-*") if re.fullmatch(r"step-\d+", path.name))
    found = [folder for folder in names if folder.is_dir()]
    return sorted(found, key=lambda folder: int(folder.name[5:]))


def load(path: str | Path | None = None, *, device: str | torch.device = "cpu") -> LanguageModel:
    """Loads a model from a run or a step folder, in eval mode.

    Args:
        path: RUN or RUN/checkpoints/step-N; None for the small model that ships with the package.
        device: where to put it; names as those of `--device`.

    Raises:
        CheckpointError: nothing there, not one of ours, incomplete, altered or of another format.
        ConfigError: an unknown device, or one that this machine lacks.
    """
    place = select_device(device) if isinstance(device, str) else device
    return open_checkpoint(BUNDLED_MODEL if path is None else path).model().to(place)


def save(model: LanguageModel, config: Config, folder: str | Path, *, dtype: torch.dtype = torch.float32) -> None:
    """Writes a model, with its threshold and calibration, into an empty folder, for inference only.

    Args:
        model: the model.
        config: what it was trained with.
        folder: absent, or empty.
        dtype: of the weights on disk; the threshold keeps its own.

    Raises:
        CheckpointError: the folder is not empty.
    """
    path = Path(folder)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise CheckpointError(f"{path} is not an empty folder", hint="Choose another folder.")
    path.mkdir(parents=True, exist_ok=True)
    write_files(path, model, config, None, dtype=dtype)
    write_manifest(path)


def write_files(
    folder: Path, model: LanguageModel, config: Config, metrics: str | None, *, dtype: torch.dtype = torch.float32
) -> None:
    """Writes the files that runs and step folders share, the manifest not yet."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    if dtype != torch.float32:
        tensors.update({name: tensor.detach().cpu().to(dtype) for name, tensor in model.named_parameters()})
    write_atomically(folder / CONFIG, strict_json(config.to_dict(), indent=1))
    _save_tensors(folder / MODEL, tensors)
    for name, content in model.extra_files().items():
        write_atomically(folder / name, content)
    if model.calibration is not None:
        write_atomically(folder / CALIBRATION, model.calibration.to_json())
    if metrics is not None:
        write_atomically(folder / METRICS, metrics)


def write_manifest(folder: Path, *, leave_out: tuple[str, ...] = ()) -> None:
    """Writes the SHA-256 of each file of a folder but some; called last, it makes a checkpoint valid."""
    # Files that others put here may change.
    ours = (CONFIG, MODEL, CALIBRATION, METRICS, OPTIMIZER, TRAINER, *EXTRA_FILES)
    digests = {name: sha256_of(folder / name) for name in ours if name not in leave_out and (folder / name).is_file()}
    write_atomically(folder / MANIFEST, strict_json({"format_version": FORMAT_VERSION, "files": digests}, indent=1))
    sync_folder(folder)


def store_calibration(folder: Path, calibration: Calibration) -> None:
    """Writes a checked checkpoint's calibration table, and its manifest anew; stopped anywhere, it can be loaded."""
    write_manifest(folder, leave_out=(CALIBRATION,))
    write_atomically(folder / CALIBRATION, calibration.to_json())
    write_manifest(folder)


def save_step(
    run: Path,
    step: int,
    *,
    model: LanguageModel,
    config: Config,
    optimizer_tensors: dict[str, Tensor],
    trainer_state: dict[str, Any],
    metrics: str,
) -> Path:
    """Writes RUN/checkpoints/step-N under a temporary name, then renames it; nothing stays under the temporary one.

    Raises:
        CheckpointError: the disk is full or not writable; earlier checkpoints are intact.
    """
    final = run / CHECKPOINTS / f"step-{step}"
    temporary = final.with_name(f".{final.name}.{os.getpid()}.tmp")
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        write_files(temporary, model, config, metrics)
        _save_tensors(temporary / OPTIMIZER, optimizer_tensors)
        write_atomically(temporary / TRAINER, strict_json(trainer_state, indent=1))
        write_manifest(temporary)
        replaced = _move_aside(final)
        os.replace(temporary, final)
        sync_folder(final.parent)
        if replaced is not None:
            _remove_folder(replaced)
    except (OSError, SafetensorError) as error:
        kept = list_steps(run)
        left = f"{kept[-1]} is intact" if kept else "no earlier checkpoint exists"
        again = f"run: patchpad train --resume {quoted(run)}" if kept else "train into a new folder."
        message = f"cannot save {final}: {error}; {left}"
        raise CheckpointError(message, hint=f"Free some space, then {again}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return final


def _move_aside(step: Path) -> Path | None:
    """Renames what bears the name of a new step: an older folder, or whatever someone put there; returns its name."""
    if not os.path.lexists(step):
        return None
    free = (step.with_name(f"{step.name}.replaced{number or ''}") for number in range(10_000))
    aside = next(path for path in free if not os.path.lexists(path))
    os.replace(step, aside)
    return aside


def remove_old_steps(run: Path, keep: int) -> None:
    """Removes all but the newest `keep` step folders; 0 keeps all. Links are neither counted nor touched."""
    if keep:
        for folder in [step for step in list_steps(run) if not step.is_symlink()][:-keep]:
            _remove_folder(folder)


def remove_unfinished_steps(run: Path) -> None:
    """Removes the temporary step folders of processes that were killed while they saved."""
    for folder in (run / CHECKPOINTS).glob(".step-*.tmp"):
        _remove_folder(folder)


def _remove_folder(folder: Path) -> None:
    """Removes a folder that a run made, or says why not: what is left over must not end a run."""
    if folder.is_symlink() or not folder.is_dir():
        _report_left(str(folder), "it is not a folder of the run")
        return
    try:
        shutil.rmtree(folder)
    except OSError as error:
        _report_left(str(folder), error.strerror or str(error))


@functools.lru_cache(maxsize=1024)
def _report_left(path: str, reason: str) -> None:
    logger.warning("cannot remove %s (%s): it is left where it is", path, reason)


def _load_tensors(path: Path) -> dict[str, Tensor]:
    try:
        str(path).encode("utf-8")
    except UnicodeEncodeError:  # a path that safetensors writes to, but does not open
        return load_bytes(path.read_bytes())
    try:
        return load_file(path)
    except OSError:  # a file system that cannot map files into memory
        return load_bytes(path.read_bytes())


def _save_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
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


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"cannot read {path}: {error}", hint="Use another checkpoint of the run.") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} is not a JSON object", hint="Use another checkpoint of the run.")
    return content


def _read_config(path: Path) -> Config:
    values = _read_json(path)
    try:
        return Config.from_dict(values, source=str(path))
    except ConfigError as error:
        wrong = error.message.removeprefix(f"{path}: ")
        raise CheckpointError(
            f"{path} is of another version of patchpad: {wrong}", hint="Load it with the version that wrote it."
        ) from error
