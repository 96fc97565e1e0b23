"""Reading bytes from stdin."""

import sys

from patchpad.errors import DataError


def read_stdin(hint: str) -> bytes:
    """Returns all that stdin gives.

    Args:
        hint: what to do where there is no stdin.

    Raises:
        DataError: the caller has closed it.
    """
    if sys.stdin is None:
        raise DataError("stdin is closed; allowed: a file, or bytes on stdin", hint=hint)
    return sys.stdin.buffer.read()
