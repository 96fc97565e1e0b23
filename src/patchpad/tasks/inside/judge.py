"""The judge's side: runs the checks of a task on things that live in the program's process.

The program never sees the checks, and what it returns arrives as plain data, so the comparisons are Python's own: an
object that claims to equal everything is just an object here. Whether all checks passed is said by this process alone.
"""

import builtins
import json
import os
import random
import sys
from collections.abc import Iterator
from typing import Any

from .wire import Link, WireError, decode, encode


class ProgramError(Exception):
    """The program raised an error of a class of its own, or has ended."""


class _Far:
    """Stands for an object of the program that has no plain form."""

    __slots__ = ("_ask", "_number")

    def __init__(self, number: int, ask: "_Asking") -> None:
        object.__setattr__(self, "_number", number)
        object.__setattr__(self, "_ask", ask)

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        return self._ask("call", self, *arguments, **named)

    def __getattr__(self, name: str) -> Any:
        return self._ask("getattr", self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        self._ask("setattr", self, name, value)

    def __getitem__(self, key: Any) -> Any:
        return self._ask("getitem", self, key)

    def __setitem__(self, key: Any, value: Any) -> None:
        self._ask("setitem", self, key, value)

    def __contains__(self, value: Any) -> bool:
        return bool(self._ask("contains", self, value))

    def __iter__(self) -> Iterator[Any]:
        return iter(self._ask("iter", self))

    def __next__(self) -> Any:
        return self._ask("next", self)

    def __len__(self) -> int:
        return self._ask("len", self)

    def __bool__(self) -> bool:
        return bool(self._ask("bool", self))

    def __str__(self) -> str:
        return str(self._ask("str", self))

    def __repr__(self) -> str:
        return str(self._ask("repr", self))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Far) and self._number == other._number

    def __hash__(self) -> int:
        return hash(self._number)


class _Asking:
    """Sends operations to the program's side and returns what they gave."""

    def __init__(self, link: Link) -> None:
        self._link = link

    def names(self, wanted: list[str]) -> dict[str, Any]:
        self._link.send(wanted)
        return decode(self._reply()["value"], self._from_number)

    def __call__(self, operation: str, *arguments: Any, **named: Any) -> Any:
        self._link.send(
            {
                "operation": operation,
                "arguments": [encode(one, _number_of) for one in arguments],
                "named": {name: encode(one, _number_of) for name, one in named.items()},
            }
        )
        reply = self._reply()
        for place, after in reply.get("changed", {}).items():
            _put_back(arguments[1 + int(place)], decode(after, self._from_number))
        return decode(reply["value"], self._from_number)

    def _reply(self) -> dict[str, Any]:
        reply = self._link.receive()
        if not isinstance(reply, dict) or not ("raised" in reply or "value" in reply):
            raise WireError("an answer of another form")
        if "raised" in reply:
            name, text = (str(one) for one in reply["raised"])
            kind = getattr(builtins, name, None)
            if isinstance(kind, type) and issubclass(kind, Exception):
                try:
                    error = kind(text)
                except TypeError:  # UnicodeDecodeError wants five arguments
                    error = ProgramError(f"{name}: {text}")
                raise error
            raise ProgramError(f"{name}: {text}")
        return reply

    def _from_number(self, data: list[Any]) -> _Far:
        if data[0] != "far" or type(data[1]) is not int:
            raise WireError(f"unknown kind of value {data[0]!r}")
        return _Far(data[1], self)


def _number_of(thing: Any) -> list[Any]:
    if isinstance(thing, _Far):
        return ["far", thing._number]
    raise WireError(f"a value of type {type(thing).__name__} cannot be handed to the program")


def _put_back(argument: Any, after: Any) -> None:
    if isinstance(argument, list) and isinstance(after, list):
        argument[:] = after
    elif isinstance(argument, dict | set) and type(after) is type(argument):
        argument.clear()
        argument.update(after)


def judge(task: dict[str, Any], link_descriptor: int) -> None:
    """Runs checks and writes the verdict to what was standard output.

    That is a JSON object with `passed`, `reason` and `lost`: whether the program's side could not be asked any more.

    Args:
        task: `given` (code that comes with the task, run here), `names` (what the program has to define), `checks`
            (code; it passes if it raises nothing).
        link_descriptor: connects to the program's side.
    """
    sys.setrecursionlimit(3000)  # nested values of a program may be deeper than Python allows by default
    verdicts = os.fdopen(os.dup(1), "w")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)  # checks may print, and Python may warn of them
    lost = False
    try:
        reason = _reason_to_fail(task, Link(link_descriptor))
    except WireError as error:
        reason, lost = f"the program could not be asked any more: {error}", True
    verdicts.write(json.dumps({"passed": reason is None, "reason": reason or "", "lost": lost}))
    verdicts.flush()
    os._exit(0)


def _reason_to_fail(task: dict[str, Any], link: Link) -> str | None:
    namespace: dict[str, Any] = {"__name__": "__main__"}
    names = task["names"]
    try:
        found = _Asking(link).names(names)
    except WireError:
        raise
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    missing = [name for name in names if name not in found]
    if missing:
        return f"the program does not define {', '.join(missing)}"
    random.seed(0)
    try:
        exec(compile(task["given"], "<given>", "exec"), namespace)
        namespace.update((name, found[name]) for name in names)
        exec(compile(task["checks"], "<checks>", "exec"), namespace)
    except WireError:
        raise
    except BaseException as error:
        return f"{type(error).__name__}: {error}{_line_of(error)}"
    return None


def _line_of(error: BaseException) -> str:
    """Returns where in the checks it happened."""
    trace, line = error.__traceback__, 0
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == "<checks>":
            line = trace.tb_lineno
        trace = trace.tb_next
    return f" (line {line} of the checks)" if line else ""
