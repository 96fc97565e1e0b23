"""Puts the pretended device into torch, for the rest of the process."""

import contextlib
import functools
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import torch
import torch.utils._foreach_utils
from torch import nn

from pretended_cuda import dispatch, fused, graphs
from pretended_cuda.record import OTHER_THREADS
from pretended_cuda.tensor import CudaTensor, Device, OnThisThread

NAME = "pretended CUDA device"
MEMORY_BYTES = 80 * 2**30


def install() -> None:
    """Makes torch see one CUDA device, in all threads; `pretended_cuda.hooks` must have been loaded before torch."""
    assert Device.run is dispatch.run
    _install_cuda()
    fused.install()
    torch.compile = _compile
    torch.utils._foreach_utils._foreach_supported_types = [torch.Tensor, nn.Parameter, CudaTensor]
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    torch._C._set_only_lift_cpu_tensors(True)
    OnThisThread().__enter__()
    begin = threading.Thread._bootstrap_inner  # what a thread does, in subclasses of it too

    def begin_on_device(thread: threading.Thread) -> None:
        OTHER_THREADS.add(threading.get_ident())
        try:
            with OnThisThread():
                begin(thread)
        finally:
            OTHER_THREADS.discard(threading.get_ident())

    threading.Thread._bootstrap_inner = begin_on_device


def _install_cuda() -> None:
    cuda: Any = torch.cuda
    properties = SimpleNamespace(name=NAME, total_memory=MEMORY_BYTES, major=9, minor=0, multi_processor_count=132)
    answers = {
        "is_available": True,
        "device_count": 1,
        "current_device": 0,
        "is_initialized": True,
        "is_bf16_supported": True,
        "get_device_name": NAME,
        "get_device_capability": (9, 0),
        "get_device_properties": properties,
        "_lazy_init": None,
        "set_device": None,
        "empty_cache": None,
        "manual_seed": None,
        "manual_seed_all": None,
        "graph_pool_handle": (0, 0),
    }
    for name, answer in answers.items():
        setattr(cuda, name, functools.partial(_answer, answer))
    cuda.is_current_stream_capturing = lambda: Device.tape is not None
    cuda.synchronize = lambda device=None: Device.wait("synchronize")
    cuda.memory_allocated = cuda.memory_reserved = lambda device=None: Device.record.live_bytes
    cuda.max_memory_allocated = cuda.max_memory_reserved = lambda device=None: Device.record.peak_bytes
    cuda.reset_peak_memory_stats = lambda device=None: setattr(Device.record, "peak_bytes", Device.record.live_bytes)
    cuda.mem_get_info = lambda device=None: (MEMORY_BYTES - Device.record.live_bytes, MEMORY_BYTES)
    cuda.CUDAGraph, cuda.graph = graphs.Graph, graphs.graph
    cuda.Event, cuda.Stream = graphs.Event, graphs.Stream
    cuda.current_stream = cuda.default_stream = lambda device=None: graphs.Stream()
    cuda.stream = lambda stream: contextlib.nullcontext()
    cuda.device = lambda device: contextlib.nullcontext()


def _answer(answer: Any, *_: object, **__: object) -> Any:
    return answer


def _compile(model: Any = None, *, fullgraph: bool = False, **options: Any) -> Any:
    """Stands for `torch.compile`: runs the function as it is; where it has to be one graph, the host may not wait."""
    if model is None:
        return functools.partial(_compile, fullgraph=fullgraph, **options)
    assert not isinstance(model, nn.Module), "the pretended device compiles functions only"
    name = getattr(model, "__name__", type(model).__name__)

    @functools.wraps(model)
    def compiled(*args: Any, **kwargs: Any) -> Any:
        Device.record.compiled[name] += 1
        with _compiling(f"{name} cannot be compiled as one graph" if fullgraph else None):
            return model(*args, **kwargs)

    return compiled


@contextlib.contextmanager
def _compiling(no_waits_in: str | None) -> Iterator[None]:
    """Answers as while compiling, as the code that is compiled sees it."""
    record, compiler = Device.record, torch.compiler
    why_before, asks = record.no_waits_in, compiler.is_compiling
    record.no_waits_in = why_before or no_waits_in
    compiler.is_compiling = _yes
    try:
        yield
    finally:
        record.no_waits_in, compiler.is_compiling = why_before, asks


def _yes() -> bool:
    return True
