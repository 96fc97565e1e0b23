"""Which files a list of files, globs and directories names."""

import errno
import glob
import logging
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from patchpad.errors import DataError

logger = logging.getLogger(__name__)

Kind = Literal["file", "directory", "special", "missing"]
GIVE_A_PATH = "Name files, globs or directories with --data PATH."


def find_files(paths: Sequence[str | Path]) -> dict[Path, Path]:
    """Finds the files that paths name: those of a path sorted, a file under two spellings of its path once.

    Returns:
        The path that each file was found by, under its resolved path.

    Raises:
        DataError: no path, or one that is empty, matches nothing or cannot be read.
    """
    if not paths:
        raise DataError("no text was given", hint=GIVE_A_PATH)
    files: dict[Path, Path] = {}
    num_left_out = 0
    for path in paths:
        require_path(path)
        found, others = _files_of(Path(path))
        num_left_out += others
        for file in found:
            files.setdefault(file.resolve(), file)
    if num_left_out:
        logger.warning("%d dangling link(s), pipes or other entries without text are left out", num_left_out)
    return files


def require_path(path: str | Path) -> None:
    """Refuses the empty path, which would be the working folder with all that lies in it.

    Raises:
        DataError: it is empty.
    """
    if str(path) == "":
        raise DataError("the path of a text is empty; allowed: a file, glob or directory", hint=GIVE_A_PATH)


def walk(folder: Path) -> Iterator[tuple[Path, list[str]]]:
    """Yields a folder and each one below it, with the names in it that are no folders; hidden names are left out.

    Links to folders are followed after all that lies in `folder` itself; no folder comes twice, so that loops end.

    Raises:
        DataError: a folder that cannot be read.
    """
    visited: set[str] = set()
    waiting = [str(folder)]
    while waiting:
        for where, folders, names in os.walk(waiting.pop(0), onerror=_refuse_folder):
            real = os.path.realpath(where)
            if real in visited:
                folders.clear()
                continue
            visited.add(real)
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            below = [os.path.join(where, name) for name in folders]
            waiting += [path for path in below if os.path.islink(path)]
            yield Path(where), [name for name in names if not name.startswith(".")]


def kind_of(path: Path) -> Kind:
    """Returns what is at a path, links followed; "special" is a pipe, a socket or a device.

    Raises:
        DataError: it cannot be looked at: a locked folder, a path that is too long.
    """
    try:
        mode = os.stat(path).st_mode
    except ValueError:  # a character that no path may have
        return "missing"
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return "missing"
        raise DataError(
            f"cannot read {path}: {error.strerror}", hint="Check the path and the permissions of its folders."
        ) from error
    if stat.S_ISDIR(mode):
        return "directory"
    return "file" if stat.S_ISREG(mode) else "special"


def _files_of(path: Path) -> tuple[list[Path], int]:
    """Returns the files that a path names, sorted, and the number of entries that are neither file nor folder."""
    kind = kind_of(path)
    if kind == "file":
        return [path], 0
    if kind == "special":
        raise DataError(
            f"{path} is no regular file but a pipe, a socket or a device; allowed: a file, glob or directory",
            hint="Save the text to a file first.",
        )
    if kind == "directory":
        entries = [where / name for where, names in walk(path) for name in names]
    else:
        entries = [Path(match) for match in _glob(str(path))]
    kinds = [kind_of(entry) for entry in entries]
    found = sorted(entry for entry, kind in zip(entries, kinds, strict=True) if kind == "file")
    if not found and kind == "directory":
        raise DataError(f"the directory {path} holds no readable file", hint="Give a directory with text files.")
    if not found:
        raise DataError(f"no file is at {path}", hint="Check the path; globs like 'texts/*.txt' need quotes.")
    return found, sum(kind in ("special", "missing") for kind in kinds)


def _glob(pattern: str) -> list[str]:
    try:
        return glob.glob(pattern, recursive=True)
    except ValueError:  # a character that no path may have
        return []


def _refuse_folder(error: OSError) -> None:
    raise DataError(
        f"cannot read the folder {error.filename}: {error.strerror}",
        hint="Make it readable, or name files or globs that leave it out.",
    ) from error
