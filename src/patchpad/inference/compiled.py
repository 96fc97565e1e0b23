"""Kernels of a step that `torch.compile` has compiled.

Small models spend most of a step on starting operations, not on computing: compiled kernels start few.
"""

from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any
from weakref import WeakKeyDictionary

from patchpad.inference.kernels import PLAIN, Kernels
from patchpad.model.byte_lm import ByteLM
from patchpad.model.compilation import Compiled

_COMPILED: "WeakKeyDictionary[ByteLM, Kernels]" = WeakKeyDictionary()
"""What has been compiled for a model stays as long as the model does."""


def kernels_compiled_for(model: ByteLM) -> Kernels:
    """Returns the compiled kernels of a model, always the same.

    Compiling takes up to a minute at the first step and again when the batch first changes its size, and needs a C++
    compiler. Where it fails, one warning for each kernel is logged and the plain one goes on.
    """
    if model not in _COMPILED:
        _COMPILED[model] = compiled_kernels()
    return _COMPILED[model]


def compiled_kernels(backend: str = "inductor") -> Kernels:
    """Returns kernels that compile themselves when they are first called. They belong to one model.

    Args:
        backend: of `torch.compile`; `aot_eager` only traces, which is quick and shows whether that goes right.
    """
    effect = "generation continues without it, at about half the speed for small models"
    return Kernels(
        **{
            field.name: compiled_function(
                getattr(PLAIN, field.name), effect=effect, backend=backend, cpp_wrapper=backend == "inductor"
            )
            for field in fields(Kernels)
        }
    )


def compiled_function(
    plain: Callable[..., Any],
    *,
    effect: str,
    backend: str = "inductor",
    cpp_wrapper: bool = False,
    fuses_any: bool = False,
) -> Compiled:
    """Returns a function of a model and a state that compiles itself when it is first called. It belongs to one model.

    It checks little before it runs: hundreds of checks whether the model is still the same, which `torch.compile` makes
    by default, take longer than the work.

    Args:
        plain: the function, whose first argument is called `model`.
        effect: what the warning says that comes of going on without.
        backend: of `torch.compile`.
        cpp_wrapper: start the kernels from C++.
        fuses_any: make one kernel of operations that share any data. By default they must share 10 bytes, and those of
            a single row share one integer: a trunk call would have two more kernels in each layer.
    """
    options: dict[str, Any] = {"guard_filter_fn": _guards_to_keep}
    if cpp_wrapper:
        options["cpp_wrapper"] = True
    if fuses_any:
        options["score_fusion_memory_threshold"] = 1
    return Compiled(plain, effect=effect, backend=backend, options=options)


def _guards_to_keep(guards: Sequence[Any]) -> list[bool]:
    """Keeps what may change between two steps: shapes of the state, and what decides patches and scratchpads."""
    return [_may_change(guard) for guard in guards]


def _may_change(guard: Any) -> bool:
    if guard.guard_type == "SHAPE_ENV" or guard.name.startswith(("model.trigger", "model.patchifier")):
        return True
    return guard.guard_type == "TENSOR_MATCH" and not guard.name.startswith("model")
