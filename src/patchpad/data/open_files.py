"""Files that are read piece by piece: a few descriptors for any number of files, and no mapping that grows."""

import functools
import os
from contextlib import suppress
from dataclasses import dataclass

from patchpad.errors import DataError

MOST_OPEN_FILES = 64
"""Files that stay open between reads."""


@dataclass(frozen=True)
class OpenedFile:
    """A file as it was when it was opened, for `read_piece`."""

    path: str
    num_bytes: int
    device: int
    number: int
    """Of the file on its device, so that another one under the same name is not taken for it."""

    @classmethod
    def of(cls, path: str) -> "OpenedFile":
        """Looks at a file.

        Raises:
            OSError: it cannot be looked at.
        """
        status = os.stat(path)
        return cls(path, status.st_size, status.st_dev, status.st_ino)


class _Descriptor:
    """A descriptor that is closed when nobody reads with it any more."""

    def __init__(self, path: str) -> None:
        self.number = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))

    def __del__(self) -> None:
        if hasattr(self, "number"):
            with suppress(OSError):
                os.close(self.number)


def read_piece(file: OpenedFile, begin: int, end: int) -> bytes:
    """Returns bytes `begin` to `end` (excluded) of a file.

    Raises:
        DataError: it cannot be read, has shrunk, or is another one now.
    """
    try:
        descriptor = _open(file)
        pieces = []
        while begin < end:
            piece = _read_at(descriptor.number, end - begin, begin)
            if not piece:
                raise DataError(
                    f"{file.path} has shrunk while it is read: it ends at byte {begin}, and had {file.num_bytes}",
                    hint="Restore the file, then resume the run or begin again.",
                )
            pieces.append(piece)
            begin += len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)
    except OSError as error:
        raise DataError(
            f"cannot read {file.path}: {error.strerror or error}", hint="Check that the file is complete and readable."
        ) from error


@functools.lru_cache(maxsize=MOST_OPEN_FILES)
def _open(file: OpenedFile) -> _Descriptor:
    descriptor = _Descriptor(file.path)
    status = os.fstat(descriptor.number)
    if (status.st_dev, status.st_ino) != (file.device, file.number):
        raise DataError(
            f"{file.path} was replaced by another file while it is read",
            hint="Restore the file, then resume the run or begin again.",
        )
    return descriptor


def _read_at(descriptor: int, count: int, place: int) -> bytes:
    if hasattr(os, "pread"):
        return os.pread(descriptor, count, place)
    with os.fdopen(os.dup(descriptor), "rb") as stream:  # Windows; two threads would move the same place
        stream.seek(place)
        return stream.read(count)
