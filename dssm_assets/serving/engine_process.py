"""The process that computes lists, apart from the one that speaks HTTP, and the sockets between them.

Python runs one thread at a time. Next to threads that read large bodies, an event loop waits for the interpreter's lock at every read and
write, and /health with it. So the event loop has a process of its own: it receives and sends bytes, and nothing else takes long there.

The engine has one thread per socket. A message is its length in 8 bytes and a pickle, of calls or of their answers: both ends are the same
program.
"""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import os
import pickle
import signal
import socket
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, Final, cast

from dssm_assets.core.config.service_limits import ServiceLimits
from dssm_assets.core.errors import DssmError, Fault
from dssm_assets.serving.calls import Call, Reply, Route, answer_calls
from dssm_assets.serving.live import EngineState, LiveEngine
from dssm_assets.serving.refusals import BusyError

CALLS_AT_ONCE: Final = 16
"""Calls that a thread of the engine is given together, at most."""
CALLS_BYTES: Final = 1 << 14
"""Content of such calls, at most: what a large body asks for does not wait for others, nor they for it."""
GATHER_SECONDS: Final = 0.003
"""Time for which a body waits for others while several clients send them; encoding the features of one takes longer."""
_HEAD_BYTES: Final = 8
_NEVER: Final = (1 << 31) - 1

_log = logging.getLogger(__name__)


class EngineClient:
    """The engine as the event loop sees it."""

    def __init__(self, channels: Sequence[socket.socket], status: socket.socket) -> None:
        """Waits until the engine has opened its bundle.

        Args:
            channels: a socket to each thread of the engine.

        Raises:
            DssmError: the engine has no bundle to start with.
        """
        first = _receive(status)
        if not isinstance(first, EngineState):
            raise first if isinstance(first, DssmError) else _lost_error()
        self.state: EngineState = first
        self.is_lost = False
        self._sockets, self._status = channels, status
        self._waiting: deque[tuple[Call, asyncio.Future[Reply]]] = deque()
        self._bodies: list[tuple[Call, asyncio.Future[Reply]]] = []
        """Those that wait for others, before they join `_waiting`."""
        self._passed_bodies = 0
        """Bodies of the last calls that were passed with one."""
        self._free: list[_Thread] = []
        self._is_passing = False
        self._watching: asyncio.Task[None] | None = None

    async def open(self, on_loss: Callable[[], None]) -> None:
        """Begins to pass calls, and to follow the state of the engine; calls `on_loss` if its process ends."""
        loop = asyncio.get_running_loop()
        for channel in self._sockets:
            _, thread = await loop.create_connection(partial(_Thread, self._pass_calls_soon), sock=channel)
            self._free.append(thread)
        self._watching = asyncio.create_task(self._watch(on_loss))

    async def close(self) -> None:
        """Closes the sockets, at which the engine ends, whatever it is computing."""
        if self._watching is not None:
            self._watching.cancel()
        for channel in (self._status, *self._sockets):
            with suppress(OSError):
                channel.shutdown(socket.SHUT_RDWR)

    def compute(self, call: Call) -> asyncio.Future[Reply]:
        """Returns the answer of a call, once a thread of the engine has computed it.

        Calls that wait are passed together, shared among the free threads: so they are searched for at once. Bodies are not shared
        out: the features of 16 users are encoded in the time of one's.

        Raises:
            DssmError: when awaited: what the call asks for cannot be answered.
            BusyError: when awaited: the engine has ended.
        """
        waiting: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        if call.route is Route.BODY and self._passed_bodies > 1:
            self._bodies.append((call, waiting))
            if len(self._bodies) == 1:
                asyncio.get_running_loop().call_later(GATHER_SECONDS, self._pass_bodies)
        else:
            self._waiting.append((call, waiting))
            self._pass_calls_soon()
        return waiting

    def _pass_bodies(self) -> None:
        self._waiting += self._bodies
        self._bodies.clear()
        self._pass_calls_soon()

    def _pass_calls_soon(self, freed: _Thread | None = None) -> None:
        """Passes calls after what else is to do in this turn of the event loop, which may bring further calls."""
        if freed is not None:
            self._free.append(freed)
        if not self._is_passing:
            self._is_passing = True
            asyncio.get_running_loop().call_soon(self._pass_calls)

    def _pass_calls(self) -> None:
        self._is_passing = False
        while self._free and self._waiting:
            thread = self._free.pop()
            calls = [self._waiting.popleft()]
            most = CALLS_AT_ONCE
            if calls[0][0].route is not Route.BODY:
                most = min(most, -(-(1 + len(self._waiting)) // (len(self._free) + 1)))
            size = _size(calls[0][0])
            while self._waiting and len(calls) < most and (size := size + _size(self._waiting[0][0])) <= CALLS_BYTES:
                calls.append(self._waiting.popleft())
            bodies = sum(call.route is Route.BODY for call, _ in calls)
            self._passed_bodies = bodies or self._passed_bodies
            thread.pass_calls(calls)

    async def _watch(self, on_loss: Callable[[], None]) -> None:
        reader, _ = await asyncio.open_connection(sock=self._status)
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                self.state = pickle.loads(await _read_message(reader))
        self.is_lost = True
        _log.error("the process that computes lists has ended; the service ends, too")
        on_loss()


class _Thread(asyncio.Protocol):
    """One thread of the engine, as the event loop sees it."""

    def __init__(self, on_free: Callable[[_Thread], None]) -> None:
        self._on_free = on_free
        self._passed: list[asyncio.Future[Reply]] = []
        self._received = bytearray()
        self._is_lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def pass_calls(self, calls: Sequence[tuple[Call, asyncio.Future[Reply]]]) -> None:
        """Sends calls; their answers come together."""
        self._passed = [waiting for _, waiting in calls]
        if self._is_lost:
            self._answer([_lost_error()] * len(calls))
        else:
            self._transport.write(_message([call for call, _ in calls]))

    def data_received(self, data: bytes) -> None:
        """Hands out the answers once they are whole."""
        self._received += data
        if len(self._received) < _HEAD_BYTES:
            return
        end = _HEAD_BYTES + int.from_bytes(self._received[:_HEAD_BYTES], "big")
        if len(self._received) >= end:
            replies = pickle.loads(memoryview(self._received)[_HEAD_BYTES:end])
            self._received = bytearray()
            self._answer(replies)

    def connection_lost(self, exc: Exception | None) -> None:
        """The engine has ended, or the service does: nobody will answer."""
        self._is_lost = True
        if self._passed:
            self._answer([_lost_error()] * len(self._passed))

    def _answer(self, replies: Sequence[Reply | DssmError]) -> None:
        passed, self._passed = self._passed, []
        for waiting, reply in zip(passed, replies, strict=True):
            if waiting.cancelled():
                continue
            if isinstance(reply, DssmError):
                waiting.set_exception(reply)
            else:
                waiting.set_result(reply)
        self._on_free(self)


@contextmanager
def engine_process(open_live: Callable[[], LiveEngine], threads: int, limits: ServiceLimits) -> Iterator[EngineClient]:
    """Yields the client of an engine in a process of its own, which ends with the block or with this process.

    Args:
        open_live: opens the engine, in that process; a function of a module, with arguments.
        threads: that compute lists.

    Raises:
        DssmError: what `open_live` raised: there is no usable bundle to start with.
    """
    ours, theirs = socket_pairs(threads)
    # A fork has what is imported already. Nothing here has started threads; elsewhere than on Linux, system libraries may have.
    method = "fork" if sys.platform == "linux" else "spawn"
    inherited = ours if method == "fork" else ()
    context: Any = multiprocessing.get_context(method)
    process = context.Process(target=_run_engine, args=(open_live, theirs, inherited, limits), name="engine")
    process.start()
    for end in theirs:
        end.close()
    try:
        yield EngineClient(ours[1:], ours[0])
    finally:
        for end in ours:
            end.close()
        process.join()


def serve_engine(live: LiveEngine, channels: Sequence[socket.socket], status: socket.socket, limits: ServiceLimits) -> None:
    """Answers calls and reports the engine's state, until the other end of `status` closes."""
    _send(status, live.state)
    for channel in channels:
        threading.Thread(target=_answer_calls, args=(live, channel, limits), name="recall", daemon=True).start()
    live.start(lambda state: _send(status, state))
    with suppress(OSError):
        status.recv(1)
    live.stop()


def _run_engine(
    open_live: Callable[[], LiveEngine],
    ends: Sequence[socket.socket],
    inherited: Sequence[socket.socket],
    limits: ServiceLimits,
) -> None:
    for end in inherited:
        end.close()
    for one in (signal.SIGINT, signal.SIGTERM):  # meant for the whole group; the other process finishes what it has begun
        signal.signal(one, signal.SIG_IGN)
    import faiss

    faiss.cvar.distance_compute_blas_threshold = (
        _NEVER  # so that many vectors may be searched for at once, see `recall_engine.py`
    )
    try:
        live = open_live()
    except DssmError as error:
        _send(ends[0], error)
        return
    serve_engine(live, ends[1:], ends[0], limits)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # Python would wait for lists that nobody waits for.


def _answer_calls(live: LiveEngine, channel: socket.socket, limits: ServiceLimits) -> None:
    import faiss

    faiss.omp_set_num_threads(1)  # Calls are one search; the threads use the cores.
    while (calls := _receive(channel)) is not None:
        try:
            replies = answer_calls(live.engine, calls, limits)
        except Exception as error:
            _log.exception("lists failed")
            replies = [DssmError(f"{type(error).__name__}: {error}")] * len(calls)
        _send(channel, replies)


def _size(call: Call) -> int:
    """Returns the size of a call's content; a batch counts as the largest, because it takes as long as many calls."""
    return CALLS_BYTES if call.route is Route.BATCH else len(call.content)


def _lost_error() -> BusyError:
    return BusyError(Fault("service", "a process that computes lists", "none: it has ended", "try again later"))


def socket_pairs(threads: int) -> tuple[list[socket.socket], list[socket.socket]]:
    """Returns both ends of a socket for the status and of one for each thread of the engine."""
    pairs = [socket.socketpair() for _ in range(threads + 1)]
    return [one for one, _ in pairs], [other for _, other in pairs]


def _message(content: object) -> bytes:
    pickled = pickle.dumps(content)
    return len(pickled).to_bytes(_HEAD_BYTES, "big") + pickled


async def _read_message(reader: asyncio.StreamReader) -> bytes:
    return await reader.readexactly(int.from_bytes(await reader.readexactly(_HEAD_BYTES), "big"))


def _send(end: socket.socket, content: object) -> None:
    with suppress(OSError):  # The other process has ended, and this one will.
        end.sendall(_message(content))


def _receive(end: socket.socket) -> Any:
    """Returns the next message, None if the other end is closed."""
    head = _receive_exactly(end, _HEAD_BYTES)
    content = head and _receive_exactly(end, int.from_bytes(head, "big"))
    return pickle.loads(content) if content else None


def _receive_exactly(end: socket.socket, count: int) -> bytes | None:
    received = bytearray()
    while len(received) < count:
        try:
            part = end.recv(min(count - len(received), 1 << 20))
        except OSError:
            part = b""
        if not part:
            return None
        received += part
    return bytes(received)
