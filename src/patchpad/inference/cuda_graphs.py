"""Kernels of a step as CUDA graphs: one launch for each, however many operations it has.

A graph works on fixed addresses and a fixed number of rows. So there is one for each power of two of rows, the last row
being repeated to fill it up, and all are captured anew when caches of the state have moved: when rows join or leave,
and when the trunk's cache grows. The state's values, which every step replaces, are copied in and out.
"""

import copy
import logging
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn

from patchpad.inference.kernels import PLAIN, Kernels
from patchpad.inference.row_state import RowState
from patchpad.model.byte_lm import ByteLM
from patchpad.model.compilation import first_words
from patchpad.model.weights import PreciseLinear

logger = logging.getLogger(__name__)

Results = tuple[Tensor | None, ...]
Run = Callable[..., Results]


def captured_kernels(model: ByteLM) -> Kernels:
    """Returns kernels for a model on CUDA, captured when they are first called.

    They read a copy of the linear layers in the type that CUDA computes in, so that a step does not convert them.
    """
    fast = half_precision_linears(model)
    return Kernels(
        **{field.name: PaddedKernel(GraphRunner(getattr(PLAIN, field.name), fast).run) for field in fields(Kernels)}
    )


def half_precision_linears(model: ByteLM) -> ByteLM:
    """Returns a copy whose linear layers are in bf16, as autocast makes them at every step; `PreciseLinear` stays."""
    fast = copy.deepcopy(model)
    fast.patch_threshold_nats = model.patch_threshold_nats  # shared: it may be stored anew
    if model.routing is not None and fast.routing is not None:
        fast.routing.threshold = model.routing.threshold
    for module in fast.modules():
        if isinstance(module, nn.Linear) and not isinstance(module, PreciseLinear):
            module.weight.data = module.weight.data.to(torch.bfloat16)
    return fast


class PaddedKernel:
    """A kernel that only ever runs for powers of two of rows, for all, or for all but one.

    The last row is repeated. Kernels write the same values for it each time, so nothing changes but the shapes.
    """

    def __init__(self, run: Run) -> None:
        self.run = run

    def __call__(self, model: ByteLM, state: RowState, rows: Int[Tensor, " row"], *inputs: Tensor) -> Results:
        """Runs the kernel; returns its results, the first of them for the given rows."""
        count = len(rows)
        spare = padded_rows(count, len(state.ints)) - count
        padded = [torch.cat((part, part[-1:].expand(spare))) if spare else part for part in (rows, *inputs)]
        for_rows, *values = self.run(model, state, *padded)
        return (None if for_rows is None else for_rows[:count], *values)


def padded_rows(count: int, batch: int) -> int:
    """Returns the next power of two of rows; but never the whole batch, which stands for each row once."""
    return count if count == batch else min(batch - 1, 1 << (count - 1).bit_length())


class GraphRunner:
    """Captures a kernel for each number of rows and replays it; if that fails, runs it as it is."""

    def __init__(self, plain: Run, fast: ByteLM) -> None:
        self.plain = plain
        self.fast = fast
        self.captured_for: Any = None
        """What the graphs depend on: addresses and shapes of the caches, and what decides patches and scratchpads."""
        self.held_state: RowState | None = None
        """The caches of the state, and values at fixed addresses."""
        self.graphs: dict[int, tuple[torch.cuda.CUDAGraph, list[Tensor], Results]] = {}
        self.failed = False

    def run(self, model: ByteLM, state: RowState, *inputs: Tensor) -> Results:
        """Runs the kernel on the state; `model` is the original one, whose trigger and patchifier count."""
        if self.failed:
            return self.plain(model, state, *inputs)
        self.fast.trigger, self.fast.patchifier = model.trigger, model.patchifier
        depends_on = (
            [(part.data_ptr(), part.shape) for part in state.cache_tensors()],
            id(model.trigger),
            id(model.patchifier),
            model.patch_threshold.data_ptr(),
        )
        if depends_on != self.captured_for:
            self.captured_for = None
            self.graphs.clear()
            self.held_state = state.draft()
            self.held_state.ints, self.held_state.floats = (part.clone() for part in state.values())
            self.captured_for = depends_on
        held_state = self.held_state
        assert held_state is not None
        count = len(inputs[0])
        if count not in self.graphs:
            try:
                self.graphs[count] = self._capture(held_state, inputs)
            except RuntimeError as error:
                logger.warning(
                    "cannot capture a CUDA graph (%s); generation goes on without, slower for small models",
                    first_words(error),
                )
                self.failed = True
                return self.plain(model, state, *inputs)
        graph, held, result = self.graphs[count]
        copy_all(held_state.values() + held, state.values() + list(inputs))
        graph.replay()
        return tuple(None if part is None else part.clone() for part in result)

    def _capture(
        self, state: RowState, inputs: tuple[Tensor, ...]
    ) -> tuple[torch.cuda.CUDAGraph, list[Tensor], Results]:
        """Records the kernel without running it on the state: it is warmed up on a copy."""
        held = [part.clone() for part in inputs]
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            trial = state.clone()
            for _ in range(2):
                self.plain(self.fast, trial, *held)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            result = self.plain(self.fast, state, *held)
        return graph, held, result


def copy_all(buffers: list[Tensor], values: list[Tensor]) -> None:
    """Copies tensors into buffers, in one launch for those of one type."""
    for dtype in {buffer.dtype for buffer in buffers}:
        alike = [number for number, buffer in enumerate(buffers) if buffer.dtype == dtype]
        torch._foreach_copy_([buffers[number] for number in alike], [values[number] for number in alike])
