"""Files become documents: unpacked where they are packed, read late where they are plain and large."""

import io
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Literal

import numpy as np

from patchpad.config import TextConfig
from patchpad.data.arrow import arrow_parts, parquet_parts
from patchpad.data.corpus import Corpus
from patchpad.data.documents import FileDocuments
from patchpad.data.file_search import Found, find_files
from patchpad.data.folders import dataset_files, is_prepared_part, measured_part
from patchpad.data.open_files import OpenedFile
from patchpad.data.prepared import open_part
from patchpad.data.records import BadRecord, Gatherer, LeftOut, json_document
from patchpad.data.remote import open_url
from patchpad.data.unpacking import PACKED, UNREADABLE, unpacked
from patchpad.errors import DataError, PatchpadError, quoted

JSON_LINES = (".jsonl", ".ndjson")
UNPACK_WITH = {
    ".zst": "zstd -d",
    ".zip": "unzip",
    ".7z": "7z x",
    ".lz4": "lz4 -d",
    ".br": "brotli -d",
    ".rar": "unrar x",
    ".tar": "tar -xf",
    ".tgz": "tar -xzf",
    ".tbz2": "tar -xjf",
    ".txz": "tar -xJf",
    ".lzma": "unlzma",
    ".z": "uncompress",
}
COLUMNS = (".parquet", ".arrow")
READ_FORMATS = "plain text, .jsonl, .parquet, .arrow, and .gz, .bz2, .xz of plain text or .jsonl"
SMALLEST_READ_LATE = 1 << 20
"""Smaller plain files are read at once."""


class FileReader:
    """Reads files, and counts what it leaves out.

    Args:
        data: says how; its paths are not looked at.
    """

    def __init__(self, data: TextConfig) -> None:
        self.data = data
        self.left_out = LeftOut(data.most_bad_records)

    def find(self, paths: Sequence[str | Path]) -> dict[Found, Found]:
        """Finds what paths name: see `find_files`."""
        return find_files(paths, with_folders=self.data.format == "auto")

    def corpus(self, items: Collection[Found]) -> Corpus:
        """Reads what `find` found.

        Raises:
            DataError: an unreadable file or record, or no text at all.
            MissingExtraError: a library that reads one of them is not installed.
        """
        num_empty = self.left_out.num_empty
        parts = [part for item in items for part in self.parts(item)]
        if not parts:
            shown = [str(item) for item in islice(items, 3)] + ["..."] * (len(items) > 3)
            message = f"{', '.join(shown)}: no text, only {self.left_out.num_empty - num_empty} empty document(s)"
            raise DataError(message, hint="Give at least one byte of text.")
        return Corpus.join(parts)

    def parts(self, item: Found) -> Iterator[Corpus]:
        """Yields the documents of a file or folder that are not empty, in order, some at a time.

        Raises:
            DataError: it is packed in a way that is not read here, cannot be read, or is not what its name says.
            MissingExtraError: the library that reads it is not installed.
        """
        try:
            if self.data.format == "raw":
                yield from self._plain(item)
            elif isinstance(item, Path) and item.is_dir():
                yield from self._folder(item)
            else:
                yield from self._by_name(item)
        except (*UNREADABLE, ValueError) as error:
            if isinstance(error, PatchpadError):
                raise
            raise _unreadable(item, error) from error

    def _folder(self, folder: Path) -> Iterator[Corpus]:
        if is_prepared_part(folder):
            yield open_part(folder)
            return
        for file in dataset_files(folder):
            yield from self.parts(file)

    def _by_name(self, item: Found) -> Iterator[Corpus]:
        name = str(item)
        suffix = Path(name).suffix.lower()
        if suffix in UNPACK_WITH:
            raise DataError(
                f"{item} is packed as {suffix}; allowed: {READ_FORMATS}",
                hint=f"Unpack it first: {UNPACK_WITH[suffix]} {quoted(item)}",
            )
        inner = Path(Path(name).stem).suffix.lower() if suffix in PACKED else suffix
        if inner == ".tar":
            raise DataError(f"{item} is a tar archive", hint=f"Unpack it first: tar -xf {quoted(item)}")
        if suffix in COLUMNS:
            parts = parquet_parts if suffix == ".parquet" else arrow_parts
            if isinstance(item, Path):
                yield from parts(item, name, self.data.text_field, self.left_out)
            else:
                with _open(item) as stream:
                    yield from parts(stream, name, self.data.text_field, self.left_out)
        elif inner in JSON_LINES:
            with _open(item) as stream:
                yield from self._json_lines(name, unpacked(stream, suffix))
        elif suffix in PACKED:
            yield from self._document(name, read_bytes(item))
        else:
            yield from self._plain(item)

    def _plain(self, item: Found) -> Iterator[Corpus]:
        opened = OpenedFile.of(str(item)) if isinstance(item, Path) else None
        with _open(item) as stream:  # says now what cannot be read later
            if opened is None or opened.num_bytes < SMALLEST_READ_LATE:
                yield from self._document(str(item), stream.read())
                return
        length = np.array([opened.num_bytes], dtype=np.int64)
        yield Corpus(FileDocuments([opened], np.zeros(1, dtype=np.int64), length), (opened.path,))

    def _document(self, name: str, content: bytes) -> Iterator[Corpus]:
        if content:
            yield Corpus((np.frombuffer(content, dtype=np.uint8),), (name,))
        else:
            self.left_out.num_empty += 1

    def _json_lines(self, name: str, lines: Iterable[bytes]) -> Iterator[Corpus]:
        gatherer = Gatherer(name, self.left_out)
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                text, prompt_bytes = json_document(line, self.data.text_field)
            except BadRecord as error:
                self.left_out.add_bad(f"{name}, line {number}", error.reason, error.hint)
            else:
                yield from gatherer.add(number, text, prompt_bytes)
        yield from gatherer.rest()


def open_corpus(
    paths: Sequence[str | Path] | str | Path,
    *,
    format: Literal["auto", "raw"] = "auto",
    text_field: str = "text",
    most_bad_records: int = 0,
) -> Corpus:
    """Reads files, globs and directories (recursively, links followed, hidden names left out), in sorted order.

    A plain or compressed (.gz, .bz2, .xz) file is one document; each line of a .jsonl file is one, and each row of a
    .parquet file or of a folder that `datasets` has saved. Of a folder with several parts the one that is held out is
    read: name a part to read another.

    Args:
        paths: what to read.
        format: see `TextConfig`, as for what follows.
        text_field: of JSONL.
        most_bad_records: that are left out.

    Raises:
        DataError: a path that matches nothing, an unreadable file or line, or no text at all.
        ConfigError: a value that is not allowed.
    """
    reader = FileReader(TextConfig(format=format, text_field=text_field, most_bad_records=most_bad_records))
    found = reader.find([paths] if isinstance(paths, str | Path) else list(paths)).values()
    corpus = reader.corpus([measured_part(item) if isinstance(item, Path) else item for item in found])
    reader.left_out.report()
    return corpus


def read_bytes(item: Found) -> bytes:
    """Returns the content of a file, unpacked where its name says so (.gz, .bz2, .xz).

    Raises:
        DataError: it cannot be read, or is not what its name says.
    """
    try:
        with _open(item) as stream:
            return unpacked(stream, Path(str(item)).suffix.lower()).read()
    except UNREADABLE as error:
        raise _unreadable(item, error) from error


def _open(item: Found) -> io.BufferedReader:
    return open(item, "rb") if isinstance(item, Path) else open_url(item)


def _unreadable(item: Found, error: Exception) -> DataError:
    return DataError(f"cannot read {item}: {error}", hint="Check that the file is complete and readable.")
