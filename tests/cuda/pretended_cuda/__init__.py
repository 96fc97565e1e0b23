"""A pretended CUDA device for a torch without CUDA: tensors say `cuda:0` and are computed on the CPU.

It takes CUDA's dtypes under autocast, refuses mixes of devices, notes kernels, the bytes they move, FLOPs, memory and
whatever makes the host wait, and simulates CUDA graphs, pinned memory, streams and events. It knows nothing of the
numerics of GPU kernels nor of their speed, and computes some operations that CUDA fuses as a few small ones.

Importing it pretends the device for the rest of the process; it has to come before torch. Scripts run on it with
`PYTHONPATH=tests/cuda python -m pretended_cuda script.py`, tests with `-p pretended_cuda.plugin`.
"""

from pretended_cuda import hooks

hooks.load()

from pretended_cuda.install import install  # noqa: E402
from pretended_cuda.record import Record, WaitInGraphError  # noqa: E402
from pretended_cuda.tensor import CudaTensor, Device, recording  # noqa: E402

install()

__all__ = ["CudaTensor", "Device", "Record", "WaitInGraphError", "recording"]
