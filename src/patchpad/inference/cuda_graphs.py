"""Steps as CUDA graphs: one launch for each kernel, however many operations it has.

What is made for a model stays as long as the model does: a copy of its linear layers in bf16, the kernels that
`torch.compile` has made of it, and buffers with the graphs that work on them. So a generation captures only what none
before it has: rows are rounded up to a power of two, and places of the trunk's cache to a few sizes.
"""

import logging
from collections.abc import Callable
from threading import Lock
from typing import Any
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from patchpad.inference import whole_batch
from patchpad.inference.buffers import BufferPool, Buffers
from patchpad.inference.compiled import compiled_function
from patchpad.inference.half_precision import HalfPrecisionCopy
from patchpad.inference.kernels import Kernels
from patchpad.inference.patch_state import DecodingState
from patchpad.model.byte_lm import ByteLM
from patchpad.model.compilation import first_words

logger = logging.getLogger(__name__)

FAILURES_ARE_ERRORS = False
"""Whether a graph that cannot be captured is an error, as in tests; else one warning, and steps go on without."""
COMPILE_EFFECT = "steps are captured uncompiled, with about five times the kernels"

_KEPT: "WeakKeyDictionary[ByteLM, CapturedSteps]" = WeakKeyDictionary()


def captured_kernels(model: ByteLM) -> Kernels:
    """Returns kernels for a model on CUDA, captured when they are first called; call it once for each generation.

    They read the weights that the model has now.
    """
    kept = _KEPT.get(model)
    if kept is None or not kept.half.shares_tensors_with(model):
        kept = _KEPT[model] = CapturedSteps(model)
    kept.half.refresh(model)
    return Kernels(read=kept.read, refresh=kept.refresh, predict=kept.predict)


class CapturedSteps:
    """The kernels of a model, compiled and captured, and the buffers they work on.

    Args:
        model: the original; what is kept does not refer to it.
    """

    def __init__(self, model: ByteLM) -> None:
        self.half = HalfPrecisionCopy(model)
        self.pool = BufferPool()
        self.run_one: dict[str, Callable[..., Tensor | None]] = {
            name: compiled_function(plain, effect=COMPILE_EFFECT, fuses_any=True)
            for name, plain in (
                ("read", whole_batch.read_all),
                ("refresh", whole_batch.refresh_all),
                ("predict", whole_batch.predict_all),
            )
        }
        self.captures = True
        """False once a graph could not be captured."""
        self._lock = Lock()

    def read(
        self,
        model: ByteLM,
        state: DecodingState,
        rows: Int[Tensor, " row"],
        ids: Int[Tensor, " row"],
        threshold: Float[Tensor, " row"],
    ) -> tuple[Bool[Tensor, " row"], Tensor, Tensor]:
        """Does what `kernels.read` does."""
        buffers = self._ready(model, state, "read")
        if len(rows) < buffers.rows:
            buffers.ids.fill_(whole_batch.NOT_DUE)
        buffers.ids.index_copy_(0, rows, ids)
        buffers.threshold.index_copy_(0, rows, threshold)
        needs_trunk = self._run("read", buffers)
        assert needs_trunk is not None
        count = len(state.ints)
        return needs_trunk[rows], buffers.hand_out("ints", count), buffers.hand_out("floats", count)

    def refresh(self, model: ByteLM, state: DecodingState, rows: Int[Tensor, " row"]) -> tuple[None, Tensor]:
        """Does what `kernels.refresh` does."""
        buffers = self._ready(model, state, "refresh")
        buffers.is_due.zero_().index_fill_(0, rows, True)
        self._run("refresh", buffers)
        return None, buffers.hand_out("ints", len(state.ints))

    def predict(self, model: ByteLM, state: DecodingState, rows: Int[Tensor, " row"]) -> tuple[Tensor]:
        """Does what `kernels.predict` does."""
        buffers = self._ready(model, state, "predict")
        logits = self._run("predict", buffers)
        assert logits is not None
        return (logits[rows],)

    def _ready(self, model: ByteLM, state: DecodingState, name: str) -> Buffers:
        """Returns the buffers of a state with its values in them, and with a graph of the kernel."""
        self._follow(model)
        with self._lock:
            buffers = self.pool.buffers_of(state)
            buffers.load_values(state)
            if self.captures and name not in buffers.graphs:
                self._capture(name, buffers)
        return buffers

    def _run(self, name: str, buffers: Buffers) -> Tensor | None:
        """Runs a kernel on the buffers."""
        if name not in buffers.graphs:
            return self._run_uncaptured(name, buffers)
        graph, result = buffers.graphs[name]
        graph.replay()
        return result

    def _run_uncaptured(self, name: str, buffers: Buffers) -> Tensor | None:
        inputs = {"read": (buffers.ids, buffers.threshold), "refresh": (buffers.is_due,), "predict": ()}
        return self.run_one[name](self.half.model, buffers.state, *inputs[name])

    def _capture(self, name: str, buffers: Buffers) -> None:
        """Records a kernel; before that it runs twice, which compiles it. No row is due meanwhile."""
        buffers.ids.fill_(whole_batch.NOT_DUE)
        buffers.is_due.zero_()
        try:
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                for _ in range(2):
                    self._run_uncaptured(name, buffers)
            torch.cuda.current_stream().wait_stream(side)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                result = self._run_uncaptured(name, buffers)
            buffers.graphs[name] = (graph, result)
        except RuntimeError as error:
            if FAILURES_ARE_ERRORS or isinstance(error, torch.OutOfMemoryError):
                raise
            logger.warning(
                "cannot capture a CUDA graph (%s); generation continues without it, slower for small models; weights "
                "stay in bf16",
                first_words(error),
            )
            self.captures = False

    def _follow(self, model: ByteLM) -> None:
        """Drops the graphs where what decides patches and scratchpads has been replaced in the model."""
        half = self.half.model
        decides: list[tuple[Any, Any]] = [
            (half.trigger, model.trigger),
            (half.patchifier, model.patchifier),
            (half.patch_threshold, model.patch_threshold),
        ]
        if any(ours is not theirs for ours, theirs in decides):
            half.trigger, half.patchifier = model.trigger, model.patchifier
            half.patch_threshold_nats = model.patch_threshold_nats
            if half.routing is not None and model.routing is not None:
                half.routing.threshold = model.routing.threshold
            for buffers in self.pool.sets:
                buffers.graphs.clear()


__all__ = ["CapturedSteps", "captured_kernels"]
