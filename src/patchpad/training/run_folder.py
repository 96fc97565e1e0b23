"""Where a new run may begin."""

from pathlib import Path

from patchpad.errors import ConfigError
from patchpad.training.checkpoint import CHECKPOINTS, MANIFEST, list_steps


def require_new(folder: Path) -> None:
    """Requires that a run can begin in a folder: it is absent or empty, or a run began there and saved nothing yet.

    Raises:
        ConfigError: it holds something else.
    """
    if not folder.exists() or _is_new(folder):
        return
    message = f"{folder} exists and is not empty; a run needs a new folder"
    hint = "Choose another --out."
    if list_steps(folder):
        hint = f"Choose another --out, or go on with `patchpad train --resume {folder}`."
    elif (folder / CHECKPOINTS).is_dir() and not (folder / MANIFEST).exists():
        message = f"{folder} holds a run without a checkpoint yet; a run needs a new folder"
        hint = f"Choose another --out; or, if that run has stopped, remove {folder} and train again."
    raise ConfigError(message, hint=hint)


def _is_new(folder: Path) -> bool:
    """Whether a folder holds nothing, or what a run leaves that stopped before it wrote anything."""
    if not folder.is_dir():
        return False
    inside = list(folder.iterdir())
    return not inside or (inside == [folder / CHECKPOINTS] and not any(inside[0].iterdir()))
