"""The standard streams: what each command reads from stdin and writes to stdout and stderr, whatever these are.

JSON is plain ASCII, so it is valid in every encoding and harmless on a terminal. Text that people read is shown so that
it cannot drive a terminal. A closed stdout or stderr is as good as `/dev/null`.
"""

import json
import logging
import os
import re
import sys
from contextlib import suppress
from typing import Any

from patchpad.errors import ConfigError, DataError
from patchpad.files import without_infinities
from patchpad.text import TextDecoder, visible_controls

NARROWEST, WIDEST = 40, 160
"""Columns between which help is laid out: rich never ends in one column, and nobody reads thousands."""

LONGEST_LINE = 1200
"""Characters of an error's line; of a longer one, beginning and end are shown."""

logger = logging.getLogger(__name__)


def prepare_streams(*, is_quiet: bool) -> None:
    """Makes the streams safe to write to, and sends log lines to stderr.

    Args:
        is_quiet: no log lines below warnings, and no progress.
    """
    _plug_closed_descriptors()
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        stream = getattr(sys, name)
        if stream is None:  # the shell has closed it
            setattr(sys, name, open(descriptor, "w", encoding="utf-8", closefd=False))  # noqa: SIM115
        elif hasattr(stream, "reconfigure"):  # a locale that cannot show a character must not end a command
            stream.reconfigure(errors="backslashreplace")
    for name in ("COLUMNS", "LINES"):  # shells, users and rich disagree on what may stand there
        if not re.fullmatch("[1-9][0-9]{0,3}", os.environ.get(name, "1")):
            del os.environ[name]
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LineFormatter())
    logging.basicConfig(handlers=[handler])
    logging.getLogger("patchpad").setLevel(logging.WARNING if is_quiet else logging.INFO)


def _plug_closed_descriptors() -> None:
    """Opens the null device where 0, 1 or 2 is closed.

    Else the next file that is opened gets the number, and what C code writes to stderr lands in, say, a checkpoint.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)  # the lowest free number: this one
            os.set_inheritable(opened, True)


class LineFormatter(logging.Formatter):
    """`12:30:05 a message`, with the date where lines go to a file, and `warning: ` where it is one."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(message)s", "%H:%M:%S" if is_terminal(sys.stderr) else "%Y-%m-%d %H:%M:%S")

    def format(self, record: logging.LogRecord) -> str:
        """Returns the line; nothing in it can drive a terminal."""
        line = super().format(record)
        if record.levelno >= logging.WARNING:
            stamp = self.formatTime(record, self.datefmt)
            line = f"{stamp} {record.levelname.lower()}:{line.removeprefix(stamp)}"
        return visible_controls(line)


def is_terminal(stream: Any) -> bool:
    """Returns whether a stream is a terminal; a closed one is not."""
    try:
        return stream is not None and stream.isatty()
    except ValueError:
        return False


def help_width() -> int:
    """Returns the columns for help: the terminal's, within bounds."""
    from rich.console import Console

    return max(NARROWEST, min(WIDEST, Console().width))


def print_json(value: Any) -> None:
    """Prints one strict JSON object in ASCII; infinities become "inf" and "-inf"."""
    sys.stdout.write(json.dumps(without_infinities(value), allow_nan=False) + "\n")


def print_text(text: str) -> None:
    """Prints text for people; on a terminal, what could drive it is shown as an escape."""
    sys.stdout.write((visible_controls(text) if is_terminal(sys.stdout) else text) + "\n")


def print_error(message: str, hint: str) -> None:
    """Prints an error in one line or two, whatever names stand in it."""
    with suppress(OSError):  # stderr may be full, or its reader gone
        for line in (f"patchpad: {message}", *([hint] if hint else ())):
            if len(line) > LONGEST_LINE:
                line = f"{line[: LONGEST_LINE - 200]} ... {line[-195:]}"
            sys.stderr.write(visible_controls(line).replace("\n", "\\n") + "\n")
        sys.stderr.flush()


class BytesPrinter:
    """Prints bytes that a model writes: the exact bytes to a file or pipe, safe text to a terminal."""

    def __init__(self) -> None:
        self._to_terminal = is_terminal(sys.stdout) or not hasattr(sys.stdout, "buffer")
        self._decoder = TextDecoder()

    def print(self, data: bytes, *, end: bool = False) -> None:
        """Prints at once; an unfinished character waits for its last byte on a terminal.

        Args:
            data: the next bytes.
            end: nothing follows, so a newline does.
        """
        if self._to_terminal:
            text = self._decoder.push(data, final=end)
            sys.stdout.write(visible_controls(text) + ("\n" if end else ""))
        else:
            sys.stdout.flush()
            sys.stdout.buffer.write(data + (b"\n" if end else b""))
        sys.stdout.flush()


def flush_or_drop() -> None:
    """Writes out what stdout and stderr still hold, or drops it where they are gone: Python would fail at exit."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            with suppress(OSError, ValueError):
                null = os.open(os.devnull, os.O_WRONLY)
                os.dup2(null, stream.fileno())
                os.close(null)


def read_stdin(hint: str) -> bytes:
    """Returns all that stdin gives.

    Args:
        hint: what to do where there is no stdin.

    Raises:
        DataError: it is closed, or cannot be read.
    """
    if sys.stdin is None:
        raise DataError("stdin is closed; allowed: a file, or bytes on stdin", hint=hint)
    if is_terminal(sys.stdin):
        logger.info("reading from the terminal; end with Ctrl-D on a line of its own")
    try:
        return sys.stdin.buffer.read()
    except OSError as error:
        raise DataError(
            f"cannot read stdin: {error.strerror}; allowed: a file, or bytes on stdin", hint=hint
        ) from error


def refuse_stdin(data: list[str] | None) -> None:
    """Refuses `-` among texts to train on, which are opened again when a run goes on.

    Raises:
        ConfigError: it is there.
    """
    if data and "-" in data:
        raise ConfigError(
            "--data is -; allowed: files, globs and directories, since training opens them again to continue",
            hint="Save the text to a file first; a file of that name is ./-",
        )
