"""From the name of a device to the device."""

import torch

from patchpad.errors import ConfigError


def select_device(name: str) -> torch.device:
    """Returns the device that `name` means: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`.

    Raises:
        ConfigError: an unknown name, or a device that this machine lacks.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda", "mps"):
        raise ConfigError(f"device is {name!r}; allowed: auto, cpu, cuda, cuda:N, mps", hint="Change --device.")
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}[device.type]
    if there and device.type == "cuda" and device.index is not None:
        there = device.index < torch.cuda.device_count()
    if not there:
        raise ConfigError(f"device is {name!r}, but this machine has none", hint="Use --device auto or --device cpu.")
    return device
