"""Runs programs that a model wrote where they can do no harm: under bubblewrap, without network, files or rights.

`run_program` runs one and tells how it ended. `check_program` lets a judge in a second sandbox call what the program
defines: the checks, with the answers in them, never enter the program's process.
"""

import functools
import json
import logging
import os
import secrets
import select
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from patchpad.errors import ConfigError, SandboxError
from patchpad.text import decode_text

logger = logging.getLogger(__name__)

SandboxKind = Literal["bubblewrap", "limited-process"]
"""bubblewrap: no network, no files but the standard library, another user, its own processes, all limits.
limited-process: a plain process of the caller's; only time, memory per process and output are limited."""

Ending = Literal["finished", "failed", "time", "output"]

_INSIDE = Path(__file__).parent / "inside"
_START = "import json, sys; sys.path.append({folder!r}); import inside.launch as launch; sys.path.pop(); "
_START += "launch.main(json.loads(sys.argv.pop()))"
_FIRST_FREE_USER_ID, _NUM_USER_IDS = 1_000_000_000, 1_000_000_000
_OUTPUT_PIECE_BYTES = 65_536


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one program may use; the defaults are ample for tasks of a few lines."""

    cpu_seconds: int = 10
    """Computing time of each process. Other programs that run at once do not use it up."""
    wall_seconds: float = 30.0
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


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a program ended."""

    ending: Ending
    """`finished`: exit code 0; `failed`: another code or a signal; `time`, `output`: it was killed at that limit."""
    exit_code: int | None
    """128 + the signal's number where a signal ended it; None where it was killed at a limit."""
    output: str
    """Standard output and errors together, up to the limit."""
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Whether a program passed its checks."""

    passed: bool
    reason: str
    """Why not; empty where it passed."""
    ending: Ending
    """`finished` where the judge came to its verdict, else which limit ended it, or `failed`."""
    seconds: float


def run_program(source: str, *, limits: Limits | None = None, sandbox: SandboxKind = "bubblewrap") -> Outcome:
    """Runs a Python program to its end, or to the first limit that it reaches.

    Everything that it started has ended when this returns (with `limited-process`: what stayed in its process group).

    Args:
        source: the program's text.
        limits: what it may use; None for the defaults.
        sandbox: where to run it.

    Raises:
        SandboxError: bubblewrap is missing, or the system does not allow it to work.
    """
    limits = limits or Limits()
    with _Group(limits, sandbox) as group:
        program = group.start("program", source)
        ending = group.watch(program)
        return Outcome(
            ending=ending,
            exit_code=_exit_code(program.process) if ending in ("finished", "failed") else None,
            output=decode_text(bytes(program.output)),
            seconds=group.seconds(),
        )


def check_program(
    source: str,
    checks: str,
    *,
    names: Sequence[str],
    given: str = "",
    limits: Limits | None = None,
    sandbox: SandboxKind = "bubblewrap",
) -> Verdict:
    """Runs checks, such as asserts, on what a program defines.

    Program and checks run in a sandbox each. The judge asks the program's side for results over a socket and compares
    them itself, so a program passes only by results: not by ending early, nor by what it replaces in its own process.

    Args:
        source: the program's text.
        checks: code that raises something unless the program is right.
        names: what the program has to define for the checks; no other name of it is seen by them.
        given: code that comes with the task and that the judge trusts, such as imports and helpers.
        limits: what each of the two may use; None for the defaults.
        sandbox: where to run them.

    Raises:
        SandboxError: bubblewrap is missing, or the system does not allow it to work.
    """
    limits = limits or Limits()
    task = json.dumps({"given": given, "checks": checks, "names": list(names)})
    with _Group(limits, sandbox) as group:
        one_end, other_end = socket.socketpair()
        with one_end, other_end:
            program = group.start("hosted_program", source, link=one_end.fileno())
            judge = group.start("judge", task, link=other_end.fileno())
        ending = group.watch(judge)
        told = bytes(judge.output)
        if ending == "finished" and told:
            verdict = json.loads(told)
            if verdict.pop("lost"):
                with suppress(subprocess.TimeoutExpired):
                    program.process.wait(timeout=1.0)  # bubblewrap ends a little after what it runs
                ending = _why_program_ended(program.process) or "failed"
            return Verdict(**verdict, ending=ending, seconds=group.seconds())
        return Verdict(passed=False, reason=_REASONS[ending], ending=ending, seconds=group.seconds())


_REASONS: dict[Ending, str] = {
    "finished": "the judge said nothing",
    "failed": "the judge itself failed on what it was sent",
    "time": "the time was over",
    "output": "too much output",
}


class _Running:
    """A started process with what it has written so far."""

    def __init__(self, process: subprocess.Popen[bytes], about: int) -> None:
        self.process = process
        self.output = bytearray()
        self._about = about
        """Where bubblewrap writes which process is the first one of the sandbox."""

    def end(self, sandbox: SandboxKind) -> None:
        """Kills it with all that belong to it, and returns when they are gone."""
        first = self._first_of_sandbox() if self.process.poll() is None else None
        if sandbox == "limited-process":
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)  # it leads a group of its own
        elif self.process.returncode is None:
            self.process.kill()
        self.process.wait()
        if first is not None:  # killed with bubblewrap; its end is that of its whole process namespace
            with suppress(OSError):
                waiting = os.pidfd_open(first)
                select.select([waiting], [], [], 10)
                os.close(waiting)
        os.close(self._about)
        if self.process.stdout is not None:
            self.process.stdout.close()

    def _first_of_sandbox(self) -> int | None:
        try:
            return json.loads(os.read(self._about, 4096))["child-pid"]
        except (BlockingIOError, ValueError):
            return None


class _Group:
    """The processes of one program; all of them are killed at the end of the `with` block."""

    def __init__(self, limits: Limits, sandbox: SandboxKind) -> None:
        if sandbox not in get_args(SandboxKind):
            raise ConfigError(f"sandbox is {sandbox!r}; allowed: {', '.join(get_args(SandboxKind))}")
        require_sandbox(sandbox)
        self._limits, self._sandbox = limits, sandbox
        self._running: list[_Running] = []
        self._stack = ExitStack()
        self._began = time.monotonic()

    def __enter__(self) -> "_Group":
        return self

    def __exit__(self, *_: object) -> None:
        for running in self._running:
            running.end(self._sandbox)
        self._stack.close()

    def seconds(self) -> float:
        return time.monotonic() - self._began

    def start(self, part: str, text: str, *, link: int | None = None) -> _Running:
        """Starts one process of the group, which gets `text` as its input."""
        given = self._stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115
        given.write(text.encode("utf-8", "surrogatepass"))
        given.seek(0)
        passed = [] if link is None else [link]
        about, told = os.pipe()
        os.set_blocking(about, False)
        if self._sandbox == "bubblewrap":
            command, folder = [*_bubblewrap(self._limits), "--info-fd", str(told), "--"], None
            passed.append(told)
        else:
            command, folder = [], self._stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True))
        command += _python(part, self._limits, self._sandbox, link)
        process = subprocess.Popen(
            command,
            stdin=given,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=passed,
            env={"PATH": "/usr/bin:/bin", "HOME": folder or "/tmp", "LANG": "C.UTF-8", "PYTHONHASHSEED": "0"},
            cwd=folder,
            start_new_session=True,
        )
        os.close(told)
        running = _Running(process, about)
        self._running.append(running)
        return running

    def watch(self, main: _Running) -> Ending:
        """Reads what all print until the main process has ended, and says how."""
        deadline = self._began + self._limits.wall_seconds
        with selectors.DefaultSelector() as selector:
            for running in self._running:
                assert running.process.stdout is not None
                selector.register(running.process.stdout, selectors.EVENT_READ, running)
            while main.process.poll() is None:
                left = deadline - time.monotonic()
                if left <= 0:
                    return "time"
                # Its end is no event, so look again soon, and later where a program takes long.
                for key, _ in selector.select(min(left, 0.002 + self.seconds() / 50)):
                    if not self._read(key.data):
                        selector.unregister(key.fileobj)
                    elif len(key.data.output) > self._limits.output_bytes:
                        del main.output[self._limits.output_bytes :]
                        return "output"
            for key, _ in selector.select(0):
                while key.data is main and self._read(main) and len(main.output) <= self._limits.output_bytes:
                    pass
        del main.output[self._limits.output_bytes :]
        return _why_program_ended(main.process) or ("finished" if main.process.returncode == 0 else "failed")

    def _read(self, running: _Running) -> bool:
        """Reads what is there; False at the end."""
        assert running.process.stdout is not None
        piece = os.read(running.process.stdout.fileno(), _OUTPUT_PIECE_BYTES)
        running.output += piece
        return bool(piece)


def _exit_code(process: subprocess.Popen[bytes]) -> int:
    code = process.returncode
    return 128 - code if code < 0 else code


def _why_program_ended(process: subprocess.Popen[bytes]) -> Ending | None:
    """Returns "time" where the system killed a process for its computing time."""
    return "time" if process.poll() is not None and _exit_code(process) == 128 + signal.SIGXCPU else None


def _python(part: str, limits: Limits, sandbox: SandboxKind, link: int | None) -> list[str]:
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


def _bubblewrap(limits: Limits) -> list[str]:
    """Returns the bubblewrap command up to the program.

    The system does not count the processes of its root user (the true one, whatever a user namespace calls it). So for
    root the sandbox is made without one, and the launcher becomes a user that nobody else is: its number is drawn for
    each program, so that programs do not share a count. For everyone else, a user namespace has a count of its own.
    """
    command = ["bwrap", "--die-with-parent", "--new-session", "--unshare-pid", "--unshare-net", "--unshare-ipc"]
    command += ["--unshare-uts", "--unshare-cgroup-try", "--hostname", "sandbox"]
    if _is_true_root():
        command += ["--cap-drop", "ALL", "--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
    else:
        command += ["--unshare-user", "--disable-userns", "--uid", "1000", "--gid", "1000"]
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
    command = [*_bubblewrap(Limits()), "--", *_python("program", Limits(), "bubblewrap", None)]
    tried = subprocess.run(command, input=b"print(6 * 7)", capture_output=True, timeout=60, check=False)
    if tried.returncode == 0 and tried.stdout.split() == [b"42"]:
        return None
    told = decode_text(tried.stderr).strip().splitlines() or [f"exit code {tried.returncode}"]
    return f"bubblewrap does not work on this system ({told[-1]})"
