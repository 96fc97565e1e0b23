"""Functions that compile themselves, and give way to what they were compiled from where that fails."""

import inspect
import logging
import os
import types
from collections.abc import Callable
from typing import Any

import torch

logger = logging.getLogger(__name__)

MOST_VERSIONS = 32
"""Compiled versions of one function: for one row or several, for all rows or some, with gradients or without."""
CACHE_VARIABLE = "TORCHINDUCTOR_CACHE_DIR"
"""Names the folder in which torch keeps what it has compiled."""


class Compiled:
    """A function that `torch.compile` compiles at its first call. If that fails, the plain function is used.

    Args:
        plain: the function; it changes nothing before all of it has been compiled.
        effect: what the warning says about running without compilation.
        options: of `torch.compile`.
    """

    def __init__(self, plain: Callable[..., Any], *, effect: str, **options: Any) -> None:
        self.plain = plain
        self.effect = effect
        self.options = options
        self.compiled: Callable[..., Any] | None = None
        """Made by the first call."""
        self.gave_way = False

    def __call__(self, *arguments: Any) -> Any:
        """Calls the function."""
        if self.gave_way or torch.compiler.is_compiling():  # a whole that is being compiled takes all in
            return self.plain(*arguments)
        try:
            if self.compiled is None:
                self.compiled = compiled_copy(self.plain, **self.options)
            return self.compiled(*arguments)
        except Exception as error:
            if not is_compile_error(error):
                raise
            logger.warning("cannot compile %s (%s); %s", self.plain.__name__, first_words(error), self.effect)
            self.gave_way = True
            return self.plain(*arguments)

    def __deepcopy__(self, memo: dict[int, Any]) -> "Compiled":
        """Copies of a model share what has been compiled."""
        return self

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        """Pickles the plain function: what has been compiled belongs to this process."""
        return _unchanged, (self.plain,)


def _unchanged(plain: Callable[..., Any]) -> Callable[..., Any]:
    return plain


def compiled_copy(plain: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    """Returns a function that compiles itself when it is first called.

    Args:
        plain: the function.
        options: of `torch.compile`.
    """
    leave_unwritable_cache()
    if "recompile_limit" in inspect.signature(torch.compile).parameters:  # not in torch 2.11: 8 are kept there
        options["recompile_limit"] = MOST_VERSIONS
    return torch.compile(own_copy(plain), fullgraph=True, **options)


def leave_unwritable_cache() -> None:
    """Lets torch use its default folder for compiled code where the one that the environment names cannot be used.

    Call it before torch loads its compiler, which the optimizers do too: with such a folder that fails for good.
    """
    folder = os.environ.get(CACHE_VARIABLE)
    if not folder:
        return
    try:
        os.makedirs(folder, exist_ok=True)
        reason = None if os.access(folder, os.W_OK) else "it is not writable"
    except OSError as error:
        reason = error.strerror
    if reason:
        logger.warning("%s is %s, which cannot be used (%s); torch's default is used", CACHE_VARIABLE, folder, reason)
        del os.environ[CACHE_VARIABLE]


def own_copy(plain: Callable[..., Any]) -> Callable[..., Any]:
    """Copies a function: compiled code is found by its code object, and few versions are kept for one."""
    own = types.FunctionType(
        plain.__code__.replace(), plain.__globals__, plain.__name__, plain.__defaults__, plain.__closure__
    )
    own.__kwdefaults__ = plain.__kwdefaults__
    return own


def first_words(error: Exception) -> str:
    """Returns the lines of a long message that say what is wrong."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return " ".join(lines[: 2 if lines[0].endswith(":") else 1])


def is_compile_error(error: Exception) -> bool:
    """Whether an error comes from compiling, not from what the function does: a file that cannot be written counts."""
    homes = tuple(base.__module__ for base in type(error).__mro__)
    return isinstance(error, OSError) or any(home.startswith(("torch._dynamo", "torch._inductor")) for home in homes)
