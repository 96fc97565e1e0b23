"""A tensor that says it is on `cuda:0`, and the mode that makes such tensors."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._python_dispatch import _disable_current_modes as no_modes

from pretended_cuda.record import Record
from pretended_cuda.transfers import Transfers

CUDA = torch.device("cuda", 0)

Run = Callable[[Any, tuple[Any, ...], dict[str, Any]], Any]


class Device:
    """The one device of the process: who counts, what is under way, and what is being captured."""

    record = Record()
    transfers = Transfers()
    tape: list[tuple[Any, ...]] | None = None
    """Operations of the graph that is being captured."""
    run: Run
    """Runs one operation of torch; set by `pretended_cuda.dispatch`."""

    @classmethod
    def wait(cls, why: str) -> None:
        """Lets the host wait until all is done."""
        cls.record.wait(why)
        if cls.transfers.under_way:
            cls.transfers.finish()


@contextlib.contextmanager
def recording(*, measures: bool = True) -> Iterator[Record]:
    """Counts what runs inside in a record of its own; see `Record`."""
    before, Device.record = Device.record, Record(measures=measures)
    try:
        yield Device.record
    finally:
        Device.record = before


class CudaTensor(Tensor):
    """A tensor on the pretended device. Its values lie in `host`, on the CPU; or on `meta`, if only shapes count."""

    host: Tensor

    @staticmethod
    def __new__(cls, host: Tensor, requires_grad: bool = False) -> "CudaTensor":
        made = torch.Tensor._make_wrapper_subclass(
            cls,
            host.size(),
            strides=host.stride(),
            storage_offset=host.storage_offset(),
            dtype=host.dtype,
            layout=host.layout,
            device=CUDA,
            requires_grad=requires_grad,
        )
        made.host = host
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return Device.run(func, args, kwargs or {})

    def __repr__(self) -> str:
        return f"CudaTensor({tuple(self.shape)}, {self.dtype})"

    def data_ptr(self) -> int:
        return self.host.data_ptr() if self.host.device.type == "cpu" else id(self.host.untyped_storage())

    @property
    def data(self) -> Tensor:
        with torch.no_grad():
            return self.detach()

    @data.setter
    def data(self, value: "CudaTensor") -> None:
        torch.Tensor.data.__set__(self, value)
        self.host = value.host

    def tolist(self) -> Any:
        Device.wait("tolist")
        return self.host.tolist()

    def numpy(self, *, force: bool = False) -> Any:
        if not force:
            raise TypeError("can't convert cuda:0 device type tensor to numpy")
        return self.detach().cpu().numpy()

    def record_stream(self, stream: object) -> None:
        pass

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        if id(self) not in memo:
            with torch.no_grad():
                new: Any = self.detach().clone()
            memo[id(self)] = nn.Parameter(new, self.requires_grad) if isinstance(self, nn.Parameter) else new
        return memo[id(self)]


class OnThisThread(TorchDispatchMode):
    """Sends all operations of a thread to the pretended device, so that it can make tensors there."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return Device.run(func, args, kwargs or {})

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # nothing is compiled here, and each call would pay for it


def placed(made: Tensor) -> CudaTensor:
    """Returns a tensor of the device with these values, and counts its memory."""
    Device.record.hold(made)
    return CudaTensor(made)


def one_kernel(name: str, function: Callable[..., Any], *tensors: Any, moved: int, flops: int = 0) -> Any:
    """Runs a function of many operations on what lies behind tensors of the device, as one kernel of it.

    Args:
        name: of the kernel.
        function: takes and returns tensors of the CPU; without gradients.
        tensors: of the device.
        moved: bytes that the kernel reads and writes.
        flops: of the kernel.
    """
    Device.record.kernel(name, moved, flops)
    hosts = [tensor.host for tensor in tensors]
    with no_modes():
        made = function(*hosts)
    if Device.tape is not None:
        Device.tape.append((function, hosts, {}, made, False))
    return placed(made) if isinstance(made, Tensor) else tuple(map(placed, made))
