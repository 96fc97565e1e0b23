"""JSON of a request, read strictly: what is not JSON, or says a thing twice, is refused with a reason."""

import json
from typing import Any

from patchpad.serving.api_error import ApiError

LONGEST_NUMBER = 400
"""Digits; nothing that a request says has more."""


def parse_body(body: bytes) -> dict[str, Any]:
    """Returns the object that a body holds.

    Raises:
        ApiError: the body is not JSON, is not an object, or holds NaN, a key twice, or what is nested too deeply.
    """
    try:
        value = json.loads(
            body.decode("utf-8"),
            parse_constant=_no_constant,
            parse_int=_integer,
            parse_float=_float,
            object_pairs_hook=_unique_keys,
        )
    except UnicodeDecodeError as error:
        raise ApiError(400, f"the body is not UTF-8: byte {error.start} cannot be decoded", code="bad_json") from None
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise ApiError(400, f"the body is not JSON: {error.msg} ({place})", code="bad_json") from None
    except _RefusedError as error:
        raise ApiError(400, f"the body holds {error}", code="bad_json") from None
    except RecursionError:
        raise ApiError(400, "the body is nested too deeply", code="bad_json") from None
    if not isinstance(value, dict):
        raise ApiError(400, f"the body is {_kind(value)}; allowed: a JSON object", code="bad_json")
    return value


class _RefusedError(Exception):
    pass


def _no_constant(word: str) -> Any:
    raise _RefusedError(f'{word}, which is not JSON; infinite thresholds are the strings "inf" and "-inf"')


def _integer(digits: str) -> int:
    if len(digits) > LONGEST_NUMBER:
        raise _RefusedError(f"a number of {len(digits)} digits")
    return int(digits)


def _float(digits: str) -> float:
    if len(digits) > LONGEST_NUMBER:
        raise _RefusedError(f"a number of {len(digits)} digits")
    value = float(digits)
    if value in (float("inf"), float("-inf")):
        raise _RefusedError("a number too large for 64 bits")
    return value


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))
        raise _RefusedError(f"the key {shown(twice)} twice")
    return found


def _kind(value: Any) -> str:
    kinds = {list: "a list", str: "a string", bool: "true or false", type(None): "null"}
    return kinds.get(type(value), "a number")


def shown(value: Any) -> str:
    """Returns a value for a message, shortened."""
    if isinstance(value, list | dict | tuple):
        return f"{_kind(list(value))} of {len(value)}" if not isinstance(value, dict) else f"an object of {len(value)}"
    text = repr(value[:60] if isinstance(value, str) else value)
    return text if len(text) <= 60 else f"{text[:57]}..."
