"""What of the three phases of a step runs on the device: as it is, compiled, or captured as CUDA graphs.

A kernel is a function of the model, the state and the rows that are due, in which no control flow depends on values.
Small models spend most of a step on starting operations, not on computing: compiled kernels start few, and a captured
one starts all at once.
"""

import logging
import types
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any
from weakref import WeakKeyDictionary

import torch

from patchpad.inference import stepping
from patchpad.model.byte_lm import ByteLM
from patchpad.model.language_model import LanguageModel

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Kernels:
    """One function for each phase, with the arguments of those in `patchpad.inference.stepping`."""

    read: Callable[..., Any]
    refresh: Callable[..., Any]
    predict: Callable[..., Any]


PLAIN = Kernels(read=stepping.read_kernel, refresh=stepping.refresh_kernel, predict=stepping.predict_kernel)

_COMPILED: "WeakKeyDictionary[LanguageModel, Kernels]" = WeakKeyDictionary()
"""What has been compiled for a model stays as long as the model does."""


def fast_kernels(model: LanguageModel) -> Kernels | None:
    """Returns the fastest kernels for a model and its device; None where there are none beside the plain ones.

    On a CPU they are compiled, which takes up to a minute at the first step and again when the batch first changes its
    size; it needs a C++ compiler. On CUDA they are captured as graphs. Where either fails, one warning is logged and
    the plain kernels go on.
    """
    if not isinstance(model, ByteLM):
        logger.warning("only patch models have compiled kernels; `%s` runs without", model.config.kind)
        return None
    if model.device.type == "cuda":
        from patchpad.inference.cuda_graphs import captured_kernels  # it imports this module

        return captured_kernels(model)
    if model not in _COMPILED:
        _COMPILED[model] = compiled_kernels()
    return _COMPILED[model]


def compiled_kernels(backend: str = "inductor") -> Kernels:
    """Returns kernels that compile themselves when they are first called. They belong to one model.

    Args:
        backend: of `torch.compile`; `aot_eager` only traces, which is quick and shows whether that goes right.
    """
    return Kernels(**{field.name: _Compiled(getattr(PLAIN, field.name), backend) for field in fields(Kernels)})


class _Compiled:
    """A kernel that is compiled when it is first called, and gives way to the plain one if that fails."""

    def __init__(self, plain: Callable[..., Any], backend: str) -> None:
        self.plain = plain
        # Compiled code is found by its code object. A copy of that makes sure that it is this model's alone, so that
        # hundreds of checks whether the model is still the same can be left out: they would take longer than the work.
        own = types.FunctionType(plain.__code__.replace(), plain.__globals__, plain.__name__, closure=plain.__closure__)
        options: dict[str, Any] = {"guard_filter_fn": _guards_to_keep}
        if backend == "inductor":
            options["cpp_wrapper"] = True
        self.compiled: Callable[..., Any] | None = torch.compile(own, fullgraph=True, backend=backend, options=options)

    def __call__(self, *arguments: Any) -> Any:
        """Runs the kernel."""
        if self.compiled is None:
            return self.plain(*arguments)
        try:
            return self.compiled(*arguments)
        except compile_errors() as error:
            # Nothing has run yet, so the state is as it was.
            logger.warning(
                "cannot compile %s (%s); generation goes on without, at about half the speed for small models",
                self.plain.__name__,
                first_words(error),
            )
            self.compiled = None
            return self.plain(*arguments)


def first_words(error: Exception) -> str:
    """Returns the lines of a long message that say what is wrong."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[: 2 if lines[0].endswith(":") else 1])


def compile_errors() -> tuple[type[Exception], ...]:
    """Returns what `torch.compile` raises where it cannot compile; loaded late, as it takes a second."""
    from torch._dynamo.exc import TorchDynamoException
    from torch._inductor.exc import CppCompileError, InvalidCxxCompiler

    return TorchDynamoException, CppCompileError, InvalidCxxCompiler


def _guards_to_keep(guards: Sequence[Any]) -> list[bool]:
    """Keeps what may change between two steps: shapes of the state, and what decides patches and scratchpads."""
    return [_may_change(guard) for guard in guards]


def _may_change(guard: Any) -> bool:
    if guard.guard_type == "SHAPE_ENV" or guard.name.startswith(("model.trigger", "model.patchifier")):
        return True
    return guard.guard_type == "TENSOR_MATCH" and not guard.name.startswith("model")
