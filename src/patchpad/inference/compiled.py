"""Kernels of a step that `torch.compile` has compiled.

Small models spend most of a step on starting operations, not on computing: compiled kernels start few.

Each kernel is compiled twice at most: for a single row, and for any number of rows of any batch. The sizes that may
change are marked before the first call, so that no later call finds one that it was not compiled for.
"""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from typing import Any
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Int
from torch import Tensor

from patchpad.inference.cache import GATHER_SHARE, TrunkCache
from patchpad.inference.kept_steps import KeptKernel, kept_kernel
from patchpad.inference.kernels import PLAIN, Kernels
from patchpad.inference.patch_state import DecodingState
from patchpad.model.byte_lm import ByteLM
from patchpad.model.compilation import Compiled
from patchpad.model.weights import Linear

logger = logging.getLogger(__name__)

HOW_LONG = "half a minute to a minute the first time, a few seconds once they are kept in files"

_COMPILED: "WeakKeyDictionary[ByteLM, Kernels]" = WeakKeyDictionary()
"""What has been compiled for a model stays as long as the model does."""


def kernels_compiled_for(model: ByteLM) -> Kernels:
    """Returns the compiled kernels of a model, always the same.

    Compiling takes up to a minute at the first step and once more at the first step of several rows, and needs a C++
    compiler. Where it fails, one warning for each kernel is logged and the plain one goes on.
    """
    for module in model.modules():
        if isinstance(module, Linear):
            module.pack_when_compiled()
    if model not in _COMPILED:
        _COMPILED[model] = compiled_kernels()
    return _COMPILED[model]


def compiled_kernels(backend: str = "inductor") -> Kernels:
    """Returns kernels that compile themselves when they are first called. They belong to one model.

    Args:
        backend: of `torch.compile`; `aot_eager` only traces, which is quick and shows whether that goes right.
    """
    effect = "generation continues without it, at about half the speed for small models"
    wait = Wait([field.name for field in fields(Kernels)])
    return Kernels(
        **{
            field.name: CompiledKernel(
                compiled_function(
                    getattr(PLAIN, field.name), effect=effect, backend=backend, cpp_wrapper=backend == "inductor"
                ),
                field.name,
                wait,
                is_kept=backend == "inductor",
            )
            for field in fields(Kernels)
        }
    )


class Wait:
    """Says what a user waits for: one line before the first of several kernels is compiled, one after the last.

    Args:
        names: of the kernels.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.left: dict[bool, set[str]] = {True: set(names), False: set(names)}
        """Names of the kernels that are not compiled yet, for a single row and for several."""
        self.seconds: dict[bool, float] = {True: 0.0, False: 0.0}
        self.num_kernels = len(names)
        self.gave_way = False
        """Whether a kernel could not be compiled."""

    @contextmanager
    def compiling(self, name: str, is_single: bool) -> Iterator[None]:
        """The first call of a kernel, which compiles it.

        Args:
            name: of the kernel.
            is_single: whether it is for a single row.
        """
        left, rows = self.left[is_single], "one row" if is_single else "several rows"
        if len(left) == self.num_kernels:
            logger.info("compiling the %d phases of a step of %s; %s", self.num_kernels, rows, HOW_LONG)
        begin = time.perf_counter()
        yield
        self.seconds[is_single] += time.perf_counter() - begin
        left.discard(name)
        if not left and not self.gave_way:
            logger.info("steps of %s are compiled; that took %.0f s", rows, self.seconds[is_single])


class CompiledKernel:
    """A kernel that is compiled for a single row, and for several rows of any batch.

    Few rows of many run uncompiled: compiled layers attend for the whole batch.

    Args:
        compiled: the kernel.
        name: of the kernel.
        wait: of all kernels of the model.
        is_kept: whether files keep it for other processes; see `patchpad.inference.kept_steps`.
    """

    def __init__(self, compiled: Compiled, name: str, wait: Wait, *, is_kept: bool = False) -> None:
        self.compiled = compiled
        self.name = name
        self.wait = wait
        self.is_kept = is_kept
        self.kept: dict[bool, KeptKernel | None] = {}
        """From files, for a single row and for several; None where there can be none."""
        self.marked: set[bool] = set()
        """Where `torch.compile` itself has been asked, with its sizes marked."""

    def __call__(self, model: ByteLM, state: DecodingState, rows: Int[Tensor, " row"], *inputs: Tensor) -> Any:
        """Calls the kernel."""
        count, batch = len(rows), len(state.ints)
        if self.compiled.gave_way or count <= GATHER_SHARE * batch:
            return self.compiled.plain(model, state, rows, *inputs)
        # What is compiled for several rows takes at least two. To compute the same one twice does no harm.
        times = 2 if count == 1 < batch else 1
        # Compiled code tells tensors that were made in inference mode from others. Here it is on, and copies are such.
        own = [part if part.is_inference() and times == 1 else part.repeat(times) for part in (rows, *inputs)]
        if self.name in self.wait.left[batch == 1]:
            with self.wait.compiling(self.name, batch == 1):
                of_rows, *values = self._compiled(model, state, own)
                self.wait.gave_way |= self.compiled.gave_way
        else:
            of_rows, *values = self._compiled(model, state, own)
        return (of_rows if of_rows is None or times == 1 else of_rows[:1], *values)

    def _compiled(self, model: ByteLM, state: DecodingState, inputs: Sequence[Tensor]) -> Any:
        """Calls what a file has kept, if it fits, else what `torch.compile` makes."""
        is_single = len(state.ints) == 1
        if self.is_kept and is_single not in self.kept:
            self.kept[is_single] = kept_kernel(
                self.compiled.plain, model, state, inputs, mark_sizes=_mark_sizes, **self.compiled.options
            )
        kept = self.kept.get(is_single)
        if kept is not None and kept.fits(model, state, *inputs):
            return kept(model, state, *inputs)
        if is_single not in self.marked:
            _mark_sizes(state, inputs)
            self.marked.add(is_single)
        return self.compiled(model, state, *inputs)


def _mark_sizes(state: DecodingState, inputs: Sequence[Tensor]) -> None:
    """Marks the sizes that change from call to call: rows, and places of the trunk's cache."""
    for tensor in (*state.tensors(), *inputs):
        torch._dynamo.maybe_mark_dynamic(tensor, 0)
    if isinstance(state.trunk, TrunkCache):  # one in parts never goes into compiled code
        for tensor in (*state.trunk.keys, *state.trunk.values):
            torch._dynamo.maybe_mark_dynamic(tensor, 2)


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
