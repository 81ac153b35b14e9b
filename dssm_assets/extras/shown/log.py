"""Writes the log of shown items: a bounded queue, and one thread that writes a parquet part per `flush_seconds`.

A request only appends a line of JSON to the queue. While the place of the log is slow, full or away, rows wait and are written
again; once MAX_ROWS wait, further lists are dropped and counted. The thread leaves its work to libraries that release the
interpreter: rows made in Python would hold it from requests for many ms. A part appears whole (a rename, or one put on an object
store), under a name that no other process uses.

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
from typing import Any, Final, NamedTuple

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pj
import pyarrow.parquet as pq

from dssm_assets.extras.shown.parts import part_schema
from dssm_assets.service.engine.recall_engine import HookState
from dssm_assets.storage.locations import open_location, put_if

MAX_ROWS: Final = 1_000_000
"""Rows that wait, at most; they take about 60 MB."""
LOOK_SECONDS: Final = 0.05
CLOSE_SECONDS: Final = 5.0
"""Time for the last part when a service stops."""
LATE_SECONDS: Final = 10.0
"""Rows older than this are late: the place hangs."""
ANSWER, SHOWN = "answer", "shown"
_OF_ITEMS: Final = ("item_id", "score", "channels")
_FIELDS: Final = ("kind", "time_ms", "request_id", "user_id", "variant", "bundle_id", *_OF_ITEMS)
"""Columns that a list says, in the order of `ShownList`."""

_log = logging.getLogger(__name__)


class ShownList(NamedTuple):
    """One list of items: what was answered, or (`kind` "shown", with scores and channels None) what was shown in its place.

    `time_ms` is the time of the answer, also for what was shown.
    """

    kind: str
    time_ms: int
    request_id: str
    user_id: int | str | None
    variant: str | None
    bundle_id: str
    item_ids: Sequence[int | str]
    scores: Sequence[float | None]
    channels: Sequence[Sequence[str] | None]
    user_type: pa.DataType
    item_type: pa.DataType

    @property
    def ds(self) -> str:
        return dt.datetime.fromtimestamp(self.time_ms / 1000, dt.UTC).date().isoformat()


class _Line(NamedTuple):
    """A list as JSON, when it came, by the clock of time.monotonic, and what the lists of a part share: day and types of ids."""

    came_at: float
    part: tuple[str, pa.DataType, pa.DataType]
    rows: int
    json: bytes


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
        self._lines: deque[_Line] = deque()
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
        part = shown.ds, shown.user_type, shown.item_type
        line = _Line(time.monotonic(), part, rows, orjson.dumps(dict(zip(_FIELDS, shown, strict=False))))
        with self._lock:
            if self._waiting + rows > MAX_ROWS:
                self._dropped += rows
                return
            self._waiting += rows
            self._lines.append(line)
            self._since = min(self._since, line.came_at)

    @property
    def state(self) -> HookState:
        fault, late = self._fault, time.monotonic() - self._since
        if not fault and late > self._flush_seconds + LATE_SECONDS:
            fault = f"rows for {self._root} have waited for {late:.0f} seconds. To fix: see why this place is slow or silent"
        counts = {"rows_written": self._written, "rows_dropped": self._dropped, "write_failures": self._failures}
        return HookState(fault or None, self._waiting, counts)

    def close(self) -> None:
        """Writes the waiting rows for at most CLOSE_SECONDS; the rest is lost."""
        self._stopped.set()
        self._thread.join(CLOSE_SECONDS)

    def _run(self) -> None:
        while not self._stopped.wait(LOOK_SECONDS):
            # A kill shall lose the rows of flush_seconds at most, those of a part being written included: the slowest one lately.
            age = self._flush_seconds - min(self._took, self._flush_seconds / 2) - 2 * LOOK_SECONDS
            if time.monotonic() > max(self._since + max(age, 0), self._retry_at):
                self._flush()
        self._flush()

    def _flush(self) -> None:
        """Writes the lines that have come; a part that cannot be written stays for the next time."""
        start, parts = time.monotonic(), defaultdict[tuple[str, pa.DataType, pa.DataType], list[_Line]](list)
        for _ in range(len(self._lines)):
            parts[(line := self._lines.popleft()).part].append(line)
        for (ds, *types), lines in parts.items():
            path = f"{self._root}/ds={ds}/{time.time_ns()}-{uuid.uuid4().hex}.parquet"
            content = _to_parquet([line.json for line in lines], part_schema(*types))
            self._unwritten.append(_Unwritten(path, sum(line.rows for line in lines), content))
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
        self._fault, self._took = "", max(time.monotonic() - start, 0.95 * self._took)
        with self._lock:
            self._since = self._lines[0].came_at if self._lines else math.inf

    def _note_failure(self, path: str, error: Exception) -> None:
        fault = f"{path} cannot be written ({type(error).__name__}: {' '.join(str(error).split())[:400]})"
        if not self._fault:
            _log.error("%s; up to %d rows wait", fault, MAX_ROWS)
        self._fault, self._failures = f"{fault}. To fix: free the disk, or correct serving.shown.folder", self._failures + 1
        self._retry_at = time.monotonic() + self._flush_seconds


def _to_parquet(lines: Sequence[bytes], schema: pa.Schema) -> bytes:
    """Returns the bytes of a part: each list's rows in their order."""
    fields = {name: schema.field(name).type for name in _FIELDS}
    lists = pj.read_json(
        pa.BufferReader(b"\n".join(lines)),
        pj.ReadOptions(use_threads=False, block_size=max(1 << 20, 2 * max(map(len, lines)))),
        pj.ParseOptions(pa.schema({name: pa.list_(kind) if name in _OF_ITEMS else kind for name, kind in fields.items()})),
    ).combine_chunks()
    of_list = pc.list_parent_indices(lists.column("item_id").chunk(0))
    columns = {
        name: pc.list_flatten(lists.column(name)) if name in _OF_ITEMS else lists.column(name).take(of_list) for name in fields
    }
    starts = np.searchsorted(of_list, of_list)
    columns["position"] = pa.array(np.arange(1, len(starts) + 1) - starts, pa.int32())
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table([columns[name] for name in schema.names], schema), sink, compression="zstd")
    return bytes(sink.getvalue())
