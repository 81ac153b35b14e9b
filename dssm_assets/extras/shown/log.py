"""Writes the log of shown items: a bounded queue, and one thread that writes a parquet part per `flush_seconds`.

A request only appends to the queue. While the place of the log is slow, full or away, rows wait and are written again; once
MAX_ROWS wait, further lists are dropped and counted. The thread turns lists into columns a few at a time: done at once for a whole
part, it would hold the interpreter from requests for many ms. A part appears whole (a rename, or one put on an object store), under
a name that no other process uses.

Belongs here: rows and parts. Does not belong here: which lists are kept (`served.py`).
"""

from __future__ import annotations

import datetime as dt
import logging
import math
import threading
import time
import uuid
from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dssm_assets.extras.shown.parts import part_schema
from dssm_assets.service.engine.recall_engine import HookState
from dssm_assets.storage.locations import open_location, put_if

MAX_ROWS: Final = 1_000_000
"""Rows that wait, at most; they take about 100 MB."""
DRAIN_SECONDS: Final = 0.05
CLOSE_SECONDS: Final = 5.0
"""Time for the last part when a service stops."""
LATE_SECONDS: Final = 10.0
"""Rows older than this are late: the place hangs."""
ANSWER, SHOWN = "answer", "shown"

_log = logging.getLogger(__name__)


class ShownList(NamedTuple):
    """One list of items: what was answered, or (`kind` "shown", without scores and channels) what was shown in its place.

    `time_ms` is the time of the answer, also for what was shown.
    """

    kind: str
    time_ms: int
    request_id: str
    user_id: int | str | None
    variant: str | None
    bundle_id: str
    item_ids: Sequence[int | str]
    scores: Sequence[float] | None
    channels: Sequence[Sequence[str]] | None
    user_type: pa.DataType
    item_type: pa.DataType

    @property
    def ds(self) -> str:
        return dt.datetime.fromtimestamp(self.time_ms / 1000, dt.UTC).date().isoformat()


@dataclass
class _Part:
    """Lists of one day and one pair of types, without their items, and the columns of these."""

    lists: list[ShownList] = field(default_factory=list)
    columns: dict[str, list[pa.Array]] = field(default_factory=lambda: defaultdict(list))


class _Unwritten(NamedTuple):
    path: str
    rows: int
    content: bytes


class ShownLog:
    """The log of one process. `put` is safe for any number of threads."""

    def __init__(self, uri: str, options: Mapping[str, Any], flush_seconds: float) -> None:
        """Starts the thread; no file is opened before the first part.

        Raises:
            InputError: the place is none.
        """
        self._fs, self._root = open_location(uri, "serving.shown.folder", options)
        self._flush_seconds, self._took, self._retry_at = flush_seconds, 0.0, 0.0
        self._lists: deque[tuple[float, ShownList]] = deque()
        """Those that have come, each with its moment by the clock of time.monotonic."""
        self._parts: dict[tuple[str, pa.DataType, pa.DataType], _Part] = defaultdict(_Part)
        self._unwritten: deque[_Unwritten] = deque()
        self._since, self._fault = math.inf, ""
        """Since when the oldest row waits; why the last part could not be written."""
        self._waiting = self._dropped = self._written = self._failures = 0
        self._lock, self._stopped = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="log of shown items", daemon=True)
        self._thread.start()

    def put(self, shown: ShownList) -> None:
        """Takes a list to be written, or drops and counts its rows if too many wait."""
        if not (rows := len(shown.item_ids)):
            return
        with self._lock:
            if self._waiting + rows > MAX_ROWS:
                self._dropped += rows
                return
            self._waiting += rows
            self._lists.append((time.monotonic(), shown))
            self._since = min(self._since, self._lists[0][0])

    @property
    def state(self) -> HookState:
        fault, late = self._fault, time.monotonic() - self._since
        if not fault and late > self._flush_seconds + LATE_SECONDS:
            fault = f"rows for {self._root} have waited for {late:.0f} seconds. To fix: see why this place is slow or silent"
        counts = {"rows_written": self._written, "rows_dropped": self._dropped, "write_failures": self._failures}
        return HookState(fault or None, self._waiting, counts)

    def close(self) -> None:
        """Writes what waits, in CLOSE_SECONDS; rows left after that are lost."""
        self._stopped.set()
        self._thread.join(CLOSE_SECONDS)

    def _run(self) -> None:
        while not self._stopped.wait(DRAIN_SECONDS):
            self._drain()
            # A kill shall lose the rows of flush_seconds at most, those of a part that is being written included.
            age = self._flush_seconds - min(self._took, self._flush_seconds / 2) - 2 * DRAIN_SECONDS
            if time.monotonic() > max(self._since + max(age, 0), self._retry_at):
                self._flush()
        self._drain()
        self._flush()

    def _drain(self) -> None:
        """Turns the lists that wait into columns."""
        for _ in range(len(self._lists)):
            _, shown = self._lists.popleft()
            part, count = self._parts[shown.ds, shown.user_type, shown.item_type], len(shown.item_ids)
            channels = [None] * count if shown.channels is None else list(map(",".join, shown.channels))
            part.columns["item_id"].append(pa.array(shown.item_ids, shown.item_type))
            part.columns["score"].append(
                pa.nulls(count, pa.float64()) if shown.scores is None else pa.array(shown.scores, pa.float64())
            )
            part.columns["channels"].append(pa.array(channels, pa.string()))  # 15 times faster than lists of lists
            part.lists.append(shown._replace(item_ids=range(count), scores=None, channels=None))

    def _flush(self) -> None:
        """Writes what is in columns; a part that cannot be written stays for the next time."""
        start = time.monotonic()
        for (ds, *types), part in self._parts.items():
            path = f"{self._root}/ds={ds}/{part.lists[0].time_ms}-{uuid.uuid4().hex}.parquet"
            rows = sum(len(shown.item_ids) for shown in part.lists)
            self._unwritten.append(_Unwritten(path, rows, _to_parquet(part, part_schema(*types))))
        self._parts.clear()
        while self._unwritten:
            path, rows, content = self._unwritten[0]
            try:
                put_if(self._fs, path, content, {})
            except Exception as error:  # Whatever is wrong with the place, it is tried again.
                self._note_failure(path, error)
                return
            self._unwritten.popleft()
            with self._lock:
                self._written, self._waiting = self._written + rows, self._waiting - rows
        self._fault, self._took = "", time.monotonic() - start
        with self._lock:
            self._since = self._lists[0][0] if self._lists else math.inf

    def _note_failure(self, path: str, error: Exception) -> None:
        fault = f"{path} cannot be written ({type(error).__name__}: {' '.join(str(error).split())[:400]})"
        if not self._fault:
            _log.error("%s; up to %d rows wait", fault, MAX_ROWS)
        self._fault, self._failures = f"{fault}. To fix: free the disk, or correct serving.shown.folder", self._failures + 1
        self._retry_at = time.monotonic() + self._flush_seconds


def _to_parquet(part: _Part, schema: pa.Schema) -> bytes:
    """Returns the bytes of a part: each list's rows in their order."""
    counts = np.array([len(shown.item_ids) for shown in part.lists])
    of_list = pa.array(np.repeat(np.arange(len(counts)), counts))
    positions = np.arange(len(of_list)) - np.repeat(np.cumsum(counts) - counts, counts) + 1
    columns: dict[str, pa.Array | pa.ChunkedArray] = {
        name: pa.array([getattr(shown, name) for shown in part.lists], schema.field(name).type).take(of_list)
        for name in ("kind", "time_ms", "request_id", "user_id", "variant", "bundle_id")
    }
    columns |= {name: pa.concat_arrays(arrays) for name, arrays in part.columns.items()}
    columns |= {"position": pa.array(positions, pa.int32()), "channels": pc.split_pattern(columns["channels"], ",")}
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table([columns[name] for name in schema.names], schema), sink, compression="zstd")
    return bytes(sink.getvalue())
