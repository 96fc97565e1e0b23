"""What stands beside every number: commit, versions, machine, and the command without paths of the machine."""

import platform
import shlex
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import torch

from patchpad.registry import given_plugins
from patchpad.version import __version__

CPU_FACTS = Path("/proc/cpuinfo")


def provenance(command: Sequence[str], device: torch.device) -> dict[str, Any]:
    """Returns command, commit, versions, hardware, threads and date, as a result file keeps them.

    Args:
        command: words of the command line; absolute paths are cut to their last part.
        device: where the model was trained.
    """
    return {
        "command": _shown_command(command),
        "commit": commit(),
        "package_version": __version__,
        "torch_version": torch.__version__,
        "python_version": platform.python_version(),
        "hardware": hardware(device),
        "threads": torch.get_num_threads(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


@cache
def commit() -> str | None:
    """Returns the commit of the repository that the package lies in, with `-dirty` where files differ; else None."""
    file = Path(__file__)

    def git(*words: str) -> subprocess.CompletedProcess[str]:
        call = ["git", "-C", str(file.parent), *words]
        return subprocess.run(call, capture_output=True, text=True, check=False, timeout=20)

    try:
        if git("ls-files", "--error-unmatch", file.name).returncode:
            return None  # installed inside somebody else's repository
        found = git("describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip() or None


def hardware(device: torch.device) -> str:
    """Returns the name of the GPU, or of the processor."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    names = [line.partition(":")[2].strip() for line in _cpu_lines() if line.startswith("model name")]
    return (names or [platform.processor() or platform.machine()])[0]


def _cpu_lines() -> list[str]:
    try:
        return CPU_FACTS.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []


def _shown_command(command: Sequence[str]) -> str | None:
    plugins = [word for module in given_plugins for word in ("--plugin", module)]
    words = ["patchpad", *command[:1], *plugins, *command[1:]]
    return shlex.join(map(without_folders, words)) if command else None


def without_folders(word: str) -> str:
    """Returns a word of a command line; of an absolute path, also behind `NAME=`, only the last part."""
    name, equals, path = word.rpartition("=")
    return name + equals + (Path(path).name if Path(path).is_absolute() else path)
