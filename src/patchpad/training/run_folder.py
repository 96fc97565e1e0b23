"""Where a new run may begin: in a folder that is new, and outside of its own text."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from patchpad.config import DataConfig
from patchpad.data.file_search import kind_of, linked_folders, part_matches, split_pattern, walk
from patchpad.data.remote import is_url
from patchpad.errors import ConfigError
from patchpad.registry import command_line
from patchpad.run_lock import LOCK, require_free
from patchpad.training.checkpoint import list_steps
from patchpad.training.manifest import (
    CALIBRATION,
    CHECKPOINTS,
    CONFIG,
    EXTRA_FILES,
    MANIFEST,
    MODEL,
    OPTIMIZER,
    TRAINER,
    WEIGHTS,
)
from patchpad.training.metrics import METRICS
from patchpad.training.samples import SAMPLES
from patchpad.training.tensor_folders import FIRST_SHARD


def require_new(folder: Path) -> None:
    """Requires that a run can begin in a folder: it is absent or empty, or a run began there and saved nothing yet.

    Raises:
        ConfigError: it holds something else.
        RunInUseError: a run is being made there.
    """
    if not folder.exists() or _is_new(folder):
        return
    require_free(folder)
    message = f"{folder} exists and is not empty; a run needs a new folder"
    hint = "Choose another --out."
    if list_steps(folder):
        hint = f"Choose another --out, or continue with: {command_line(['train', '--resume', str(folder)])}"
    elif (folder / CHECKPOINTS).is_dir() and not (folder / MANIFEST).exists():
        message = f"{folder} holds a run that stopped before its first checkpoint; a run needs a new folder"
        hint = "Choose another --out, or move that folder away."
    raise ConfigError(message, hint=hint)


def _is_new(folder: Path) -> bool:
    """Whether a folder holds nothing, or what a run leaves that stopped before it wrote anything."""
    if not folder.is_dir():
        return False
    inside = [path for path in folder.iterdir() if path.name != LOCK]
    return not inside or (inside == [folder / CHECKPOINTS] and not any(inside[0].iterdir()))


def require_outside(out: Path, data: DataConfig, *, steps: int, beside: Sequence[str] = ()) -> None:
    """Refuses a run whose own files would be text, then and ever after: inside a folder, or where a glob looks.

    Args:
        out: the run's folder.
        data: where its text lies.
        steps: of the whole run.
        beside: names of further files that the caller puts into the run's folder.

    Raises:
        ConfigError: it lies there.
    """
    place = out.resolve()
    for path in (Path(path) for path in data.all_paths if not is_url(path)):
        kind = kind_of(path)
        if kind == "directory" and any(place.is_relative_to(folder.resolve()) for folder, _ in walk(path)):
            raise ConfigError(
                f"{out} lies inside {path}, whose files are all read as text",
                hint="Choose an --out outside of it, or name files or globs with --data.",
            )
        if kind == "missing":
            for file in _files_of_run(place, steps, beside):
                if glob_matches(path, file):
                    raise ConfigError(
                        f"{out} lies where {path} finds text: the run's own {file.name} would be read as text",
                        hint="Choose an --out outside of it, or a narrower glob, such as 'texts/**/*.txt'.",
                    )


def _files_of_run(out: Path, steps: int, beside: Sequence[str]) -> Iterator[Path]:
    """Yields what a run writes; of its step folders the last, which stands for all."""
    kept = (CONFIG, CALIBRATION, METRICS, MANIFEST, *EXTRA_FILES)
    for name in (*kept, MODEL, SAMPLES, *beside):
        yield out / name
    for name in (*kept, TRAINER, f"{WEIGHTS}/{FIRST_SHARD}", f"{OPTIMIZER}/{FIRST_SHARD}"):
        yield out / CHECKPOINTS / f"step-{steps}" / name


def glob_matches(pattern: Path, file: Path) -> bool:
    """Whether `find_files` would find a file by a pattern, be it there or not; `file` is resolved."""
    for folder, parts in linked_folders(*split_pattern(pattern)):
        place = folder.resolve()
        if file.is_relative_to(place) and _parts_match(parts, file.relative_to(place).parts):
            return True
    return False


def _parts_match(pattern: Sequence[str], parts: Sequence[str]) -> bool:
    if not pattern:
        return not parts
    first, rest = pattern[0], pattern[1:]
    if first == "**":
        is_hidden = bool(parts) and parts[0].startswith(".")
        if not rest and len(parts) == 1:
            return not is_hidden
        return _parts_match(rest, parts) or (bool(parts) and not is_hidden and _parts_match(pattern, parts[1:]))
    return bool(parts) and part_matches(parts[0], first) and _parts_match(rest, parts[1:])
