"""Clients that leave, and servers that stop."""

import json
import threading
import time

import pytest

LONG = {"max_tokens": 16_000, "logit_bias": {"256": -100}}


def started(server, body: dict):
    """A connection on which a long request runs; the server has taken its rows."""
    connection = server.connect()
    data = json.dumps({"prompt": "It was", **body}).encode()
    connection.sendall(
        b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: "
        b"%d\r\n\r\n" % len(data) + data
    )
    wait_until(lambda: server.scheduler.counts().rows_running > 0)
    return connection


def wait_until(holds) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.mark.parametrize("stream", [True, False])
def test_rows_of_a_client_that_leaves_are_dropped(serve, stream):
    with serve() as server:
        connection = started(server, {**LONG, "n": 3, "stream": stream})
        connection.close()
        wait_until(lambda: server.scheduler.counts().rows_cancelled == 3)
        counts = server.scheduler.counts()
        assert (counts.rows_running, counts.rows_ended, counts.rows_waiting) == (0, 0, 0)
        counted = f'patchpad_requests_total{{route="/v1/completions",status="{200 if stream else 499}"}} 1.0'
        wait_until(lambda: counted in server.ask("GET", "/metrics").body.decode())
        assert server.complete("It was", max_tokens=4).status == 200


@pytest.mark.parametrize("sent", [b"\r\n", b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"])
def test_a_client_that_has_sent_more_than_its_request_can_leave_too(serve, sent):
    with serve() as server:
        connection = started(server, LONG)
        protocol = next(iter(server.server.server_state.connections))
        connection.sendall(sent)
        wait_until(lambda: protocol.conn.trailing_data[0])
        connection.close()
        wait_until(lambda: server.scheduler.counts().rows_cancelled == 1)
        assert server.scheduler.counts().rows_running == 0


def test_a_row_is_dropped_within_a_step_of_the_engine(serve, monkeypatch):
    """Once the server has noticed, no further step has the row."""
    with serve() as server:
        steps = []
        cancel = server.scheduler.cancel
        monkeypatch.setattr(
            server.scheduler, "cancel", lambda handle: (cancel(handle), steps.append(server.scheduler.counts().steps))
        )
        connection = started(server, {**LONG, "stream": True})
        connection.close()
        wait_until(lambda: not server.scheduler.counts().rows_running)
        assert server.scheduler.counts().steps - steps[0] <= 1


def test_rows_that_wait_are_dropped_too(serve):
    with serve(batch_rows=1, max_waiting=4) as server:
        first = started(server, {**LONG, "stream": True})
        second = started(server, {**LONG, "n": 2})
        wait_until(lambda: server.scheduler.counts().rows_waiting == 2)
        second.close()
        wait_until(lambda: server.scheduler.counts().rows_waiting == 0)
        assert server.scheduler.counts().rows_running == 1
        first.close()


def test_a_server_that_stops_lets_requests_end(serve):
    with serve() as server:
        found = []
        bias = {"256": -100}
        asking = threading.Thread(
            target=lambda: found.append(server.complete("It was", max_tokens=300, seed=1, logit_bias=bias))
        )
        asking.start()
        wait_until(lambda: server.scheduler.counts().rows_running > 0)
        server.server.stop()
        asking.join(60)
        server.thread.join(60)
        assert not server.thread.is_alive()
        assert found[0].status == 200
        assert found[0].json["usage"]["completion_tokens"] == 300
        assert not server.server.was_cut_short
        with pytest.raises(ConnectionRefusedError):
            server.connect()


@pytest.mark.parametrize("twice", [True, False])
def test_a_second_signal_or_the_end_of_the_time_cuts_requests_short(serve, twice):
    with serve(drain_seconds=60 if twice else 0.3) as server:
        connection = started(server, {**LONG, "stream": True})
        server.server.stop()
        if twice:
            server.server.stop(now=True)
        server.thread.join(30)
        assert not server.thread.is_alive()
        received = b""
        while more := connection.recv(65_536):
            received += more
        connection.close()
        assert b'"code":"shutting_down"' in received.rsplit(b"data: ", 1)[1]
        assert b"[DONE]" not in received
        assert server.server.was_cut_short


def test_requests_that_come_while_the_server_stops_are_sent_away(serve):
    with serve() as server:
        connection = started(server, {**LONG, "stream": True})
        server.scheduler.set_accepting(False)
        reply = server.complete("a", max_tokens=1)
        assert (reply.status, reply.error["code"]) == (503, "shutting_down")
        assert server.ask("GET", "/health").status == 503
        connection.close()


def test_health_tells_when_the_engine_is_dead(serve, monkeypatch):
    with serve() as server:
        assert server.ask("GET", "/health").status == 200
        monkeypatch.setattr(server.scheduler, "_thread", None)
        assert server.ask("GET", "/health").status == 500
        monkeypatch.undo()


def test_an_engine_that_has_died_is_not_called_a_server_that_stops(serve, monkeypatch):
    def die():
        raise SystemExit

    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    with serve() as server:
        monkeypatch.setattr(server.scheduler, "_make_round", die)
        assert server.complete("a", max_tokens=1).status == 500
        wait_until(lambda: not server.scheduler.counts().is_alive)
        health = server.ask("GET", "/health")
        assert (health.status, health.error["code"]) == (500, "engine_dead")
        later = server.complete("a", max_tokens=1)
        assert later.status == 500
        assert "the engine has stopped" in later.error["message"]
