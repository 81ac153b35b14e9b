"""The connections of the service: how many are open, and how long one may be silent.

uvicorn lets a TLS handshake last a minute and a connection without a request for ever, and counts neither. Here they are few and short, so that
silent clients keep nobody out. Clients that never read stay the proxy's matter.
"""

from __future__ import annotations

import asyncio
import resource
import socket
import time
from contextlib import suppress
from typing import Any, Final, cast

import uvicorn

HANDSHAKE_SECONDS: Final = 5.0
"""Time of a TLS handshake."""
MAX_NEW: Final = 512
"""Connections that may wait for their first request; a further one ends the oldest of them."""
OPEN_FRAC: Final = 0.75
"""Fraction of the process's descriptors that connections may have; a further one is closed."""


class BoundedServer(uvicorn.Server):
    """A server of uvicorn with bounded connections: one without a whole request head ends after timeout_keep_alive."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Binds as uvicorn does, then accepts connections by itself."""
        await super().startup(sockets)
        self._new: dict[asyncio.Task[None], None] = {}
        """A task for each new connection, oldest first."""
        self._answered: dict[tuple[Any, Any], float] = {}
        """Connections that have an answer, and that answer -> since when."""
        bound = [listening for server in self.servers for listening in server.sockets]
        self._listening = [socket.fromfd(one.fileno(), one.family, one.type, one.proto) for one in bound]
        for server in self.servers:
            server.close()
        self._accepting = [asyncio.create_task(self._accept(listening)) for listening in self._listening]

    async def on_tick(self, counter: int) -> bool:
        """As of uvicorn, ten times a second; ends connections that send, after an answer, no whole head of a request in time.

        uvicorn's own timer of a connection ends with the next byte, also of a body that nobody reads.
        """
        if counter % 10 == 0:
            now, connections = time.monotonic(), cast(set[Any], self.server_state.connections)
            answered = [(one, one.cycle) for one in connections if one.cycle is not None and one.cycle.response_complete]
            self._answered = {answer: self._answered.get(answer, now) for answer in answered}
            for (protocol, _), since in self._answered.items():
                if now - since > self.config.timeout_keep_alive:
                    protocol.transport.close()
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Accepts no more, ends connections without a request, then ends as uvicorn does."""
        ending = [*self._accepting, *self._new]
        for task in ending:
            task.cancel()
        await asyncio.wait(ending)
        for listening in self._listening:
            listening.close()
        await super().shutdown(sockets)

    async def _accept(self, listening: socket.socket) -> None:
        most_open = int(resource.getrlimit(resource.RLIMIT_NOFILE)[0] * OPEN_FRAC)
        listening.setblocking(False)
        while True:
            try:
                connection, _ = await asyncio.get_running_loop().sock_accept(listening)
            except OSError:  # The client has left, or no descriptor is free.
                self._end_oldest()
                await asyncio.sleep(0.05)
                continue
            free = most_open - len(self.server_state.connections)  # without those in a handshake
            if free <= 0:
                connection.close()
                continue
            if len(self._new) >= min(MAX_NEW, free):
                self._end_oldest()
            task = asyncio.create_task(self._let_in(connection))
            self._new[task] = None
            task.add_done_callback(lambda done: self._new.pop(done, None))
            await asyncio.sleep(0)  # It begins, so that it closes the connection whenever it ends.

    def _end_oldest(self) -> None:
        if self._new:
            oldest = next(iter(self._new))
            del self._new[oldest]
            oldest.cancel()

    async def _let_in(self, connection: socket.socket) -> None:
        """Makes the handshake and waits for the first request; ends the connection if there is none in time, or if cancelled."""
        seconds = None if self.config.ssl is None else HANDSHAKE_SECONDS
        make_protocol: Any = self.config.http_protocol_class
        protocol = make_protocol(self.config, self.server_state, self.lifespan.state)
        with suppress(OSError):  # The handshake failed.
            transport, _ = await asyncio.get_running_loop().connect_accepted_socket(
                lambda: protocol, connection, ssl=self.config.ssl, ssl_handshake_timeout=seconds
            )
            try:
                await asyncio.sleep(self.config.timeout_keep_alive)
            finally:
                if protocol.cycle is None:
                    transport.abort()
