"""Compiles and loads the hooks of `guard.cpp`, which torch has to find when it is first imported."""

import ctypes
import hashlib
import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

SOURCE = Path(__file__).with_name("guard.cpp")
OLDEST_TORCH = (2, 13)
"""The hooks and the dispatcher use what torch keeps to itself, and have not been tried with older ones."""


class CannotPretendError(RuntimeError):
    """This machine, or this torch, cannot pretend a CUDA device."""


def load() -> None:
    """Loads the hooks; compiles them first if need be, in a few seconds.

    Raises:
        CannotPretendError: no g++, not Linux, torch has real CUDA, or torch has been imported too early.
    """
    if reason := what_is_missing():
        raise CannotPretendError(reason)
    library = ctypes.CDLL(str(_compiled()), ctypes.RTLD_GLOBAL)
    assert library.pretended_cuda_register() == 1


def what_is_missing() -> str | None:
    """Returns why no device can be pretended here; None if it can."""
    if sys.platform != "linux":
        return f"a CUDA device is pretended on Linux only, and this is {sys.platform}"
    if shutil.which("g++") is None:
        return "pretending a CUDA device needs g++, which is not installed"
    if "torch" in sys.modules:
        return "torch was imported before the hooks of the pretended device"
    version = importlib.metadata.version("torch")
    if tuple(map(int, version.split(".")[:2])) < OLDEST_TORCH:
        return (
            f"a CUDA device is pretended with torch {'.'.join(map(str, OLDEST_TORCH))} or newer, and this is {version}"
        )
    if (_torch_folder() / "lib" / "libtorch_cuda.so").exists():
        return "this torch is built for CUDA; a device can be pretended only for one that is not"
    return None


def _torch_folder() -> Path:
    spec = importlib.util.find_spec("torch")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent


def _compiled() -> Path:
    """Returns the library; several processes may ask for it at once."""
    torch = _torch_folder()
    made_of = SOURCE.read_bytes() + (torch / "version.py").read_bytes() + bytes(torch)  # where it looks for torch
    folder = Path(tempfile.gettempdir()) / f"patchpad-pretended-cuda-{os.getuid()}"
    library = folder / f"{hashlib.sha256(made_of).hexdigest()[:16]}.so"
    if library.exists():
        return library
    folder.mkdir(exist_ok=True)
    unfinished = library.with_suffix(f".{os.getpid()}")
    command = ["g++", "-O0", "-std=c++20", "-shared", "-fPIC", f"-I{torch / 'include'}", str(SOURCE)]
    command += [f"-L{torch / 'lib'}", "-lc10", "-ltorch_cpu", f"-Wl,-rpath,{torch / 'lib'}", "-o", str(unfinished)]
    subprocess.run(command, check=True)
    unfinished.replace(library)
    return library
