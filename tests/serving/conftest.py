"""A server in a thread of its own, over a tiny model, and clients for it."""

import asyncio
import http.client
import json
import math
import socket
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from patchpad.calibration_table import Calibration
from patchpad.model.language_model import LanguageModel
from patchpad.serving.scheduler import Scheduler
from patchpad.serving.server import Server, open_socket
from patchpad.serving.settings import Settings
from patchpad.testing import sharp_model, tiny_model_config

HOST = "127.0.0.1"
sys.path.insert(0, str(Path(__file__).parent))  # for `hostile` and `playground_page`


@dataclass(frozen=True)
class Reply:
    """An answer of the server."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        return self.json["error"]

    @property
    def events(self) -> list[Any]:
        """What a stream says, its end left out."""
        lines = [line.removeprefix(b"data: ") for line in self.body.split(b"\n\n") if line]
        assert lines.pop() == b"[DONE]"
        return [json.loads(line) for line in lines]


@dataclass
class Running:
    """A server that runs."""

    server: Server
    scheduler: Scheduler
    model: LanguageModel
    port: int
    thread: threading.Thread = field(repr=False)

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    def ask(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Reply:
        """Sends one request on a connection of its own; a body that is not bytes is sent as JSON."""
        connection = http.client.HTTPConnection(HOST, self.port, timeout=60)
        try:
            data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
            kind = {} if data is None else {"Content-Type": "application/json"}
            connection.request(method, path, data, {**kind, **(headers or {})})
            answer = connection.getresponse()
            return Reply(answer.status, {key.lower(): value for key, value in answer.getheaders()}, answer.read())
        finally:
            connection.close()

    def post(self, path: str, headers: dict[str, str] | None = None, **body: Any) -> Reply:
        return self.ask("POST", path, body, headers)

    def complete(self, prompt: Any = "It was", **body: Any) -> Reply:
        return self.post("/v1/completions", prompt=prompt, **body)

    def connect(self) -> socket.socket:
        return socket.create_connection((HOST, self.port), timeout=60)


@contextmanager
def running(
    model: LanguageModel, *, batch_rows: int = 8, max_waiting: int = 8, send_buffer: int | None = None, **settings: Any
) -> Iterator[Running]:
    """A server over a model, ended at once at the end."""
    scheduler = Scheduler(model, batch_rows=batch_rows, max_waiting=max_waiting)
    server = Server(scheduler, Settings(**{"model_id": "tiny", **settings}))
    with open_socket(HOST, 0) as opened:
        if send_buffer is not None:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
        port = opened.getsockname()[1]
        thread = threading.Thread(target=lambda: asyncio.run(server.serve([opened])))
        thread.start()
        for _ in range(500):
            if server.started or not thread.is_alive():
                break
            thread.join(0.01)
        try:
            yield Running(server, scheduler, model, port, thread)
        finally:
            server.stop()
            server.stop(now=True)
            thread.join(30)
            assert not thread.is_alive()


@pytest.fixture(scope="session")
def tiny() -> LanguageModel:
    return sharp_model(tiny_model_config(context_bytes=96))


@pytest.fixture(scope="session")
def served(tiny) -> Iterator[Running]:
    """A server that all tests share."""
    with running(tiny, batch_rows=16, max_waiting=32) as found:
        yield found


@pytest.fixture(scope="session")
def serve(tiny):
    """Starts servers with settings of their own."""
    return lambda **settings: running(settings.pop("model", tiny), **settings)


@pytest.fixture(scope="session")
def calibrated() -> LanguageModel:
    """A model with a calibration of three rows."""
    model = sharp_model(tiny_model_config(context_bytes=96))
    rows = [
        {
            "scratchpad_threshold_nats": threshold,
            "scratchpads_per_byte": compute - 0.2,
            "patches_per_byte": 0.2,
            "trunk_calls_per_byte": compute,
            "bits_per_byte": 2.0,
            "num_bytes": 1000.0,
        }
        for threshold, compute in ((math.inf, 0.2), (1.0, 0.5), (-math.inf, 1.0))
    ]
    model.calibration = Calibration(rows=tuple(rows), text_sha256="0")
    return model


@pytest.fixture(scope="session")
def site(serve, calibrated) -> Iterator[Running]:
    """A server for the playground, over a model whose compute can be set."""
    with serve(model=calibrated) as found:
        yield found


@pytest.fixture
def opened(browser):
    """Opens the playground of a server; at the end the console must be empty, and no other host was asked."""

    from playground_page import Playground  # lies beside this file

    @contextmanager
    def open_page(server: Running, *, expected: Sequence[str] = (), **options: Any) -> Iterator[Playground]:
        page = browser.open(f"{server.url}/", **options)
        try:
            yield Playground(page)
            assert [one for one in page.messages if not any(word in one for word in expected)] == []
            assert {request.split("/", 3)[2] for request in page.requests} == {f"{HOST}:{server.port}"}
        finally:
            page.close()

    return open_page
