"""What happens between a request and its client: bodies within their limit, answers, and clients that leave."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Coroutine, MutableMapping
from contextlib import suppress
from typing import Any, TypeVar

from patchpad.serving.api_error import ApiError
from patchpad.serving.security import header_values

T = TypeVar("T")
Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

CLIENT_LEFT = 499
"""The status under which requests are counted whose client did not wait for the answer."""


class ClientGoneError(Exception):
    """The client has left, so nobody reads an answer."""


async def read_body(scope: Scope, receive: Receive, max_bytes: int) -> bytes:
    """Returns the body of a request.

    Raises:
        ApiError: it is not JSON by its header, or longer than allowed.
        ClientGoneError: the client left, or did not send it in time.
    """
    headers = scope["headers"]
    kind = b"".join(header_values(headers, b"content-type")).partition(b";")[0].strip().lower()
    if kind != b"application/json":
        raise ApiError(415, "the header `Content-Type` is not application/json", code="bad_content_type")
    if header_values(headers, b"content-encoding"):
        raise ApiError(415, "the body is encoded; allowed: plain JSON", code="bad_content_encoding")
    too_long = ApiError(413, f"the body is longer than {max_bytes} bytes", code="body_too_long")
    for value in header_values(headers, b"content-length"):
        if not value.isdigit() or len(value) > 18 or int(value) > max_bytes:
            raise too_long
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGoneError
        body += message.get("body", b"")
        if len(body) > max_bytes:
            raise too_long
        if not message.get("more_body", False):
            return bytes(body)


async def while_connected(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """Does some work, and breaks it off when the client leaves.

    Raises:
        ClientGoneError: it has left.
    """
    task = asyncio.ensure_future(work)
    watch = asyncio.ensure_future(_until_gone(receive))
    try:
        await asyncio.wait({task, watch}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientGoneError
        return task.result()
    finally:
        for one in (task, watch):
            one.cancel()
        for one in (task, watch):
            with suppress(asyncio.CancelledError, Exception):
                await one


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def encoded(value: Any) -> bytes:
    """Returns strict JSON."""
    return json.dumps(value, allow_nan=False, separators=(",", ":")).encode("ascii")


async def send_bytes(
    send: Send, status: int, body: bytes, kind: str, headers: tuple[tuple[str, str], ...] = ()
) -> None:
    """Sends a whole answer."""
    sent = [("Content-Type", kind), ("Content-Length", str(len(body))), *headers]
    await send({"type": "http.response.start", "status": status, "headers": raw_headers(sent)})
    await send({"type": "http.response.body", "body": body})


async def send_json(send: Send, status: int, value: Any, headers: tuple[tuple[str, str], ...] = ()) -> None:
    """Sends a whole answer as JSON."""
    await send_bytes(send, status, encoded(value), "application/json", headers)


async def send_error(send: Send, error: ApiError) -> None:
    """Sends an error in OpenAI's form."""
    await send_json(send, error.status, error.to_dict(), error.headers)


def raw_headers(headers: list[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
    """Returns headers as servers take them."""
    return [(name.lower().encode("ascii"), value.encode("latin-1")) for name, value in headers]


class EventStream:
    """An answer that is sent event by event, as OpenAI's clients read it.

    Args:
        send: of the server.
    """

    def __init__(self, send: Send) -> None:
        self._send = send

    async def begin(self) -> None:
        """Sends the status and headers."""
        headers = [("Content-Type", "text/event-stream; charset=utf-8"), ("X-Accel-Buffering", "no")]
        await self._send({"type": "http.response.start", "status": 200, "headers": raw_headers(headers)})

    async def event(self, value: Any) -> None:
        """Sends one object."""
        await self._write(b"data: " + encoded(value) + b"\n\n", more=True)

    async def end(self) -> None:
        """Sends the end of the stream."""
        await self._write(b"data: [DONE]\n\n", more=False)

    async def fail(self, error: ApiError) -> None:
        """Ends a stream that has begun with an error."""
        await self._write(b"data: " + encoded(error.to_dict()) + b"\n\n", more=False)

    async def _write(self, body: bytes, *, more: bool) -> None:
        await self._send({"type": "http.response.body", "body": body, "more_body": more})
