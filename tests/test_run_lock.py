"""One process at a time in a run's folder, whether the file system has locks or not."""

import errno
import json
import logging
import os
import subprocess
import sys
import threading
from dataclasses import asdict, replace

import pytest

from patchpad import run_lock as module
from patchpad.errors import ConfigError, RunInUseError
from patchpad.run_lock import LOCK, require_free, run_lock, run_of

HOLD = """
import sys
from pathlib import Path
from patchpad.run_lock import run_lock
with run_lock(Path(sys.argv[1]), "patchpad train"):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def _fast(monkeypatch):
    monkeypatch.setattr(module, "SETTLE_SECONDS", 0.01)
    monkeypatch.setattr(module, "WATCH_SECONDS", 0.2)
    module._report_no_locks.cache_clear()


@pytest.fixture
def no_locks(monkeypatch):
    """A file system without locks."""
    fcntl = pytest.importorskip("fcntl")

    def refuse(*_):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", refuse)


def leave(folder, **changes):
    """Leaves the lock file of a process that was killed."""
    holder = replace(module._this_process("patchpad train"), **changes)
    folder.mkdir(exist_ok=True)
    (folder / LOCK).write_text(json.dumps(asdict(holder)))


def assert_refused(folder, words):
    with pytest.raises(RunInUseError) as caught, run_lock(folder, "patchpad train"):
        pytest.fail("two hold the lock")
    assert words in caught.value.message
    assert caught.value.hint == "Wait until that process ends, or use another folder."
    with pytest.raises(RunInUseError):
        require_free(folder)


def assert_free(folder):
    require_free(folder)
    with run_lock(folder, "patchpad train"):
        assert_refused(folder, "is in use by this very process (patchpad train)")


@pytest.mark.parametrize("has_locks", [True, False])
def test_lock_is_refused_while_it_is_held_and_leaves_nothing(tmp_path, has_locks, request):
    if not has_locks:
        request.getfixturevalue("no_locks")
    with run_lock(tmp_path / "a" / "run", "patchpad train"):
        assert_refused(tmp_path / "a" / "run", "is in use by this very process")
        assert (tmp_path / "a" / "run" / LOCK).exists()
    assert list(tmp_path.iterdir()) == [], "what it made is gone, being empty"
    (tmp_path / "run").mkdir()
    with run_lock(tmp_path / "run", "patchpad train"), run_lock(tmp_path / "other", "patchpad train"):
        pass
    assert list(tmp_path.rglob("*")) == [tmp_path / "run"]


def test_lock_of_another_process_is_held_until_it_ends_however_it_ends(tmp_path):
    run = tmp_path / "run"
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(run)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        assert_refused(run, f"{run} is in use by process {other.pid} on ")
        other.kill()
        other.wait()
        assert (run / LOCK).exists()
        assert_free(run)


def test_without_locks_a_live_process_holds_and_a_dead_one_does_not(tmp_path, no_locks, caplog):
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        pid, start = other.pid, module._process_start(other.pid)
        leave(tmp_path / "run", pid=pid, process_start=start)
        assert_refused(tmp_path / "run", f"is in use by process {pid} on ")
        other.kill()
    assert_free(tmp_path / "run")
    leave(tmp_path / "recycled", process_start="1")
    if start != "running":
        assert_free(tmp_path / "recycled")
    assert "has no locks (Function not implemented)" in caplog.text


@pytest.mark.parametrize("has_locks", [True, False])
@pytest.mark.parametrize("elsewhere", [{"host": "another"}, {"place": "another boot"}])
def test_holder_on_another_host_is_watched_for_its_heartbeat(tmp_path, has_locks, elsewhere, request, caplog):
    """Locks may be kept to one host, so that this one sees none."""
    if not has_locks:
        request.getfixturevalue("no_locks")
    caplog.set_level(logging.INFO)
    leave(tmp_path / "run", **elsewhere)
    stop = threading.Event()

    def beat():
        while not stop.wait(0.02):
            os.utime(tmp_path / "run" / LOCK)

    beating = threading.Thread(target=beat)
    beating.start()
    try:
        assert_refused(tmp_path / "run", "is in use by process")
    finally:
        stop.set()
        beating.join()
    assert "watching for" in caplog.text
    assert_free(tmp_path / "run")


def test_a_holder_touches_its_lock(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "BEAT_SECONDS", 0.01)
    with run_lock(tmp_path, "patchpad train"):
        os.utime(tmp_path / LOCK, (1, 1))
        for _ in range(500):
            if (tmp_path / LOCK).stat().st_mtime != 1:
                break
            threading.Event().wait(0.01)
        assert (tmp_path / LOCK).stat().st_mtime != 1


@pytest.mark.parametrize("content", ["", "{", "[]", '{"pid": 1}'])
@pytest.mark.parametrize("has_locks", [True, False])
def test_lock_file_that_says_nothing_holds_nothing(tmp_path, content, has_locks, request):
    if not has_locks:
        request.getfixturevalue("no_locks")
    (tmp_path / LOCK).write_text(content)
    assert_free(tmp_path)


def test_of_two_that_take_over_at_once_without_locks_one_gets_it(tmp_path, no_locks, monkeypatch):
    monkeypatch.setattr(module, "SETTLE_SECONDS", 0.2)
    leave(tmp_path / "run", pid=2**22 + 1, process_start="1")
    results = []

    def take(doing):
        try:
            with run_lock(tmp_path / "run", doing):
                results.append("held")
                threading.Event().wait(0.6)
        except RunInUseError:
            results.append("refused")

    threads = [threading.Thread(target=take, args=(name,)) for name in ("one", "two")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == ["held", "refused"]


def test_folder_that_cannot_be_made_or_written_is_an_error(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("x")
    with pytest.raises(ConfigError, match="cannot make the run directory"), run_lock(tmp_path / "file" / "run", "x"):
        pass

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(module, "_open", refuse)
    with pytest.raises(ConfigError, match=f"cannot write to {tmp_path}: Permission denied"), run_lock(tmp_path, "x"):
        pass


def test_steps_are_guarded_by_the_lock_of_their_run(tmp_path):
    assert run_of(tmp_path / "run" / "checkpoints" / "step-3") == tmp_path / "run"
    assert run_of(tmp_path / "run") == tmp_path / "run"
