"""Any bytes as text and back: bytes that are not UTF-8 are the surrogates U+DC80 to U+DCFF, as in paths of Python."""


def text_bytes(text: str) -> bytes:
    """Returns the bytes that a text stands for.

    A surrogate U+DC80 to U+DCFF is the byte 0x80 to 0xFF. Another lone surrogate is neither a character nor such a
    byte. It is kept, as the three bytes that UTF-8 would give it.
    """
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return b"".join(_character_bytes(character) for character in text)


def _character_bytes(character: str) -> bytes:
    try:
        return character.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return character.encode("utf-8", "surrogatepass")


def bytes_text(data: bytes, errors: str = "surrogateescape") -> str:
    """Returns bytes as text.

    Args:
        data: any bytes.
        errors: what becomes of bytes that are not UTF-8, in the words of Python: `surrogateescape` keeps them, so that
            `text_bytes` gives them back; `replace` makes U+FFFD of them, which can be printed.
    """
    return data.decode("utf-8", errors)
