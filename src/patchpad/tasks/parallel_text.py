"""Text in many languages that is aligned line by line, and the share of letters that are not Latin. Torch-free."""

import io
import re
import tarfile
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

from patchpad.data.file_reading import read_bytes
from patchpad.data.unpacking import PACKED, UNREADABLE
from patchpad.errors import DataError, near_matches, quoted
from patchpad.tasks.rows import FORMATS, Row, read_rows

LANGUAGE = "{language}"
"""Stands for a language's name in the names of files."""
LANGUAGE_PATTERN = r"[A-Za-z0-9_-]+"


def read_parallel(
    path: Path, *, file_names: Sequence[str] = (), field: str = "", languages: Sequence[str] = ()
) -> dict[str, list[bytes]]:
    """Reads a tar archive of files, a folder of files, or rows with a field for each language.

    Args:
        path: what to read. Archives may be packed (.tar.gz, .tar.bz2, .tar.xz); rows are those of `read_rows`.
        file_names: of an archive or a folder: names of its files, with `{language}` where the language's name stands; a
            file holds one language, a sentence a line.
        field: of rows: the field that maps each language to its sentence; empty: the fields of a row are the languages,
            those that hold no text left out.
        languages: to read; empty: all.

    Returns:
        Language -> its sentences, line by line, without the ends of lines; an empty one has no translation. Sorted by
        name, or as `languages` has them.

    Raises:
        DataError: it cannot be read, languages differ in their numbers of lines, or one that was asked for is missing.
    """
    try:
        found = _from_rows(path, field) if _has_rows(path) else _from_files(path, file_names)
    except (*UNREADABLE, tarfile.TarError) as error:
        raise DataError(f"cannot read {path}: {error}", hint="Check that the file is complete and readable.") from error
    for language in languages:
        if language not in found:
            raise DataError(f"{path} has no language `{language}`", hint=near_matches(language, found))
    kept = {name: found[name] for name in (languages or sorted(found))}
    _check_alignment(path, kept)
    return kept


def _has_rows(path: Path) -> bool:
    """Returns whether a file's name says that it holds rows of fields."""
    name = Path(path.stem) if path.suffix.lower() in PACKED else path
    return not path.is_dir() and name.suffix.lower() in FORMATS


def _check_alignment(path: Path, sentences: Mapping[str, Sequence[bytes]]) -> None:
    counts = {language: len(column) for language, column in sentences.items()}
    first = next(iter(counts), None)
    if first is None or not counts[first]:
        raise DataError(
            f"{path} holds no sentence in any language",
            hint="Check `file_names` or `language_field` in the file of the task.",
        )
    for language, count in counts.items():
        if count != counts[first]:
            raise DataError(
                f"{path}: `{language}` has {count:,} lines and `{first}` has {counts[first]:,}; "
                "allowed: as many in each, line by line the same sentences",
                hint="Restore the file of the shorter one.",
            )


def files_read(path: Path, file_names: Sequence[str]) -> list[Path]:
    """Returns the files that `read_parallel` reads."""
    if not path.is_dir():
        return [path]
    language_of = _matcher(path, file_names)
    return [path / name for name in _names(path) if language_of(name) is not None]


def _matcher(path: Path, file_names: Sequence[str]) -> Callable[[str], str | None]:
    """Returns what tells the language of a file from its name; None: it is of none."""
    if not file_names or any(name.count(LANGUAGE) != 1 for name in file_names):
        raise DataError(
            f"{path}: `file_names` is {list(file_names)}; allowed: names of files, each with {LANGUAGE} once",
            hint="Say in the file of the task how the files are called.",
        )
    parts = [name.split(LANGUAGE) for name in file_names]
    patterns = [re.compile(f"{re.escape(before)}({LANGUAGE_PATTERN}){re.escape(after)}") for before, after in parts]
    return lambda name: next((match[1] for pattern in patterns if (match := pattern.fullmatch(name))), None)


def _names(folder: Path) -> list[str]:
    """Returns the names of a folder's files, sorted, relative and with slashes."""
    return sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())


def _from_files(path: Path, file_names: Sequence[str]) -> dict[str, list[bytes]]:
    """Returns the lines of each language's file in a folder or an archive."""
    language_of = _matcher(path, file_names)
    found: dict[str, list[bytes]] = {}
    for name, stream in _members(path):
        language = language_of(name)
        if language is None:
            continue
        if language in found:
            raise DataError(
                f"{path} has two files for the language `{language}`, {name} among them",
                hint="Say in `file_names` of the task which of them is meant.",
            )
        found[language] = _lines(stream.read())
    if not found:
        raise DataError(
            f"{path} holds no file called {' or '.join(file_names)}", hint=f"See what it holds: {_listing(path)}"
        )
    return found


def _listing(path: Path) -> str:
    return f"ls {quoted(path)}" if path.is_dir() else f"tar -tf {quoted(path)}"


def _members(path: Path) -> Iterator[tuple[str, IO[bytes]]]:
    """Yields name and content of each file, names relative and with slashes."""
    if path.is_dir():
        for name in _names(path):
            with open(path / name, "rb") as stream:
                yield name, stream
        return
    content = io.BytesIO(read_bytes(path))  # a cut .xz is an error here, and the end of the archive to `tarfile`
    with tarfile.open(fileobj=content, mode="r:") as archive:
        for member in archive:
            stream = archive.extractfile(member) if member.isfile() else None
            if stream is not None:
                yield member.name.removeprefix("./"), stream


def _lines(content: bytes) -> list[bytes]:
    r"""Returns lines that end with \n or \r\n, without their ends; what stands behind the last end is a line too."""
    lines = content.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    if not lines[-1]:
        del lines[-1]
    return [line.removesuffix(b"\r") for line in lines]


def _from_rows(path: Path, field: str) -> dict[str, list[bytes]]:
    """Returns the sentences of each language that any row has; b"" where a row lacks it."""
    rows = [_texts(row, field) for row in read_rows(path, [field] if field else ())]
    languages = sorted({language for row in rows for language in row})
    return {
        language: [row.get(language, "").encode("utf-8", "surrogatepass") for row in rows] for language in languages
    }


def _texts(row: Row, field: str) -> dict[str, str]:
    """Returns language -> sentence of a row."""
    if not field:
        return {language: text for language, text in row.items() if isinstance(text, str)}
    texts = row[field]
    if not isinstance(texts, dict) or not all(isinstance(text, str) for text in texts.values()):
        raise DataError(
            f"{row.place}: `{field}` is {str(texts)[:60]!r}; allowed: an object, language to sentence",
            hint="Fix the line, or change `language_field` in the file of the task.",
        )
    return texts


def non_latin_share(text: str) -> float:
    """Returns the share of a text's letters that are not Latin, from 0 to 1; 0 for text without letters."""
    letters = [character for character in text if unicodedata.category(character).startswith("L")]
    others = sum(not unicodedata.name(letter, "").startswith(("LATIN", "MODIFIER LETTER")) for letter in letters)
    return others / len(letters) if letters else 0.0
