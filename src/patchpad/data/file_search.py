"""Which files a list of files, globs and directories names."""

import errno
import fnmatch
import functools
import itertools
import logging
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from patchpad.data.folders import is_prepared_part, is_whole, whole_above
from patchpad.data.remote import find_urls, is_url
from patchpad.errors import DataError

logger = logging.getLogger(__name__)

Kind = Literal["file", "directory", "special", "missing"]
GIVE_A_PATH = "Name files, globs or directories with --data PATH."


Found = Path | str
"""A file, a folder that is a text as a whole, or the URL of a file."""


def find_files(paths: Sequence[str | Path], *, with_folders: bool = True) -> dict[Found, Found]:
    """Finds the files that paths name: those of a path sorted, a file under two spellings of its path once.

    A part of a path that is there as it is written is taken as it is written; of the others, `*`, `?` and `[...]` match
    names, and `**` matches folders at any depth, links followed, each once. Hidden names need a pattern with a dot.

    Args:
        paths: to look at; a URL is looked at by its own file system.
        with_folders: whether a folder that is a text as a whole is found in place of its files.

    Returns:
        The path that each file was found by, under its resolved path.

    Raises:
        DataError: no path, or one that is empty, matches nothing or cannot be read.
    """
    if not paths:
        raise DataError("no text was given", hint=GIVE_A_PATH)
    files: dict[Found, Found] = {}
    spellings: dict[str, Path] = {}
    num_left_out = 0
    for path in paths:
        require_path(path)
        if is_url(path):
            files.update((url, url) for url in find_urls(str(path)))
            continue
        found, others = _files_of(Path(path), with_folders)
        num_left_out += others
        for file in found:
            resolved = file.resolve()
            known = spellings.setdefault(str(resolved).casefold(), resolved)
            if known == resolved or not os.path.samefile(known, resolved):  # else it differs in case alone
                files.setdefault(resolved, file)
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
    """Yields a folder and each one below it, with the names in it that are not folders; hidden names are left out.

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


def _files_of(path: Path, with_folders: bool) -> tuple[list[Path], int]:
    """Returns the files that a path names, sorted, and the number of entries that are neither file nor folder."""
    kind = kind_of(path)
    if with_folders and kind == "directory" and (is_whole(path) or is_prepared_part(path)):
        return [path], 0
    if kind == "file":
        return [path], 0
    if kind == "special":
        raise DataError(
            f"{path} is not a regular file but a pipe, a socket or a device; allowed: a file, glob or directory",
            hint="Save the text to a file first.",
        )
    if kind == "directory":
        entries = [where / name for where, names in walk(path) for name in names]
    else:
        entries = list(dict.fromkeys(_expand(*split_pattern(path))))
    whole = _whole_folders(entries) if with_folders else {}
    folders = sorted({folder for folder in whole.values() if folder is not None})
    entries = [entry for entry in entries if whole.get(entry) is None]
    kinds = [kind_of(entry) for entry in entries]
    found = sorted([*folders, *(entry for entry, kind in zip(entries, kinds, strict=True) if kind == "file")])
    if not found and kind == "directory":
        raise DataError(f"the directory {path} holds no readable file", hint="Give a directory with text files.")
    if not found:
        raise DataError(f"no file is at {path}", hint="Check the path; globs like 'texts/*.txt' need quotes.")
    return found, sum(kind in ("special", "missing") for kind in kinds)


def _whole_folders(entries: Sequence[Path]) -> dict[Path, Path | None]:
    """Returns for each entry the folder that is a text as a whole and holds it, or is it."""
    above = {folder: whole_above(folder) for folder in {entry.parent for entry in entries}}
    return {entry: above[entry.parent] or (entry if is_whole(entry) and entry.is_dir() else None) for entry in entries}


def split_pattern(path: Path) -> tuple[Path, tuple[str, ...]]:
    """Splits a path before its first part that is a pattern, and not there as it is written."""
    fixed, parts = Path(path.anchor), path.parts[bool(path.anchor) :]
    for number, part in enumerate(parts):
        if is_pattern(part) and not _is_there(fixed / part):
            return fixed, parts[number:]
        fixed /= part
    return fixed, ()


def is_pattern(part: str) -> bool:
    """Whether a part of a path has a meaning beyond its letters."""
    return bool(set(part) & set("*?["))


def part_matches(name: str, pattern: str) -> bool:
    """Whether a name fits a part of a pattern other than `**`; a hidden name fits only what begins with a dot."""
    return fnmatch.fnmatch(name, pattern) and (not name.startswith(".") or pattern.startswith("."))


def _is_there(path: Path) -> bool:
    try:
        return os.path.lexists(path)
    except ValueError:  # a character that no path may have
        return False


def _expand(folder: Path, parts: tuple[str, ...]) -> Iterator[Path]:
    """Yields what is there below a folder and fits a pattern."""
    if not parts:
        if _is_there(folder):
            yield folder
        return
    first, rest = _first_and_rest(parts)
    if first == "**":
        for where, names in walk(folder) if os.path.isdir(folder) else ():
            yield from _expand(where, rest) if rest else (where / name for name in names)
    elif is_pattern(first):
        for name in _names_in(folder):
            if part_matches(name, first) and (not rest or os.path.isdir(folder / name)):
                yield from _expand(folder / name, rest)
    else:
        yield from _expand(folder / first, rest)


def _first_and_rest(parts: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
    """Splits a pattern behind its first part; several `**` in a row count as one."""
    rest = parts[1:]
    while parts[0] == "**" and rest[:1] == ("**",):
        rest = rest[1:]
    return parts[0], rest


def linked_folders(folder: Path, parts: tuple[str, ...]) -> Iterator[tuple[Path, tuple[str, ...]]]:
    """Yields a folder with a pattern, and each link to a folder that the pattern leads to, with what is left of it."""
    yield folder, parts
    if not parts:
        return
    first, rest = _first_and_rest(parts)
    if first == "**":
        for where, _ in walk(folder) if os.path.isdir(folder) else ():
            if where != folder and where.is_symlink():
                yield where, parts
            yield from itertools.islice(linked_folders(where, rest), 1, None)
        return
    names = [name for name in _names_in(folder) if part_matches(name, first)] if is_pattern(first) else [first]
    for path in (folder / name for name in names):
        if os.path.isdir(path):
            yield from itertools.islice(linked_folders(path, rest), 0 if path.is_symlink() else 1, None)


def _names_in(folder: Path) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError, ValueError):  # the last: a character that no path may have
        return []
    except OSError as error:
        _report_left_out(str(folder), error.strerror)
        return []


@functools.lru_cache(maxsize=1024)
def _report_left_out(folder: str, reason: str) -> None:
    logger.warning("cannot read the folder %s (%s): it is left out", folder, reason)


def _refuse_folder(error: OSError) -> None:
    raise DataError(
        f"cannot read the folder {error.filename}: {error.strerror}",
        hint="Make it readable, or name files or globs that leave it out.",
    ) from error
