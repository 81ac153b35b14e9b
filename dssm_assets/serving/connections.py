"""Connections of the HTTP service: how many there are, how long a client may take, how large the head of a request may be.

uvicorn closes unused connections and bounds the time of a shutdown; those options are used. Its `limit_concurrency` is not: it counts
connections instead of requests, so clients that send nothing would keep others out, and it has no Retry-After. It also waits without
end for a head that does not come and for a client that does not read.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, ClassVar, Final

from httptools import HttpParserError
from prometheus_client import Counter
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from dssm_assets.core.config.service_limits import ServiceLimits
from dssm_assets.core.errors import Fault
from dssm_assets.serving.refusals import (
    BusyError,
    HeadTooLargeError,
    PipelinedError,
    RefusedError,
    SlowRequestError,
    error_body,
)

READ_BYTES: Final = 1 << 14
"""Read at once from a connection: hundreds of clients that send at once must not keep the others waiting."""

MAX_PIPELINED: Final = 4
"""Requests that a client may send before the answer to an earlier one; a read holds hundreds, and each has a state of its own."""


class BoundedConnection(HttpToolsProtocol):
    """One connection of a client. `bounded_protocol` makes the class for a service's limits."""

    limits: ClassVar[ServiceLimits]
    closed: ClassVar[Counter]
    """Connections that were closed because of a limit, by reason."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Accepts a connection. One above the limit takes the place of one that waits, or is refused."""
        super().connection_made(transport)
        transport.max_size = READ_BYTES  # type: ignore[attr-defined]
        encrypting: Any = getattr(transport, "_ssl_protocol", None)
        self._socket_transport: Any = transport if encrypting is None else encrypting._transport
        self._is_in_head, self._head_bytes = False, 0
        self._refusal: RefusedError | None = None
        self._close_timer: asyncio.TimerHandle | None = None
        self._waits_since = self.loop.time()
        self._head_timer: asyncio.TimerHandle | None = self._call_later(self._end_waiting)
        if len(self.connections) > self.limits.max_connections:
            self._make_room()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forgets the connection and all that refers to it in a circle: collecting tens of thousands of them takes more than a second,
        in which nobody is answered."""
        self._stop_head_timer()
        self._stop_close_timer()
        super().connection_lost(exc)
        self.pipeline.clear()
        self.cycle = None  # type: ignore[assignment]
        self._socket_transport._read_ready_cb = None  # a method of its own

    def data_received(self, data: bytes) -> None:
        """Parses bytes of a request; starts the clock if its head is incomplete."""
        if isinstance(self._refusal, PipelinedError):
            return
        was_in_head = self._is_in_head
        super().data_received(data)
        if not self._is_waiting and not self._is_in_head:
            return
        if was_in_head and self._is_in_head:
            self._head_bytes += len(data)
            self._check_head(self._head_bytes)
            if self._refusal is not None:
                self.send_400_response("")
        if self._head_timer is None and not self.transport.is_closing():
            self._waits_since = self.loop.time()
            self._head_timer = self._call_later(self._end_waiting)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._is_in_head, self._head_bytes = True, 0

    def on_headers_complete(self) -> None:
        """Hands a request to the application, unless its head is too large."""
        self._check_head(len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers))
        if len(self.pipeline) >= MAX_PIPELINED:
            expected = f"at most {MAX_PIPELINED} sent before the answer to an earlier one"
            self._refusal = PipelinedError(Fault("requests of a connection", expected, "more", "wait for answers"))
        if self._refusal is not None:
            # The parser stops, and send_400_response is called. The refusal itself is not raised: with its traceback it would refer to
            # this connection, which refers to it.
            raise HttpParserError
        self._is_in_head = False
        self._stop_head_timer()
        super().on_headers_complete()

    def on_response_complete(self) -> None:
        """Waits for the next request; a request whose body was not read to its end is the last one of its connection."""
        super().on_response_complete()
        self._waits_since = self.loop.time()
        if self.transport.is_closing():
            if self in self.connections:  # else it is lost, and a timer would only keep it
                self._close_timer = self._close_timer or self._call_later(self.transport.abort)
        elif self._is_waiting and isinstance(self._refusal, PipelinedError):
            self._close(None)
        elif self._is_waiting and self.cycle.more_body:
            self._close("unread_body")

    def send_400_response(self, msg: str) -> None:
        """Refuses a request whose head is malformed or too large, or that is one too many before an answer."""
        if isinstance(self._refusal, PipelinedError):
            # Its connection ends after the answers to the earlier ones. A client that is cut off at once comes back at once, and
            # hundreds of them keep others waiting: a new connection waits until those before it are accepted.
            self.closed.labels("pipelined").inc()
            self._is_in_head = False
            self.flow.resume_reading()  # What it sends is dropped, but it is seen if it leaves.
            return
        error: RefusedError = self._refusal or RefusedError(
            Fault("head of the request", "HTTP/1.1", "something else", "send a request line and headers")
        )
        if self._is_waiting:
            self._answer(error)
        self._close("head_too_large" if isinstance(error, HeadTooLargeError) else "malformed")

    def timeout_keep_alive_handler(self) -> None:
        if not self.transport.is_closing():
            self._close(None)

    def pause_writing(self) -> None:
        """Starts the clock of a client that does not read its answer."""
        super().pause_writing()
        self._stop_close_timer()
        self._close_timer = self._call_later(self._end_writing)

    def resume_writing(self) -> None:
        """Stops the clock: the client has read."""
        if not self.transport.is_closing():
            self._stop_close_timer()
        super().resume_writing()

    @property
    def _is_waiting(self) -> bool:
        """Whether no request is with the application."""
        return self.cycle is None or self.cycle.response_complete

    @property
    def _is_half_sent(self) -> bool:
        return not self._is_waiting and bool(self.cycle.more_body)

    def _make_room(self) -> None:
        """Closes the connection that has waited longest for a request, or for the rest of one, in favour of this one."""
        others = [one for one in self.connections if isinstance(one, BoundedConnection) and one is not self]
        waiting = [one for one in others if one._is_waiting] or [one for one in others if one._is_half_sent]
        if waiting:
            oldest = min(waiting, key=lambda one: one._waits_since)
            self.closed.labels("replaced").inc()
            oldest.transport.abort()
            self.connections.discard(oldest)
            return
        most = self.limits.max_connections
        self._answer(BusyError(Fault("connections", f"at most {most} at once", "one more", "try again later")))
        self._close("too_many")

    def _check_head(self, size: int) -> None:
        most = self.limits.max_head_bytes
        if size > most:
            expected, remedy = f"at most {most} bytes", "send long lists in the body of POST /recall"
            self._refusal = HeadTooLargeError(Fault("head of the request", expected, f"{size} or more", remedy))

    def _end_waiting(self) -> None:
        """Ends a connection that has sent no request, or a part of its head, in transfer_seconds."""
        self._head_timer = None
        if self.transport.is_closing():
            return
        if not self._is_waiting:  # The next request's head comes while this one is with the application.
            self._head_timer = self._call_later(self._end_waiting)
            return
        if self._is_in_head:
            expected = f"all of it in {self.limits.transfer_seconds:g} seconds"
            self._answer(SlowRequestError(Fault("head of the request", expected, "a part", "send the request at once")))
        self._close("slow_head" if self._is_in_head else None)

    def _end_writing(self) -> None:
        self.closed.labels("slow_reader").inc()
        self.transport.abort()

    def _answer(self, error: RefusedError) -> None:
        body = error_body(type(error).__name__, error.faults, self.limits.max_faults)
        lines = [
            f"HTTP/1.1 {error.status} {HTTPStatus(error.status).phrase}",
            "content-type: application/json",
            f"content-length: {len(body)}",
            "connection: close",
            *([f"retry-after: {self.limits.retry_after_seconds}"] if isinstance(error, BusyError) else []),
        ]
        self.transport.write("\r\n".join([*lines, "", ""]).encode() + body)

    def _close(self, reason: str | None) -> None:
        """Closes the connection; a client that has not read its answer after transfer_seconds loses it."""
        if reason is not None:
            self.closed.labels(reason).inc()
        self._stop_head_timer()
        self.transport.close()
        self._close_timer = self._close_timer or self._call_later(self.transport.abort)

    def _call_later(self, action: Callable[[], Any]) -> asyncio.TimerHandle:
        return self.loop.call_later(self.limits.transfer_seconds, action)

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _stop_close_timer(self) -> None:
        if self._close_timer is not None:
            self._close_timer.cancel()
            self._close_timer = None


def bounded_protocol(bounds: ServiceLimits, counter: Counter) -> type[BoundedConnection]:
    """Returns the class of connections for a service's limits, for uvicorn's option `http`."""

    class Connection(BoundedConnection):
        limits, closed = bounds, counter

    return Connection
