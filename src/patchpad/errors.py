"""Every error that `patchpad` raises on purpose, one class per kind.

Each message says what was wrong, the value, what is allowed, and what to do next.
"""

import difflib
import math
import operator
import os
import shlex
from collections.abc import Iterable
from typing import Any


class PatchpadError(Exception):
    """Base of all errors raised on purpose. The command line prints it in two lines and exits with `exit_code`."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(f"{message}\n{hint}" if hint else message)
        self.message = message
        self.hint = hint


class ConfigError(PatchpadError, ValueError):
    """A configuration or command-line value that is unknown, impossible or contradictory."""

    exit_code = 2


class PluginError(ConfigError):
    """A plug-in that cannot be found or loaded, or registers what it may not."""


class MissingPluginError(PluginError):
    """A configuration names what a plug-in registers that is not loaded; nothing is imported because of that."""

    def __init__(self, message: str, *, plugin: str, hint: str = "") -> None:
        written = quoted(plugin)
        python = f"in Python: patchpad.plugins.load({plugin!r})"
        super().__init__(message, hint=hint or f"If you trust it: patchpad COMMAND ... --plugin {written}; {python}")
        self.plugin = plugin


class InputError(PatchpadError, ValueError):
    """Byte ids or prompts that break the model's input contract."""

    exit_code = 2


class DataError(PatchpadError, ValueError):
    """Text that is missing, unreadable or empty."""


class CheckpointError(PatchpadError, ValueError):
    """A run or checkpoint that is missing, incomplete, altered or not ours."""


class ConversionError(PatchpadError, ValueError):
    """A model of another kind whose layers cannot become a trunk, or whose files are missing or damaged."""


class RunInUseError(PatchpadError, RuntimeError):
    """Another process is at work in the folder of a run."""


class GenerationError(PatchpadError, ValueError):
    """A request for generation that the model or its calibration cannot serve."""

    exit_code = 2


class TrainingError(PatchpadError, ArithmeticError):
    """Training that has diverged: a loss or gradient is no longer a number."""


class StudyError(PatchpadError):
    """Arms of a study that failed; the others were finished first."""


class QueueFullError(PatchpadError, RuntimeError):
    """So many requests wait that no more are taken; later there is room again."""


class SchedulerClosedError(PatchpadError, RuntimeError):
    """No more requests are taken, or one was cut short, because the server is shutting down."""


class EngineError(PatchpadError, RuntimeError):
    """The engine failed while it worked on a request that was in order."""


class MissingExtraError(PatchpadError, ImportError):
    """An optional dependency is not installed; the message names the pip line."""


class SandboxError(PatchpadError, RuntimeError):
    """Programs written by a model cannot be run safely on this system."""


class HarnessError(PatchpadError, RuntimeError):
    """An evaluation harness that runs our models has stopped with an error of its own."""


class TrainingInterrupted(PatchpadError):  # noqa: N818  (an interruption is not a fault)
    """Training was stopped by a signal after its state was saved."""

    exit_code = 130


class EvaluationInterrupted(PatchpadError):  # noqa: N818  (an interruption is not a fault)
    """An evaluation was stopped by a signal; what it had done is kept."""

    exit_code = 130


class ServingError(PatchpadError, OSError):
    """A server that cannot start."""


class ServingInterrupted(PatchpadError):  # noqa: N818  (an interruption is not a fault)
    """A server was stopped by a signal, and requests were cut short."""

    exit_code = 130


class EvaluationError(PatchpadError):
    """Tasks of a suite that failed; the others were finished first."""


class LostRankError(PatchpadError, ConnectionError):
    """Another rank of a run has ended, or cannot be reached any more."""


class OtherRankError(PatchpadError):
    """Another rank of a run has failed and says why; the command line prints nothing more."""

    def __init__(self, message: str, *, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def number_or_nan(value: Any) -> float:
    """Returns a caller's value as a number, or nan if it is not one. nan is outside every range."""
    try:
        return math.nan if isinstance(value, str | bytes | bytearray) else float(value)
    except (TypeError, ValueError, OverflowError, RuntimeError):
        return math.nan


def integer_or_none(value: Any) -> int | None:
    """Returns an integer of any type as an int, or None if it is not an integer."""
    try:
        return operator.index(value)
    except (TypeError, ValueError, RuntimeError):
        return None


def quoted(path: str | os.PathLike[str]) -> str:
    """Returns a path as a shell reads it, for hints and next commands that people paste."""
    return shlex.quote(os.fspath(path))


def near_matches(word: str, allowed: Iterable[str]) -> str:
    """Returns "Did you mean `x`?" for close spellings, else the list of allowed words."""
    allowed = sorted(allowed)
    close = difflib.get_close_matches(word, allowed, n=3, cutoff=0.6)
    if close:
        return "Did you mean " + " or ".join(f"`{match}`" for match in close) + "?"
    return "Allowed: " + ", ".join(allowed)
