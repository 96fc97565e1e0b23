"""Streams and terminals as users have them: closed, full, narrow, of another encoding, driven by what is printed."""

import ast
import io
import json
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import patchpad as package
from patchpad.cli import app, streams
from patchpad.text import visible_controls

SOURCES = Path(package.__file__).parent
PATH_NAMES = {"path", "file", "folder", "run", "out", "page", "given", "final", "temporary", "parent"}
DRIVES = "\x1b[2J\x07\r\x7f\x9b\u202e\u2066"


class Terminal(io.TextIOWrapper):
    """A stdout or stderr that is a terminal."""

    def __init__(self) -> None:
        super().__init__(io.BytesIO(), encoding="utf-8", write_through=True)

    def isatty(self) -> bool:
        return True

    def shown(self) -> str:
        return self.buffer.getvalue().decode()


def test_control_characters_and_marks_of_direction_are_shown_as_escapes():
    assert visible_controls(f"a\n\tß日{DRIVES}") == r"a" + "\n\tß日" + r"\x1b[2J\x07\x0d\x7f\x9b\u202e\u2066"
    every = [chr(code) for code in (*range(0x20), *range(0x7F, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A))]
    assert [one for one in every if visible_controls(one) == one] == ["\t", "\n"]


def test_what_a_model_writes_is_safe_on_a_terminal_and_no_character_is_broken(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    printer = streams.BytesPrinter()
    for byte in "日".encode() + DRIVES.encode() + b"\xff":
        printer.print(bytes([byte]))
    printer.print("ß".encode()[:1])
    printer.print(b"", end=True)
    assert terminal.shown() == "日" + visible_controls(DRIVES) + "\ufffd\ufffd\n"


def test_text_and_errors_are_safe_on_a_terminal(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    streams.print_text(f"name {DRIVES}")
    assert terminal.shown() == f"name {visible_controls(DRIVES)}\n"
    errors = Terminal()
    monkeypatch.setattr(sys, "stderr", errors)
    streams.print_error(f"no file is at a\nb{DRIVES}", "x" * 5000)
    first, second = errors.shown().splitlines()
    assert first == rf"patchpad: no file is at a\nb{visible_controls(DRIVES)}"
    assert len(second) == streams.LONGEST_LINE
    assert " ... " in second


def test_log_lines_have_a_time_and_warnings_say_so(monkeypatch):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    formatter = streams.LineFormatter()
    lines = [
        formatter.format(
            logging.makeLogRecord({"msg": "at %s", "args": (DRIVES,), "levelno": level, "levelname": name})
        )
        for level, name in ((logging.INFO, "INFO"), (logging.WARNING, "WARNING"))
    ]
    shown = visible_controls(DRIVES)
    assert [line[len("2026-11-28 23:14:07") :] for line in lines] == [f" at {shown}", f" warning: at {shown}"]
    assert lines[0][4] == lines[0][7] == "-"


def test_json_is_ascii_and_exact():
    names = {"text": f"größer \udcff{DRIVES}", "least": float("-inf")}
    out = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", out)
        streams.print_json(names)
        out.flush()
    line = out.buffer.getvalue().decode("ascii")
    assert json.loads(line) == {**names, "least": "-inf"}
    assert line.count("\n") == 1
    assert "\x1b" not in line


@pytest.mark.parametrize("columns", ["0", "2", "10000", "²", "abc", "-5", "9" * 30])
@pytest.mark.parametrize("command", [(), ("generate",), ("study", "report")])
def test_help_ends_at_any_width(patchpad, monkeypatch, columns, command):
    monkeypatch.setenv("COLUMNS", columns)
    called = patchpad(*command, "--help")
    assert called.code == 0
    assert "Usage: patchpad" in called.out
    widest = max(map(len, called.out.splitlines()))
    assert streams.NARROWEST - 2 <= widest <= streams.WIDEST


@pytest.mark.parametrize("closed", [0, 1, 2])
def test_closed_streams_leave_json_alone_on_stdout(command, config, closed):
    done = command.run("cost", "--config", config, "--json", preexec_fn=lambda: os.close(closed))
    assert done.returncode == 0
    assert done.stderr == b""
    if closed == 1:
        assert done.stdout == b""
    else:
        json.loads(done.stdout)


def test_a_batch_is_generated_without_stderr(command, finished):
    arguments = ("--prompt", "a", "--prompt", "b", "--max-new-bytes", "3", "--json")
    done = command.run("generate", finished, *arguments, preexec_fn=lambda: os.close(2))
    assert done.returncode == 0
    assert len(json.loads(done.stdout)["completions"]) == 2


def test_a_closed_descriptor_is_not_taken_by_the_next_file(command, tmp_path):
    code = f"""
import os, sys
from patchpad.cli.streams import prepare_streams
prepare_streams(is_quiet=False)
file = open({str(tmp_path / "weights")!r}, "wb")
os.write(2, b"a message of C code")
assert file.fileno() > 2
"""
    done = subprocess.run(
        [sys.executable, "-c", code], env=command.environment, preexec_fn=lambda: os.close(2), check=False
    )
    assert done.returncode == 0
    assert (tmp_path / "weights").read_bytes() == b""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_behind_a_stream_is_said_once(command, config):
    with open("/dev/full", "wb") as full:
        done = command.run("cost", "--config", config, capture_output=False, stdout=full, stderr=subprocess.PIPE)
        assert done.returncode == 1
        assert done.stderr.splitlines()[0] == b"patchpad: cannot read or write: No space left on device"
        assert len(done.stderr.splitlines()) == 2
        done = command.run("cost", "--config", config, capture_output=False, stdout=subprocess.PIPE, stderr=full)
        assert done.returncode == 0


def test_switches_are_taken_out_but_not_from_texts():
    words = ["generate", "--prompt", "--debug", "--quiet", "--stop", "--quiet", "--debug"]
    assert app.split_switches(words) == (
        ["generate", "--prompt", "--debug", "--stop", "--quiet"],
        {"--quiet", "--debug"},
        [],
    )


def test_quiet_leaves_warnings_and_results(patchpad, finished, text, caplog, monkeypatch):
    from patchpad.training.progress import shows_bar

    monkeypatch.setattr(sys, "stderr", Terminal())
    options = ("inspect", finished, "--text", text, "--limit-bytes", "30")
    loud, said = patchpad(*options), caplog.text
    assert shows_bar()
    caplog.clear()
    quiet = patchpad(*options, "--quiet")
    assert not shows_bar()
    assert "the first 30 of" in said
    assert caplog.text == ""
    assert quiet.out == loud.out
    assert logging.getLogger("patchpad.training").isEnabledFor(logging.WARNING)


def test_version_has_two_names(patchpad):
    assert patchpad("-V").out == patchpad("--version").out == f"{package.__version__}\n"


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_completes_commands_and_options(patchpad, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    script = tmp_path / "completion"
    assert patchpad("--install-completion", "--shell", "bash", "--output", script).code == 0
    for words, expected in (("gene", "generate"), ("generate --max", "--max-new-bytes"), ("study rep", "report")):
        typed = f"patchpad {words}".split()
        ask = f". {script}; COMP_WORDS=({' '.join(typed)}); COMP_CWORD={len(typed) - 1}; _patchpad; "
        done = subprocess.run(
            ["bash", "-c", ask + 'printf "%s\\n" "${COMPREPLY[@]}"'], capture_output=True, text=True, check=False
        )
        assert expected in done.stdout.split(), (words, done)


def test_paths_in_hints_and_commands_are_quoted():
    wrong = []
    for file in SOURCES.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.keyword) and node.arg == "hint":
                texts = [part for part in ast.walk(node.value) if isinstance(part, ast.JoinedStr)]
            else:
                texts = [node] if isinstance(node, ast.JoinedStr) and gives_a_command(node) else []
            for text in texts:
                wrong += [f"{file.name}:{text.lineno}" for value in text.values if is_bare_path(value)]
    assert not wrong, "write quoted(path) there"


def gives_a_command(text: ast.JoinedStr) -> bool:
    parts = [value.value for value in text.values if isinstance(value, ast.Constant)]
    return any(f"patchpad {name}" in str(part) for part in parts for name in app.COMMANDS)


def is_bare_path(value: ast.expr) -> bool:
    """Whether a name or attribute that is called like a path stands in a text as it is."""
    if not isinstance(value, ast.FormattedValue):
        return False
    found = value.value
    name = found.attr if isinstance(found, ast.Attribute) else found.id if isinstance(found, ast.Name) else ""
    return name in PATH_NAMES
