"""Measures how fast lists are recalled: `python -m dssm_assets_tests.benchmarks.serving --items 100000`.

A server runs over a bundle of random items and users on the local disk. One client process keeps some connections busy: each sends
a request as soon as it has the answer to the one before. Requests are written before the time starts; of answers only status and
length are read. Requests are for random stored users, top-200. Client and server share the machine; CPU time of each is counted.

Vectors have unit length, 16 hidden dimensions, and noise in all dimensions, because the vectors of towers have few directions
that matter. There are no clusters, which makes them harder than most.

The index is what a serving bundle ships for such a corpus (`auto`), tuned for a recall@200 of .95 against exact search. A bundle of
a million items takes a minute or two.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import os
import re
import selectors
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from dssm_assets.core.config.evaluation import IndexKind, Serving
from dssm_assets.core.retrieval.index import ship_index
from dssm_assets.service.engine.recall_engine import RecallEngine
from dssm_assets_tests.service import bundles

K = 200
DIMS = 64
USERS = 100_000
GOAL_RECALL = 0.95
CONNECTIONS = 16
BATCH = 100
SAMPLE_USERS = 500
COLD = '{"features": {"city": "x", "tags": ["p:1", "q:2"]}, "history": {"item_ids": ["n0", "n1", "n2"]}, "k": 200}'

_HIDDEN_DIMS = 16
_COLUMNS = f"{'lists/s':>8}  {'p50 ms':>7}  {'p99 ms':>7}  {'server us':>9}  {'client':>6}"


def vectors(count: int, seed: int) -> np.ndarray:
    """Returns random vectors of unit length, float32 [count, DIMS]."""
    random = np.random.default_rng(seed)
    mixing = np.random.default_rng(0).normal(size=(_HIDDEN_DIMS, DIMS)).astype(np.float32) / 4
    found = random.normal(size=(count, _HIDDEN_DIMS)).astype(np.float32) @ mixing
    found += 0.3 * random.normal(size=(count, DIMS)).astype(np.float32)
    found /= np.linalg.norm(found, axis=1, keepdims=True)
    return found


def write(root: Path, item_count: int) -> str:
    """Writes the bundle; returns the line that describes it."""
    items, users = vectors(item_count, 1), vectors(USERS, 2)
    start = time.perf_counter()
    settings = Serving(index=IndexKind.AUTO, min_index_recall=GOAL_RECALL)
    shipped = ship_index(items, users[:SAMPLE_USERS], [K], settings, seed=1)
    seconds = time.perf_counter() - start
    folder = bundles.write_files(
        root,
        "2024-01-12",
        item_ids=pa.array(np.arange(item_count) + 10_000_000),
        item_vectors=items,
        user_ids=pa.array([f"user{number}" for number in range(USERS)]),
        user_vectors=users,
        popular=pa.table({"item_id": np.arange(K) + 10_000_000, "count": np.arange(K)[::-1] + 1}),
        index=shipped.index,
    )
    bundles.point_to(root, folder.name)
    size = sum(path.stat().st_size for path in folder.iterdir())
    index = ", ".join([shipped.kind, *(f"{name} {value}" for name, value in shipped.parameters.items())])
    built = f"built and tuned in {seconds:.1f} s, recall@{K} {shipped.recall_at[K]:.4f} on {SAMPLE_USERS} users"
    return f"{item_count:,} items x {DIMS}, {USERS:,} users; {index}; {built}; bundle {size / 1e6:,.0f} MB"


def query_requests(ids: Sequence[Any], lists: str = "", count: int = 4096) -> list[bytes]:
    """Returns requests of random ones of some users."""
    rows = np.random.default_rng(7).integers(len(ids), size=count)
    return [f"GET /recall?user_id={ids[row]}&k={K}{lists} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode() for row in rows]


def body_request(path: str, body: str) -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    return f"{head}\r\n\r\n{body}".encode()


def batch_requests(ids: Sequence[Any], count: int = 64) -> list[bytes]:
    """Returns batches of random ones of some users."""
    rows = np.random.default_rng(8).integers(len(ids), size=(count, BATCH))
    bodies = ({"requests": [{"user_id": ids[row], "k": K} for row in batch]} for batch in rows)
    return [body_request("/recall/batch", json.dumps(body)) for body in bodies]


def measure_server(server: Server, name: str, connections: int, seconds: float, requests: list[bytes], users: int = 1) -> str:
    """Keeps some connections busy, from a process of its own, at first for a moment that is not counted; returns a line of the table."""
    receiving, sending = multiprocessing.Pipe(duplex=False)
    arguments = (server.port, seconds, connections, requests, sending)
    process = multiprocessing.get_context("spawn").Process(target=_client, args=arguments)
    process.start()
    receiving.recv()
    receiving.recv()
    before = server.cpu_seconds
    each, whole, client = receiving.recv()
    spent = server.cpu_seconds - before
    process.join()
    count = len(each) * users
    p50, p99 = (1e3 * np.quantile(each, share) for share in (0.5, 0.99))
    rates = f"{count / whole:>8,.0f}  {p50:>7.1f}  {p99:>7.1f}"
    return f"{name:>34}  {rates}  {1e6 * spent / count:>9.0f}  {1e6 * client / count:>6.0f}"


def _client(port: int, seconds: float, connections: int, requests: list[bytes], answers: Any) -> None:
    """Sends requests in turn over some connections, one after the other on each."""
    waiting = selectors.DefaultSelector()
    for _ in range(connections):
        connection = socket.create_connection(("127.0.0.1", port), timeout=30)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setblocking(False)
        waiting.register(connection, selectors.EVENT_READ, _Exchange(connection))
    following = itertools.cycle(requests)
    for key in waiting.get_map().values():
        key.data.send(next(following))
    for length in (min(1.0, seconds), seconds):
        answers.send(None)
        each: list[float] = []
        cpu, begin = time.process_time(), time.perf_counter()
        while time.perf_counter() - begin < length or not each:
            for key, _ in waiting.select(30):
                if (took := key.data.receive()) is not None:
                    each.append(took)
                    key.data.send(next(following))
    answers.send((np.array(each), time.perf_counter() - begin, time.process_time() - cpu))


class _Exchange:
    """A connection, and the answer that is being received."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection, self._received, self._missing = connection, b"", 0

    def send(self, request: bytes) -> None:
        self._sent, self._received, self._missing = time.perf_counter(), b"", -1
        self._connection.setblocking(True)
        self._connection.sendall(request)
        self._connection.setblocking(False)

    def receive(self) -> float | None:
        """Receives what there is; returns the seconds of the request if its answer is whole."""
        part = self._connection.recv(1 << 20)
        if not part:
            raise ConnectionError("the server closed the connection")
        if self._missing < 0:
            self._received += part
            head, found, rest = self._received.partition(b"\r\n\r\n")
            if not found:
                return None
            if not head.startswith(b"HTTP/1.1 200"):
                raise RuntimeError(self._received.decode())
            length = re.search(rb"content-length: (\d+)", head.lower())
            if length is None:
                raise ValueError(f"an answer without content-length: {head!r}")
            self._missing = int(length.group(1)) - len(rest)
        else:
            self._missing -= len(part)
        return None if self._missing else time.perf_counter() - self._sent


class Server:
    """`dssm-assets serve` as a process."""

    def __init__(self, root: Path) -> None:
        code = (
            "import argparse, sys; from dssm_assets.commands.command_groups import Commands;"
            "from dssm_assets.service.commands import serve; parser = argparse.ArgumentParser();"
            "serve.add_command(Commands(parser)); parsed = parser.parse_args(sys.argv[1:]); sys.exit(parsed.command(parsed))"
        )
        command = [sys.executable, "-c", code, "serve", "--bundle", str(root), "--port", "0", "--no-verify"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
        output = ""
        while not (found := re.search(r"running on http://127\.0\.0\.1:(\d+)", output)):
            line = self._process.stderr.readline()  # type: ignore[union-attr]
            if not line:
                raise RuntimeError(output)
            output += line
        self.port = int(found.group(1))

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.communicate(timeout=30)

    @property
    def cpu_seconds(self) -> float:
        fields = (self._folder / "stat").read_text().rpartition(") ")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    @property
    def memory_mb(self) -> float:
        """Returns its proportional set size, including mapped files."""
        found = re.search(r"^Pss:\s+(\d+) kB", (self._folder / "smaps_rollup").read_text(), re.MULTILINE)
        return int(found.group(1)) / 1e3 if found else float("nan")

    @property
    def _folder(self) -> Path:
        return Path(f"/proc/{self._process.pid}")


def report(item_count: int, seconds: float, folder: Path) -> list[str]:
    lines = [write(folder, item_count)]
    start = time.perf_counter()
    RecallEngine.open(str(folder))
    lines += [f"opened in {time.perf_counter() - start:.2f} s with every sha256", ""]
    lines.append(f"{f'top-{K}, {CONNECTIONS} connections':>34}  {_COLUMNS}")
    ids = [f"user{number}" for number in range(USERS)]
    with Server(folder) as server:
        for name, count, requests, users in (
            ("GET /recall", CONNECTIONS, query_requests(ids), 1),
            ("POST /recall with features", CONNECTIONS, [body_request("/recall", COLD)], 1),
            (f"/recall/batch of {BATCH}", 2, batch_requests(ids), BATCH),
            ("GET /recall, 1 connection", 1, query_requests(ids), 1),
        ):
            lines.append(measure_server(server, name, count, seconds, requests, users))
        lines += ["", f"server: {server.memory_mb:,.0f} MB, including mapped files"]
    return lines


def report_bundle(folder: Path, seconds: float) -> list[str]:
    users = RecallEngine.open(str(folder), is_verified=False).bundle.users
    ids = users.ids_at(np.arange(len(users)))
    lines = [f"{f'top-{K} of {len(ids):,} users':>34}  {_COLUMNS}"]
    with Server(folder) as server:
        for count, lists in itertools.product((CONNECTIONS, 1), ("merged", "vectors")):
            requests = query_requests(ids, f"&channels={lists}")
            lines.append(measure_server(server, f"{lists}, {count} connections", count, seconds, requests))
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, default=100_000, help="number of items in the index (default: 100,000)")
    parser.add_argument("--seconds", type=float, default=3.0, help="seconds per line (default: 3)")
    parser.add_argument("--bundle", type=Path, help="measure merged lists of this serving root of a home with channels")
    parsed = parser.parse_args()
    if parsed.bundle is not None:
        print("\n".join(report_bundle(parsed.bundle, parsed.seconds)))
        return
    with tempfile.TemporaryDirectory(prefix="dssm-serving-") as folder:
        print("\n".join(report(parsed.items, parsed.seconds, Path(folder))))


if __name__ == "__main__":
    main()
