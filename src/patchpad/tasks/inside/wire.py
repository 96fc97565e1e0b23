"""Values and messages between a program and its judge: plain data only, so that neither can run code in the other.

A value is JSON: None, bools, strings, floats and small integers as themselves, everything else as a list whose first
item says what it is. What has no such form stays where it is, and the other side gets its number.
"""

import builtins
import datetime
import decimal
import fractions
import json
import socket
import struct
from collections.abc import Callable
from typing import Any

MAX_MESSAGE_BYTES = 16 * 2**20
_SMALL = 2**53
_CONTAINERS: dict[str, type] = {"list": list, "tuple": tuple, "set": set, "frozenset": frozenset}
_RICH: dict[str, tuple[type, Callable[[Any], list[Any]]]] = {
    "complex": (complex, lambda value: [value.real, value.imag]),
    "decimal": (decimal.Decimal, lambda value: [str(value)]),
    "fraction": (fractions.Fraction, lambda value: [str(value)]),
    "datetime": (datetime.datetime, lambda value: [*value.timetuple()[:6], value.microsecond]),
    "date": (datetime.date, lambda value: [value.year, value.month, value.day]),
}


class WireError(Exception):
    """A message that cannot be sent or read, or the other side has gone."""


def encode(value: Any, number_of: Callable[[Any], list[Any]]) -> Any:
    """Returns a value as JSON holds it; `number_of` gives the form of what has to stay on this side.

    A subclass of a plain type goes as that type, so nothing that it overrides has a say on the other side.
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        small = -_SMALL < value < _SMALL
        return int(value) if small else ["int", hex(int(value))]
    if isinstance(value, float):
        return float.__float__(value)
    if isinstance(value, bytes | bytearray):
        return ["bytes", bytes(value).hex()]
    if isinstance(value, dict):
        return ["dict", *([encode(key, number_of), encode(one, number_of)] for key, one in dict.items(value))]
    for name, kind in _CONTAINERS.items():
        if isinstance(value, kind):
            return [name, *(encode(one, number_of) for one in kind.__iter__(value))]
    for name, (kind, parts) in _RICH.items():
        if isinstance(value, kind):
            return [name, *parts(value)]
    if isinstance(value, type) and getattr(builtins, value.__name__, None) is value:
        return ["type", value.__name__]
    return number_of(value)


def decode(data: Any, from_number: Callable[[list[Any]], Any]) -> Any:
    """Returns the value that `encode` wrote; `from_number` makes what stands for a thing of the other side.

    Raises:
        WireError: the other side sent something else.
    """
    if not isinstance(data, list):
        if isinstance(data, dict):
            raise WireError("a message with an object where a value belongs")
        return data
    try:
        name, *parts = data
        if name == "int":
            return int(parts[0], 16)
        if name == "bytes":
            return bytes.fromhex(parts[0])
        if name == "dict":
            return {decode(key, from_number): decode(one, from_number) for key, one in parts}
        if name in _CONTAINERS:
            return _CONTAINERS[name](decode(one, from_number) for one in parts)
        if name in _RICH:
            return _RICH[name][0](*parts)
        if name == "type" and isinstance(kind := getattr(builtins, parts[0]), type):
            return kind
        return from_number(data)
    except (TypeError, ValueError, IndexError, AttributeError, ArithmeticError) as error:
        raise WireError(f"a value that cannot be read: {error}") from None


class Link:
    """One end of the connection: JSON messages, each after its length in 4 bytes."""

    def __init__(self, file_descriptor: int) -> None:
        self._socket = socket.socket(fileno=file_descriptor)

    def send(self, message: Any) -> None:
        """Sends one message.

        Raises:
            WireError: it is too long, or the other side has gone.
        """
        data = json.dumps(message).encode()
        if len(data) > MAX_MESSAGE_BYTES:
            raise WireError(f"a value of {len(data)} bytes; allowed: up to {MAX_MESSAGE_BYTES}")
        try:
            self._socket.sendall(struct.pack("<I", len(data)) + data)
        except OSError as error:
            raise WireError(f"the other side has gone: {error}") from None

    def receive(self) -> Any:
        """Returns the next message.

        Raises:
            WireError: it is too long or no message, or the other side has gone.
        """
        (length,) = struct.unpack("<I", self._exactly(4))
        if length > MAX_MESSAGE_BYTES:
            raise WireError(f"a value of {length} bytes; allowed: up to {MAX_MESSAGE_BYTES}")
        try:
            return json.loads(self._exactly(length))
        except (ValueError, RecursionError) as error:
            raise WireError(f"no message: {error}") from None

    def _exactly(self, count: int) -> bytes:
        parts = bytearray()
        while len(parts) < count:
            try:
                piece = self._socket.recv(min(count - len(parts), 2**20))
            except OSError as error:
                raise WireError(f"the other side has gone: {error}") from None
            if not piece:
                raise WireError("the other side has gone")
            parts += piece
        return bytes(parts)
