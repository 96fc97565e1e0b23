"""Requests that are slow, broken or too many: answered with a reason or closed, and nothing is left behind."""

import socket
import time

import pytest

HEAD = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


def ending_of(connection: socket.socket) -> bytes:
    """Reads until the server closes the connection."""
    received = b""
    while True:
        try:
            more = connection.recv(65_536)
        except ConnectionError:
            return received
        if not more:
            return received
        received += more


@pytest.fixture(scope="module")
def hasty(serve):
    with serve(arrival_seconds=0.4, idle_seconds=1, max_connections=20) as server:
        yield server


@pytest.mark.parametrize(
    "sent",
    [
        b"G",
        b"GET /health HTTP/1.1\r\nHost: lo",
        HEAD + b"Content-Length: 100\r\n\r\n",
        HEAD + b'Content-Length: 100\r\n\r\n{"prompt": ',
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\n{",
    ],
)
def test_a_request_that_does_not_arrive_in_time_is_told_so(hasty, sent):
    with hasty.connect() as connection:
        connection.sendall(sent)
        answer = ending_of(connection)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"did not arrive within 0.4 seconds" in answer


def test_sending_a_little_now_and_then_does_not_help(hasty):
    with hasty.connect() as connection:
        answer = b""
        connection.settimeout(0.05)
        for byte in b"GET /health HTTP/1.1\r\nHost: localhost\r\nX-A: " + b"a" * 200:
            try:
                connection.sendall(bytes([byte]))
                answer += connection.recv(1000)
            except TimeoutError:
                continue
            except ConnectionError:
                break
            if answer:
                break
    assert answer.startswith(b"HTTP/1.1 408 ")


def test_a_connection_that_says_nothing_is_closed(hasty):
    with hasty.connect() as connection:
        assert ending_of(connection) == b""


def test_the_clock_starts_anew_with_each_request_of_a_connection(hasty):
    request = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with hasty.connect() as connection:
        for _ in range(3):
            connection.sendall(request)
            answer = b""
            while not answer.endswith(b'{"status":"ok"}'):
                answer += connection.recv(10_000)
            time.sleep(0.25)
        connection.sendall(request[:20])
        assert ending_of(connection).startswith(b"HTTP/1.1 408 ")


def test_a_second_request_that_follows_at_once_and_never_ends_is_given_up(hasty):
    with hasty.connect() as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n" + HEAD + b"Content-Length: 50\r\n\r\n{")
        answer = ending_of(connection)
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"HTTP/1.1 408 " in answer


def test_a_body_that_goes_on_after_it_was_refused_is_given_up(hasty):
    with hasty.connect() as connection:
        connection.sendall(HEAD + b"Content-Length: 99999999\r\n\r\n" + b"a" * 1000)
        answer = ending_of(connection)
    assert answer.startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"\r\n\r\n\x00\x01\x02\r\n\r\n", 400),
        (b"GET / HTTP/9.9\r\nHost: localhost\r\n\r\n", 505),
        (b"GET /a b HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.0\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nbad header\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nA: " + b"a" * 70_000 + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"A: b\r\n" * 10_000 + b"\r\n", 431),
        (b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", 431),
        (HEAD + b"Content-Length: -5\r\n\r\n", 400),
        (HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n", 400),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
        (HEAD + b"Transfer-Encoding: gzip\r\n\r\n", 501),
    ],
)  # fmt: skip
def test_what_is_not_http_is_refused_with_a_reason(served, sent, status):
    with served.connect() as connection:
        connection.sendall(sent)
        answer = ending_of(connection)
    assert answer.startswith(b"HTTP/1.1 %d " % status), answer[:200]
    assert b'{"error":{"message":' in answer


def test_too_many_connections_are_refused_until_others_close(hasty):
    opened = [hasty.connect() for _ in range(20)]
    try:
        time.sleep(0.1)
        with hasty.connect() as further:
            assert ending_of(further).startswith(b"HTTP/1.1 503 ")
    finally:
        for connection in opened:
            connection.close()
    for _ in range(100):
        if not hasty.server.server_state.connections:
            break
        time.sleep(0.02)
    assert hasty.ask("GET", "/health").status == 200


def test_a_client_that_does_not_read_is_dropped(serve):
    with serve(send_seconds=0.3, send_buffer=8192) as server:
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        connection.connect(("127.0.0.1", server.port))
        body = b'{"prompt": "' + b"a" * 16_000 + b'", "n": 16, "max_tokens": 0, "echo": true}'
        connection.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        deadline = time.monotonic() + 60
        while not server.server.server_state.connections and time.monotonic() < deadline:
            time.sleep(0.01)
        while server.server.server_state.connections and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not server.server.server_state.connections
        connection.close()


@pytest.fixture
def slow_line(serve):
    """A server, and a client that asks for an answer of so many bytes and can hardly buffer any."""
    with serve(send_seconds=0.5, idle_seconds=1, send_buffer=8192) as server:

        def ask(num_bytes: int) -> socket.socket:
            connection = socket.socket()
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            connection.connect(("127.0.0.1", server.port))
            body = b'{"prompt": "%b", "n": 16, "max_tokens": 0, "echo": true}' % (b"a" * (num_bytes // 16))
            connection.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body)
            return connection

        yield server, ask


def test_a_client_that_does_not_read_the_last_bytes_is_dropped_too(slow_line):
    server, ask = slow_line
    with ask(32_000) as connection:  # less than asyncio's own mark for a client that is slow
        assert connection.recv(9) == b"HTTP/1.1 "
        wait_for(lambda: not server.server.server_state.connections)


def test_a_client_that_reads_slowly_gets_all(slow_line, monkeypatch):
    monkeypatch.setattr("patchpad.serving.arrival.LEAST_READ_BYTES", 1)
    _, ask = slow_line
    with ask(256_000) as connection:
        began, received = time.monotonic(), b""
        while b'"seconds"' not in received[-200:]:
            more = connection.recv(20_000)
            assert more, "the connection was closed while its client read"
            received += more
            if time.monotonic() < began + 0.8:  # longer than a client may do nothing
                time.sleep(0.05)
        assert len(received) > 256_000


def wait_for(holds) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_upgrades_are_not_made(served):
    headers = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Key": "a", "Sec-WebSocket-Version": "13"}
    assert served.ask("GET", "/health", headers=headers).status == 200
