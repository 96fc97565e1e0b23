"""One process at a time in the folder of a run. Torch-free.

The lock is the file RUN/.lock. It names the process and host that hold it, and the system drops it when that process
ends. Where the file system has no locks, or keeps them to one host, the holder's process is looked up, and on another
host its heartbeat is watched: a live holder touches the file every few seconds.
"""

import errno
import functools
import json
import logging
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from patchpad.errors import ConfigError, RunInUseError

try:
    import fcntl
except ImportError:
    fcntl = None
try:
    import msvcrt
except ImportError:
    msvcrt = None

logger = logging.getLogger(__name__)

LOCK = ".lock"
BEAT_SECONDS = 10.0
"""Time between two touches of the lock file."""
WATCH_SECONDS = 2.5 * BEAT_SECONDS
"""How long a holder on another host is watched for a heartbeat before it counts as gone."""
SETTLE_SECONDS = 0.2
"""Where nothing locks: time in which another process may write its name into the same file."""
HELD = (errno.EAGAIN, errno.EACCES, errno.EDEADLK)
"""What the system says of a lock that another process holds; any other error means that it has no locks here."""
LOCKED_BYTE = 1 << 30
"""Windows locks bytes, not files: one far behind the content, which others then can still read."""


@dataclass(frozen=True)
class Holder:
    """Who holds a lock."""

    pid: int
    host: str
    place: str
    """Tells two systems of the same host name apart: reboots, containers."""
    process_start: str
    """Tells two processes of the same number apart."""
    doing: str
    since: str

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host} ({self.doing}, since {self.since})"


@contextmanager
def run_lock(folder: Path, doing: str) -> Iterator[None]:
    """Holds the lock of a run's folder, which is made where it is absent, and removed if it is still empty after.

    Args:
        folder: of the run, not one of its steps.
        doing: what the process does there, for the message that others get: "patchpad train".

    Raises:
        RunInUseError: another process, or another thread of this one, holds it.
        ConfigError: the folder cannot be made or written to.
    """
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot make the run directory {folder}: {error}", hint="Choose another --out.") from error
    try:
        descriptor = _acquire(folder, _this_process(doing))
        stop = threading.Event()
        beating = threading.Thread(target=_beat, args=(folder / LOCK, stop), name="run lock", daemon=True)
        beating.start()
        try:
            yield
        finally:
            stop.set()
            beating.join()
            _release(folder / LOCK, descriptor)
    finally:
        with suppress(OSError):  # not empty, as a rule
            for path in made:
                path.rmdir()


def require_free(folder: Path) -> None:
    """Looks whether a process holds the lock of a folder, and takes nothing.

    Raises:
        RunInUseError: one does.
    """
    if (folder / LOCK).exists():
        with run_lock(folder, "looking"):
            pass


def run_of(path: Path) -> Path:
    """Returns the folder whose lock guards a run or one of its steps (RUN/checkpoints/step-N)."""
    place = path.absolute()
    return place.parent.parent if place.parent.name == "checkpoints" else path


def _acquire(folder: Path, me: Holder) -> int:
    path = folder / LOCK
    while True:
        try:
            descriptor, is_new = _open(path)
        except OSError as error:
            raise ConfigError(
                f"cannot write to {folder}: {error.strerror}", hint="Choose a folder that can be written to."
            ) from error
        try:
            has_locks = _lock(descriptor, folder)
            if not _is_same_file(descriptor, path):  # its holder ended, and removed it, after it was opened here
                os.close(descriptor)
                continue
            holder = None if is_new else _holder(descriptor, wait=not has_locks)
            if holder is not None and _is_alive(holder, path, has_locks=has_locks):
                raise _in_use(folder, holder)
            _write(descriptor, me)
            if not (has_locks or is_new):
                time.sleep(SETTLE_SECONDS)
                winner = _holder(descriptor, wait=True)
                if winner != me:
                    raise _in_use(folder, winner)
        except BlockingIOError:
            holder = _holder(descriptor, wait=True)
            os.close(descriptor)
            raise _in_use(folder, holder) from None
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor


def _open(path: Path) -> tuple[int, bool]:
    flags = os.O_RDWR | getattr(os, "O_BINARY", 0)
    try:
        return os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o666), True
    except FileExistsError:
        return os.open(path, flags | os.O_CREAT, 0o666), False


def _lock(descriptor: int, folder: Path) -> bool:
    """Locks an open file; returns False where the system has no locks.

    Raises:
        BlockingIOError: another process holds it.
    """
    try:
        if fcntl is not None:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        elif msvcrt is not None:
            os.lseek(descriptor, LOCKED_BYTE, os.SEEK_SET)
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)  # pyrefly: ignore
        else:
            return False
    except OSError as error:
        if error.errno in HELD:
            raise BlockingIOError(error.errno, error.strerror) from error
        _report_no_locks(str(folder), error.strerror)
        return False
    return True


@functools.cache
def _report_no_locks(folder: str, reason: str) -> None:
    logger.warning("the file system of %s has no locks (%s): a lock file with a heartbeat does instead", folder, reason)


def _is_same_file(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except OSError:
        return False


def _is_alive(holder: Holder, path: Path, *, has_locks: bool) -> bool:
    """Whether the process that a lock file names still works there; the file is locked by this one where it can be."""
    facts = vars(holder)
    if is_here(facts):
        return not has_locks and not is_gone(facts)
    logger.info("%s was in use by %s: watching for %.0f s whether it still is", path.parent, holder, WATCH_SECONDS)
    began, before = time.monotonic(), _touched(path)
    while time.monotonic() - began < WATCH_SECONDS:
        time.sleep(min(1.0, WATCH_SECONDS / 10))
        if _touched(path) != before:
            return True
    return False


def _touched(path: Path) -> int | None:
    try:
        with open(path, "rb") as file:  # network file systems look anew when a file is opened
            return os.fstat(file.fileno()).st_mtime_ns
    except OSError:
        return None


def _beat(path: Path, stop: threading.Event) -> None:
    while not stop.wait(BEAT_SECONDS):
        with suppress(OSError):
            os.utime(path)


def _release(path: Path, descriptor: int) -> None:
    is_ours = _is_same_file(descriptor, path)
    if os.name == "nt":  # an open file cannot be removed there
        os.close(descriptor)
        with suppress(OSError):
            path.unlink()
        return
    with suppress(OSError):
        if is_ours:
            path.unlink()
    os.close(descriptor)


def _write(descriptor: int, holder: Holder) -> None:
    content = json.dumps(asdict(holder)).encode()
    os.lseek(descriptor, 0, os.SEEK_SET)
    os.write(descriptor, content)
    os.ftruncate(descriptor, len(content))
    with suppress(OSError):  # other hosts see it then
        os.fsync(descriptor)


def _holder(descriptor: int, *, wait: bool) -> Holder | None:
    """Reads who holds a lock; with `wait`, a process that has made the file gets time to write its name."""
    for _ in range(10 if wait else 1):
        os.lseek(descriptor, 0, os.SEEK_SET)
        try:
            return Holder(**json.loads(os.read(descriptor, 1 << 16)))
        except (ValueError, TypeError):
            time.sleep(SETTLE_SECONDS / 10 if wait else 0)
    return None


def _in_use(folder: Path, holder: Holder | None) -> RunInUseError:
    hint = "Wait until that process ends, or use another folder."
    if holder is None:
        return RunInUseError(f"{folder} is in use by another process", hint=hint)
    if replace(holder, since="") == replace(_this_process(holder.doing), since=""):
        return RunInUseError(f"{folder} is in use by this very process ({holder.doing})", hint=hint)
    return RunInUseError(f"{folder} is in use by {holder}", hint=hint)


def _this_process(doing: str) -> Holder:
    return Holder(**process_facts(), doing=doing, since=time.strftime("%Y-%m-%d %H:%M:%S"))


def process_facts() -> dict[str, Any]:
    """Returns what tells this process apart from all others, as JSON has it; see `is_gone`."""
    pid = os.getpid()
    return {"pid": pid, "host": socket.gethostname(), "place": _place(), "process_start": _process_start(pid)}


def is_here(facts: dict[str, Any]) -> bool:
    """Whether a process that gave its `process_facts` is one of this system."""
    return (facts["host"], facts["place"]) == (socket.gethostname(), _place())


def is_gone(facts: dict[str, Any]) -> bool:
    """Whether a process that gave its `process_facts` has ended, as far as this system can tell."""
    return is_here(facts) and _process_start(facts["pid"]) != facts["process_start"]


def _place() -> str:
    """Returns what this system's processes have in common, and no others: its start and its space of numbers."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _process_start(pid: int) -> str:
    """Returns when a process was started, where the system says so; "" for one that is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        return "" if fields[0] in "ZX" else fields[19]  # dead, and not yet collected by its parent
    except (OSError, IndexError):
        pass
    if os.path.exists("/proc/self/stat") or os.name == "nt":  # there, `os.kill` would end it
        return ""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return ""
    except OSError:
        pass
    return "running"
