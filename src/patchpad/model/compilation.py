"""Functions that compile themselves, and give way to what they were compiled from where that fails."""

import inspect
import logging
import types
from collections.abc import Callable
from typing import Any

import torch

logger = logging.getLogger(__name__)

MOST_VERSIONS = 32
"""Compiled versions of one function: for one row or several, for all rows or some, with gradients or without."""


class Compiled:
    """A function that `torch.compile` compiles when it is first called, and that goes on without if it cannot.

    Args:
        plain: the function; it changes nothing before all of it has been compiled.
        effect: what the warning says that comes of going on without.
        options: of `torch.compile`.
    """

    def __init__(self, plain: Callable[..., Any], *, effect: str, **options: Any) -> None:
        self.plain = plain
        self.effect = effect
        if "recompile_limit" in inspect.signature(torch.compile).parameters:  # not in torch 2.11: 8 are kept there
            options["recompile_limit"] = MOST_VERSIONS
        self.compiled: Callable[..., Any] | None = torch.compile(own_copy(plain), fullgraph=True, **options)

    def __call__(self, *arguments: Any) -> Any:
        """Calls the function."""
        if self.compiled is None or torch.compiler.is_compiling():  # a whole that is being compiled takes all in
            return self.plain(*arguments)
        try:
            return self.compiled(*arguments)
        except compile_errors() as error:
            logger.warning("cannot compile %s (%s); %s", self.plain.__name__, first_words(error), self.effect)
            self.compiled = None
            return self.plain(*arguments)

    def __deepcopy__(self, memo: dict[int, Any]) -> "Compiled":
        """Copies of a model share what has been compiled."""
        return self


def own_copy(plain: Callable[..., Any]) -> Callable[..., Any]:
    """Copies a function: compiled code is found by its code object, and few versions are kept for one."""
    own = types.FunctionType(plain.__code__.replace(), plain.__globals__, plain.__name__, closure=plain.__closure__)
    own.__kwdefaults__ = plain.__kwdefaults__
    return own


def first_words(error: Exception) -> str:
    """Returns the lines of a long message that say what is wrong."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return " ".join(lines[: 2 if lines[0].endswith(":") else 1])


def compile_errors() -> tuple[type[Exception], ...]:
    """Returns what `torch.compile` raises where it cannot compile; loaded late, as it takes a second."""
    from torch._dynamo.exc import TorchDynamoException
    from torch._inductor.exc import CppCompileError, InvalidCxxCompiler

    return TorchDynamoException, CppCompileError, InvalidCxxCompiler
