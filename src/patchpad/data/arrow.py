"""Parquet and Arrow files become documents. The only place that imports pyarrow, when such a file is read."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from patchpad.data.corpus import Corpus, record_names
from patchpad.data.documents import FileDocuments, PackedDocuments
from patchpad.data.open_files import OpenedFile
from patchpad.data.records import COMPLETION, PROMPT, BadRecord, Gatherer, LeftOut, document_of
from patchpad.errors import DataError, MissingExtraError

PARQUET_ROWS = 4096
"""Rows that are unpacked at once."""


def parquet_parts(file: Path | io.BufferedReader, name: str, text_field: str, left_out: LeftOut) -> Iterator[Corpus]:
    """Yields the documents of a Parquet file, some rows at a time, in memory; empty ones are counted in `left_out`.

    Raises:
        DataError: the file has no such text.
        MissingExtraError: pyarrow is not installed.
        OSError, ValueError: it is not a whole Parquet file.
    """
    require_pyarrow(name)
    from pyarrow import parquet

    with parquet.ParquetFile(file) as opened:
        columns = _columns(opened.schema_arrow, name, text_field)
        first = 1
        for batch in opened.iter_batches(batch_size=PARQUET_ROWS, columns=columns):
            yield from _batch_parts(batch, name, first, text_field, left_out)
            first += batch.num_rows


def arrow_parts(file: Path | io.BufferedReader, name: str, text_field: str, left_out: LeftOut) -> Iterator[Corpus]:
    """Yields the documents of an Arrow file, which stay in it where it is local and not packed.

    Raises:
        DataError: the file has no such text.
        MissingExtraError: pyarrow is not installed.
        OSError, ValueError: it is not a whole Arrow file.
    """
    require_pyarrow(name)
    import pyarrow

    opened = None
    if isinstance(file, Path):
        opened = OpenedFile.of(str(file))
        with pyarrow.memory_map(str(file)) as mapped:
            content = mapped.read_buffer()
    else:
        content = pyarrow.py_buffer(file.read())
    first = 1
    for batch in _arrow_batches(content):
        columns = _columns(batch.schema, name, text_field)
        chosen = batch.select(columns)
        yield from _batch_parts(chosen, name, first, text_field, left_out, opened, content.address)
        first += batch.num_rows


def require_pyarrow(name: str) -> None:
    """Requires the library that reads a file.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        import pyarrow  # noqa: F401
    except ImportError as error:
        raise MissingExtraError(
            f"reading {name} needs pyarrow, which is not installed", hint="Install it: pip install 'patchpad[data]'"
        ) from error


def _arrow_batches(content: Any) -> Iterator[Any]:
    import pyarrow

    source = pyarrow.BufferReader(content)
    if content[:6].to_pybytes() == b"ARROW1":
        reader = pyarrow.ipc.open_file(source)
        for number in range(reader.num_record_batches):
            yield reader.get_batch(number)
    else:
        yield from pyarrow.ipc.open_stream(source)


def _columns(schema: Any, name: str, text_field: str) -> list[str]:
    """Returns the columns that are the text."""
    if text_field in schema.names:
        kind = schema.field(text_field).type
        if not _is_text(kind):
            raise DataError(
                f"{name}: the column `{text_field}` is of type {kind}; allowed: text or bytes",
                hint="Name the column of the text: --text-field NAME; `train`: --data.text_field NAME.",
            )
        return [text_field]
    if PROMPT in schema.names and COMPLETION in schema.names:
        return [PROMPT, COMPLETION]
    raise DataError(
        f"{name} has no column `{text_field}`, nor `{PROMPT}` and `{COMPLETION}`; it has: {', '.join(schema.names)}",
        hint="Name the column of the text: --text-field NAME; `train`: --data.text_field NAME.",
    )


def _is_text(kind: Any) -> bool:
    from pyarrow import types

    if types.is_dictionary(kind):
        kind = kind.value_type
    return any(
        check(kind)
        for check in (
            *(types.is_string, types.is_large_string, types.is_string_view),
            *(types.is_binary, types.is_large_binary, types.is_binary_view),
        )
    )


def _batch_parts(
    batch: Any,
    name: str,
    first: int,
    text_field: str,
    left_out: LeftOut,
    opened: OpenedFile | None = None,
    address: int = 0,
) -> Iterator[Corpus]:
    """Yields the documents of some rows.

    Args:
        batch: of the columns with the text alone.
        name: of the file.
        first: number of the first row, counted from 1.
        text_field: the column, unless there are prompts.
        left_out: counts rows without text.
        opened: the file, if the rows may lie in it as they are; None: they lie in memory.
        address: where that file is mapped.
    """
    if batch.num_columns == 2:
        yield from _prompt_parts(batch, name, first, text_field, left_out)
        return
    is_null = batch.column(0).is_null().to_numpy(zero_copy_only=False)
    for row in np.flatnonzero(is_null).tolist():
        left_out.add_bad(f"{name}, row {first + row}", f"has no `{text_field}` but null", "Fix the row.")
    content, data_address, offsets = _bytes_of(batch.column(0))
    lengths = np.diff(offsets)
    left_out.num_empty += int(((lengths == 0) & ~is_null).sum())
    chosen = np.flatnonzero((lengths > 0) & ~is_null)
    if not len(chosen):
        return
    names = record_names(name, first + chosen)
    place = data_address - address
    if opened is not None and 0 <= place <= opened.num_bytes - len(content):
        yield Corpus(FileDocuments([opened], place + offsets[chosen], lengths[chosen]), names)
    else:
        yield Corpus(PackedDocuments(content, offsets[chosen], lengths[chosen]), names)


def _bytes_of(column: Any) -> tuple[np.ndarray, int, np.ndarray]:
    """Returns the bytes of a column of text, where they lie in memory, and where its values begin and end in them."""
    import pyarrow
    from pyarrow import types

    if types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if types.is_string_view(column.type) or types.is_binary_view(column.type):
        column = column.cast(pyarrow.large_binary())
    is_wide = types.is_large_string(column.type) or types.is_large_binary(column.type)
    _, offsets, data = column.buffers()
    if not len(column) or data is None:
        return np.zeros(0, dtype=np.uint8), 0, np.zeros(len(column) + 1, dtype=np.int64)
    found = np.frombuffer(offsets, dtype=np.int64 if is_wide else np.int32)
    found = found[column.offset : column.offset + len(column) + 1].astype(np.int64)
    return np.frombuffer(data, dtype=np.uint8), data.address, found


def _prompt_parts(batch: Any, name: str, first: int, text_field: str, left_out: LeftOut) -> Iterator[Corpus]:
    gatherer = Gatherer(name, left_out)
    for number, record in enumerate(batch.to_pylist(), start=first):
        try:
            text, prompt_bytes = document_of(record, text_field)
        except BadRecord as error:
            left_out.add_bad(f"{name}, row {number}", error.reason, error.hint)
        else:
            yield from gatherer.add(number, text, prompt_bytes)
    yield from gatherer.rest()
