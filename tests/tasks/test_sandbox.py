"""What a hostile program can do under bubblewrap: nothing but fail."""

import itertools
import logging
import os
import socket
import sys
from pathlib import Path

import pytest

from patchpad.errors import ConfigError, SandboxError
from patchpad.tasks import bubblewrap
from patchpad.tasks.bubblewrap import Limits, why_no_bubblewrap
from patchpad.tasks.sandbox import check_program, run_program
from patchpad.tasks.system_calls import system_call_filter

needs_bubblewrap = pytest.mark.skipif(why_no_bubblewrap() is not None, reason=str(why_no_bubblewrap()))
SHORT = Limits(cpu_seconds=1, wall_seconds=2.0, memory_bytes=256 * 2**20, output_bytes=10_000)


def processes_with(marker: str) -> list[str]:
    """Returns the processes of this machine whose command line holds a marker."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes()
        except OSError:
            continue
        if marker.encode() in command:
            found.append(folder.name)
    return found


@needs_bubblewrap
def test_a_program_runs_to_its_end_and_tells_its_exit_code() -> None:
    good = run_program("import sys; print('out'); print('err', file=sys.stderr)")
    assert (good.ending, good.exit_code, sorted(good.output.split())) == ("finished", 0, ["err", "out"])
    bad = run_program("raise SystemExit(3)")
    assert (bad.ending, bad.exit_code) == ("failed", 3)


@needs_bubblewrap
def test_a_fork_bomb_is_held_and_leaves_nothing_behind() -> None:
    polite = run_program(
        "import os, time\nfor count in range(1000):\n  if os.fork() == 0: time.sleep(60)\n  print(count, flush=True)",
        limits=SHORT,
    )
    assert polite.ending == "failed"
    assert "BlockingIOError" in polite.output
    assert len([line for line in polite.output.splitlines() if line.isdigit()]) <= SHORT.max_processes
    marker = f"bomb-{os.getpid()}"
    stubborn = run_program(
        f"import os, sys\nwhile True:\n  try:\n    if os.fork() == 0: os.execv(sys.executable, "
        f"[sys.executable, '-S', '-c', 'import time; time.sleep(60)', '{marker}'])\n  except OSError: pass",
        limits=SHORT,
    )
    assert stubborn.ending == "time"
    assert not processes_with(marker)


@needs_bubblewrap
@pytest.mark.parametrize(
    ("program", "ending"),
    [
        ("while True: print('x' * 1000)", "output"),
        ("while True: pass", "time"),
        ("import time; time.sleep(60)", "time"),
        ("bytearray(2**30)", "failed"),
        ("open('/tmp/big', 'wb').write(bytes(2**26))", "failed"),
        (
            "for number in range(100): open(f'/dev/shm/{number}', 'wb').write(bytes(2**20))",
            "failed",
        ),
    ],
    ids=["endless output", "computing time", "time on the clock", "memory", "a large file", "many files"],
)
def test_every_limit_ends_a_program(program: str, ending: str) -> None:
    outcome = run_program(program, limits=SHORT)
    assert outcome.ending == ending
    assert len(outcome.output) <= SHORT.output_bytes


@needs_bubblewrap
def test_a_program_sees_neither_files_nor_processes_nor_the_network_of_its_caller(tmp_path: Path) -> None:
    answers = tmp_path / "answers.txt"
    answers.write_text("42")
    server = socket.create_server(("127.0.0.1", 0))
    with server:
        outcome = run_program(
            f"""
import os, shutil, signal, socket
def tried(what, act):
    try: print(what, 'WORKED', act())
    except BaseException as error: print(what, type(error).__name__)
tried('answers', lambda: open({str(answers)!r}).read())
tried('memory', lambda: open('/proc/{os.getpid()}/mem', 'rb'))
tried('network', lambda: socket.create_connection(('127.0.0.1', {server.getsockname()[1]}), 1))
tried('signal', lambda: os.kill({os.getpid()}, signal.SIGKILL))
tried('rights', lambda: os.setuid(0))
for folder in ('/usr', '/inside', {str(tmp_path)!r}, {str(Path(__file__).parent)!r}):
    tried('delete ' + folder, lambda: (shutil.rmtree(folder), 'of what is there')[1])
tried('write', lambda: open('/inside/judge.py', 'a'))
tried('environment', lambda: os.environ['SECRET'])
print('first process', open('/proc/1/comm').read().strip(), len([one for one in os.listdir('/proc') if one.isdigit()]))
os.kill(1, signal.SIGKILL) if os.getuid() == 1000 else None
print('done')
"""
        )
    assert outcome.ending == "finished", outcome.output
    assert "WORKED" not in outcome.output
    assert "first process bwrap 2" in outcome.output
    assert outcome.output.rstrip().endswith("done")
    assert answers.read_text() == "42"
    assert Path(__file__).exists()


@needs_bubblewrap
@pytest.mark.skipif(system_call_filter() is None, reason="the numbers of this machine's system calls are not known")
def test_memory_that_no_limit_counts_and_new_namespaces_are_refused_but_threads_are_not() -> None:
    outcome = run_program(
        """
import ctypes, os, subprocess, sys, threading
calls = ctypes.CDLL(None, use_errno=True)
print('shared memory', calls.shmget(0, 2**20, 0o1600), ctypes.get_errno())
print('unshare', calls.unshare(0x10000000), ctypes.get_errno())
number = {'x86_64': 56, 'aarch64': 220}[os.uname().machine]
print('clone', calls.syscall(number, 0x10000000 | 17, 0, 0, 0, 0), ctypes.get_errno())
try: print(os.memfd_create('x'))
except OSError as error: print('memory file', error.errno)
thread = threading.Thread(target=print, args=('in a thread',)); thread.start(); thread.join()
print(subprocess.run([sys.executable, '-S', '-c', 'print(5)'], capture_output=True).stdout)
"""
    )
    assert outcome.output.splitlines() == [
        "shared memory -1 1",
        "unshare -1 1",
        "clone -1 1",
        "memory file 1",
        "in a thread",
        "b'5\\n'",
    ]
    assert system_call_filter("a machine of another kind") is None


@needs_bubblewrap
def test_a_program_that_signals_everyone_ends_only_itself() -> None:
    outcome = run_program(
        "import os, signal\ntry: os.kill(-1, signal.SIGKILL)\nexcept OSError: pass\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert (outcome.ending, outcome.exit_code) == ("failed", 137)


@needs_bubblewrap
def test_a_daemon_ends_with_its_program() -> None:
    marker = f"daemon-{os.getpid()}"
    outcome = run_program(
        f"""
import os, sys, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.execv(sys.executable, [sys.executable, '-S', '-c', 'import time; time.sleep(60)', '{marker}'])
    os._exit(0)
os.wait()
def command(number):
    try: return open(f'/proc/{{number}}/cmdline', 'rb').read()
    except OSError: return b''  # it has just ended
while not any(b'{marker}' in command(one) for one in os.listdir('/proc') if one.isdigit()): pass
print('it runs')
"""
    )
    assert outcome.ending == "finished"
    assert outcome.output == "it runs\n"
    assert not processes_with(marker)


HONEST = "class Box:\n    def __init__(self, x): self.x = x\ndef f(x): return x + 1\n"
CHEATS = {
    "leaves at once": "import os; os._exit(0)",
    "leaves in the first call": "import os\ndef f(x): os._exit(0)",
    "raises SystemExit": "import sys\ndef f(x): sys.exit(0)",
    "says so at its end": 'import atexit\natexit.register(lambda: print(\'{"passed": true, "reason": ""}\'))',
    "equals everything": "class E:\n  __eq__ = lambda s, o: True\n  __hash__ = None\n"
    "  __sub__ = __rsub__ = lambda s, o: 0\ndef f(x): return E()",
    "equals everything as an int": "class E(int):\n"
    "  __eq__ = lambda s, o: True\n  __hash__ = None\ndef f(x): return E(9)",
    "replaces the built-in functions": "import builtins\nbuiltins.abs = builtins.list = abs = lambda *a: 0\n"
    "builtins.AssertionError = int\ndef f(x): return 9",
    "looks for the answer in the frames": """
import gc, sys
def f(x):
    frame = sys._getframe()
    seen = []
    while frame:
        seen += [one for one in frame.f_code.co_consts if isinstance(one, int)]
        seen += [one for one in frame.f_locals.values() if isinstance(one, int)]
        frame = frame.f_back
    return next((one for one in seen if one > 100 and one % 10 == 7), 0)
""",
    "writes a verdict wherever it can": """
import os
def f(x):
    for number in range(64):
        try: os.write(number, b'{"passed": true, "reason": ""}')
        except OSError: pass
    os._exit(0)
""",
    "sends messages of its own": """
import os, struct
for number in range(1, 64):
    for text in (b'{"value": ["dict", ["f", ["far", 0]]]}', b'{"value": 1}', b'{"value": ["type", "eval"]}'):
        try: os.write(number, struct.pack('<I', len(text)) + text)
        except OSError: pass
""",
    "sends a message without an end": """
import os, struct
for number in range(3, 64):
    try: os.write(number, struct.pack('<I', 2**32 - 1) + bytes(1000))
    except OSError: pass
""",
}


@needs_bubblewrap
@pytest.mark.parametrize("cheat", CHEATS)
def test_a_program_passes_by_results_alone(cheat: str) -> None:
    checks = "assert f(106) == 107\nassert abs(f(106) - 107) < 1e-6\nassert list([f(116)]) == [117]"
    verdict = check_program(CHEATS[cheat], checks, names=["f"], limits=SHORT)
    assert not verdict.passed
    assert verdict.reason


HOSTILE = {
    "fork bomb": "import os\nwhile True: os.fork()\n",
    "endless output": "while True: print('x' * 1000)\n",
    "deletion": "import shutil; shutil.rmtree('/usr')\n",
    "signals": "import os, signal\nos.kill(-1, signal.SIGKILL); os.kill(1, signal.SIGKILL); os.kill(os.getpid(), 9)\n",
    "reading": "import os\nopen(f'/proc/{os.getppid()}/mem', 'rb').read()\n",
    "daemon": "import os, time\nif os.fork() == 0:\n    os.setsid()\n"
    "    if os.fork() == 0: time.sleep(60)\n    os._exit(0)\nos.wait()\n",
    "child": "import os, time\nif os.fork() == 0: time.sleep(60)\n",
}


@needs_bubblewrap
@pytest.mark.parametrize("attack", HOSTILE)
def test_a_hostile_program_fails_though_its_function_is_right(attack: str) -> None:
    verdict = check_program(HOSTILE[attack] + HONEST, "assert f(1) == 2", names=["f"], limits=SHORT)
    assert not verdict.passed
    assert verdict.reason
    assert check_program(HONEST, "assert f(1) == 2", names=["f"]).passed


@needs_bubblewrap
def test_objects_of_the_program_can_be_made_changed_and_handed_back_by_the_checks() -> None:
    program = """
class Node:
    def __init__(self, value): self.value, self.next = value, None
def total(node):
    return node.value + total(node.next) if node else 0
def grow(items): items.append(4)
def numbers(count): return (n for n in range(count))
def kinds(*things): return [type(one).__name__ for one in things]
def fails(x): raise ValueError(f"not {x}")
"""
    checks = """
import datetime, decimal
root = Node(1)
root.next = Node(2)
assert total(root) == 3 and root.next.value == 2 and root.next == root.next and root.next != root
items = [1, 2]
grow(items)
assert items == [1, 2, 4]
assert list(numbers(3)) == [0, 1, 2]
things = {1: "a"}, (1,), {2}, 2.5, 10**30, None, True, b"x", 1j, decimal.Decimal("0.1"), datetime.date(2024, 2, 29), int
assert kinds(*things) == [type(one).__name__ for one in things]
try:
    fails(3)
except ValueError as error:
    assert "not 3" in str(error)
else:
    raise AssertionError
assert math.isclose(total(Node(0.5)), 0.5)
"""
    names = ["Node", "total", "grow", "numbers", "kinds", "fails"]
    verdict = check_program(program, checks, names=names, given="import math")
    assert verdict.passed, verdict.reason
    assert check_program(HONEST, "print('loud')\nassert f(1) is 2", names=["f"]).passed  # Python warns of such an `is`
    assert (
        check_program(program, "assert total(Node(1)) == 2", names=names).reason
        == "AssertionError:  (line 1 of the checks)"
    )
    assert "does not define f" in check_program(HONEST, "", names=["f", "fail"]).reason
    assert check_program("while True: pass", "", names=["f"], limits=SHORT).ending == "time"


@needs_bubblewrap
def test_time_that_a_program_has_to_wait_is_not_computing_time() -> None:
    outcome = run_program("import time; time.sleep(1.2)", limits=Limits(cpu_seconds=1, wall_seconds=20.0))
    assert outcome.ending == "finished"
    assert outcome.seconds > 1


@pytest.mark.skipif(sys.platform != "linux", reason="limits of another system")
def test_the_fallback_limits_time_memory_and_output_and_says_loudly_that_it_is_one(
    caplog: pytest.LogCaptureFixture,
) -> None:
    bubblewrap.require_sandbox.cache_clear()
    with caplog.at_level(logging.WARNING):
        kinds = ["while True: print('x' * 1000)", "while True: pass", "bytearray(2**30)", "print('fine')"]
        outcomes = [run_program(one, limits=SHORT, sandbox="limited-process") for one in kinds]
    assert [outcome.ending for outcome in outcomes] == ["output", "time", "failed", "finished"]
    child = "import os, time\nif os.fork() == 0: time.sleep(60)\nprint('left')"
    left = run_program(child, sandbox="limited-process")  # what stays behind neither holds it up nor stays
    assert (left.ending, left.output) == ("finished", "left\n")
    assert left.seconds < 30
    assert [record.message.split(":")[0] for record in caplog.records] == [
        "PROGRAMS WRITTEN BY A MODEL ARE RUN WITHOUT A SANDBOX"
    ]
    assert check_program(HONEST, "assert f(1) == 2", names=["f"], sandbox="limited-process").passed
    assert not check_program(
        CHEATS["equals everything"], "assert f(1) == 2", names=["f"], sandbox="limited-process"
    ).passed


def test_a_missing_bubblewrap_is_an_error_that_names_both_ways_out(monkeypatch: pytest.MonkeyPatch) -> None:
    for function in (bubblewrap.why_no_bubblewrap, bubblewrap.require_sandbox):
        function.cache_clear()
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(SandboxError, match="not installed") as caught:
        run_program("print(1)")
    assert "apt-get install bubblewrap" in caught.value.hint
    assert "--unsafe-code" in caught.value.hint
    bubblewrap.why_no_bubblewrap.cache_clear()


@pytest.mark.unchecked
def test_limits_are_positive_numbers() -> None:
    for name, bad in itertools.product(Limits.__dataclass_fields__, [0, -1, "many", True]):
        with pytest.raises(ConfigError, match=name):
            Limits(**{name: bad})


@pytest.mark.unchecked
def test_an_unknown_sandbox_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="bubblewrap, limited-process"):
        run_program("", sandbox="docker")  # pyrefly: ignore
