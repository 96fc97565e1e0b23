"""The text of a run: what is trained on, what is held out, and where the run itself must not lie."""

import fnmatch
import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from patchpad.config import Config
from patchpad.data import Corpus, split_corpus
from patchpad.data.corpus import read_corpus
from patchpad.data.file_search import find_files, kind_of, require_path, walk
from patchpad.errors import ConfigError, DataError
from patchpad.training import checkpoint as files

logger = logging.getLogger(__name__)

FILES_BESIDE = ("report.html", "quickstart.json", "training.json")
"""What `patchpad quickstart` and `patchpad study` put into the folder of a run."""


def absolute_paths(paths: Sequence[str | Path]) -> tuple[str, ...]:
    """Makes paths independent of the working folder, so that a run can be resumed from any.

    Raises:
        DataError: an empty path, which would be the working folder.
    """
    for path in paths:
        require_path(path)
    return tuple(str(Path(path).absolute()) for path in paths)


def open_data(config: Config) -> tuple[Corpus, Corpus]:
    """Returns the training and validation documents of a configuration; no held-out file is trained on.

    Raises:
        DataError: text that is missing, unreadable or too little.
    """
    data = config.data
    training = find_files(data.paths)
    if not data.validation_paths:
        return split_corpus(read_corpus(training.values()), data.validation_fraction)
    held_out = find_files(data.validation_paths)
    left = {resolved: file for resolved, file in training.items() if resolved not in held_out}
    if not left:
        raise DataError(
            f"all files of {', '.join(data.paths)} are held out, so that no text is left to train on",
            hint="Give other files to train on, or leave data.validation_paths out: a part is held out then.",
        )
    if len(left) < len(training):
        logger.warning("%d file(s) are held out and therefore not trained on", len(training) - len(left))
    return read_corpus(left.values()), read_corpus(held_out.values())


def require_outside(out: Path, config: Config) -> None:
    """Refuses a run whose own files would be text, then and ever after: inside a folder, or where a glob looks.

    Raises:
        ConfigError: it lies there.
    """
    place = out.resolve()
    for path in map(Path, (*config.data.paths, *config.data.validation_paths)):
        kind = kind_of(path)
        if kind == "directory" and any(place.is_relative_to(folder.resolve()) for folder, _ in walk(path)):
            raise ConfigError(
                f"{out} lies inside {path}, whose files are all read as text",
                hint="Choose an --out outside of it, or name files or globs with --data.",
            )
        if kind == "missing":
            for file in _files_of_run(place, config.train.steps):
                if glob_matches(path, file):
                    raise ConfigError(
                        f"{out} lies where {path} finds text: the run's own {file.name} would be read as text",
                        hint="Choose an --out outside of it, or a narrower glob, such as 'texts/**/*.txt'.",
                    )


def _files_of_run(out: Path, steps: int) -> Iterator[Path]:
    """Yields what a run writes; of its step folders the last, which stands for all."""
    kept = (files.CONFIG, files.MODEL, files.CALIBRATION, files.METRICS, files.MANIFEST, *files.EXTRA_FILES)
    for name in (*kept, *FILES_BESIDE):
        yield out / name
    for name in (*kept, files.OPTIMIZER, files.TRAINER):
        yield out / files.CHECKPOINTS / f"step-{steps}" / name


def glob_matches(pattern: Path, file: Path) -> bool:
    """Whether `glob.glob(pattern, recursive=True)` would find a file, be it there or not; `file` is resolved."""
    parts = pattern.parts
    num_fixed = next((number for number, part in enumerate(parts) if set(part) & set("*?[")), len(parts))
    fixed = Path(*parts[:num_fixed]).resolve()
    return file.is_relative_to(fixed) and _parts_match(parts[num_fixed:], file.relative_to(fixed).parts)


def _parts_match(pattern: Sequence[str], parts: Sequence[str]) -> bool:
    if not pattern:
        return not parts
    first, rest = pattern[0], pattern[1:]
    is_hidden = bool(parts) and parts[0].startswith(".")
    if first == "**":
        return _parts_match(rest, parts) or (bool(parts) and not is_hidden and _parts_match(pattern, parts[1:]))
    if not parts or (is_hidden and not first.startswith(".")):
        return False
    return fnmatch.fnmatch(parts[0], first) and _parts_match(rest, parts[1:])


def mapped_files(*corpora: Corpus) -> set[str]:
    """Returns the files whose text is read while it is used; the others lie in memory."""
    documents = (document for corpus in corpora for document in corpus.documents)
    return {str(document.filename) for document in documents if isinstance(document, np.memmap)}


def file_states(paths: Iterable[str]) -> dict[str, tuple[int, int] | None]:
    """Returns size and time of the last change of files; None for one that is gone."""
    states: dict[str, tuple[int, int] | None] = {}
    for path in paths:
        try:
            status = os.stat(path)
            states[path] = (status.st_size, status.st_mtime_ns)
        except OSError:
            states[path] = None
    return states
