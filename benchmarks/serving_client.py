"""A client for load: many streams over raw sockets in one thread. It keeps what arrives and when, to read it later."""

import json
import random
import selectors
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

HEALTH_SECONDS = 0.1
"""Between two questions whether the server is well."""
RECEIVE_BYTES = 65_536


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What a stream asks for."""

    prompt: bytes
    max_new_bytes: int
    temperature: float
    seed: int

    def body(self, model: str) -> bytes:
        """Returns the body of the request."""
        fields = {
            "model": model,
            "prompt": list(self.prompt),
            "max_tokens": self.max_new_bytes,
            "temperature": self.temperature,
            "seed": self.seed,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        return json.dumps(fields).encode()


@dataclass
class Received:
    """What a stream got: pieces of its answer as the socket gave them, and when."""

    asked: Asked
    began: float
    pieces: list[tuple[float, bytes]] = field(default_factory=list)
    is_whole: bool = False


@dataclass
class Load:
    """All that a run of the client saw."""

    began: float
    ended: float
    streams: list[Received]
    health_seconds: list[float]
    cpu_seconds: float
    """That the server took until no more requests began."""


def requests_of(text: bytes, seed: int) -> Iterator[Asked]:
    """Draws requests without end: prompts of 8 to 256 bytes of a text, 64 to 512 new bytes, about half greedy."""
    source = random.Random(seed)
    while True:
        begin = source.randrange(len(text) - 300)
        yield Asked(
            prompt=text[begin : begin + source.randrange(8, 257)],
            max_new_bytes=source.randrange(64, 513),
            temperature=source.choice([0.0, 0.8]),
            seed=source.randrange(2**31),
        )


class _Stream:
    """One connection, used for one request after another."""

    def __init__(self, address: tuple[str, int], model: str) -> None:
        self.socket = socket.create_connection(address)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.model = model
        self.received: Received | None = None

    def ask(self, asked: Asked) -> Received:
        body = asked.body(self.model)
        head = (
            "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        self.received = Received(asked, time.perf_counter())
        self.socket.sendall(head.encode() + body)
        return self.received

    def read(self) -> bool:
        """Keeps what has arrived; returns whether the answer is whole."""
        assert self.received is not None
        data = self.socket.recv(RECEIVE_BYTES)
        if not data:
            raise SystemExit("the server has closed a connection")
        self.received.pieces.append((time.perf_counter(), data))
        self.received.is_whole = data.endswith(b"0\r\n\r\n")
        return self.received.is_whole


class _Health:
    """Asks now and then whether the server is well, each time over a new connection."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.address = address
        self.seconds: list[float] = []
        self.socket: socket.socket | None = None
        self.began = self.next = time.perf_counter()

    def ask(self) -> socket.socket:
        self.began = time.perf_counter()
        self.socket = socket.create_connection(self.address)
        self.socket.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        return self.socket

    def read(self) -> bool:
        """Returns whether the answer is whole."""
        assert self.socket is not None
        if self.socket.recv(RECEIVE_BYTES):
            return False
        self.socket.close()
        self.socket = None
        self.seconds.append(time.perf_counter() - self.began)
        self.next = self.began + HEALTH_SECONDS
        return True


def put_load(
    address: tuple[str, int],
    model: str,
    requests: Iterator[Asked],
    streams: int,
    seconds: float,
    cpu_seconds: Callable[[], float],
) -> Load:
    """Keeps so many streams busy for some seconds, then lets those that run end.

    Args:
        address: of the server.
        model: its name in the API.
        requests: that are asked for, one after another.
        streams: that run at once.
        seconds: in which new requests begin.
        cpu_seconds: tells how much the server has computed so far.
    """
    selector = selectors.DefaultSelector()
    health = _Health(address)
    received: list[Received] = []
    began = time.perf_counter()
    ends = began + seconds
    cpu_began, cpu_taken = cpu_seconds(), None
    for _ in range(streams):
        stream = _Stream(address, model)
        selector.register(stream.socket, selectors.EVENT_READ, stream)
        received.append(stream.ask(next(requests)))
    running = streams
    while running:
        now = time.perf_counter()
        if cpu_taken is None and now >= ends:
            cpu_taken = cpu_seconds() - cpu_began
        if health.socket is None and health.next <= now < ends:
            selector.register(health.ask(), selectors.EVENT_READ, health)
        for key, _ in selector.select(timeout=0.02):
            if key.data.read():
                selector_done = key.data is health or time.perf_counter() >= ends
                if not selector_done:
                    received.append(key.data.ask(next(requests)))
                    continue
                selector.unregister(key.fileobj)
                if key.data is not health:
                    key.data.socket.close()
                    running -= 1
    selector.close()
    return Load(began, ends, received, health.seconds, cpu_seconds() - cpu_began if cpu_taken is None else cpu_taken)


@dataclass(frozen=True)
class Answer:
    """A stream, read."""

    text: str
    usage: dict[str, Any]
    event_times: tuple[float, ...]
    """Of the events that carried text."""
    event_bytes: tuple[int, ...]
    """UTF-8 bytes of their text."""


def read_answer(received: Received) -> Answer:
    """Reads the events of a stream.

    Raises:
        SystemExit: it is not a whole and well-formed answer.
    """
    whole, times = b"", []
    for seconds, data in received.pieces:
        whole += data
        times.append((len(whole), seconds))
    head, _, rest = whole.partition(b"\r\n\r\n")
    if b" 200 " not in head.splitlines()[0] or not received.is_whole:
        raise SystemExit(f"a stream was not answered: {whole[:300]!r}")
    events = list(_chunks(rest, len(head) + 4))
    if events[-1][1] != b"data: [DONE]\n\n":
        raise SystemExit(f"a stream has no end: {events[-1][1]!r}")
    text, usage, event_times, event_bytes = "", {}, [], []
    arrivals = iter(times)
    reached, seconds = next(arrivals)
    for end, data in events[:-1]:
        while reached < end:
            reached, seconds = next(arrivals)
        value = json.loads(data.removeprefix(b"data: "))
        usage = value.get("usage") or usage
        piece = "".join(choice["text"] for choice in value["choices"])
        if piece:
            text += piece
            event_times.append(seconds)
            event_bytes.append(len(piece.encode()))
    return Answer(text, usage, tuple(event_times), tuple(event_bytes))


def _chunks(body: bytes, begin: int) -> Iterator[tuple[int, bytes]]:
    """Yields the chunks of a body, and where each ends in the whole answer."""
    place = 0
    while True:
        line = body.index(b"\r\n", place)
        size = int(body[place:line], 16)
        if size == 0:
            return
        data = body[line + 2 : line + 2 + size]
        place = line + 2 + size + 2
        yield begin + place, data


def percentile(values: Sequence[float], share: float) -> float:
    """Returns the value below which a share of the values lies."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
