"""HTTP/1.1 connections that have to be quick: requests arrive within a deadline, answers are read within one.

uvicorn bounds neither. This protocol adds to its own: a time for headers and body together, a time for a client that
does not read, a number of connections, and answers to broken requests in OpenAI's form.
"""

import asyncio
import sys
from typing import Any

from patchpad.serving.api_error import ApiError, busy
from patchpad.serving.connection import encoded
from patchpad.serving.extra import missing_extra
from patchpad.serving.settings import Settings

try:
    import h11
    from uvicorn.protocols.http.h11_impl import H11Protocol
except ImportError as error:
    raise missing_extra(error) from error

RECEIVED = (h11.DONE, h11.MUST_CLOSE, h11.CLOSED)
"""What h11 says of a client whose request has arrived."""
HEADER_PIECE_BYTES = 1024
"""Bytes that h11 is given at once while headers arrive."""
MOST_AHEAD_BYTES = 16_384
"""Of further requests that are read while one is answered."""
LEAST_READ_BYTES = 65_536
"""That a client must read within `send_seconds`, if so much waits for it."""
CAN_ANSWER = (h11.IDLE, h11.SEND_RESPONSE)
"""What h11 says of a server that has not begun an answer."""


class ArrivalProtocol(H11Protocol):
    """One connection.

    Args:
        settings: times and limits.
        options: uvicorn's own.
    """

    def __init__(self, *, settings: Settings, **options: Any) -> None:
        super().__init__(**options)
        self.settings = settings
        self._arrival: asyncio.TimerHandle | None = None
        """Runs from the first byte of a request, or from the begin of the connection, to its last byte."""
        self._reading: asyncio.TimerHandle | None = None
        """Runs while something that was sent has not been read."""
        self._unread = 0
        """Bytes that were not when this clock was started."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Counts the connection, or refuses it."""
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=0)  # so that the clock also runs for the last bytes before the end
        if len(self.connections) > self.settings.max_connections:
            self._refuse(busy("too many connections are open", "too_many_connections", 503))
        else:
            self._await_request()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stops the clocks."""
        self._stop_clocks()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Takes a part of a request."""
        if self._arrival is None:
            self._await_request()
        while data and not self.transport.is_closing():  # h11 bounds headers only while a part of them is missing
            size = HEADER_PIECE_BYTES if self.conn.their_state is h11.IDLE else len(data)
            super().data_received(data[:size])
            data = data[size:]
        self._note_arrival()
        if self.conn.their_state is h11.DONE and len(self.conn.trailing_data[0]) <= MOST_AHEAD_BYTES:
            self.flow.resume_reading()  # who does not read cannot notice that the client leaves

    def on_response_complete(self) -> None:
        """Begins with the next request, of which a part may be there already."""
        super().on_response_complete()
        has_more = self.conn.their_state is h11.SEND_BODY or bool(self.conn.trailing_data[0])
        if has_more and self._arrival is None and not self.transport.is_closing():
            self._await_request()

    def pause_writing(self) -> None:
        """Starts the clock: something that was sent has not been read."""
        super().pause_writing()
        self._await_reader()

    def resume_writing(self) -> None:
        """Stops it: all has been read."""
        super().resume_writing()
        if self._reading is not None:
            self._reading.cancel()
            self._reading = None

    def _await_reader(self) -> None:
        self._unread = self.transport.get_write_buffer_size()
        self._reading = self.loop.call_later(self.settings.send_seconds, self._check_reader)

    def _check_reader(self) -> None:
        """Ends a connection whose client reads nothing, or next to nothing; one that is slow may go on."""
        if self._unread - self.transport.get_write_buffer_size() < LEAST_READ_BYTES:
            self.transport.abort()
        else:
            self._await_reader()

    def send_400_response(self, msg: str) -> None:
        """Refuses what is not a request; uvicorn calls it while it handles h11's error."""
        error = sys.exception()
        status = error.error_status_hint if isinstance(error, h11.RemoteProtocolError) else 400
        reasons = {431: f"the headers are longer than {self.settings.max_header_bytes} bytes", 501: "not implemented"}
        self._refuse(ApiError(status, reasons.get(status, "this is not a valid HTTP request"), code="bad_request"))

    def _await_request(self) -> None:
        self._arrival = self.loop.call_later(self.settings.arrival_seconds, self._too_late)

    def _note_arrival(self) -> None:
        if self._arrival is not None and self.conn.their_state in RECEIVED:
            self._arrival.cancel()
            self._arrival = None

    def _too_late(self) -> None:
        """Ends a connection whose request has not arrived in time; without a word if nothing of it has."""
        self._arrival = None
        if self.conn.their_state is h11.IDLE and not self.conn.trailing_data[0]:
            self.transport.close()
        else:
            seconds = self.settings.arrival_seconds
            self._refuse(ApiError(408, f"the request did not arrive within {seconds:g} seconds", code="slow_request"))

    def _refuse(self, error: ApiError) -> None:
        """Answers with an error, if no answer has begun, and closes the connection."""
        if self._arrival is not None:
            self._arrival.cancel()
            self._arrival = None
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if self.transport.is_closing():
            return
        if self.conn.our_state not in CAN_ANSWER:
            self.transport.abort()
            return
        body = encoded(error.to_dict())
        headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body))), ("Connection", "close")]
        headers += error.headers
        events = (h11.Response(status_code=error.status, headers=headers), h11.Data(data=body), h11.EndOfMessage())
        self.transport.write(b"".join(self.conn.send(event) or b"" for event in events))
        self.transport.close()

    def _stop_clocks(self) -> None:
        for clock in (self._arrival, self._reading):
            if clock is not None:
                clock.cancel()
        self._arrival = self._reading = None
