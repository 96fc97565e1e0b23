"""Files that are whole or absent: write to a temporary name, then rename; and strict JSON. Torch-free."""

import errno
import functools
import hashlib
import json
import logging
import math
import os
import re
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

_SURROGATE = re.compile("[\ud800-\udfff]")


def write_atomically(path: Path, content: str | bytes) -> None:
    """Writes `content` (text as UTF-8) to a temporary file beside `path`, then renames it; links are followed.

    Raises:
        OSError: the file cannot be written; a file that was there before is intact.
    """
    if path.is_symlink():
        path = path.resolve()
    if not path.name:  # of an empty option too
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(content.encode("utf-8") if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Makes the names in a folder survive a power cut. Where the system cannot, it says so once, and goes on."""
    if os.name == "nt":
        return
    try:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        _report_unsynced(error.strerror)


@functools.cache
def _report_unsynced(reason: str) -> None:
    logger.warning("folders cannot be synced here (%s): a power cut may lose the newest files", reason)


def strict_json(value: Any, *, indent: int | None = None) -> str:
    """Returns JSON without NaN or Infinity: infinities become "inf" and "-inf".

    Text is kept as it is, but lone surrogates, of which paths that are not UTF-8 are made, are escaped: UTF-8 has no
    place for them.

    Raises:
        ValueError: `value` holds a NaN.
    """
    text = json.dumps(without_infinities(value), indent=indent, allow_nan=False, ensure_ascii=False)
    return _SURROGATE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def json_float(value: float | str) -> float:
    """Reads a number that `strict_json` wrote, "inf" and "-inf" included."""
    return float(value)


def sha256_of(path: Path) -> str:
    """Returns the SHA-256 of a file as hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def without_infinities(value: Any) -> Any:
    """Returns nested values as strict JSON has them: lists for tuples, the words "inf" and "-inf" for infinities."""
    if isinstance(value, dict):
        return {key: without_infinities(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_infinities(item) for item in value]
    if isinstance(value, float) and math.isinf(value):
        return "inf" if value > 0 else "-inf"
    return value
