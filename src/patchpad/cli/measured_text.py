"""The text that a command measures: paths, stdin, or the excerpt that ships with patchpad."""

import logging
from typing import Literal

import numpy as np

from patchpad.cli.streams import read_stdin
from patchpad.data import Corpus, open_corpus
from patchpad.data.bundled_text import bundled_excerpt
from patchpad.errors import ConfigError, DataError

logger = logging.getLogger(__name__)


def text_to_measure(
    data: list[str] | None, format: Literal["auto", "raw"] = "auto", text_field: str = "text"
) -> Corpus:
    """Returns the text that a command was given; for `-`, what stdin holds; for none, the bundled excerpt.

    Args:
        data: paths, or `-`.
        format: how files are read, see `TextConfig`.
        text_field: of records, see `TextConfig`.

    Raises:
        ConfigError: `-` beside paths.
        DataError: stdin is closed, or has no byte; or text that is missing, unreadable or empty.
    """
    if data is None:
        excerpt = bundled_excerpt()
        logger.info("no --data: measured on %s bytes of %s", f"{len(excerpt.text):,}", excerpt.source)
        return excerpt.corpus
    if "-" not in data:
        return open_corpus(data, format=format, text_field=text_field)
    if len(data) > 1:
        raise ConfigError("--data is - and a path at once; allowed: paths, or - alone for stdin", hint="Give one.")
    content = read_stdin("Name a file with --data.")
    if not content:
        raise DataError("stdin is empty; allowed: at least one byte", hint="Name a file with --data.")
    return Corpus((np.frombuffer(content, dtype=np.uint8),), ("stdin",))
