"""Runs the server: its socket, its signals, and how it ends."""

import asyncio
import errno
import logging
import math
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from types import FrameType
from typing import Any

from patchpad.errors import ConfigError, ServingError
from patchpad.serving.app import build_app
from patchpad.serving.arrival import ArrivalProtocol
from patchpad.serving.extra import missing_extra
from patchpad.serving.scheduler import Scheduler
from patchpad.serving.settings import Settings

try:
    import uvicorn
except ImportError as error:
    raise missing_extra(error) from error

logger = logging.getLogger(__name__)

HIGHEST_PORT = 65_535
SECONDS_TO_SAY_WHY = 2
"""For which connections stay open after the time to drain, so that clients are told."""
SIGNALS = (signal.SIGINT, signal.SIGTERM)


def open_socket(host: str, port: int) -> socket.socket:
    """Returns a socket that is bound but does not listen yet: who asks too early is refused at once.

    Raises:
        ConfigError: no number of a port.
        ServingError: the address cannot be used.
    """
    if not 0 <= port <= HIGHEST_PORT:
        raise ConfigError(f"--port is {port}; allowed: 0 (any free one) to {HIGHEST_PORT}")
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except (OSError, UnicodeError) as error:
        raise ServingError(f"--host is {host!r}, which is not an address of this machine: {error}") from None
    opened = socket.socket(family, socket.SOCK_STREAM)
    try:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind(address)
    except (OSError, OverflowError) as error:
        opened.close()
        raise _cannot_bind(host, port, error) from None
    return opened


def _cannot_bind(host: str, port: int, error: Exception) -> ServingError:
    reasons = {
        errno.EADDRINUSE: (f"port {port} of {host} is in use", "Choose another one with --port; 0 takes any free one."),
        errno.EACCES: (f"port {port} of {host} may not be used by this user", "Choose one above 1023 with --port."),
        errno.EADDRNOTAVAIL: (f"{host} is not an address of this machine", "Leave --host out, or give 0.0.0.0."),
    }
    known = reasons.get(getattr(error, "errno", None) or 0)
    message, hint = known or (f"cannot listen on port {port} of {host}: {error}", "Check --host and --port.")
    return ServingError(message, hint=hint)


def address_of(opened: socket.socket, host: str) -> str:
    """Returns the URL of a bound socket."""
    name = f"[{host}]" if ":" in host else host
    return f"http://{name}:{opened.getsockname()[1]}"


class Server(uvicorn.Server):
    """A server over a scheduler. The first signal lets running requests end, the second one cuts them short.

    Args:
        scheduler: is started in the server's event loop, and closed at its end.
        settings: limits and keys.
        on_start: is called when the server answers.

    Raises:
        GenerationError: a default compute that the model cannot serve.
        InputError: a default threshold that it does not take.
    """

    def __init__(
        self, scheduler: Scheduler, settings: Settings, *, on_start: Callable[[], None] = lambda: None
    ) -> None:
        quiet = logging.getLogger("uvicorn.error")
        quiet.setLevel(logging.CRITICAL)  # what it tells is told by us, without paths and tracebacks
        protocol: Any = partial(ArrivalProtocol, settings=settings)
        super().__init__(
            uvicorn.Config(
                build_app(scheduler, settings),
                loop="asyncio",
                http=protocol,
                ws="none",
                lifespan="off",
                interface="asgi3",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                timeout_keep_alive=math.ceil(settings.idle_seconds),
                timeout_graceful_shutdown=math.ceil(settings.drain_seconds) + SECONDS_TO_SAY_WHY,
                h11_max_incomplete_event_size=settings.max_header_bytes,
            )
        )
        self.scheduler = scheduler
        self.settings = settings
        self._on_start = on_start
        self.was_cut_short = False
        """Whether requests were ended before they were done."""
        self._failed_before = 0
        """Rows that had failed when the server was told to stop."""
        self._loop: asyncio.AbstractEventLoop | None = None

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Serves until a signal comes, or `stop` is called."""
        self._loop = asyncio.get_running_loop()
        self.scheduler.start(post=self._loop.call_soon_threadsafe)
        try:
            await super().serve(sockets)
        finally:
            await asyncio.to_thread(self.scheduler.close, drain_seconds=0)
            for connection in list(self.server_state.connections):
                connection.transport.abort()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begins to listen."""
        await super().startup(sockets)
        self._on_start()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Takes no more connections, and waits for what runs."""
        counts = self.scheduler.counts()
        num_rows = counts.rows_running + counts.rows_waiting
        if num_rows:
            logger.info("stopping: %d running rows have %g seconds to finish", num_rows, self.settings.drain_seconds)
        closing = asyncio.create_task(
            asyncio.to_thread(self.scheduler.close, drain_seconds=self.settings.drain_seconds)
        )
        await super().shutdown(sockets)
        await asyncio.to_thread(self.scheduler.close, drain_seconds=0)
        await closing
        self.was_cut_short = self.scheduler.counts().rows_failed > self._failed_before

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handles signals while the server runs, if it runs in the main thread; none is raised again at the end."""
        try:
            before = {number: signal.signal(number, self.handle_exit) for number in SIGNALS}
        except ValueError:  # in another thread, which gets no signals
            yield
            return
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Is what a signal does."""
        self.stop(now=self.should_exit)

    def stop(self, *, now: bool = False) -> None:
        """Ends the server, from any thread.

        Args:
            now: cut requests short instead of waiting for them.
        """
        if not self.should_exit:
            self._failed_before = self.scheduler.counts().rows_failed
            self.should_exit = True
        if now and self._loop is not None:
            with suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(self._cut_short)

    def _cut_short(self) -> None:
        """Ends what runs; clients are told if they read it at once."""
        asyncio.ensure_future(asyncio.to_thread(self.scheduler.close, drain_seconds=0)).add_done_callback(
            lambda _: self._abort_later()
        )

    def _abort_later(self) -> None:
        asyncio.get_running_loop().call_later(0.2, self._abort)

    def _abort(self) -> None:
        self.force_exit = True
        for connection in list(self.server_state.connections):
            connection.transport.abort()
