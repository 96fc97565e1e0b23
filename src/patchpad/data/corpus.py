"""Files, globs and directories become documents: arrays of bytes, memory-mapped where the file is plain and large."""

import bz2
import gzip
import hashlib
import json
import logging
import lzma
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from patchpad.data.file_search import GIVE_A_PATH, find_files
from patchpad.errors import DataError
from patchpad.text import encode_text

logger = logging.getLogger(__name__)

UNREADABLE = (OSError, EOFError, lzma.LZMAError, zlib.error)
"""What reading a missing, cut or damaged file raises."""
OPENERS = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
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
FINGERPRINT_SAMPLES, FINGERPRINT_SAMPLE_BYTES = 1024, 4096


@dataclass(frozen=True)
class Corpus:
    """Documents as arrays of uint8, none of them empty."""

    documents: tuple[np.ndarray, ...]
    names: tuple[str, ...]
    """File of each document, with the line for JSONL."""

    @property
    def num_bytes(self) -> int:
        """Bytes of all documents."""
        return sum(len(document) for document in self.documents)

    def fingerprint(self) -> str:
        """SHA-256 over document lengths and bytes: all of up to 4 MiB, evenly spread samples of larger texts."""
        digest = hashlib.sha256()
        lengths = np.array([len(document) for document in self.documents], dtype="<i8")
        digest.update(lengths.tobytes())
        if self.num_bytes <= FINGERPRINT_SAMPLES * FINGERPRINT_SAMPLE_BYTES:
            for document in self.documents:
                digest.update(document.tobytes())
            return digest.hexdigest()
        ends = lengths.cumsum()
        for place in np.linspace(0, ends[-1] - 1, FINGERPRINT_SAMPLES).astype(np.int64):
            index = int(np.searchsorted(ends, place, side="right"))
            begin = int(place - (ends[index] - lengths[index]))
            digest.update(self.documents[index][begin : begin + FINGERPRINT_SAMPLE_BYTES].tobytes())
        return digest.hexdigest()


def open_corpus(paths: Sequence[str | Path] | str | Path) -> Corpus:
    """Reads files, globs and directories (recursively, links followed, hidden names left out), in sorted order.

    A plain or compressed (.gz, .bz2, .xz) file is one document; each line of a .jsonl file is one, its `text` field.

    Raises:
        DataError: a path that matches nothing, an unreadable file or line, or no text at all.
    """
    paths = [paths] if isinstance(paths, str | Path) else list(paths)
    if not paths:
        raise DataError("no text was given", hint=GIVE_A_PATH)
    documents: list[np.ndarray] = []
    names: list[str] = []
    num_empty = 0
    for file in find_files(paths).values():
        for name, document in _read_documents(file):
            if len(document):
                documents.append(document)
                names.append(name)
            else:
                num_empty += 1
    if not documents:
        shown = ", ".join(str(path) for path in paths)
        raise DataError(f"{shown}: no text, only {num_empty} empty document(s)", hint="Give at least one byte of text.")
    if num_empty:
        logger.warning("%d empty document(s) have nothing to predict and are left out", num_empty)
    return Corpus(tuple(documents), tuple(names))


def split_corpus(corpus: Corpus, validation_fraction: float) -> tuple[Corpus, Corpus]:
    """Splits into training and validation documents; always the same way for the same documents.

    Several documents are split whole, about `validation_fraction` of the bytes going to validation. A single one gives
    its end, cut after a line if one ends in the first half of that.

    Raises:
        DataError: a single document of fewer than 2 bytes.
    """
    if len(corpus.documents) == 1:
        return _split_single(corpus, validation_fraction)
    goal = validation_fraction * corpus.num_bytes
    lengths = [len(document) for document in corpus.documents]
    held_out: set[int] = set()
    num_held_out = 0
    for index in np.random.Generator(np.random.Philox(0)).permutation(len(lengths)).tolist():
        leaves_text_to_train_on = len(held_out) < len(lengths) - 1
        if leaves_text_to_train_on and num_held_out < goal and num_held_out + lengths[index] <= 1.5 * goal:
            held_out.add(index)
            num_held_out += lengths[index]
    if not held_out:
        held_out = {int(np.argmin(lengths))}
    return (
        _select(corpus, [index for index in range(len(lengths)) if index not in held_out]),
        _select(corpus, sorted(held_out)),
    )


def _split_single(corpus: Corpus, validation_fraction: float) -> tuple[Corpus, Corpus]:
    document = corpus.documents[0]
    if len(document) < 2:
        raise DataError(f"{corpus.names[0]} holds {len(document)} byte, too little to split", hint="Give more text.")
    cut = min(len(document) - 1, max(1, round((1 - validation_fraction) * len(document))))
    newline = np.flatnonzero(document[cut - 1 : cut + (len(document) - cut) // 2] == ord("\n"))
    if len(newline):
        cut += int(newline[0])
    return replace(corpus, documents=(document[:cut],)), replace(corpus, documents=(document[cut:],))


def _select(corpus: Corpus, indices: list[int]) -> Corpus:
    return Corpus(tuple(corpus.documents[i] for i in indices), tuple(corpus.names[i] for i in indices))


def _read_documents(file: Path) -> Iterator[tuple[str, np.ndarray]]:
    suffix = file.suffix.lower()
    if suffix in UNPACK_WITH:
        raise DataError(
            f"{file} is packed as {suffix}; allowed: plain text, .jsonl, .gz, .bz2, .xz",
            hint=f"Unpack it first: {UNPACK_WITH[suffix]} {file}",
        )
    if suffix in (".parquet", ".arrow"):
        raise DataError(
            f"{file} is {suffix[1:]}; allowed: plain text, .jsonl, .gz, .bz2, .xz", hint="Export it to JSONL."
        )
    inner = Path(file.stem).suffix.lower() if suffix in OPENERS else suffix
    if inner == ".tar":
        raise DataError(f"{file} is a tar archive", hint=f"Unpack it first: tar -xf {file}")
    try:
        if inner in JSON_LINES:
            with OPENERS.get(suffix, open)(file, "rb") as lines:
                yield from _read_json_lines(file, lines)
        elif suffix in OPENERS:
            yield str(file), np.frombuffer(read_bytes(file), dtype=np.uint8)
        elif file.stat().st_size == 0:
            yield str(file), np.empty(0, dtype=np.uint8)
        elif file.stat().st_size < SMALLEST_MAPPED:
            yield str(file), np.frombuffer(read_bytes(file), dtype=np.uint8)
        else:
            yield str(file), np.memmap(file, dtype=np.uint8, mode="r")
    except (*UNREADABLE, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"cannot read {file}: {error}", hint="Check that the file is complete and readable.") from error


def read_bytes(file: Path) -> bytes:
    """Returns the content of a file, unpacked where its name says so (.gz, .bz2, .xz).

    Raises:
        DataError: it cannot be read, or is not what its name says.
    """
    try:
        with OPENERS.get(file.suffix.lower(), open)(file, "rb") as stream:
            return stream.read()
    except UNREADABLE as error:
        raise DataError(f"cannot read {file}: {error}", hint="Check that the file is complete and readable.") from error


def _read_json_lines(file: Path, lines: Iterator[bytes]) -> Iterator[tuple[str, np.ndarray]]:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{file}, line {number} is not JSON: {error}", hint="Mend or remove the line.") from error
        if not isinstance(record, dict) or not isinstance(record.get("text"), str):
            keys = ", ".join(map(str, record)) if isinstance(record, dict) else type(record).__name__
            raise DataError(
                f"{file}, line {number} has no string field `text`; it has: {keys}", hint="Rename the field."
            )
        yield f"{file}:{number}", np.frombuffer(encode_text(record["text"]), dtype=np.uint8)
