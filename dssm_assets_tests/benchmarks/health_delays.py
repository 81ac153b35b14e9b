"""How long `/health` takes while clients send the most expensive requests that the limits of the service allow.

The server, the clients and the probe are processes of their own. The probe sends `GET /health` every 5 ms, in turn on one open connection
and on a new one. A wait for a core counts, too, and is told apart: run it on a machine that does nothing else, or with raised priority.

Belongs here: expensive requests, the load, the delays. Does not belong here: requests of any form (`hostile_inputs.py`), the
table (`campaign.py`).
"""

from __future__ import annotations

import asyncio
import itertools
import json
import multiprocessing
import socket
import time
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

from dssm_assets.serving.recall_engine import MAX_K

PAUSE_SECONDS: Final = 0.005
HEALTH: Final = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
POST: Final = b"POST /recall HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
_VALUES: Final = 49_000
"""Just below the default of max_values."""


def expensive_bodies() -> dict[str, bytes]:
    """Returns bodies of at most 1 MiB, by what is large in them; some are answered, some refused."""
    times = list(range(10**12, 10**12 + 5000))
    columns = {name: ["n0", "n1", "b", "any"] * 1250 for name in ("item_ids", "brand", *(f"more{n}" for n in range(6)))}
    texts = {f"text{n}": "x" * 10_000 for n in range(100)}
    return {
        "lists": b'{"exclude": [' + b"[]," * (_VALUES // 2) + b"[]]}",
        "objects": b'{"features": {"tags": [' + b"{}," * (_VALUES // 2) + b"{}]}}",
        "nested": b'{"features": {"tags": [' + b"[[[[[[[]]]]]]]," * (_VALUES // 8) + b"[]]}}",
        "names": b"{" + b",".join(b'"name%d":0' % n for n in range(_VALUES)) + b"}",
        "numbers": b'{"exclude": [' + b"1.2345678901234e-5," * _VALUES + b"1]}",
        "digits": b'{"exclude": [' + (b"1" * 4200 + b",") * 240 + b"1]}",
        "fraction": b'{"exclude": [' + (b"1." + b"1" * 100_000 + b"e-5,") * 10 + b"1]}",
        "history": json.dumps({"user_id": "u", "history": {**columns, "event_times_ms": times}, "k": 200}).encode(),
        "excluded": json.dumps({"user_id": "u", "exclude": [f"n{n}" for n in range(10_000)], "k": MAX_K}).encode(),
        "texts": json.dumps({"features": {"city": "x" * 10_000, "tags": ["é" * 500] * 1000, **dict(itertools.islice(texts.items(), 40))}}).encode(),
        "too large": b'{"exclude": [' + b"[]," * 999_999 + b"[]]}",
    }  # fmt: skip


async def _send(port: int, request: bytes) -> None:
    """Sends a request on a connection of its own and reads until the connection closes."""
    with suppress(OSError):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        with suppress(OSError):
            writer.write(request)
            while await reader.read(1 << 16):
                pass
        writer.close()


async def _send_each(port: int, requests: list[bytes], first: int = 0) -> None:
    for request in itertools.islice(itertools.cycle(requests), first, None):
        await _send(port, request)


async def _send_endless_body(port: int) -> None:
    while True:
        with suppress(OSError):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(POST + b"Transfer-Encoding: chunked\r\n\r\n")
            while True:
                writer.write(b"1000\r\n" + b"[" * 4096 + b"\r\n")
                await writer.drain()


async def _send_on_one_connection(port: int) -> None:
    while True:
        with suppress(OSError):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            while True:
                writer.write(b"GET /recall?user_id=u HTTP/1.1\r\nHost: x\r\n\r\n")
                if not await reader.read(1 << 16):
                    break


def _large_bodies(port: int) -> list[Coroutine[Any, Any, None]]:
    requests = [
        POST + b"Content-Length: %d\r\nConnection: close\r\n\r\n" % len(body) + body for body in expensive_bodies().values()
    ]
    halves = [HEALTH[:20], POST + b"Content-Length: 900000\r\n\r\n[[["]
    return [
        *(_send_each(port, requests, first) for first in range(24)),
        *(_send_each(port, halves[n % 2 :]) for n in range(100)),
        *(_send_endless_body(port) for _ in range(4)),
    ]


def _many_requests(port: int) -> list[Coroutine[Any, Any, None]]:
    return [_send_on_one_connection(port) for _ in range(400)]


def _new_connections(port: int) -> list[Coroutine[Any, Any, None]]:
    return [_send_each(port, [b"GET /recall?user_id=u HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"]) for _ in range(400)]


def _pipelined_requests(port: int) -> list[Coroutine[Any, Any, None]]:
    return [_send_each(port, [b"GET /recall?user_id=u HTTP/1.1\r\nHost: x\r\n\r\n" * 300]) for _ in range(400)]


LOADS: Final = {
    "24 clients send the largest bodies, 100 stop within a request, 4 never end": _large_bodies,
    "400 connections with small requests": _many_requests,
    "400 clients, a new connection for each request": _new_connections,
    "400 clients send 300 requests before an answer and come back when they are cut off": _pipelined_requests,
}


def _run_load(port: int, name: str) -> None:
    async def run() -> None:
        await asyncio.gather(*LOADS[name](port))

    asyncio.run(run())


@contextmanager
def loaded(port: int, name: str) -> Iterator[None]:
    """Keeps a load of LOADS on a server."""
    process = multiprocessing.get_context("spawn").Process(target=_run_load, args=(port, name), daemon=True)
    process.start()
    try:
        yield
    finally:
        process.kill()
        process.join()


class Delay(NamedTuple):
    """Seconds that a `GET /health` took, stage by stage.

    Attributes:
        connect: until the connection is open; the kernel does it, even if the service is busy.
        send: until the request is sent.
        wait: until the answer is there.
        worked: of it all, for how long the event loop's thread had a core; a wait without work is the machine's.
        queued: of it all, for how long that thread could have run, but had no core.
    """

    connect: float
    send: float
    wait: float
    worked: float
    queued: float

    @property
    def total(self) -> float:
        """Seconds from the start to the answer."""
        return self.connect + self.send + self.wait

    def __str__(self) -> str:
        connect, send, wait, worked, queued = (round(1000 * seconds) for seconds in self)
        stages = f"connect {connect}, send {send}, answer {wait}"
        return f"{1000 * self.total:.0f} ms ({stages}; the service worked {worked}, waited for a core {queued})"


def measure_delays(port: int, count: int, pid: int) -> list[Delay]:
    """Returns how long each `GET /health` took, in turn on an open and on a new connection; `pid` is the service."""
    delays = []
    with socket.create_connection(("127.0.0.1", port), timeout=60) as kept:
        for number in range(count):
            (worked, queued), start = _count_seconds(pid), time.perf_counter()
            connection = kept if number % 2 else socket.create_connection(("127.0.0.1", port), timeout=60)
            connected = time.perf_counter()
            connection.sendall(HEALTH)
            sent, received = time.perf_counter(), b""
            while not received.endswith(b"}"):
                part = connection.recv(65536)
                assert part, "the service closed the connection of the probe"
                received += part
            answered = time.perf_counter()
            after = _count_seconds(pid)
            delays.append(Delay(connected - start, sent - connected, answered - sent, after[0] - worked, after[1] - queued))
            if connection is not kept:
                connection.close()
            time.sleep(PAUSE_SECONDS)
    return delays


def _count_seconds(pid: int) -> tuple[float, float]:
    """Returns for how long the main thread of a process has worked and has waited for a core since its start."""
    worked, queued, _ = Path(f"/proc/{pid}/schedstat").read_text(encoding="ascii").split()
    return int(worked) / 1e9, int(queued) / 1e9
