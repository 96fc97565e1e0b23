"""Lets torch compile for an H100 (sm_90) without a GPU: a described card, fake tensors, triton's own ptxas.

Inductor needs no card to generate code: it asks a few properties of one. Nothing that it generates is run. Importing
this module puts all of it into torch for the rest of the process, so it has to come before torch.
"""

import contextlib
import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest import mock

ROOT = Path(__file__).resolve().parent.parent
HOOKS = ROOT / "tests" / "cuda" / "pretended_cuda" / "hooks.py"
CARD = "NVIDIA H100 80GB HBM3"
CAPABILITY = (9, 0)
INSTALL = "pip install --no-deps --target build/triton triton==3.7.1, then PYTHONPATH=build/triton"


def _hooks() -> ModuleType:
    """Returns the module that lets a CPU-only torch differentiate tensors that say they are on CUDA."""
    specification = importlib.util.spec_from_file_location("pretended_hooks", HOOKS)
    assert specification is not None
    assert specification.loader is not None
    hooks = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(hooks)
    return hooks


def what_is_missing() -> str | None:
    """Returns why nothing can be compiled for a GPU here; None if it can."""
    if importlib.util.find_spec("triton") is None:
        return f"compiling for a GPU needs triton, which is not installed; {INSTALL}"
    return _hooks().what_is_missing()


if _reason := what_is_missing():
    raise SystemExit(_reason)
os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"  # workers would know nothing of the card
os.environ["TORCHINDUCTOR_FORCE_DISABLE_CACHES"] = "1"
_hooks().load()

import torch  # noqa: E402
import torch._dynamo.device_interface  # noqa: E402
import torch._functorch.config  # noqa: E402
import torch._inductor.config  # noqa: E402
import torch._inductor.fx_passes.joint_graph  # noqa: E402
import torch._inductor.fx_passes.post_grad  # noqa: E402
import torch._inductor.runtime.triton_helpers  # noqa: E402
import torch._inductor.runtime.triton_heuristics  # noqa: E402
from torch import Tensor, nn  # noqa: E402
from torch._subclasses import FakeTensorMode  # noqa: E402
from torch.fx.experimental.symbolic_shapes import ShapeEnv  # noqa: E402
from triton.backends.compiler import GPUTarget  # noqa: E402
from triton.runtime import driver  # noqa: E402

PROPERTIES = SimpleNamespace(
    name=CARD,
    major=CAPABILITY[0],
    minor=CAPABILITY[1],
    multi_processor_count=132,
    warp_size=32,
    total_memory=80 * 2**30,
    regs_per_multiprocessor=65536,
    max_threads_per_multi_processor=2048,
    max_threads_per_block=1024,
    shared_memory_per_block=49152,
    shared_memory_per_block_optin=232448,
    shared_memory_per_multiprocessor=233472,
    L2_cache_size=50 * 2**20,
    gcnArchName="",
    is_integrated=0,
    clock_rate=1980000,
    memory_clock_rate=2619000,
    memory_bus_width=5120,
    pci_bus_id=0,
)


class Driver:
    """Stands for triton's driver: it names the card to compile for, and everything else is nothing."""

    def get_current_target(self) -> GPUTarget:
        """The card's architecture."""
        return GPUTarget("cuda", 90, 32)

    def get_active_torch_device(self) -> torch.device:
        """The card."""
        return torch.device("cuda", 0)

    def get_device_interface(self) -> Any:
        """What torch knows of CUDA."""
        return torch.cuda

    def get_current_device(self) -> int:
        """Its number."""
        return 0

    def get_current_stream(self, device: int | None = None) -> int:
        """The default one."""
        return 0

    def __getattr__(self, name: str) -> Any:
        return mock.MagicMock()


def _answer(answer: Any) -> Any:
    return lambda *_, **__: answer


def _install() -> None:
    driver.set_active(Driver())
    torch._inductor.runtime.triton_helpers.set_driver_to_gpu = _answer(None)
    of_torch = {
        "_cuda_getCurrentRawStream": 0,
        "_cuda_getDeviceCount": 1,
        "_cuda_getDevice": 0,
        "_cuda_setDevice": None,
        "_cuda_maybeExchangeDevice": 0,
        "_cuda_exchangeDevice": 0,
        "_cuda_isCurrentStreamCapturing": False,
        "_cuda_getCompiledVersion": 13000,
    }
    for name, answer in of_torch.items():
        if not hasattr(torch._C, name):
            setattr(torch._C, name, _answer(answer))
    torch.version.cuda = "13.0"
    of_cuda = {
        "is_available": True,
        "is_initialized": True,
        "device_count": 1,
        "current_device": 0,
        "get_device_properties": PROPERTIES,
        "get_device_capability": CAPABILITY,
        "get_device_name": CARD,
        "is_bf16_supported": True,
        "mem_get_info": (70 * 2**30, 80 * 2**30),
        "current_stream": mock.MagicMock(cuda_stream=0),
        "get_rng_state": torch.zeros(16, dtype=torch.uint8),
        "set_rng_state": None,
        "set_device": None,
        "synchronize": None,
        "_lazy_init": None,
        "_exchange_device": 0,
        "_maybe_exchange_device": 0,
    }
    for name, answer in of_cuda.items():
        setattr(torch.cuda, name, _answer(answer))
    interface = torch._dynamo.device_interface.CudaInterface
    interface.Worker.get_device_properties = staticmethod(_answer(PROPERTIES))
    of_interface = {
        "is_available": True,
        "get_compute_capability": 90,
        "current_device": 0,
        "device_count": 1,
        "get_device_properties": PROPERTIES,
        "set_device": None,
        "synchronize": None,
        "exchange_device": 0,
        "maybe_exchange_device": 0,
        "is_bf16_supported": True,
        "is_triton_capable": True,
        "raise_if_triton_unavailable": None,
    }
    for name, answer in of_interface.items():
        setattr(interface, name, staticmethod(_answer(answer)))
    torch._inductor.config.compile_threads = 1
    torch._inductor.config.use_static_triton_launcher = False
    torch._inductor.config.joint_graph_constant_folding = False
    # These passes trace their patterns on the card first.
    torch._inductor.fx_passes.joint_graph.lazy_init = _answer(None)
    torch._inductor.fx_passes.post_grad.lazy_init = _answer(None)
    torch._functorch.config.force_non_lazy_backward_lowering = True  # nothing is run, so nothing calls for it later


@contextlib.contextmanager
def fake_tensors() -> Iterator[None]:
    """Makes tensors without values, of any size, on a card that is not there."""
    shapes = ShapeEnv(allow_scalar_outputs=True, allow_dynamic_output_shape_ops=True)
    with FakeTensorMode(shape_env=shapes, allow_non_fake_inputs=True):
        yield


def move_to_card(model: nn.Module, linear_type: torch.dtype = torch.float32) -> None:
    """Puts a model's parameters and buffers, made under `fake_tensors`, on the card.

    Args:
        model: fp32.
        linear_type: type of the weights of its linear layers that autocast would cast.
    """
    for module in model.modules():
        is_cast = type(module).__name__ == "Linear"
        for name, value in module._parameters.items():
            if value is not None:
                moved = torch.empty(value.shape, device="cuda", dtype=linear_type if is_cast else value.dtype)
                module._parameters[name] = nn.Parameter(moved, requires_grad=value.requires_grad)
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = _like(buffer)


def _like(value: Tensor) -> Tensor:
    return torch.empty(value.shape, device="cuda", dtype=value.dtype)


_install()
