"""Stop strings: where a generation ends, and which bytes must wait until that is known."""

from collections.abc import Iterable, Sequence

from patchpad.errors import GenerationError
from patchpad.text import encode_text


def encode_stop(stop: str | bytes | Sequence[str | bytes] | None) -> tuple[bytes, ...]:
    """Returns stop strings as bytes, text as UTF-8.

    Raises:
        GenerationError: an empty stop string, or one that is neither text nor bytes.
    """
    if stop is None:
        return ()
    given = list(stop) if isinstance(stop, Iterable) and not isinstance(stop, str | bytes) else [stop]
    for one in given:
        if not isinstance(one, str | bytes) or len(one) == 0:
            raise GenerationError(f"a stop string is {one!r}; allowed: text or bytes of at least one byte")
    return tuple(encode_text(one) for one in given)


def stop_begins_at(data: bytes | bytearray, stop: tuple[bytes, ...]) -> int | None:
    """Returns where the stop string begins that `data` ends with, the longest of several; None without one."""
    lengths = [len(one) for one in stop if data.endswith(one)]
    return len(data) - max(lengths) if lengths else None


def num_held_back(data: bytes | bytearray, stop: tuple[bytes, ...]) -> int:
    """Returns how many bytes at the end of `data` may be the beginning of a stop string."""
    tail = bytes(data[-max(map(len, stop), default=1) :])
    held = 0
    for one in stop:
        length = min(len(tail), len(one) - 1)
        while length > held:  # only beginnings that end with the last byte, and that are longer than what was found
            length = one.rfind(tail[-1:], held, length) + 1
            if length > held and tail.endswith(one[:length]):
                held = length
            length -= 1
    return held
