"""Runs programs that a model wrote where they can do no harm: under bubblewrap, without network, files or rights.

`run_program` runs one and tells how it ended. `check_program` lets a judge in a second sandbox call what the program
defines: the checks, with the answers in them, never enter the program's process.
"""

import json
import os
import re
import select
import selectors
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from patchpad.errors import ConfigError
from patchpad.tasks.bubblewrap import (
    Limits,
    SandboxKind,
    bubblewrap_command,
    filter_file,
    python_command,
    require_sandbox,
)
from patchpad.text import decode_text

Ending = Literal["finished", "failed", "time", "output"]

_OUTPUT_PIECE_BYTES = 65_536
_SECONDS_TO_END = 10.0
"""Until killed processes are left to the system."""


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
    them itself, so a program passes only by results: not by ending early, nor by what it replaces in its own process. A
    program that is right and leaves processes behind fails all the same.

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
        with other_end:  # while it is open, the program waits for more
            with one_end:
                program = group.start("hosted_program", source, link=one_end.fileno())
            judge = group.start("judge", task, link=other_end.fileno())
            ending = group.watch(judge)
            left = program.num_further()
        told = bytes(judge.output)
        if ending == "finished" and told:
            verdict = json.loads(told)
            if verdict.pop("lost"):
                with suppress(subprocess.TimeoutExpired):
                    program.process.wait(timeout=1.0)  # bubblewrap ends a little after what it runs
                ending = _why_program_ended(program.process) or "failed"
            if verdict["passed"] and left:
                verdict, ending = {"passed": False, "reason": f"the program left {left} processes behind"}, "failed"
            return Verdict(**verdict, ending=ending, seconds=group.seconds())
        return Verdict(passed=False, reason=_REASONS[ending], ending=ending, seconds=group.seconds())


_REASONS: dict[Ending, str] = {
    "finished": "the judge said nothing",
    "failed": "the judge itself failed on what it was sent",
    "time": "the time was over",
    "output": "too much output",
}


class _Running:
    """A started process with what it has written so far.

    Args:
        process: bubblewrap, or the program itself.
        about: a file descriptor where bubblewrap writes which process is the first one of the sandbox; None without it.
    """

    def __init__(self, process: subprocess.Popen[bytes], about: int | None) -> None:
        assert process.stdout is not None
        self.process, self.stdout = process, process.stdout
        self.output = bytearray()
        self.about = about
        self._first_id = 0
        self._first: int | None = None
        """A file descriptor of the first process of the sandbox, whose end is that of its whole process namespace."""
        os.set_blocking(self.stdout.fileno(), False)

    def read(self) -> bool:
        """Reads what is there; returns False where nothing more will come."""
        try:
            piece = os.read(self.stdout.fileno(), _OUTPUT_PIECE_BYTES)
        except BlockingIOError:
            return True
        self.output += piece
        return bool(piece)

    def read_rest(self, limit_bytes: int) -> None:
        """Reads what is still there, up to a limit; what others may write later is not waited for."""
        before = -1
        while before < len(self.output) <= limit_bytes:
            before = len(self.output)
            self.read()
        del self.output[limit_bytes:]

    def learn_first(self) -> None:
        """Takes hold of the first process of the sandbox, before its number can become another's."""
        assert self.about is not None
        with suppress(OSError):  # nothing was written, or it has ended with all others
            told = re.search(rb'"child-pid": ([0-9]+)', os.read(self.about, 4096))  # the rest may come later
            if told is not None:
                self._first_id = int(told[1])
                self._first = os.pidfd_open(self._first_id)

    def num_further(self) -> int:
        """Returns how many processes there are in the sandbox beside the program's own; 0 without a sandbox."""
        found = [self._first_id] if self._first is not None else []
        for process in found:  # which grows meanwhile
            with suppress(OSError):
                for children in Path(f"/proc/{process}/task").glob("*/children"):
                    found += map(int, children.read_text().split())
        return max(0, len(found) - 2)  # the first process is bubblewrap's

    def end(self) -> None:
        """Kills it with all that belong to it, and returns when they are gone."""
        if self.about is None:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)  # it leads a group of its own
        elif self.process.poll() is None:
            if self._first is None:
                self.learn_first()
            self.process.kill()
        self.process.wait()
        if self._first is not None:  # bubblewrap itself ends a little earlier than what it holds
            select.select([self._first], [], [], _SECONDS_TO_END)
            os.close(self._first)
        if self.about is not None:
            os.close(self.about)
        self.stdout.close()


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
            running.end()
        self._stack.close()

    def seconds(self) -> float:
        return time.monotonic() - self._began

    def start(self, part: str, text: str, *, link: int | None = None) -> _Running:
        """Starts one process of the group, which gets `text` as its input."""
        given = self._stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115
        given.write(text.encode("utf-8", "surrogatepass"))
        given.seek(0)
        passed = [] if link is None else [link]
        about = told = None
        if self._sandbox == "bubblewrap":
            about, told = os.pipe()
            os.set_blocking(about, False)
            calls = self._stack.enter_context(filter_file())
            command, folder = [*bubblewrap_command(self._limits, calls.fileno()), "--info-fd", str(told), "--"], None
            passed += [told, calls.fileno()]
        else:
            command, folder = [], self._stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True))
        command += python_command(part, self._limits, self._sandbox, link)
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
        if told is not None:
            os.close(told)
        running = _Running(process, about)
        self._running.append(running)
        return running

    def watch(self, main: _Running) -> Ending:
        """Reads what all print until the main process has ended, and says how."""
        deadline = self._began + self._limits.wall_seconds
        most = self._limits.output_bytes
        with selectors.DefaultSelector() as selector:
            for running in self._running:
                selector.register(running.stdout, selectors.EVENT_READ, running)
                if running.about is not None:
                    selector.register(running.about, selectors.EVENT_READ, running)
            while main.process.poll() is None:
                left = deadline - time.monotonic()
                if left <= 0:
                    return "time"
                # No event tells of its end, so look again soon, and later where a program takes long.
                for key, _ in selector.select(min(left, 0.002 + self.seconds() / 50)):
                    running: _Running = key.data
                    if key.fileobj is not running.stdout:
                        running.learn_first()
                        selector.unregister(key.fileobj)
                    elif not running.read():
                        selector.unregister(key.fileobj)
                    elif len(running.output) > most:
                        main.read_rest(most)
                        return "output"
        main.read_rest(most)
        return _why_program_ended(main.process) or ("finished" if main.process.returncode == 0 else "failed")


def _exit_code(process: subprocess.Popen[bytes]) -> int:
    code = process.returncode
    return 128 - code if code < 0 else code


def _why_program_ended(process: subprocess.Popen[bytes]) -> Ending | None:
    """Returns "time" where the system killed a process for its computing time."""
    return "time" if process.poll() is not None and _exit_code(process) == 128 + signal.SIGXCPU else None
