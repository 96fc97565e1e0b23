"""The program's side: runs it, then does what the judge asks of the things that it defined."""

import operator
from collections.abc import Callable
from typing import Any

from .wire import Link, WireError, decode, encode

OPERATIONS: dict[str, Callable[..., Any]] = {
    "call": lambda thing, *arguments, **named: thing(*arguments, **named),
    "getattr": getattr,
    "setattr": setattr,
    "getitem": operator.getitem,
    "setitem": operator.setitem,
    "contains": operator.contains,
    "iter": list,
    "next": next,
    "len": len,
    "bool": bool,
    "str": str,
    "repr": repr,
}


class _Things:
    """Objects that the judge knows by number; each is kept, so that a number never means another."""

    def __init__(self) -> None:
        self._objects: list[Any] = []
        self._numbers: dict[int, int] = {}

    def number_of(self, thing: Any) -> list[Any]:
        number = self._numbers.setdefault(id(thing), len(self._objects))
        if number == len(self._objects):
            self._objects.append(thing)
        return ["far", number]

    def from_number(self, data: list[Any]) -> Any:
        if data[0] != "far":
            raise WireError(f"unknown kind of value {data[0]!r}")
        return self._objects[data[1]]


def host(source: str, link_descriptor: int) -> None:
    """Runs a program, then answers the judge until it hangs up.

    The first answer is to the names that the judge wants; those that are not defined are left out.
    """
    link, things = Link(link_descriptor), _Things()
    namespace: dict[str, Any] = {"__name__": "__main__"}
    wanted = link.receive()
    try:
        exec(compile(source, "<program>", "exec"), namespace)
        found = {name: encode(namespace[name], things.number_of) for name in wanted if name in namespace}
    except BaseException as error:
        link.send(_raised(error))
        return
    link.send({"value": ["dict", *found.items()]})
    while True:
        try:
            message = link.receive()
        except WireError:
            return
        try:
            answer = _answer(message, things)
        except BaseException as error:
            answer = _raised(error)
        link.send(answer)


def _answer(message: dict[str, Any], things: _Things) -> dict[str, Any]:
    """Returns what an operation gives, and the arguments that it changed in place."""
    thing, *arguments = (decode(one, things.from_number) for one in message["arguments"])
    named = {name: decode(one, things.from_number) for name, one in message["named"].items()}
    value = OPERATIONS[message["operation"]](thing, *arguments, **named)
    answer: dict[str, Any] = {"value": encode(value, things.number_of)}
    changed = {}
    for place, (before, argument) in enumerate(zip(message["arguments"][1:], arguments, strict=True)):
        if isinstance(argument, list | dict | set):
            after = encode(argument, things.number_of)
            if after != before:
                changed[str(place)] = after
    if changed:
        answer["changed"] = changed
    return answer


def _raised(error: BaseException) -> dict[str, Any]:
    try:
        text = str(error)[:1000]
    except BaseException:
        text = "an error without a text"
    return {"raised": [type(error).__name__, text]}
