"""Measures how fast lists are recalled: `python -m dssm_assets_tests.benchmarks.serving --items 100000`.

First the engine alone is measured, called in this process by one thread. Then a server runs over a bundle of random items and
users on the local disk, in a process of its own. Each client is a process with one persistent connection that sends one
request after the other. Requests are for random stored users, top-200. Clients and server share the machine, so with few
cores the figures at several connections are those of the whole machine.

Vectors have unit length, 16 hidden dimensions, and noise in all dimensions, because the vectors of towers have few directions
that matter. Independent dimensions would be harder for any index than real vectors.

The index is what a serving bundle ships for such a corpus (--index auto), tuned for a recall@200 of .98. Its recall against
exact search is printed. HNSW takes minutes to build for a million items, IVF a fraction of that.

Latency is wall time, so other work on the machine increases it. CPU time per request is not affected.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import re
import resource
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pyarrow as pa

from dssm_assets.core.config.evaluation import IndexKind, Serving
from dssm_assets.core.retrieval.index import ship_index
from dssm_assets.serving.recall_engine import ListOptions, RecallEngine
from dssm_assets.serving.request_encoder import UserInputs
from dssm_assets_tests.serving import bundles

K = 200
DIMS = 64
USERS = 100_000
GOAL_RECALL = 0.98
SAMPLE_USERS = 500
COLD = '{"features": {"city": "x", "tags": ["p:1", "q:2"]}, "history": {"item_ids": ["n0", "n1", "n2"]}, "k": 200}'

_HIDDEN_DIMS = 16


@dataclass(frozen=True)
class Timing:
    """Seconds of each request, of all requests, and CPU seconds of the process that answered."""

    each: np.ndarray
    whole: float
    cpu: float

    def line(self, name: str) -> str:
        """Returns a line of the table."""
        p50, p99 = (1e3 * np.quantile(self.each, share) for share in (0.5, 0.99))
        cpu = 1e3 * self.cpu / len(self.each)
        return f"{name:>34}  {p50:>8.2f}  {p99:>8.2f}  {len(self.each) / self.whole:>10,.0f}  {cpu:>8.2f}"


def vectors(count: int, seed: int) -> np.ndarray:
    """Returns random vectors of unit length, float32 [count, DIMS]."""
    random = np.random.default_rng(seed)
    mixing = np.random.default_rng(0).normal(size=(_HIDDEN_DIMS, DIMS)).astype(np.float32) / 4
    found = random.normal(size=(count, _HIDDEN_DIMS)).astype(np.float32) @ mixing
    found += 0.3 * random.normal(size=(count, DIMS)).astype(np.float32)
    found /= np.linalg.norm(found, axis=1, keepdims=True)
    return found


def write(root: Path, item_count: int, kind: IndexKind, item_columns: pa.Table | None = None) -> list[str]:
    """Writes the bundle; returns the line that describes it."""
    items, users = vectors(item_count, 1), vectors(USERS, 2)
    start = time.perf_counter()
    settings = Serving(index=kind, min_index_recall=GOAL_RECALL)
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
        item_columns=item_columns,
    )
    bundles.point_to(root, folder.name)
    size = sum(path.stat().st_size for path in folder.iterdir())
    index = ", ".join([shipped.kind, *(f"{name} {value}" for name, value in shipped.parameters.items())])
    built = f"built and tuned in {seconds:.1f} s, recall@{K} {shipped.recall_at[K]:.4f} on {SAMPLE_USERS} users"
    return [f"{item_count:,} items x {DIMS}, {USERS:,} users; {index}; {built}; bundle {size / 1e6:,.0f} MB"]


def measure_engine(engine: RecallEngine, seconds: float) -> list[str]:
    """Measures the engine, called by one thread; returns the lines of the table."""
    faiss.omp_set_num_threads(1)
    random = np.random.default_rng(3)
    cold = UserInputs({"city": "x", "tags": ["p:1", "q:2"]}, {"item_ids": ["n0", "n1", "n2"]})
    requests: dict[str, Callable[[], Any]] = {
        "engine, stored user": lambda: engine.recall_for_user(f"user{random.integers(USERS)}", ListOptions(K)),
        "engine, similar items": lambda: engine.similar_items(
            int(10_000_000 + random.integers(len(engine.bundle.items))), ListOptions(K)
        ),
        "engine, features": lambda: engine.recall_for_features(cold, ListOptions(K)),
        "user tower from features alone": lambda: engine.tower.compute_vector(cold),
    }
    return [_time_requests(request, seconds).line(name) for name, request in requests.items()]


def _time_requests(request: Callable[[], Any], seconds: float) -> Timing:
    request()
    each: list[float] = []
    cpu = time.process_time()
    begin = last = time.perf_counter()
    while last - begin < seconds:
        request()
        now = time.perf_counter()
        each.append(now - last)
        last = now
    return Timing(np.array(each), last - begin, time.process_time() - cpu)


def measure_server(server: Server, connections: int, seconds: float, body: str | None = None) -> Timing:
    """Measures this many concurrent connections, each from a process of its own."""
    pool = multiprocessing.get_context("spawn").Pool(connections)
    try:
        pool.map(_warm, [server.port] * connections)
        before = server.cpu_seconds
        given = [(server.port, seconds, seed, body) for seed in range(connections)]
        parts = pool.starmap(_client, given, chunksize=1)
        cpu = server.cpu_seconds - before
    finally:
        # Not terminate(): it sends SIGTERM, and where the calling process ignores that signal its workers do too.
        pool.close()
        pool.join()
    return Timing(np.concatenate([part for part, _ in parts]), float(np.mean([whole for _, whole in parts])), cpu)


def _warm(port: int) -> None:
    _client(port, 0.1, 0, None)


def _client(port: int, seconds: float, seed: int, body: str | None) -> tuple[np.ndarray, float]:
    """Sends requests over one connection for some seconds. A bare socket costs the machine little CPU time."""
    random = np.random.default_rng(seed)
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        timing = _time_requests(lambda: _exchange(connection, random.integers(USERS), body), seconds)
    return timing.each, timing.whole


def _exchange(connection: socket.socket, user: int, body: str | None) -> None:
    if body is None:
        request = f"GET /recall?user_id=user{user}&k={K} HTTP/1.1\r\nHost: localhost\r\n\r\n"
    else:
        head = f"Host: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
        request = f"POST /recall HTTP/1.1\r\n{head}\r\n\r\n{body}"
    connection.sendall(request.encode())
    answer = b""
    while b"\r\n\r\n" not in answer:
        answer += _receive(connection)
    head_bytes, _, rest = answer.partition(b"\r\n\r\n")
    if not head_bytes.startswith(b"HTTP/1.1 200"):
        raise RuntimeError(answer.decode())
    missing = int(re.search(rb"content-length: (\d+)", head_bytes.lower()).group(1)) - len(rest)  # type: ignore[union-attr]
    while missing > 0:
        missing -= len(_receive(connection))


def _receive(connection: socket.socket) -> bytes:
    """Returns the next bytes; without this check a connection that the server has closed would be read forever."""
    received = connection.recv(65536)
    if not received:
        raise ConnectionError("the server closed the connection")
    return received


class Server:
    """`dssm-assets serve` as a process."""

    def __init__(self, root: Path) -> None:
        code = (
            "import argparse, sys; from dssm_assets.commands import serve; parser = argparse.ArgumentParser();"
            "serve.add_command(parser.add_subparsers()); parsed = parser.parse_args(sys.argv[1:]); sys.exit(parsed.command(parsed))"
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
        """Returns the CPU seconds that its processes have used."""
        stats = [(folder / "stat").read_text().rpartition(") ")[2].split() for folder in self._folders()]
        return sum(int(fields[11]) + int(fields[12]) for fields in stats) / os.sysconf("SC_CLK_TCK")

    @property
    def memory_mb(self) -> float:
        """Returns the proportional set size of its processes, including mapped files."""
        rollups = [folder / "smaps_rollup" for folder in self._folders()]
        found = [re.search(r"^Pss:\s+(\d+) kB", rollup.read_text(), re.MULTILINE) for rollup in rollups if rollup.exists()]
        return sum(int(one.group(1)) for one in found if one) / 1e3 if found else float("nan")

    def _folders(self) -> list[Path]:
        pid = self._process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return [Path(f"/proc/{one}") for one in (str(pid), *children)]


def report(item_count: int, kind: IndexKind, seconds: float, connections: Sequence[int], folder: Path) -> list[str]:
    """Returns the lines of the report."""
    lines = write(folder, item_count, kind)
    start = time.perf_counter()
    RecallEngine.open(str(folder))
    checked = time.perf_counter() - start
    start = time.perf_counter()
    engine = RecallEngine.open(str(folder), is_verified=False)
    lines += [f"opened in {checked:.2f} s with every sha256, {time.perf_counter() - start:.2f} s without", ""]
    lines.append(f"{'top-' + str(K):>34}  {'p50 ms':>8}  {'p99 ms':>8}  {'requests/s':>10}  {'CPU ms':>8}")
    lines += measure_engine(engine, seconds)
    del engine
    with Server(folder) as server:
        for count in connections:
            lines.append(measure_server(server, count, seconds).line(f"GET /recall, {count} connections"))
        for count in connections:
            lines.append(measure_server(server, count, seconds, COLD).line(f"POST /recall features, {count} connections"))
        lines += ["", f"server: {server.memory_mb:,.0f} MB, including mapped files"]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    return [*lines, f"peak of this process, which writes the bundle: {peak:,.0f} MB"]


def main(arguments: list[str] | None = None) -> None:
    """Prints the report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, default=100_000, help="number of items in the index (default: 100,000)")
    parser.add_argument("--index", type=IndexKind, choices=list(IndexKind), default=IndexKind.AUTO, help="(default: auto)")
    parser.add_argument("--seconds", type=float, default=3.0, help="seconds per line (default: 3)")
    parser.add_argument(
        "--connections", type=int, nargs="+", default=[1, 4], help="numbers of concurrent clients (default: 1 4)"
    )
    parsed = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="dssm-serving-") as folder:
        print("\n".join(report(parsed.items, parsed.index, parsed.seconds, parsed.connections, Path(folder))))


if __name__ == "__main__":
    main()
