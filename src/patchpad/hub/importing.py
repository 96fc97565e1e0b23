"""`import_folder`: an exported folder, or one that its model has saved, becomes a run again. Needs no transformers."""

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load as load_bytes
from torch import Tensor

from patchpad.errors import CheckpointError
from patchpad.files import sha256_of
from patchpad.hub.exported import CONFIG, DIGESTS, INDEX, MODEL, WEIGHTS_PREFIX, described
from patchpad.hub.saving import weights_sha256
from patchpad.model.build import build_model
from patchpad.model.language_model import LanguageModel
from patchpad.training.checkpoint import require_finite
from patchpad.training.release import save

logger = logging.getLogger(__name__)

AGAIN = "Copy the folder again, or export the run again."


@dataclass(frozen=True)
class Imported:
    """What came of a folder."""

    model: LanguageModel
    has_stale_calibration: bool
    """Whether a calibration was left out, since the weights are no longer those that it was measured with."""


def import_folder(source: str | Path, out: str | Path) -> Imported:
    """Makes a run of a folder: weights, thresholds, calibration and configuration. Nothing is unpickled.

    Args:
        source: a folder that `patchpad export` wrote, or `save_pretrained` of the model that was loaded from one.
        out: absent, or an empty folder. It is what `patchpad release` writes: a model without metrics or optimizer.

    Raises:
        CheckpointError: the folder is not of patchpad, a file is missing, altered or does not fit, or `out` is not
            empty.
    """
    folder = Path(source)
    if not folder.is_dir():
        raise CheckpointError(
            f"no folder is at {folder}", hint="Give a folder that `patchpad export` or `save_pretrained` wrote."
        )
    if not (folder / CONFIG).is_file():
        raise CheckpointError(
            f"{folder} has no {CONFIG}", hint="Give a folder that `patchpad export` or `save_pretrained` wrote."
        )
    _check_digests(folder)
    found = described(_read_json(folder / CONFIG), str(folder / CONFIG))
    if found.config.model.kind == "bpe":
        raise CheckpointError(f"{folder} is of a `bpe` model; allowed: models of bytes", hint=AGAIN)
    model = build_model(found.config.model)
    _load_weights(model, folder)
    model.read_extra_files(folder)
    is_stale = found.calibration is not None and found.calibrated_sha256 not in (
        None,
        weights_sha256(model.state_dict()),
    )
    model.calibration = None if is_stale else found.calibration
    save(model, found.config, out)
    return Imported(model.eval(), is_stale)


def _check_digests(folder: Path) -> None:
    """Checks the files against the checksums that lie beside them."""
    path = folder / DIGESTS
    if not path.is_file():
        logger.warning("%s has no %s, so a damaged file would not be noticed", folder, DIGESTS)
        return
    for name, digest in _read_json(path).items():
        file = folder / name
        if Path(name).name != name or not file.is_file():
            raise CheckpointError(f"{file} is missing", hint=AGAIN)
        if sha256_of(file) != digest:
            raise CheckpointError(
                f"{file} was altered or is incomplete: its SHA-256 differs from {DIGESTS}",
                hint=f"{AGAIN} If you have changed it on purpose, remove {DIGESTS}.",
            )


def _load_weights(model: LanguageModel, folder: Path) -> None:
    """Reads the weights, in one file or several."""
    tensors: dict[str, Tensor] = {}
    for name in _weight_files(folder):
        try:
            tensors |= load_bytes((folder / name).read_bytes())
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"cannot read {folder / name}: {error}", hint=AGAIN) from error
    own = {name.removeprefix(WEIGHTS_PREFIX): tensor for name, tensor in tensors.items()}
    try:
        model.load_state_dict(own)
    except RuntimeError as error:
        shown = " ".join(str(error).split())[:300]
        raise CheckpointError(f"the weights of {folder} do not fit its {CONFIG}: {shown}", hint=AGAIN) from error
    require_finite(model, folder)


def _weight_files(folder: Path) -> list[str]:
    if (folder / MODEL).is_file():
        return [MODEL]
    if (folder / INDEX).is_file():
        names = _read_json(folder / INDEX).get("weight_map")
        if isinstance(names, dict) and all(Path(str(name)).name == name for name in names.values()):
            return sorted(set(names.values()))
        raise CheckpointError(f"{folder / INDEX} does not name the files of the weights", hint=AGAIN)
    hint = f"Save it with `save_pretrained`, which writes {MODEL}."
    if any(folder.glob("*.bin")) or any(folder.glob("*.pt")):
        hint += " Pickled weights are not read: they could run any code."
    raise CheckpointError(f"{folder} has no {MODEL}", hint=hint)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"cannot read {path}: {error}", hint=AGAIN) from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} is not a JSON object", hint=AGAIN)
    return content


__all__ = ["Imported", "import_folder"]
