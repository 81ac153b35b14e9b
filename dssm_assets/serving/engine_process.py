"""The process that computes lists, apart from the one that speaks HTTP, and the sockets between them.

Python runs one thread at a time. Beside threads that read large bodies, an event loop waits for the interpreter's lock at every read and
write, and /health with it. So the event loop has a process of its own: it receives and sends bytes, and nothing else takes long there.

Belongs here: calls and their answers, the state of the engine, the end of either process. Does not belong here: what a call computes
(`recall_engine.py`), requests (`http.py`).

The engine has one thread per socket. A message is its length in 8 bytes and a pickle: both ends are the same program.
"""

from __future__ import annotations

import asyncio
import json
import logging
import multiprocessing
import os
import pickle
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Final

from dssm_assets.core.errors import DssmError, Fault
from dssm_assets.serving.live import EngineState, LiveEngine
from dssm_assets.serving.recall_engine import RecallAnswer
from dssm_assets.serving.refusals import BusyError

_HEAD_BYTES: Final = 8

_log = logging.getLogger(__name__)


class EngineClient:
    """The engine as the event loop sees it."""

    def __init__(self, channels: Sequence[socket.socket], status: socket.socket) -> None:
        """Waits until the engine has opened its bundle.

        Args:
            channels: a socket to each thread of the engine.
            status: over which the engine reports its state.

        Raises:
            DssmError: the engine has no bundle to start with.
        """
        first = _receive(status)
        if not isinstance(first, EngineState):
            raise first if isinstance(first, DssmError) else _lost_error()
        self.state: EngineState = first
        self.is_lost = False
        self._sockets, self._status = channels, status
        self._free: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = asyncio.Queue()
        self._watching: asyncio.Task[None] | None = None

    async def open(self, on_loss: Callable[[], None]) -> None:
        """Begins to pass calls, and to follow the state of the engine; calls `on_loss` if its process ends."""
        for channel in self._sockets:
            self._free.put_nowait(await asyncio.open_connection(sock=channel))
        self._watching = asyncio.create_task(self._watch(on_loss))

    async def close(self) -> None:
        """Closes the sockets, at which the engine ends, whatever it is computing."""
        if self._watching is not None:
            self._watching.cancel()
        for channel in (self._status, *self._sockets):
            with suppress(OSError):
                channel.shutdown(socket.SHUT_RDWR)

    async def compute(self, function: Callable[..., RecallAnswer], *arguments: Any, **named: Any) -> tuple[str, bytes]:
        """Returns the source of a list and its JSON, once a thread of the engine is free and has computed it.

        Args:
            function: of the engine's `RecallEngine` and these arguments; a function of a module.

        Raises:
            DssmError: what the function raised.
            BusyError: the engine has ended.
        """
        reader, writer = channel = await self._free.get()
        try:
            writer.write(_message((function, arguments, named)))
            reply = pickle.loads(await _read_message(reader))
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            raise _lost_error() from error
        finally:
            self._free.put_nowait(channel)
        if isinstance(reply, DssmError):
            raise reply
        return reply  # type: ignore[no-any-return]

    async def _watch(self, on_loss: Callable[[], None]) -> None:
        reader, _ = await asyncio.open_connection(sock=self._status)
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                self.state = pickle.loads(await _read_message(reader))
        self.is_lost = True
        _log.error("the process that computes lists has ended; the service ends, too")
        on_loss()


@contextmanager
def engine_process(open_live: Callable[[], LiveEngine], threads: int) -> Iterator[EngineClient]:
    """Yields the client of an engine in a process of its own, which ends with the block or with this process.

    Args:
        open_live: opens the engine, in that process; a function of a module, with arguments.
        threads: lists that are computed at once.

    Raises:
        DssmError: what `open_live` raised: there is no usable bundle to start with.
    """
    ours, theirs = _socket_pairs(threads)
    # A fork has what is imported already. Nothing here has started threads; elsewhere than on Linux, system libraries may have.
    method = "fork" if sys.platform == "linux" else "spawn"
    inherited = ours if method == "fork" else ()
    context: Any = multiprocessing.get_context(method)
    process = context.Process(target=_run_engine, args=(open_live, theirs, inherited), name="engine")
    process.start()
    for end in theirs:
        end.close()
    try:
        yield EngineClient(ours[1:], ours[0])
    finally:
        for end in ours:
            end.close()
        process.join()


@contextmanager
def engine_threads(live: LiveEngine, threads: int) -> Iterator[EngineClient]:
    """Yields the client of an engine whose threads are in this process."""
    ours, theirs = _socket_pairs(threads)
    serving = threading.Thread(target=serve_engine, args=(live, theirs[1:], theirs[0]), daemon=True)
    serving.start()
    try:
        yield EngineClient(ours[1:], ours[0])
    finally:
        for end in ours:
            end.close()
        serving.join()


def serve_engine(live: LiveEngine, channels: Sequence[socket.socket], status: socket.socket) -> None:
    """Answers calls and reports the engine's state, until the other end of `status` closes."""
    _send(status, live.state)
    for channel in channels:
        threading.Thread(target=_answer_calls, args=(live, channel), name="recall", daemon=True).start()
    live.start(lambda state: _send(status, state))
    with suppress(OSError):
        status.recv(1)
    live.stop()


def _run_engine(open_live: Callable[[], LiveEngine], ends: Sequence[socket.socket], inherited: Sequence[socket.socket]) -> None:
    for end in inherited:
        end.close()
    for one in (signal.SIGINT, signal.SIGTERM):  # meant for the whole group; the other process finishes what it has begun
        signal.signal(one, signal.SIG_IGN)
    try:
        live = open_live()
    except DssmError as error:
        _send(ends[0], error)
        return
    serve_engine(live, ends[1:], ends[0])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # Python would wait for lists that nobody waits for.


def _answer_calls(live: LiveEngine, channel: socket.socket) -> None:
    import faiss

    faiss.omp_set_num_threads(1)  # A call is one search; the threads use the cores.
    while (call := _receive(channel)) is not None:
        function, arguments, named = call
        reply: tuple[str, bytes] | DssmError
        try:
            answer: RecallAnswer = function(live.engine, *arguments, **named)
            body = json.dumps(answer.to_dict(), ensure_ascii=False, separators=(",", ":")).encode()
            reply = answer.source.value, body
        except DssmError as error:
            reply = error
        except Exception as error:
            _log.exception("a list failed")
            reply = DssmError(f"{type(error).__name__}: {error}")
        _send(channel, reply)


def _lost_error() -> BusyError:
    return BusyError(Fault("service", "a process that computes lists", "none: it has ended", "try again later"))


def _socket_pairs(threads: int) -> tuple[list[socket.socket], list[socket.socket]]:
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
