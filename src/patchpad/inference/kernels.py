"""What of the three phases of a step runs on the device: as it is, compiled, or captured as CUDA graphs.

A kernel is a function of the model, the state and the rows that are due, in which no control flow depends on values.
Small models spend most of a step on starting operations, not on computing: compiled kernels start few, and a captured
one starts all at once.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any
from weakref import WeakKeyDictionary

from patchpad.inference import stepping
from patchpad.model.byte_lm import ByteLM
from patchpad.model.compilation import Compiled
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

    They check little before they run: hundreds of checks whether the model is still the same, which `torch.compile`
    makes by default, take longer than the work.

    Args:
        backend: of `torch.compile`; `aot_eager` only traces, which is quick and shows whether that goes right.
    """
    options: dict[str, Any] = {"guard_filter_fn": _guards_to_keep}
    if backend == "inductor":
        options["cpp_wrapper"] = True
    effect = "generation goes on without, at about half the speed for small models"
    return Kernels(
        **{
            field.name: Compiled(getattr(PLAIN, field.name), effect=effect, backend=backend, options=options)
            for field in fields(Kernels)
        }
    )


def _guards_to_keep(guards: Sequence[Any]) -> list[bool]:
    """Keeps what may change between two steps: shapes of the state, and what decides patches and scratchpads."""
    return [_may_change(guard) for guard in guards]


def _may_change(guard: Any) -> bool:
    if guard.guard_type == "SHAPE_ENV" or guard.name.startswith(("model.trigger", "model.patchifier")):
        return True
    return guard.guard_type == "TENSOR_MATCH" and not guard.name.startswith("model")
