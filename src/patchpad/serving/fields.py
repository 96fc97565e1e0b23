"""Values of request fields that are neither plain numbers nor plain text: prompts, thresholds, biases, stop strings.

Each function raises a ValueError that says what is allowed; `patchpad.serving.schemas` names the field.
"""

import sys
from typing import Any, NamedTuple

from patchpad.config import SEPARATOR
from patchpad.serving.json_body import shown
from patchpad.text import encode_text

MOST_PROMPTS = 4096
MOST_STOPS = 16
LONGEST_STOP_BYTES = 256
LARGEST_BIAS = 100.0
SEPARATOR_NAME = "<|separator|>"
"""How the id 256 is written where a token has to be text."""


class Prompt(NamedTuple):
    """Bytes to continue."""

    data: bytes
    has_separator: bool = False
    """Whether the request wrote the separator before them itself, as the id 256."""

    @property
    def num_ids(self) -> int:
        """Ids that the request wrote."""
        return len(self.data) + self.has_separator


def read_prompts(value: Any) -> tuple[Prompt, ...]:
    """Returns the prompts of a request: a string, a list of strings, a list of ids, or a list of such lists."""
    if isinstance(value, str):
        return (_text_prompt(value),)
    if not isinstance(value, list):
        raise ValueError(f"{shown(value)}; allowed: a string, a list of strings, a list of ids, or a list of these")
    if not value:
        raise ValueError("an empty list; allowed: one prompt or more, which may be empty strings")
    if isinstance(value[0], int):
        return (read_ids(value),)
    if len(value) > MOST_PROMPTS:
        raise ValueError(f"a list of {len(value)} prompts; allowed: {MOST_PROMPTS}")
    if all(isinstance(one, str) for one in value):
        return tuple(_text_prompt(one) for one in value)
    if all(isinstance(one, list) for one in value):
        return tuple(read_ids(one) for one in value)
    raise ValueError("a list of several kinds; allowed: only strings, only ids, or only lists of ids")


def read_ids(value: list[Any]) -> Prompt:
    """Returns the prompt that a list of ids means: bytes 0 to 255, which may follow one separator, 256."""
    begin = 1 if value and value[0] == SEPARATOR and type(value[0]) is int else 0
    for place in range(begin, len(value)):
        one = value[place]
        if type(one) is not int or not 0 <= one <= 255:
            raise ValueError(f"{shown(one)} at place {place}; allowed: ids from 0 to 255, and 256 in the first place")
    return Prompt(bytes(value[begin:]), begin == 1)


def read_text(value: str) -> bytes:
    """Returns text as UTF-8."""
    try:
        return value.encode("utf-8")
    except UnicodeEncodeError:
        raise ValueError("text with half of a surrogate pair, which is not UTF-8; bytes can be a list of ids") from None


def _text_prompt(value: str) -> Prompt:
    return Prompt(read_text(value))


def read_threshold(value: Any) -> float | None:
    """Returns a threshold in nats; JSON has no infinities, so these are words."""
    if value is None:
        return None
    if value in ("inf", "-inf"):
        return float(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= sys.float_info.max:
        raise ValueError(f'{shown(value)}; allowed: a number of nats, "inf" (no scratchpads) or "-inf" (at every byte)')
    return float(value)


def read_content(value: Any) -> str:
    """Returns the text of a message: a string, or a list of parts of the type `text`."""
    if isinstance(value, str):
        return value
    if not isinstance(value, list) or not value:
        raise ValueError(f"{shown(value)}; allowed: a string, or a list of parts of the type `text`")
    for part in value:
        if not isinstance(part, dict) or part.get("type") != "text" or not isinstance(part.get("text"), str):
            raise ValueError('a list with a part that is not text; allowed: {"type": "text", "text": ...}')
        if set(part) != {"type", "text"}:
            raise ValueError(f"a list with a part that has further fields, {shown(min(set(part) - {'type', 'text'}))}")
    return "".join(part["text"] for part in value)


def read_stop(value: Any) -> tuple[bytes, ...]:
    """Returns the stop strings as bytes. The separator's name is left out: a document's end always ends a row."""
    given = [value] if isinstance(value, str) else ([] if value is None else value)
    if not isinstance(given, list) or len(given) > MOST_STOPS:
        raise ValueError(f"{shown(value)}; allowed: a string, or a list of up to {MOST_STOPS}")
    found = []
    for one in given:
        if not isinstance(one, str) or not one or len(encode_text(one)) > LONGEST_STOP_BYTES:
            raise ValueError(f"{shown(one)} among its strings; allowed: text of 1 to {LONGEST_STOP_BYTES} bytes")
        if one != SEPARATOR_NAME:
            found.append(read_text(one))
    return tuple(dict.fromkeys(found))


def read_bias(value: Any) -> tuple[tuple[int, float], ...]:
    """Returns the biases by id, sorted."""
    if value is None:
        return ()
    if not isinstance(value, dict) or len(value) > SEPARATOR + 1:
        raise ValueError(f"{shown(value)}; allowed: an object of ids and biases")
    found = {}
    for key, bias in value.items():
        if not (key.isascii() and key.isdecimal() and len(key) <= 3 and int(key) <= SEPARATOR):
            raise ValueError(f"the id {shown(key)}; allowed: bytes from 0 to 255, and 256 for the end of the document")
        if isinstance(bias, bool) or not isinstance(bias, int | float) or not abs(bias) <= LARGEST_BIAS:
            raise ValueError(f"{shown(bias)} for the id {key}; allowed: a number from -100 to 100")
        found[int(key)] = float(bias)
    return tuple(sorted(found.items()))
