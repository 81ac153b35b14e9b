"""Writes the log of shown items: a bounded queue, and one thread that writes a parquet part twice in `flush_seconds`.

A request only appends a line of JSON to the queue. While the place of the log is slow, full or away, rows wait; once MAX_ROWS
wait, further lists are dropped and counted. Rows made in Python would hold the interpreter from requests for many ms, so the
thread leaves them to Arrow. A part appears whole, under a name that no other process uses, in the folder `ds=YYYY-MM-DD` of the
UTC day of its answers.
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

from dssm_assets.service.engine.recall_engine import HookState
from dssm_assets.storage.locations import open_location, put_if

MAX_ROWS: Final = 1_000_000
"""Rows that wait, at most: about 60 MB."""
LOOK_SECONDS: Final = 0.05
CLOSE_SECONDS: Final = 5.0
LATE_SECONDS: Final = 10.0
"""After flush_seconds and so many more, the place of the log hangs."""
ANSWER, SHOWN = "answer", "shown"
_OF_ITEMS: Final = ("item_id", "score", "channels")
_FIELDS: Final = ("kind", "time_ms", "request_id", "user_id", "variant", "bundle_id", *_OF_ITEMS)
"""Columns in the order of `ShownList`."""

_log = logging.getLogger(__name__)


def part_schema(user_type: pa.DataType, item_type: pa.DataType) -> pa.Schema:
    """Returns the columns of a part, one row per item of a list; `position` counts from 1."""
    return pa.schema(
        {
            "kind": pa.string(),
            "time_ms": pa.int64(),
            "request_id": pa.string(),
            "user_id": user_type,
            "variant": pa.string(),
            "bundle_id": pa.string(),
            "position": pa.int32(),
            "item_id": item_type,
            "score": pa.float64(),
            "channels": pa.list_(pa.string()),
        }
    )


def shown_location(folder: str, root: str) -> str:
    """Returns the path or URL of the log; a relative folder is in the root of the bundles."""
    return folder if "://" in folder or folder.startswith("/") else f"{root.rstrip('/')}/{folder}"


class ShownList(NamedTuple):
    """An answer, or (`kind` "shown", scores and channels None) the items that a caller showed in its place; `time_ms`: of the answer."""

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
    came_at: float  # by time.monotonic
    part: tuple[str, pa.DataType, pa.DataType]  # day and types of ids, which the lists of a part share
    rows: int
    json: bytes


class ShownLog:
    """The log of one process. `put` is safe for any number of threads."""

    def __init__(self, uri: str, options: Mapping[str, Any], flush_seconds: float) -> None:
        """Starts the thread; no file is opened before the first part.

        Raises:
            InputError: the place is none.
        """
        self._fs, self._root = open_location(uri, "serving.shown.folder", options)
        self._flush_seconds, self._retry_at = flush_seconds, 0.0
        self._lines: deque[_Line] = deque()
        self._unwritten: deque[tuple[str, int, bytes]] = deque()
        """Path, rows and bytes of parts."""
        self._since, self._fault = math.inf, ""  # since when the oldest row waits
        self._waiting = self._dropped = self._written = self._failures = 0
        self._lock, self._stopped = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="log of shown items", daemon=True)
        self._thread.start()

    def put(self, shown: ShownList) -> None:
        """Queues a list, or drops and counts its rows if too many wait."""
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
            # A kill shall lose the rows of flush_seconds at most: half of them is left to write a part.
            if time.monotonic() > max(self._since + self._flush_seconds / 2, self._retry_at):
                self._flush()
        self._flush()

    def _flush(self) -> None:
        parts = defaultdict[tuple[str, pa.DataType, pa.DataType], list[_Line]](list)
        for _ in range(len(self._lines)):
            parts[(line := self._lines.popleft()).part].append(line)
        for (ds, *types), lines in parts.items():
            path = f"{self._root}/ds={ds}/{time.time_ns()}-{uuid.uuid4().hex}.parquet"
            content = _to_parquet([line.json for line in lines], part_schema(*types))
            self._unwritten.append((path, sum(line.rows for line in lines), content))
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
        self._fault = ""
        with self._lock:
            self._since = self._lines[0].came_at if self._lines else math.inf

    def _note_failure(self, path: str, error: Exception) -> None:
        fault = f"{path} cannot be written ({type(error).__name__}: {' '.join(str(error).split())[:400]})"
        if not self._fault:
            _log.error("%s; up to %d rows wait", fault, MAX_ROWS)
        self._fault, self._failures = f"{fault}. To fix: free the disk, or correct serving.shown.folder", self._failures + 1
        self._retry_at = time.monotonic() + self._flush_seconds


def _to_parquet(lines: Sequence[bytes], schema: pa.Schema) -> bytes:
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
