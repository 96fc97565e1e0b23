"""The outermost layer: checks who asks, turns every error into an answer, and counts requests."""

import asyncio
import logging
import time

from patchpad.errors import PatchpadError
from patchpad.serving.api_error import ApiError, api_error
from patchpad.serving.connection import (
    CLIENT_LEFT,
    ClientGoneError,
    Message,
    Receive,
    Scope,
    Send,
    raw_headers,
    send_error,
)
from patchpad.serving.metrics import Metrics
from patchpad.serving.security import allowed_names, check_host, check_key, check_origin
from patchpad.serving.settings import Settings

logger = logging.getLogger(__name__)

OPEN_PATHS = ("/", "/health")
OPEN_FOLDER = "/playground/"
"""Without a key one can ask whether the server runs, and get the playground's page, which then asks for the key."""
HEADERS = raw_headers(
    [
        ("Cache-Control", "no-store"),
        ("Cross-Origin-Resource-Policy", "same-origin"),
        ("Referrer-Policy", "no-referrer"),
        ("X-Content-Type-Options", "nosniff"),
    ]
)
"""Of every answer; a route's own value for one of them goes first."""


class Guard:
    """An ASGI application around another one.

    Args:
        app: gets the requests that are allowed. It may raise an `ApiError`, or any `PatchpadError`.
        settings: hosts and keys.
        metrics: counts what was answered.
    """

    def __init__(self, app: object, settings: Settings, metrics: Metrics) -> None:
        self._app = app
        self._settings = settings
        self._metrics = metrics
        self._hosts = allowed_names(settings.host, settings.allowed_hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        if scope["type"] != "http":
            return
        sent = _Sent(send)
        began = time.monotonic()
        try:
            self._check(scope)
            await self._app(scope, receive, sent)  # type: ignore[operator]
        except ApiError as error:
            await sent.fail(error)
        except PatchpadError as error:
            await sent.fail(api_error(error))
        except (ClientGoneError, asyncio.CancelledError):
            sent.status = sent.status or CLIENT_LEFT
        except Exception as error:
            logger.error("a request failed with %s in %s", type(error).__name__, _place_of(error))
            logger.debug("where it failed", exc_info=error)
            await sent.fail(ApiError(500, "the server failed to answer; its log says where", code="internal_error"))
        self._note(scope, sent, time.monotonic() - began)

    def _check(self, scope: Scope) -> None:
        headers = scope["headers"]
        if scope["http_version"] not in ("1.0", "1.1"):
            raise ApiError(505, "the version of HTTP is not one of 1.0 and 1.1", headers=(("Connection", "close"),))
        check_origin(headers, check_host(headers, self._hosts))
        path, is_read = scope["path"], scope["method"] in ("GET", "HEAD")
        if not (is_read and (path in OPEN_PATHS or path.startswith(OPEN_FOLDER))):
            check_key(headers, self._settings.api_keys)

    def _note(self, scope: Scope, sent: "_Sent", seconds: float) -> None:
        route = getattr(scope.get("route"), "path", "other")  # never the path that was asked for
        self._metrics.count(route, sent.status, seconds)
        if self._settings.log_requests:
            logger.info("%s %d, %d bytes in %.3f s", route, sent.status, sent.num_bytes, seconds)


class _Sent:
    """Sends messages on, with the headers of every answer, and remembers what was sent."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.status = 0
        self.num_bytes = 0

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            own = {name for name, _ in message["headers"]}
            message["headers"] = [*message["headers"], *(pair for pair in HEADERS if pair[0] not in own)]
        else:
            self.num_bytes += len(message.get("body", b""))
        await self._send(message)

    async def fail(self, error: ApiError) -> None:
        """Answers with an error; nothing can be said once an answer has begun."""
        if not self.status:
            await send_error(self, error)


def _place_of(error: Exception) -> str:
    """Returns file and line where an error was raised: what it says could hold a part of a prompt."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return "an unknown place"
    return f"{trace.tb_frame.f_code.co_filename.rpartition('patchpad')[2].lstrip('/')}:{trace.tb_lineno}"
