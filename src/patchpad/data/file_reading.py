"""Files become documents: arrays of bytes, unpacked where they are packed, mapped where they are plain and large."""

import errno
import functools
import io
import json
import logging
import lzma
import os
import zlib
from bz2 import BZ2Decompressor
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from patchpad.errors import DataError, quoted
from patchpad.text import encode_text

logger = logging.getLogger(__name__)

UNREADABLE = (OSError, EOFError, lzma.LZMAError, zlib.error)
"""What reading a missing, cut or damaged file raises."""
PACKED: dict[str, tuple[Callable[[], Any], int]] = {
    ".gz": (lambda: zlib.decompressobj(wbits=31), 1),
    ".bz2": (BZ2Decompressor, 0),
    ".xz": (lzma.LZMADecompressor, 4),
}
"""For each ending, what unpacks one stream, and the unit of the zeros that may follow a stream; 0: none may."""
PACKED_CHUNK_BYTES = 1 << 16
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
SMALLEST_MAPPED = 1 << 20
"""Smaller files are read: each mapped one holds a file descriptor, and a corpus may have many thousands."""
DESCRIPTORS_KEPT_FREE = 32
"""File descriptors that mapped files leave to the rest of the process."""


@contextmanager
def descriptors_kept_free() -> Iterator[None]:
    """Takes some file descriptors away while files are read, so that mapping ends before the last one is taken."""
    held: list[int] = []
    try:
        with suppress(OSError):
            for _ in range(DESCRIPTORS_KEPT_FREE + 1):
                held.append(os.open(os.devnull, os.O_RDONLY))
        if held:  # one has to be free to read with
            os.close(held.pop())
        yield
    finally:
        for descriptor in held:
            os.close(descriptor)


def read_documents(file: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Yields the name and bytes of each document of a file; empty ones too.

    Raises:
        DataError: it is packed in a way that is not read here, cannot be read, or is not what its name says.
    """
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
    try:
        if inner in JSON_LINES:
            with open(file, "rb") as stream:
                yield from _read_json_lines(file, _unpacked(stream, suffix))
        elif suffix in PACKED:
            yield str(file), np.frombuffer(read_bytes(file), dtype=np.uint8)
        else:
            yield str(file), _map_or_read(file)
    except (*UNREADABLE, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise _unreadable(file, error) from error


def read_bytes(file: Path) -> bytes:
    """Returns the content of a file, unpacked where its name says so (.gz, .bz2, .xz).

    Raises:
        DataError: it cannot be read, or is not what its name says.
    """
    try:
        with open(file, "rb") as stream:
            return _unpacked(stream, file.suffix.lower()).read()
    except UNREADABLE as error:
        raise _unreadable(file, error) from error


def _unreadable(file: Path, error: Exception) -> DataError:
    return DataError(f"cannot read {file}: {error}", hint="Check that the file is complete and readable.")


def _map_or_read(file: Path) -> np.ndarray:
    """Maps a large file, or reads it where that fails: each mapped one holds a descriptor, and these are limited."""
    with open(str(file), "rb") as stream:
        if os.fstat(stream.fileno()).st_size >= SMALLEST_MAPPED:
            try:
                return np.memmap(stream, dtype=np.uint8, mode="r")
            except OSError as error:
                _report_files_read(error.errno, error.strerror)
                stream.seek(0)
        return np.frombuffer(stream.read(), dtype=np.uint8)


@functools.cache
def _report_files_read(code: int, reason: str) -> None:
    more = "; try `ulimit -n 65536`" if code in (errno.EMFILE, errno.ENFILE) else ""
    logger.warning("cannot map all large files (%s): the others are read into memory%s", reason, more)


class _Chunks(io.RawIOBase):
    """Chunks of bytes as a stream."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self.chunks = chunks
        self.ready = memoryview(b"")

    def readable(self) -> bool:
        """Returns True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fills a buffer from the chunk that is being read; returns the number of bytes, 0 at the end."""
        while not self.ready:
            chunk = next(self.chunks, None)
            if chunk is None:
                return 0
            self.ready = memoryview(chunk)
        count = min(len(buffer), len(self.ready))
        buffer[:count] = self.ready[:count]
        self.ready = self.ready[count:]
        return count


def _unpacked(stream: io.BufferedReader, suffix: str) -> io.BufferedReader:
    if suffix not in PACKED:
        return stream
    return io.BufferedReader(_Chunks(_unpack(stream, *PACKED[suffix])))


def _unpack(stream: io.BufferedReader, new_decompressor: Callable[[], Any], padding_unit: int) -> Iterator[bytes]:
    """Yields what a packed file holds: all its streams, one after the other.

    The standard library's readers end silently at a second stream of .bz2 and .xz whose first bytes are damaged.
    """
    decompressor = new_decompressor()
    is_between = False
    num_zeros = 0  # since the last stream
    while chunk := stream.read(PACKED_CHUNK_BYTES):
        while chunk:
            if is_between:
                rest = chunk.lstrip(b"\0") if padding_unit else chunk
                num_zeros += len(chunk) - len(rest)
                if not rest:
                    break
                _require_whole_padding(num_zeros, padding_unit)
                chunk, decompressor, num_zeros = rest, new_decompressor(), 0
            yield decompressor.decompress(chunk)
            is_between = decompressor.eof
            chunk = decompressor.unused_data
    if not is_between:
        raise EOFError("it ends before the end of its packed data")
    _require_whole_padding(num_zeros, padding_unit)


def _require_whole_padding(num_zeros: int, unit: int) -> None:
    if num_zeros and num_zeros % unit:
        raise OSError(f"{num_zeros} zeros follow its packed data; allowed: multiples of {unit}")


def _read_json_lines(file: Path, lines: Iterable[bytes]) -> Iterator[tuple[str, np.ndarray]]:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{file}, line {number} is not JSON: {error}", hint="Fix the line.") from error
        if not isinstance(record, dict) or not isinstance(record.get("text"), str):
            keys = ", ".join(map(str, record)) if isinstance(record, dict) else type(record).__name__
            raise DataError(
                f"{file}, line {number} has no string field `text`; it has: {keys}", hint="Rename the field."
            )
        yield f"{file}:{number}", np.frombuffer(encode_text(record["text"]), dtype=np.uint8)
