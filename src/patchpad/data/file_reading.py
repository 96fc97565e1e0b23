"""Files become documents: unpacked where they are packed, read late where they are plain and large."""

import logging
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Literal

import numpy as np

from patchpad.config import TextConfig
from patchpad.data.corpus import Corpus
from patchpad.data.documents import FileDocuments
from patchpad.data.file_search import find_files
from patchpad.data.open_files import OpenedFile
from patchpad.data.records import BadRecord, BadRecords, Gatherer, json_document
from patchpad.data.unpacking import PACKED, UNREADABLE, unpacked
from patchpad.errors import DataError, quoted

logger = logging.getLogger(__name__)

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
SMALLEST_READ_LATE = 1 << 20
"""Smaller plain files are read at once."""


class FileReader:
    """Reads files, and counts what it leaves out.

    Args:
        data: says how; its paths are not looked at.
    """

    def __init__(self, data: TextConfig) -> None:
        self.data = data
        self.bad = BadRecords(data.most_bad_records)
        self.num_empty = 0

    def corpus(self, files: Collection[Path]) -> Corpus:
        """Reads files that `find_files` found.

        Raises:
            DataError: an unreadable file or record, or no text at all.
        """
        num_empty = self.num_empty
        parts = [part for file in files for part in self.parts(file)]
        if not parts:
            shown = [str(file) for file in islice(files, 3)] + ["..."] * (len(files) > 3)
            message = f"{', '.join(shown)}: no text, only {self.num_empty - num_empty} empty document(s)"
            raise DataError(message, hint="Give at least one byte of text.")
        return Corpus.join(parts)

    def report(self) -> None:
        """Logs what was left out."""
        if self.num_empty:
            logger.warning("%d empty document(s) have nothing to predict and are left out", self.num_empty)
        self.bad.report()

    def parts(self, file: Path) -> Iterator[Corpus]:
        """Yields the documents of a file that are not empty, in order, some at a time.

        Raises:
            DataError: it is packed in a way that is not read here, cannot be read, or is not what its name says.
        """
        try:
            yield from self._plain(file) if self.data.format == "raw" else self._by_name(file)
        except (*UNREADABLE, ValueError) as error:
            if isinstance(error, DataError):
                raise
            raise _unreadable(file, error) from error

    def _by_name(self, file: Path) -> Iterator[Corpus]:
        suffix = file.suffix.lower()
        if suffix in UNPACK_WITH:
            raise DataError(
                f"{file} is packed as {suffix}; allowed: plain text, .jsonl, .gz, .bz2, .xz",
                hint=f"Unpack it first: {UNPACK_WITH[suffix]} {quoted(file)}",
            )
        if suffix in (".parquet", ".arrow"):
            raise DataError(
                f"{file} is {suffix[1:]}; allowed: plain text, .jsonl, .gz, .bz2, .xz", hint="Export it to JSONL."
            )
        inner = Path(file.stem).suffix.lower() if suffix in PACKED else suffix
        if inner == ".tar":
            raise DataError(f"{file} is a tar archive", hint=f"Unpack it first: tar -xf {quoted(file)}")
        if inner in JSON_LINES:
            with open(file, "rb") as stream:
                yield from self._json_lines(file, unpacked(stream, suffix))
        elif suffix in PACKED:
            yield from self._document(file, read_bytes(file))
        else:
            yield from self._plain(file)

    def _plain(self, file: Path) -> Iterator[Corpus]:
        opened = OpenedFile.of(str(file))
        if opened.num_bytes < SMALLEST_READ_LATE:
            yield from self._document(file, file.read_bytes())
        else:
            with open(file, "rb"):  # says now what cannot be read later
                pass
            length = np.array([opened.num_bytes], dtype=np.int64)
            yield Corpus(FileDocuments([opened], np.zeros(1, dtype=np.int64), length), (str(file),))

    def _document(self, file: Path, content: bytes) -> Iterator[Corpus]:
        if content:
            yield Corpus((np.frombuffer(content, dtype=np.uint8),), (str(file),))
        else:
            self.num_empty += 1

    def _json_lines(self, file: Path, lines: Iterable[bytes]) -> Iterator[Corpus]:
        gatherer = Gatherer(str(file))
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                text, prompt_bytes = json_document(line, self.data.text_field)
            except BadRecord as error:
                self.bad.add(f"{file}, line {number}", error.reason, error.hint)
            else:
                yield from gatherer.add(number, text, prompt_bytes)
        yield from gatherer.rest()
        self.num_empty += gatherer.num_empty


def open_corpus(
    paths: Sequence[str | Path] | str | Path,
    *,
    format: Literal["auto", "raw"] = "auto",
    text_field: str = "text",
    most_bad_records: int = 0,
) -> Corpus:
    """Reads files, globs and directories (recursively, links followed, hidden names left out), in sorted order.

    A plain or compressed (.gz, .bz2, .xz) file is one document; each line of a .jsonl file is one.

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
    corpus = reader.corpus(find_files([paths] if isinstance(paths, str | Path) else list(paths)).values())
    reader.report()
    return corpus


def read_bytes(file: Path) -> bytes:
    """Returns the content of a file, unpacked where its name says so (.gz, .bz2, .xz).

    Raises:
        DataError: it cannot be read, or is not what its name says.
    """
    try:
        with open(file, "rb") as stream:
            return unpacked(stream, file.suffix.lower()).read()
    except UNREADABLE as error:
        raise _unreadable(file, error) from error


def _unreadable(file: Path, error: Exception) -> DataError:
    return DataError(f"cannot read {file}: {error}", hint="Check that the file is complete and readable.")
