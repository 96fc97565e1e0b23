"""One rank of a cluster that is not there: a process group that communicates nothing, tensors that have shapes alone.

What is real: torch's `fully_shard`, autograd and optimizer, and the model's code as CUDA runs it, with its types and
its fixed number of places for slots. What stands in for kernels that only a GPU has: `Attention` and `norm`, which keep
what those keep. Memory is that of tensors; what a caching allocator or a kernel takes in addition is not in it.
"""

import contextlib
import warnings
import weakref
from collections import Counter
from collections.abc import Iterator
from typing import Any
from unittest import mock

import torch
import torch.distributed as dist
from torch import Tensor
from torch._subclasses import FakeTensorMode
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor
from torch.distributed.tensor._sharding_prop import ShardingPropagator
from torch.testing._internal.distributed.fake_pg import FakeStore
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from patchpad.model import byte_lm, flex_attention
from patchpad.model.back_ends import attention_back_end
from patchpad.model.block import RMSNorm
from patchpad.training import passes

WEIGHTS, GRADIENTS, MOMENTS = "weights", "gradients", "moments"
GATHERED, REDUCED, ACTIVATIONS = "gathered", "reduced", "activations"
LABELS = (WEIGHTS, GRADIENTS, MOMENTS, GATHERED, REDUCED, ACTIVATIONS)
"""What memory is for: shards of the first three; weights that were gathered; gradients on their way; all else."""
COLLECTIVES = {
    "c10d._allgather_base_": "all-gather",
    "c10d._reduce_scatter_base_": "reduce-scatter",
    "c10d.allreduce_": "all-reduce",
    "_c10d_functional.all_reduce": "all-reduce",
}
"""Kind of each operation that communicates."""


class Meter(TorchDispatchMode):
    """Counts the bytes of tensors that are there at once, and what is communicated."""

    def __init__(self) -> None:
        super().__init__()
        self.now: Counter[str] = Counter()
        """Bytes by label."""
        self.peak: Counter[str] = Counter()
        """The same when there were most since `begin`."""
        self.collectives: Counter[str] = Counter()
        """How many of each kind since `begin`."""
        self.collective_bytes: Counter[str] = Counter()
        """Bytes of the whole tensors that these gathered or reduced."""
        self._sizes: dict[int, int] = {}
        self._labels: dict[int, str] = {}
        self._is_muted = False

    def begin(self) -> None:
        """Forgets the peak and the collectives so far."""
        self.peak = self.now.copy()
        self.collectives.clear()
        self.collective_bytes.clear()

    def label(self, tensor: Tensor, label: str) -> None:
        """Says what the memory of a tensor is for."""
        self._hold(tensor)
        key = tensor.untyped_storage()._cdata
        if key in self._sizes:
            self.now[self._labels[key]] -= self._sizes[key]
            self.now[label] += self._sizes[key]
            self._labels[key] = label

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Runs an operation and counts what it leaves."""
        if any(kind is DTensor for kind in types):
            return NotImplemented  # it comes again for the rank's own part
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        if self._is_muted:
            return out
        name = str(func)
        if kind := COLLECTIVES.get(name.rpartition(".")[0]):
            tensors = [part for part in tree_iter((args, kwargs)) if isinstance(part, Tensor)]
            self.collectives[kind] += 1
            self.collective_bytes[kind] += max(part.numel() * part.element_size() for part in tensors)
        for part in tree_iter((args, kwargs, out)):
            if isinstance(part, Tensor):
                self._hold(part)
        self._find_labels(name, args, kwargs)
        return out

    def _find_labels(self, name: str, args: Any, kwargs: Any) -> None:
        """Recognises what `fully_shard` makes by the operations that it alone uses."""
        if name.startswith("c10d._allgather_base_"):
            self.label(args[0], GATHERED)
        elif name.startswith("fsdp.split_with_sizes_copy"):
            for part in kwargs["out"]:
                self.label(part, GATHERED)
        elif name.startswith("fsdp.chunk_cat"):
            for part in (*args[0], kwargs["out"]):
                self.label(part, REDUCED)
        elif name.startswith("c10d._reduce_scatter_base_"):
            self.label(args[0], GRADIENTS)

    def _hold(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key not in self._sizes:
            self._sizes[key], self._labels[key] = 0, ACTIVATIONS
            weakref.finalize(storage, self._free, key).atexit = False
        self._resize(key, storage.nbytes())

    def _resize(self, key: int, num_bytes: int) -> None:
        self.now[self._labels[key]] += num_bytes - self._sizes[key]
        self._sizes[key] = num_bytes
        if self.now.total() > self.peak.total():
            self.peak = self.now.copy()

    def _free(self, key: int) -> None:
        self.now[self._labels.pop(key)] -= self._sizes.pop(key)

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Counts what runs inside, storages that are resized too, but not the shapes that DTensor tries out."""
        resize = torch.UntypedStorage.resize_

        def counted_resize(storage: torch.UntypedStorage, size: int) -> Any:
            result = resize(storage, size)
            if storage._cdata in self._sizes:
                self._resize(storage._cdata, storage.nbytes())
            return result

        with (
            mock.patch.object(torch.UntypedStorage, "resize_", counted_resize),
            mock.patch.object(ShardingPropagator, "_fake_mode_lock", _Muted(self)),
            self,
        ):
            yield


class _Muted:
    """Stands for a lock that DTensor takes around what it only tries out."""

    def __init__(self, meter: Meter) -> None:
        self.meter = meter

    def __enter__(self) -> None:
        self.meter._is_muted = True

    def __exit__(self, *_: object) -> None:
        self.meter._is_muted = False


class Attention(torch.autograd.Function):
    """Keeps what a fused kernel keeps: its inputs, its output and a number per query."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Returns a tensor of the output's shape."""
        mixed, log_sum = torch.empty_like(query), query.new_empty(query.shape[:3], dtype=torch.float32)
        ctx.save_for_backward(query, key, value, mixed, log_sum)
        return mixed

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:  # pyrefly: ignore
        """Returns tensors of the gradients' shapes."""
        return tuple(torch.empty_like(part) for part in ctx.saved_tensors[:3])


def _attend(query: Tensor, key: Tensor, value: Tensor, block_mask: Any) -> Tensor:
    return Attention.apply(query, key, value)  # pyrefly: ignore


def _kernel(query: Tensor, key: Tensor) -> Any:
    return _attend  # a mock that returns it would remember the tensors that it is called with


def _autocast(device: torch.device) -> torch.autocast:
    return torch.autocast("cpu", dtype=torch.bfloat16)


class _Norm(torch.autograd.Function):
    """Keeps what the fused norm keeps: its input, its gains and a number per position."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(states, weight, states.new_empty(states.shape[:-1]))
        return torch.empty_like(states)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:  # pyrefly: ignore
        states, weight, _ = ctx.saved_tensors
        return torch.empty_like(states), torch.empty_like(weight)


def norm(module: RMSNorm, states: Tensor) -> Tensor:
    """Stands for the forward pass of a norm."""
    return _Norm.apply(states, module.weight)  # pyrefly: ignore


@contextlib.contextmanager
def fake_rank(num_ranks: int, shard_ranks: int) -> Iterator[DeviceMesh]:
    """Makes this process rank 0 of so many; tensors that are made inside have shapes alone.

    Tensors say that they are on the CPU, of which `fully_shard` asks no streams. Types are those of CUDA.

    Args:
        num_ranks: of the cluster.
        shard_ranks: that hold one copy of the weights; a divisor.

    Yields:
        The ranks that share a model: of one axis, or of two for several copies.
    """
    dist.init_process_group("fake", rank=0, world_size=num_ranks, store=FakeStore())
    try:
        copies = num_ranks // shard_ranks
        mesh = init_device_mesh("cpu", (copies, shard_ranks), mesh_dim_names=("replicate", "shard"))
        with (
            warnings.catch_warnings(action="ignore", category=UserWarning),  # of views that nothing writes into
            FakeTensorMode(allow_non_fake_inputs=True),
            mock.patch.object(byte_lm, "draw_weights"),
            mock.patch.object(RMSNorm, "forward", norm),
            mock.patch.object(flex_attention, "_kernel", _kernel),
            mock.patch.object(passes, "autocast", _autocast),
            attention_back_end("flex"),
        ):
            yield mesh if copies > 1 else mesh["shard"]
    finally:
        dist.destroy_process_group()
