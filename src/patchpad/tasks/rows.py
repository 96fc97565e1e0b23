"""Rows of a task's data: JSON, JSONL, tab- or comma-separated, packed or not. A malformed row names file and line."""

import csv
import io
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from patchpad.data.unpacking import PACKED, UNREADABLE, unpacked
from patchpad.errors import DataError

FORMATS = (".jsonl", ".ndjson", ".json", ".tsv", ".csv")
READ = f"{', '.join(FORMATS)}, each also as .gz, .bz2 or .xz"


class Row(dict[str, Any]):
    """Fields of a row, by name.

    Args:
        values: the fields.
        file: it stands in.
        number: of its line, from 1; of its entry where the file is one JSON list.
        unit: "line" or "entry".
    """

    def __init__(self, values: dict[str, Any], file: Path, number: int, unit: str = "line") -> None:
        super().__init__(values)
        self.place = f"{file}, {unit} {number}"
        """For messages."""
        self.id = f"{file.name}:{number}"
        """Names the example in results; the same wherever the file lies."""

    def with_values(self, **values: Any) -> "Row":
        """Returns the row with further or other fields, at the same place."""
        copy = Row.__new__(Row)
        dict.__init__(copy, {**self, **values})
        copy.place, copy.id = self.place, self.id
        return copy


def read_rows(path: str | Path, fields: Iterable[str] = ()) -> Iterator[Row]:
    """Yields the rows of a file, in order; empty lines are skipped.

    Args:
        path: .jsonl, .ndjson, .json (a list of objects), .tsv (no quoting) or .csv, whose first line names the fields.
        fields: that each row must have.

    Raises:
        DataError: another format, a file that cannot be read, no row at all, or a malformed row, named by its line.
    """
    path, fields = Path(path), tuple(fields)
    suffix = path.suffix.lower()
    inner = Path(path.stem).suffix.lower() if suffix in PACKED else suffix
    if inner not in FORMATS:
        raise DataError(f"{path} is not a kind of file that tasks read; allowed: {READ}", hint="Convert it first.")
    read = {".json": _entries, ".tsv": _tab_separated, ".csv": _comma_separated}.get(inner, _json_lines)
    is_empty = True
    try:
        with open(path, "rb") as stream:
            for row in read(path, unpacked(stream, suffix)):
                is_empty = False
                missing = next((name for name in fields if name not in row), None)
                if missing is not None:
                    raise _malformed(row.place, f"has no field `{missing}`; it has {', '.join(row) or 'none'}")
                yield row
    except UNREADABLE as error:
        raise DataError(f"cannot read {path}: {error}", hint="Check that the file is complete and readable.") from error
    if is_empty:
        raise DataError(f"{path} has no rows; allowed: at least one", hint="Check that the file is complete.")


def _json_lines(path: Path, lines: Iterable[bytes]) -> Iterator[Row]:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            values = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise _malformed(f"{path}, line {number}", f"is not JSON: {error}") from error
        yield _row_of(values, path, number, "line")


def _entries(path: Path, stream: io.BufferedReader) -> Iterator[Row]:
    try:
        values = json.loads(stream.read())
    except (ValueError, RecursionError) as error:
        raise _malformed(str(path), f"is not JSON: {error}") from error
    if not isinstance(values, list):
        raise _malformed(str(path), f"holds {type(values).__name__}; allowed: a list of objects")
    for number, entry in enumerate(values, start=1):
        yield _row_of(entry, path, number, "entry")


def _row_of(values: Any, path: Path, number: int, unit: str) -> Row:
    if not isinstance(values, dict):
        found = type(values).__name__
        raise _malformed(f"{path}, {unit} {number}", f"is of type {found}; allowed: an object with fields")
    return Row(values, path, number, unit)


def _tab_separated(path: Path, stream: io.BufferedReader) -> Iterator[Row]:
    return _columns(path, (line.rstrip("\r\n").split("\t") for line in _text_lines(path, stream)))


def _comma_separated(path: Path, stream: io.BufferedReader) -> Iterator[Row]:
    reader = csv.reader(_text_lines(path, stream), strict=True)
    try:
        yield from _columns(path, reader)
    except csv.Error as error:
        raise _malformed(f"{path}, line {reader.line_num}", f"is not comma-separated: {error}") from error


def _text_lines(path: Path, stream: io.BufferedReader) -> Iterator[str]:
    for number, line in enumerate(stream, start=1):
        try:
            yield line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise _malformed(f"{path}, line {number}", f"is not UTF-8: {error.reason}") from error


def _columns(path: Path, lines: Iterable[list[str]]) -> Iterator[Row]:
    names: list[str] | None = None
    for number, cells in enumerate(lines, start=1):
        if cells in ([], [""]):
            continue
        line = getattr(lines, "line_num", number)  # a quoted cell may hold line breaks
        if names is None:
            names = cells
            twice = next((name for name in names if names.count(name) > 1), None)
            if twice is not None:
                raise _malformed(f"{path}, line {line}", f"names the field `{twice}` twice")
            continue
        if len(cells) != len(names):
            raise _malformed(f"{path}, line {line}", f"has {len(cells)} columns; allowed: {len(names)}, as in line 1")
        yield Row(dict(zip(names, cells, strict=True)), path, line)


def _malformed(place: str, problem: str) -> DataError:
    return DataError(f"{place} {problem}", hint="Fix the line or the file; no row is left out.")
