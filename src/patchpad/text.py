"""Text to bytes, bytes to text that never splits a character, and text that cannot drive a terminal."""

import codecs
import re
from typing import Any

from patchpad.errors import InputError

_DRIVES_A_TERMINAL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""Control characters but newline and tab, and the marks that reorder the text after them."""


def encode_text(text: str | bytes | bytearray) -> bytes:
    """Returns text as UTF-8, bytes as they are. A lone surrogate is not UTF-8, but someone wrote it, so it is kept.

    Raises:
        InputError: neither text nor bytes. A number in particular: `bytes(5)` would be five NULs.
    """
    if isinstance(text, str):
        return text.encode("utf-8", "surrogatepass")
    if isinstance(text, bytes | bytearray):
        return bytes(text)
    raise not_text("the text", text)


def not_text(what: str, found: Any) -> InputError:
    """Returns the error for a value that is neither text nor bytes."""
    shown = repr(found)
    shown = shown if len(shown) <= 40 else f"{shown[:37]}..."
    return InputError(
        f"{what} is {shown}, of type {type(found).__name__}; allowed: str or bytes",
        hint="Write str(value) for its digits, or bytes(values) for a list of byte values.",
    )


def decode_text(data: bytes) -> str:
    """Decodes UTF-8; each invalid or incomplete sequence becomes U+FFFD."""
    return data.decode("utf-8", "replace")


def visible_controls(text: str) -> str:
    r"""Shows what could drive a terminal as an escape, such as ``\x1b``; newlines and tabs stay.

    These are control characters (C0, DEL and C1) and the marks that change the direction of what follows.
    """
    return _DRIVES_A_TERMINAL.sub(_escape, text)


def _escape(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def decode_start(data: bytes, *, final: bool = False) -> tuple[str, int]:
    """Decodes the whole characters that bytes start with.

    Args:
        data: UTF-8; each invalid sequence becomes U+FFFD.
        final: nothing follows, so that an unfinished character at the end becomes U+FFFD too.

    Returns:
        The text, and how many bytes it stands for.
    """
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    text = decoder.decode(data, final)
    return text, len(data) - len(decoder.getstate()[0])


class TextDecoder:
    """Incremental UTF-8: holds an unfinished character back until its last byte arrives."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, data: bytes, *, final: bool = False) -> str:
        """Returns the text that `data` completes; with `final`, what is left unfinished becomes U+FFFD."""
        return self._decoder.decode(data, final)
