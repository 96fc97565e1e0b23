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
    choose_cache()
    if "recompile_limit" in inspect.signature(torch.compile).parameters:  # not in torch 2.11: 8 are kept there
        options["recompile_limit"] = MOST_VERSIONS
    return torch.compile(own_copy(plain), fullgraph=True, **options)


def choose_cache() -> None:
    """Lets torch keep what it compiles where the user keeps caches, so that it outlasts a restart of the machine.

    A folder that the environment names is left as it is. One that cannot be used is not: torch's default takes its
    place, with a warning where the environment has named it.

    Call it before torch loads its compiler, which the optimizers do too: with such a folder that fails for good.
    """
    named = os.environ.get(CACHE_VARIABLE)
    folder = named or cache_folder()
    if not folder:
        return
    reason = _why_unusable(folder)
    if reason is None:
        os.environ[CACHE_VARIABLE] = folder
    elif named:
        logger.warning("%s is %s, which cannot be used (%s); torch's default is used", CACHE_VARIABLE, folder, reason)
        del os.environ[CACHE_VARIABLE]


def cache_folder() -> str | None:
    """Returns the folder for compiled code among the user's caches; None for a user without a home.

    It is `patchpad/inductor` in the folder that XDG_CACHE_HOME names, or in `.cache` in the user's home.
    """
    caches = os.environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(caches):  # others are to be ignored, says the standard
        caches = os.path.expanduser(os.path.join("~", ".cache"))
    return os.path.join(caches, "patchpad", "inductor") if os.path.isabs(caches) else None


def _why_unusable(folder: str) -> str | None:
    """Returns why nothing can be written into a folder, which is made; None if it can."""
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as error:
        return error.strerror
    return None if os.access(folder, os.W_OK) else "it is not writable"


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
