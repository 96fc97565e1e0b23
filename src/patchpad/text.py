"""Text to bytes, and bytes to text that never splits a character."""

import codecs


def encode_text(text: str | bytes | bytearray) -> bytes:
    """Returns text as UTF-8, bytes as they are; a lone surrogate is no UTF-8, but someone wrote it, so it is kept."""
    return text.encode("utf-8", "surrogatepass") if isinstance(text, str) else bytes(text)


def decode_text(data: bytes) -> str:
    """Decodes UTF-8; each invalid or incomplete sequence becomes U+FFFD."""
    return data.decode("utf-8", "replace")


class TextDecoder:
    """Incremental UTF-8: holds an unfinished character back until its last byte arrives."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, data: bytes, *, final: bool = False) -> str:
        """Returns the text that `data` completes; with `final`, what is left unfinished becomes U+FFFD."""
        return self._decoder.decode(data, final)
