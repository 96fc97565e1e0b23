"""`patchpad serve` as a process: it says where it is, answers, and ends as signals ask it to."""

import contextlib
import gc
import http.client
import json
import os
import re
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from patchpad.cli.serve import serve


@contextlib.contextmanager
def served(command, *arguments, **options):
    """A server as a process, and the address that it has told."""
    with command.start("serve", *arguments, "--port", 0, **options) as process:
        try:
            line = process.stdout.readline().decode()
            found = re.fullmatch(r"Serving (\S+) at http://(\S+):(\d+) \(Ctrl-C stops it\)\n", line)
            assert found, (line, process.stderr.read().decode())
            yield process, found[1], (found[2], int(found[3]))
        finally:
            process.kill()


def ask(address, method: str, path: str, body=None, headers=None):
    connection = http.client.HTTPConnection(*address, timeout=60)
    with contextlib.closing(connection):
        data = None if body is None else json.dumps(body)
        connection.request(method, path, data, {"Content-Type": "application/json", **(headers or {})})
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())


def test_a_run_is_served_under_its_name_and_sigterm_ends_it(command, run):
    with served(command, run) as (process, name, address):
        assert name == "run"
        assert ask(address, "GET", "/health") == (200, {"status": "ok"})
        status, answer = ask(address, "POST", "/v1/completions", {"prompt": "the", "max_tokens": 3, "seed": 1})
        assert status == 200
        assert answer["model"] == "run"
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        log = process.stderr.read().decode()
    assert "all requests had ended" in log
    assert "Traceback" not in log


def test_what_is_loaded_is_not_looked_through_while_the_server_runs(run, monkeypatch):
    found = []

    async def look(*_):
        found.append(gc.get_freeze_count())

    monkeypatch.setattr("patchpad.serving.server.Server.serve", look)
    monkeypatch.setattr("sys.setswitchinterval", lambda _: None)
    serve(Path(run), port=0)
    assert found[0] > 10_000
    assert gc.get_freeze_count() == 0


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_ends_it_at_once_with_130(command, run, number):
    with served(command, run) as (process, _, address):
        body = json.dumps({"prompt": "a", "max_tokens": 16_000, "stream": True, "logit_bias": {"256": -100}})
        with socket.create_connection(address) as connection:
            head = "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())
            assert b"200 OK" in connection.recv(10_000)
            process.send_signal(number)
            process.send_signal(number)
            assert process.wait(60) == 130
        log = process.stderr.read().decode()
    assert log.splitlines()[-1] == "patchpad: the server has stopped; requests that still ran were cut short"
    assert "Traceback" not in log


@pytest.mark.slow
def test_a_key_in_the_environment_is_asked_for_and_other_addresses_are_warned_of(command, run):
    key = "a-key-in-the-environment"
    environment = {**command.environment, "PATCHPAD_API_KEY": key}
    with served(command, run, "--host", "0.0.0.0", env=environment) as (process, _, (_, port)):
        address = ("127.0.0.1", port)
        assert ask(address, "GET", "/v1/models")[0] == 401
        assert ask(address, "GET", "/v1/models", headers={"Authorization": f"Bearer {key}"})[0] == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        log = process.stderr.read().decode()
    assert "0.0.0.0 can be reached from other machines" in log
    assert "NO API KEY" not in log
    assert key not in log


@pytest.mark.slow
def test_without_a_key_the_warning_is_louder(command, run):
    with served(command, run, "--host", "0.0.0.0", env={**command.environment}) as (process, _, _):
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        assert "NO API KEY IS SET" in process.stderr.read().decode()


def test_a_port_that_is_in_use_is_told_before_the_model_is_loaded(fails, run, monkeypatch):
    monkeypatch.setattr("patchpad.training.checkpoint.load", lambda *_, **__: pytest.fail("the model was loaded"))
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        error = fails(1, "serve", run, "--port", port)
    assert f"port {port} of 127.0.0.1 is in use" in error
    assert "--port; 0 takes any free one" in error


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--port", "99999"], 2, "--port is 99999; allowed: 0"),
        (["--host", "203.0.113.7", "--port", "0"], 1, "203.0.113.7 is not an address of this machine"),
        (["--host", "no such host"], 1, "--host is 'no such host'"),
        (["--api-key-file", "missing.txt"], 2, "cannot be read"),
        (["--compute", "0.3", "--port", "0"], 2, "no calibration"),
        (["--draft", "99", "--port", "0"], 2, "draft is 99; allowed: auto, off, or a number of bytes from 1 to 64"),
        (["--max-prompt-bytes", "0"], 2, "max_prompt_bytes is 0"),
        (["--arrival-seconds", "nan"], 2, "arrival_seconds is nan"),
        (["--api-key", "secret"], 2, "--api-key"),
    ],
)
def test_what_cannot_be_served_is_told_in_two_lines(fails, run, arguments, code, says):
    assert says in fails(code, "serve", run, *arguments)


def test_a_missing_library_names_the_line_that_installs_it(command, run):
    code = (
        "import sys\nsys.modules['uvicorn'] = None\nfrom patchpad.cli.app import main\n"
        f"sys.exit(main(['serve', {str(run)!r}]))"
    )
    done = subprocess.run(
        [command.program[0], "-c", code], env=command.environment, capture_output=True, check=False, cwd=Path(run)
    )
    assert done.returncode == 1
    assert done.stderr.decode().splitlines() == [
        "patchpad: the library `uvicorn` is not installed",
        'Install it with: pip install "patchpad[serve]"',
    ]


def test_help_needs_no_library_of_the_server(patchpad):
    called = patchpad("serve", "--help")
    assert called.code == 0
    assert "--api-key-file" in called.out
    assert "OpenAI" in called.out


def test_environment_of_the_tests_holds_no_key():
    assert "PATCHPAD_API_KEY" not in os.environ
