"""The commands of the sandbox: what a program finds in it, and how its limits are set."""

import functools
import json
import logging
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

from patchpad.errors import ConfigError, SandboxError
from patchpad.tasks.system_calls import system_call_filter
from patchpad.text import decode_text

logger = logging.getLogger(__name__)

SandboxKind = Literal["bubblewrap", "limited-process"]
"""bubblewrap: no network, no files but the standard library, another user, its own processes, all limits.
limited-process: a plain process of the caller's; only time, memory per process and output are limited."""

_INSIDE = Path(__file__).parent / "inside"
_START = "import json, sys; sys.path.append({folder!r}); import inside.launch as launch; sys.path.pop(); "
_START += "launch.main(json.loads(sys.argv.pop()))"
_FIRST_FREE_USER_ID, _NUM_USER_IDS = 1_000_000_000, 1_000_000_000


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one program may use; the defaults are ample for tasks of a few lines."""

    cpu_seconds: int = 10
    """Computing time of each process. Other programs that run at once do not use it up."""
    wall_seconds: float = 60.0
    """Time on the clock, after which everything that the program started is killed."""
    memory_bytes: int = 512 * 2**20
    """Address space of each process."""
    output_bytes: int = 64 * 2**10
    """What it may print before it is killed."""
    max_processes: int = 8
    """Processes and threads at once; not held by `limited-process`."""
    disk_bytes: int = 16 * 2**20
    """Size of each of its two writable folders, and of each file; `limited-process` holds the latter only."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
                raise ConfigError(f"{name} is {value!r}; allowed: a number above 0")


def python_command(part: str, limits: Limits, sandbox: SandboxKind, link: int | None) -> list[str]:
    """Returns the command that runs one part with the standard library alone."""
    numbers = {
        "RLIMIT_AS": limits.memory_bytes,
        "RLIMIT_CPU": limits.cpu_seconds,
        "RLIMIT_FSIZE": limits.disk_bytes,
        "RLIMIT_CORE": 0,
    }
    user_id = None
    if sandbox == "bubblewrap":
        numbers |= {"RLIMIT_NPROC": limits.max_processes, "RLIMIT_NOFILE": 64, "RLIMIT_MSGQUEUE": 0}
        if _is_true_root():
            user_id = _FIRST_FREE_USER_ID + secrets.randbelow(_NUM_USER_IDS)
    folder = "/" if sandbox == "bubblewrap" else str(_INSIDE.parent)
    options = {"part": part, "limits": numbers, "user_id": user_id, "link": link}
    return [str(_interpreter()), "-s", "-S", "-B", "-P", "-c", _START.format(folder=folder), json.dumps(options)]


def filter_file() -> IO[bytes]:
    """Returns an open file with the filter of system calls; it is empty where none is known for the machine."""
    file = tempfile.TemporaryFile()  # noqa: SIM115
    file.write(system_call_filter() or b"")
    file.seek(0)
    return file


def bubblewrap_command(limits: Limits, filter_descriptor: int) -> list[str]:
    """Returns the bubblewrap command up to the program.

    The system does not count the processes of its root user (the true one, whatever a user namespace calls it). So for
    root the sandbox is made without one, and the launcher becomes a user that nobody else is: its number is drawn for
    each program, so that programs do not share a count. For everyone else, a user namespace has a count of its own.

    Args:
        limits: how large its writable folders are.
        filter_descriptor: an open `filter_file`, which bubblewrap has to inherit.
    """
    command = [shutil.which("bwrap") or "bwrap", "--die-with-parent", "--new-session"]
    command += ["--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts"]
    command += ["--unshare-cgroup-try", "--hostname", "sandbox"]
    if system_call_filter() is not None:
        command += ["--seccomp", str(filter_descriptor)]
    if _is_true_root():
        command += ["--cap-drop", "ALL", "--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
    else:
        command += ["--unshare-user", "--uid", "1000", "--gid", "1000"]
    for folder in _system_folders():
        command += [*_open_parents(folder), "--ro-bind", str(folder), str(folder)]
    for name in ("/bin", "/lib", "/lib32", "/lib64", "/sbin"):
        if os.path.islink(name):
            command += ["--symlink", os.readlink(name), name]
        elif os.path.isdir(name):
            command += ["--ro-bind", name, name]
    command += ["--ro-bind", str(_INSIDE), "/inside", "--proc", "/proc", "--dev", "/dev"]
    for folder in ("/dev/shm", "/tmp"):
        command += ["--perms", "1777", "--size", str(limits.disk_bytes), "--tmpfs", folder]
    return [*command, "--remount-ro", "/dev", "--remount-ro", "/", "--chdir", "/tmp"]


def _open_parents(path: Path) -> list[str]:
    """Returns options that make the folders above a path; bubblewrap itself would make some for its caller alone."""
    return [word for folder in reversed(path.parents[:-1]) for word in ("--perms", "0755", "--dir", str(folder))]


@functools.cache
def _interpreter() -> Path:
    """Returns the Python below every virtual environment and version manager."""
    return Path(getattr(sys, "_base_executable", None) or sys.executable).resolve()


@functools.cache
def _system_folders() -> list[Path]:
    """Returns the folders that Python needs, none inside another."""
    wanted = {Path("/usr"), Path(sys.base_prefix), Path(sys.base_prefix).resolve(), _interpreter().parents[1]}
    wanted |= {folder for folder in (Path("/nix/store"),) if folder.is_dir()}
    return sorted(one for one in wanted if not any(other in one.parents for other in wanted))


@functools.cache
def _is_true_root() -> bool:
    """Returns whether the caller is the root user of the machine, and not of a user namespace."""
    if os.geteuid() != 0:
        return False
    lines = Path("/proc/self/uid_map").read_text().split()
    return lines == ["0", "0", str(2**32 - 1)]


@functools.cache
def require_sandbox(sandbox: SandboxKind) -> None:
    """Raises unless programs can be run there; warns once where the sandbox holds little.

    Raises:
        SandboxError: bubblewrap is missing, or the system does not allow it to work.
    """
    if sandbox == "limited-process":
        if os.name == "nt":
            raise SandboxError("programs cannot be limited on Windows", hint="Run it on Linux, for instance under WSL.")
        logger.warning(
            "PROGRAMS WRITTEN BY A MODEL ARE RUN WITHOUT A SANDBOX: only their time, memory and output are limited. "
            "They can read and delete your files and use the network"
        )
        return
    problem = why_no_bubblewrap()
    if problem:
        raise SandboxError(
            f"programs written by a model cannot be run safely: {problem}",
            hint="Install it (Debian, Ubuntu: apt-get install bubblewrap), or accept plain processes: --unsafe-code.",
        )


@functools.cache
def why_no_bubblewrap() -> str | None:
    """Returns why bubblewrap cannot be used here; None where it can."""
    if sys.platform != "linux":
        return f"bubblewrap needs Linux, and this is {sys.platform}"
    if shutil.which("bwrap") is None:
        return "bubblewrap (bwrap) is not installed"
    with filter_file() as calls:
        command = [*bubblewrap_command(Limits(), calls.fileno()), "--"]
        command += python_command("program", Limits(), "bubblewrap", None)
        passed = [calls.fileno()]
        tried = subprocess.run(command, input=b"print(6 * 7)", capture_output=True, pass_fds=passed, check=False)
    if tried.returncode == 0 and tried.stdout.split() == [b"42"]:
        return None
    told = decode_text(tried.stderr).strip().splitlines() or [f"exit code {tried.returncode}"]
    return f"bubblewrap does not work on this system ({told[-1]})"
