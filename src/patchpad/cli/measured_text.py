"""The text that a command measures: paths, or stdin."""

import numpy as np

from patchpad.cli.streams import read_stdin
from patchpad.data import Corpus
from patchpad.errors import ConfigError, DataError


def text_to_measure(data: list[str]) -> Corpus | list[str]:
    """Returns the paths that a command was given; for `-`, what stdin holds.

    Raises:
        ConfigError: `-` beside paths.
        DataError: stdin is closed, or has no byte.
    """
    if "-" not in data:
        return data
    if len(data) > 1:
        raise ConfigError("--data is - and a path at once; allowed: paths, or - alone for stdin", hint="Give one.")
    content = read_stdin("Name a file with --data.")
    if not content:
        raise DataError("stdin is empty; allowed: at least one byte", hint="Name a file with --data.")
    return Corpus((np.frombuffer(content, dtype=np.uint8),), ("stdin",))
