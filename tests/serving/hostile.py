"""Hostile requests, drawn from a seed: what they send, and what may come back."""

import json
import random
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

HEAD = "POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nAuthorization: Bearer {key}\r\n"
MIB = 2**20


@dataclass(frozen=True)
class Attack:
    """Bytes to send, in pieces with pauses between them."""

    kind: str
    pieces: tuple[bytes, ...]
    pause_seconds: float = 0.0


@dataclass(frozen=True)
class Outcome:
    """What came back before the server closed the connection, or the answer was complete."""

    status: int | None
    """None for a connection that was closed without an answer."""
    body: bytes


def attacks(count: int, key: str, seed: int = 0) -> Iterator[Attack]:
    """Draws so many attacks, all kinds in turn."""
    source = random.Random(seed)
    makers = [
        broken_json, wrong_types, huge_numbers, not_numbers, large_body, slow_sender, wrong_key, path_trick,
        header_flood, not_http, deep_json, unknown_fields, foreign_page, wrong_method, chunked_body, too_much,
    ]  # fmt: skip
    for number in range(count):
        yield makers[number % len(makers)](source, key)


def request(key: str, body: bytes, *, path: str = "/v1/completions", host: str = "localhost", more: str = "") -> bytes:
    head = HEAD.format(path=path, host=host, key=key) + more
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode("latin-1") + body


def broken_json(source: random.Random, key: str) -> Attack:
    body = bytearray(json.dumps({"prompt": "größer", "max_tokens": 3, "stop": ["a", "b"]}).encode())
    for _ in range(source.randrange(1, 5)):
        place = source.randrange(len(body))
        body[place : place + source.randrange(3)] = bytes([source.choice(b'{}[]",:\\\x00\xff')])
    return Attack("broken_json", (request(key, b"{" + bytes(body)),))


def wrong_types(source: random.Random, key: str) -> Attack:
    fields = ["prompt", "max_tokens", "temperature", "top_p", "n", "stop", "seed", "logprobs", "logit_bias", "stream"]
    wrong = [{"a": {}}, [[[]]], [None], "\x00", "NaN", -1e300, [{"b": 1}]]
    values = {"prompt": "a", source.choice(fields): source.choice(wrong)}
    return Attack(
        "wrong_types", (request(key, json.dumps({**values, "n": source.choice([{}, "2", [3], 2.5])}).encode()),)
    )


def huge_numbers(source: random.Random, key: str) -> Attack:
    name = source.choice(["max_tokens", "n", "seed", "logprobs", "temperature", "top_k", "best_of", "compute"])
    digits = "9" * source.choice([20, 400, 5000, 100_000])
    value = source.choice([digits, f"-{digits}", f"1e{digits[:5]}", f"{digits}.5"])
    return Attack("huge_numbers", (request(key, f'{{"prompt": "a", "{name}": {value}}}'.encode()),))


def not_numbers(source: random.Random, key: str) -> Attack:
    name = source.choice(["temperature", "top_p", "scratchpad_threshold", "compute", "max_tokens"])
    value = source.choice(["NaN", "Infinity", "-Infinity", '"nan"', "nan", "0x10"])
    return Attack("not_numbers", (request(key, f'{{"prompt": "a", "{name}": {value}}}'.encode()),))


def large_body(source: random.Random, key: str) -> Attack:
    size = 10 * MIB
    unit = source.choice([b"a", b"[", b'{"a":', b"\x00", b"1,"])
    return Attack("large_body", (request(key, b'{"prompt": "' + unit * (size // len(unit))),))


def slow_sender(source: random.Random, key: str) -> Attack:
    whole = request(key, b'{"prompt": "a"}')
    cut = source.randrange(1, len(whole) - 1)
    size = source.choice([1, 7, 50])
    pieces = [whole[place : min(place + size, cut)] for place in range(0, cut, size)]
    return Attack("slow_sender", tuple(pieces), 0.05)


def wrong_key(source: random.Random, key: str) -> Attack:
    wrong = source.choice(["", key[:-1], key + "x", key.upper(), "\xff" * 20, "A" * 5000, f"{key} {key}"])
    return Attack("wrong_key", (request(wrong, b'{"prompt": "a", "max_tokens": 1}'),))


def path_trick(source: random.Random, key: str) -> Attack:
    path = source.choice(
        ["/../../etc/passwd", "/playground/../app.py", "/playground/%2e%2e%2fapp.py", "/playground/..\\app.py",
         "//etc/passwd", "/v1/completions/../../x", "/%00", "/playground/next_byte.py", "http://evil.example/v1/x",
         "/playground/index.html%00.js", "/" + "a/" * 500, "/v1/models/../../x", "*", "/?" + "q" * 3000 + "/x"]
    )  # fmt: skip
    return Attack("path_trick", (request(key, b"{}", path=path),))


def header_flood(source: random.Random, key: str) -> Attack:
    flood = source.choice(
        ["X-A: b\r\n" * 20_000, f"X-A: {'b' * 200_000}\r\n", "".join(f"X-{n}: a\r\n" for n in range(9999))]
    )
    return Attack("header_flood", (request(key, b"{}", more=flood),))


def not_http(source: random.Random, key: str) -> Attack:
    kinds: list[Callable[[], bytes]] = [
        lambda: source.randbytes(source.randrange(1, 2000)) + b"\r\n\r\n",
        lambda: b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + source.randbytes(500) + b"\r\n\r\n",
        lambda: b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        lambda: b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        lambda: b"GET / HTTP/1.1\r\n Host: localhost\r\n\r\n",
        lambda: b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
        lambda: b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ]
    return Attack("not_http", (source.choice(kinds)(),))


def deep_json(source: random.Random, key: str) -> Attack:
    depth = source.choice([1000, 100_000, 200_000])
    unit = source.choice(['{"prompt":', "[", '{"messages":['])
    path = source.choice(["/v1/completions", "/v1/chat/completions", "/tokenize", "/playground/marks"])
    return Attack("deep_json", (request(key, (unit * depth)[:900_000].encode(), path=path),))


def unknown_fields(source: random.Random, key: str) -> Attack:
    names = ["__class__", "__proto__", "prompt\x00", "tools", "a" * 10_000, "größe", "", "model.config", "$ref"]
    body = {"prompt": "a", "max_tokens": 1, source.choice(names): [source.random()] * source.choice([1, 10_000])}
    return Attack("unknown_fields", (request(key, json.dumps(body).encode()),))


def foreign_page(source: random.Random, key: str) -> Attack:
    body = b'{"prompt": "a", "max_tokens": 1}'
    if source.random() < 0.5:
        return Attack(
            "foreign_page", (request(key, body, host=source.choice(["evil.example", "localhost.evil", "a b", ""])),)
        )
    origin = source.choice(["https://evil.example", "null", "http://localhost.evil.example", "file://", "\xff"])
    return Attack("foreign_page", (request(key, body, more=f"Origin: {origin}\r\n"),))


def wrong_method(source: random.Random, key: str) -> Attack:
    method = source.choice([b"GET", b"PUT", b"DELETE", b"OPTIONS", b"TRACE", b"PATCH", b"CONNECT", b"A" * 3000])
    return Attack("wrong_method", (method + request(key, b"{}").removeprefix(b"POST"),))


def chunked_body(source: random.Random, key: str) -> Attack:
    head = HEAD.format(path="/v1/completions", host="localhost", key=key) + "Transfer-Encoding: chunked\r\n\r\n"
    chunk = b"10000\r\n" + b"a" * 65_536 + b"\r\n"
    tail = source.choice(
        [chunk * 20, b"ffffffffffffffff\r\n" + b"a" * 1000, b"-1\r\n", b"5;" + b"x" * 50_000, b"3\r\nabcd"]
    )
    return Attack("chunked_body", (head.encode() + tail,))


def too_much(source: random.Random, key: str) -> Attack:
    body = source.choice(
        [
            {"prompt": ["a"] * 100_000},
            {"prompt": "a" * 900_000},
            {"prompt": list(range(256)) * 100},
            {"prompt": "a", "n": 4096},
            {"prompt": "a", "max_tokens": 10**9},
            {"prompt": "a", "stop": ["b"] * 10_000},
            {"prompt": "a", "logit_bias": {str(number): 1 for number in range(50_000)}},
            {"prompt": "a" * 16_000, "echo": True, "logprobs": 20},
        ]
    )
    return Attack("too_much", (request(key, json.dumps(body).encode()),))


def outcome(attack: Attack, address: tuple[str, int], deadline_seconds: float) -> Outcome:
    """Sends an attack and reads what comes back.

    Raises:
        TimeoutError: the server has neither answered nor closed the connection.
    """
    received = b""
    ends = time.monotonic() + deadline_seconds
    with socket.create_connection(address, timeout=deadline_seconds) as connection:
        try:
            for piece in attack.pieces:
                connection.sendall(piece)
                if attack.pause_seconds:
                    time.sleep(attack.pause_seconds)
                    connection.setblocking(False)
                    try:
                        received += connection.recv(65_536)
                    except BlockingIOError:
                        pass
                    finally:
                        connection.settimeout(deadline_seconds)
                    if received:
                        break
        except ConnectionError:
            pass
        while not is_complete(received):
            connection.settimeout(max(0.01, ends - time.monotonic()))
            try:
                more = connection.recv(65_536)
            except ConnectionError:
                break
            if not more:
                break
            received += more
    if not received:
        return Outcome(None, b"")
    head, _, body = received.partition(b"\r\n\r\n")
    return Outcome(int(head.split()[1]), body)


def is_complete(received: bytes) -> bool:
    """Whether an answer with a length has come as a whole."""
    head, found, body = received.partition(b"\r\n\r\n")
    lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    return bool(found and lengths) and len(body) >= int(lengths[0].split(b":")[1])
