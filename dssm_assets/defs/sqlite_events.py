"""Quick event writes of runs inside this process, on Dagster's SQLite storage.

Belongs here: a connection that stays open, and one transaction per batch of events. Postgres does both by itself. Does not
belong here: what is run (`runs.py`).
"""

import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from dagster._core.events import ASSET_EVENTS
from dagster._core.events.log import EventLogEntry
from dagster._core.storage.event_log.base import EventLogStorage
from dagster._core.storage.event_log.schema import SqlEventLogStorageTable
from dagster._core.storage.event_log.sqlite.sqlite_event_log import SqliteEventLogStorage
from sqlalchemy import Engine, event

BATCH_SIZE_VARIABLE = "DAGSTER_EVENT_BATCH_SIZE"
"""Dagster's setting: up to this many events of one step are stored in one call."""

_BATCH_SIZE = 1000


@contextmanager
def quick_events(storage: EventLogStorage) -> Iterator[None]:
    """Stores the events of a run over many partitions in few transactions; other storages than SQLite are left alone."""
    if not isinstance(storage, SqliteEventLogStorage):
        yield
        return
    configured = os.environ.get(BATCH_SIZE_VARIABLE)
    os.environ.setdefault(BATCH_SIZE_VARIABLE, str(_BATCH_SIZE))
    storage.store_event_batch = lambda events: store_batch(storage, events)  # type: ignore[method-assign]
    try:
        with sqlite_kept_open():
            yield
    finally:
        del storage.store_event_batch  # the method of its class again
        if configured is None:
            del os.environ[BATCH_SIZE_VARIABLE]


def store_batch(storage: SqliteEventLogStorage, events: Sequence[EventLogEntry]) -> None:
    """Stores events of one run as `store_event` would, in one transaction per database.

    Dagster's own `store_event_batch` for SQLite opens three connections per event. Its table of assets keeps the last event of
    each asset only.
    """
    of_assets = [entry for entry in events if entry.dagster_event_type in ASSET_EVENTS]
    rows = [storage._event_to_row(entry) for entry in of_assets]
    insert = SqlEventLogStorageTable.insert()
    if rows:
        with storage.run_connection(of_assets[0].run_id) as connection:
            connection.execute(insert, rows)
        with storage.index_transaction() as connection:
            first = connection.execute(insert, rows[0]).lastrowid
            if others := rows[1:]:
                connection.execute(insert, others)
            # SQLite counts on while no other connection can write, which is so from the first insert to the end of the transaction.
            ids = list(range(first, first + len(rows)))
            storage._store_asset_event_tags(connection, of_assets, ids)
            last = {row["asset_key"]: (entry, number) for row, entry, number in zip(rows, of_assets, ids, strict=True)}
            for entry, number in last.values():
                storage._store_asset_event(connection, entry, number)
    for entry in events:
        if entry.dagster_event_type not in ASSET_EVENTS:
            storage.store_event(entry)


@contextmanager
def sqlite_kept_open() -> Iterator[None]:
    """Keeps every SQLite file open that this process connects to through SQLAlchemy, until the end of the block.

    Dagster opens a connection per event. When the last connection to a file closes, SQLite folds its write-ahead log in: with
    one more connection open this happens once per run instead of once per event.
    """
    kept: dict[str, sqlite3.Connection] = {}

    def on_connect(connection: Any, _record: Any) -> None:
        if not isinstance(connection, sqlite3.Connection):
            return
        path = connection.execute("PRAGMA database_list").fetchone()[2]
        if not path:
            return  # in memory
        connection.execute("PRAGMA synchronous=NORMAL")
        if path not in kept:
            kept[path] = sqlite3.connect(path, timeout=30.0, check_same_thread=False)
        # A connection keeps the write-ahead log open only once it has read the file since the log exists.
        kept[path].execute("PRAGMA schema_version").fetchone()

    event.listen(Engine, "connect", on_connect)
    try:
        yield
    finally:
        event.remove(Engine, "connect", on_connect)
        for connection in kept.values():
            connection.close()
