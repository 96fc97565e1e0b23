"""Where a measurement comes from: command, commit, hardware and versions."""

import hashlib
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from patchpad.provenance import hardware

ROOT = Path(__file__).resolve().parent.parent
COMMIT_VARIABLE = "COMMIT"
"""Names the commit where the files lie without their repository, on a borrowed machine: what
`git describe --always --abbrev=10 --dirty --exclude='*'` printed where they came from."""
DIRTY = "-dirty"
PLACES = ("--out", "--gate")
UNKNOWN = "unknown"


def provenance(device: str, threads: int, packages: Sequence[str] = ()) -> dict[str, Any]:
    """Returns command, commit, hardware and versions of a measurement.

    Args:
        device: "cpu" or "cuda", where driver and memory of the card are added.
        threads: of torch on the CPU.
        packages: further packages whose versions matter.
    """
    script = Path(sys.argv[0]).resolve()
    name = str(script.relative_to(ROOT)) if script.is_relative_to(ROOT) else script.name
    return {
        "command": shlex.join(["python", name, *_without_places(sys.argv[1:])]),
        "commit": commit(),
        "changes_since_commit": has_changed(),
        "source": source_digest(),
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "device": device,
        "hardware": hardware(torch.device(device)),
        **(card_facts() if device == "cuda" else {}),
        "threads": threads,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "packages": {name: metadata.version(name) for name in packages},
    }


@cache
def commit() -> str:
    """Returns the first ten letters of the commit: of git, else of the variable `COMMIT`, else `unknown`."""
    return (_git("rev-parse", "HEAD") or os.environ.get(COMMIT_VARIABLE) or UNKNOWN)[:10]


@cache
def has_changed() -> bool | None:
    """Returns whether tracked files differ from the commit; None where neither git nor `COMMIT` says it."""
    changes = _git("status", "--porcelain", "--untracked-files=no")
    if changes is not None:
        return bool(changes)
    given = os.environ.get(COMMIT_VARIABLE)
    return given.endswith(DIRTY) if given else None


@cache
def source_digest(root: Path = ROOT) -> str:
    """Returns 16 hexadecimal digits that stand for the package's code and the benchmarks, with or without git."""
    digest = hashlib.sha256()
    for file in sorted([*(root / "src").rglob("*.py"), *(root / "benchmarks").glob("*.py")]):
        digest.update(f"{file.relative_to(root).as_posix()}\0".encode())
        digest.update(file.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


@cache
def card_facts() -> dict[str, Any]:
    """Returns driver, CUDA version and memory of the GPU."""
    return {
        "driver": _output("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader") or UNKNOWN,
        "cuda": torch.version.cuda,
        "memory_bytes": torch.cuda.get_device_properties(0).total_memory,
    }


def _without_places(words: Sequence[str]) -> list[str]:
    """Returns the words of a command line without the files and folders of a machine, which say nothing of it."""
    kept: list[str] = []
    is_place = False
    for word in words:
        if not is_place and not word.startswith(tuple(f"{option}=" for option in PLACES)) and word not in PLACES:
            kept.append(word)
        is_place = word in PLACES
    return kept


def _git(*words: str) -> str | None:
    return _output("git", "-C", str(ROOT), *words)


def _output(*words: str) -> str | None:
    """Returns what a command prints; None where it is missing or fails."""
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
