"""Runs and step folders on disk: finding, checking and loading them. Nothing is unpickled.

RUN/  config.json  model.safetensors  calibration.json  metrics.jsonl  manifest.json  checkpoints/step-N/
step-N/  config.json  weights/  optimizer/  averaged/  trainer.json  metrics.jsonl  manifest.json
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_bytes
from safetensors.torch import load_file
from torch import Tensor

import patchpad.data
from patchpad.calibration_table import Calibration
from patchpad.config import Config
from patchpad.device import select_device
from patchpad.errors import CheckpointError, ConfigError, MissingPluginError, quoted
from patchpad.model.build import build_model
from patchpad.model.int8 import Weights, check_weights, use_int8
from patchpad.model.language_model import LanguageModel
from patchpad.registry import command_line
from patchpad.training.manifest import (
    AVERAGED,
    CALIBRATION,
    CHECKPOINTS,
    CONFIG,
    MANIFEST,
    MODEL,
    TRAINER,
    WEIGHTS,
    check_files,
    read_json,
    read_manifest,
)
from patchpad.training.metrics import METRICS
from patchpad.training.tensor_folders import does_not_fit, load_tensors

BUNDLED = "bundled"
"""Names the model that ships with the package, where no folder of that name lies."""
BUNDLED_MODEL = Path(patchpad.data.__file__).parent / "bundled" / "model"
"""The small model that ships with the package; its card lies beside it."""


@dataclass(frozen=True)
class Checkpoint:
    """A checked checkpoint on disk."""

    path: Path
    config: Config

    @property
    def is_step(self) -> bool:
        """Whether it is a step folder, from which training can continue."""
        return (self.path / TRAINER).is_file()

    def model(self, *, averaged: bool = False) -> LanguageModel:
        """Builds the model and loads its weights.

        Args:
            averaged: take the averaged weights of a step folder.

        Raises:
            CheckpointError: the weights do not fit the configuration, are not finite, or are not there.
        """
        model = build_model(self.config.model)
        if self.is_step:
            self.load_weights(model)
        else:
            try:
                model.load_state_dict(_load_file(self.path / MODEL))
            except (SafetensorError, RuntimeError, OSError) as error:
                raise does_not_fit(self.path / MODEL, error) from error
            require_finite(model, self.path / MODEL)
        if averaged:
            self.load_averaged(dict(model.named_parameters()))
            require_finite(model, self.path / AVERAGED)
        model.read_extra_files(self.path)
        model.calibration = Calibration.read(self.path / CALIBRATION) if (self.path / CALIBRATION).exists() else None
        return model.eval()

    def load_weights(self, model: LanguageModel) -> None:
        """Reads the weights of a step folder into a model, which may be sharded: then each rank its shards.

        Raises:
            CheckpointError: the weights do not fit the model, or are not finite.
        """
        load_tensors(self.path / WEIGHTS, model.state_dict())
        require_finite(model, self.path / WEIGHTS)

    def load_averaged(self, tensors: dict[str, Tensor]) -> None:
        """Reads averaged weights into tensors, which may be sharded.

        Args:
            tensors: parameter name -> where it goes.

        Raises:
            CheckpointError: there are none, or they do not fit.
        """
        if not (self.path / AVERAGED).is_dir():
            raise CheckpointError(
                f"{self.path} has no averaged weights; allowed: a step folder of a run with train.averaged_decay",
                hint="Leave out --averaged, or give RUN/checkpoints/step-N of such a run.",
            )
        load_tensors(self.path / AVERAGED, tensors)

    def trainer_state(self) -> dict[str, Any]:
        """Returns the trainer's state of a step folder."""
        return read_json(self.path / TRAINER)


def require_finite(model: LanguageModel, place: Path) -> None:
    """Refuses weights that are nan or inf; a threshold, which is a buffer, may be inf or -inf.

    Raises:
        CheckpointError: there are such weights among those of this rank.
    """
    parameters = dict(model.named_parameters())
    for name, tensor in model.state_dict().items():
        if not tensor.is_floating_point():
            continue
        here = tensor.to_local() if hasattr(tensor, "to_local") else tensor
        found = here.isfinite() if name in parameters else ~here.isnan()
        if not bool(found.all()):
            raise CheckpointError(
                f"{place} holds nan or inf in `{name}`; allowed: finite weights",
                hint="Training had probably diverged: use an earlier checkpoint, or train with a lower learning rate.",
            )


def is_bundled(path: str | Path) -> bool:
    """Whether a path is the name of the model that ships with the package, and no folder has that name."""
    return str(path) == BUNDLED and not Path(path).exists()


def open_checkpoint(path: str | Path, *, for_resume: bool = False) -> Checkpoint:
    """Finds and checks a checkpoint: a run, or one of its step folders.

    Args:
        path: RUN, RUN/checkpoints/step-N, or `bundled`. A run that has not finished gives its newest step.
        for_resume: take the newest step, which has the optimizer's state, even where the run has finished.

    Raises:
        CheckpointError: nothing there, not one of ours, a file missing, or a checksum that differs.
    """
    given = Path(path)
    if not for_resume and is_bundled(given):
        given = BUNDLED_MODEL
    require_run(given)
    if (given / CHECKPOINTS).is_dir() and (for_resume or not (given / MANIFEST).exists()):
        found = newest_step(given, for_resume=for_resume)
    else:
        found = Found(given, "Use another checkpoint of the run, or copy it again.")
    return check(found)


@dataclass(frozen=True)
class Found:
    """A checkpoint that is not checked yet."""

    folder: Path
    hint: str
    """What to do if it is damaged."""


def newest_step(run: Path, *, for_resume: bool = True) -> Found:
    """Returns the newest step folder of a run.

    Args:
        run: the folder of the run.
        for_resume: whether the hint is about resuming.

    Raises:
        CheckpointError: the run has no step folder yet, or the folder is not a run.
    """
    steps = list_steps(run)
    if not steps and (run / CHECKPOINTS).is_dir():
        raise CheckpointError(
            f"{run} does not hold a checkpoint yet",
            hint="Wait for its first one; or, if the run has stopped, train again into a new folder.",
        )
    if not steps:
        read_manifest(run, "")  # or it is not ours at all
        raise CheckpointError(
            f"{run} has no checkpoints to continue from; allowed: a run with its folder `{CHECKPOINTS}`",
            hint="Give the folder that `patchpad train --out` wrote, not one of its steps.",
        )
    if not for_resume:
        return Found(steps[-1], "Use another checkpoint of the run, or copy it again.")
    if len(steps) == 1:
        return Found(steps[-1], "Train again into a new folder: there is no earlier checkpoint.")
    return Found(
        steps[-1],
        f"Move {quoted(steps[-1])} to another place; then this continues from {steps[-2].name}: "
        f"{command_line(['train', '--resume', str(run)])}",
    )


def check(found: Found, *, rank: int = 0, num_ranks: int = 1) -> Checkpoint:
    """Checks that a checkpoint is whole.

    Args:
        found: the checkpoint.
        rank: of this process, if several check it together: each hashes some of the files.
        num_ranks: how many they are.

    Raises:
        CheckpointError: it is not one of ours, a file is missing, or a checksum differs.
    """
    folder, hint = found.folder, found.hint
    check_files(folder, read_manifest(folder, hint), hint, rank=rank, num_ranks=num_ranks)
    return Checkpoint(folder, _read_config(folder / CONFIG))


def require_run(folder: Path) -> None:
    """Requires that a folder is there, before it is known whether it holds a run.

    Raises:
        CheckpointError: there is none.
    """
    if not folder.is_dir():
        raise CheckpointError(
            f"no run is at {folder}",
            hint=f"Give a folder that `patchpad train --out` wrote, or `{BUNDLED}` for the shipped model.",
        )


def is_finished(run: Path) -> bool:
    """Whether a folder holds a run that was trained to its last step. False for a step folder."""
    return (run / MANIFEST).is_file() and (run / METRICS).is_file() and not (run / TRAINER).exists()


def list_steps(run: Path) -> list[Path]:
    """Returns the step folders of a run, oldest first."""
    names = (path for path in (run / CHECKPOINTS).glob("step-*") if re.fullmatch(r"step-\d+", path.name))
    found = [folder for folder in names if folder.is_dir()]
    return sorted(found, key=step_number)


def step_number(folder: Path) -> int:
    """Returns N of a step folder `step-N`."""
    return int(folder.name[5:])


def load(
    path: str | Path | None = None, *, device: str | torch.device = "cpu", weights: Weights = "fp32"
) -> LanguageModel:
    """Loads a model from a run or a step folder, in eval mode.

    Args:
        path: RUN or RUN/checkpoints/step-N; None or `bundled` for the small model that ships with the package.
        device: where to put it; names as those of `--device`.
        weights: how the trunk's linear layers keep their weights. `int8` takes a quarter of the memory and is faster
            for large trunks; `int8-all` does so in the local parts too. They are for inference on the CPU.

    Raises:
        CheckpointError: nothing there, not one of ours, incomplete, altered or of another format.
        MissingPluginError: it was trained with a plug-in that is not loaded; loading a model never imports one.
        ConfigError: an unknown device, or one that this machine lacks; or weights that cannot be there.
    """
    place = select_device(device) if isinstance(device, str) else device
    check_weights(weights, place)
    model = open_checkpoint(BUNDLED_MODEL if path is None else path).model()
    return use_int8(model, weights) if weights != "fp32" else model.to(place)


def _load_file(path: Path) -> dict[str, Tensor]:
    try:
        str(path).encode("utf-8")
    except UnicodeEncodeError:  # a path that safetensors writes to, but does not open
        return load_bytes(path.read_bytes())
    try:
        return load_file(path)
    except OSError:  # a file system that cannot map files into memory
        return load_bytes(path.read_bytes())


def _read_config(path: Path) -> Config:
    values = read_json(path)
    try:
        return Config.from_dict(values, source=str(path))
    except MissingPluginError:
        raise
    except ConfigError as error:
        wrong = error.message.removeprefix(f"{path}: ")
        raise CheckpointError(
            f"{path} is of another version of patchpad: {wrong}", hint="Load it with the version that wrote it."
        ) from error
