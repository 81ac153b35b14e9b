"""Quick event writes of runs inside this process, on Dagster's SQLite storage."""

import json
import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from dagster._core.events import ASSET_EVENTS, DagsterEventType
from dagster._core.events.log import EventLogEntry
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus
from dagster._core.storage.event_log.base import EventLogStorage
from dagster._core.storage.event_log.schema import AssetCheckExecutionsTable, SqlEventLogStorageTable
from dagster._core.storage.event_log.sqlite.sqlite_event_log import SqliteEventLogStorage
from dagster._core.storage.sqlite import SQLITE_BUSY_TIMEOUT_SECONDS
from dagster._serdes import serialize_value
from sqlalchemy import Connection, Engine, create_engine, event

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
    storage._store_asset_check_evaluation_planned = partial(store_planned_check, storage)  # type: ignore[method-assign]
    try:
        with sqlite_kept_open(), _engines_kept(storage):
            yield
    finally:
        del storage.store_event_batch, storage._store_asset_check_evaluation_planned  # the methods of its class again
        if configured is None:
            del os.environ[BATCH_SIZE_VARIABLE]


def store_batch(storage: SqliteEventLogStorage, events: Sequence[EventLogEntry]) -> None:
    """Stores events of one run as `store_event` would, in one transaction per database.

    Dagster's own `store_event_batch` for SQLite opens three connections per event. Its table of assets keeps the last event of
    each asset only.
    """
    of_assets = [entry for entry in events if entry.dagster_event_type in ASSET_EVENTS]
    rows = list(event_rows(storage, of_assets))
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


def event_rows(storage: SqliteEventLogStorage, entries: Sequence[EventLogEntry]) -> Iterator[dict[str, Any]]:
    """Yields the rows that Dagster stores for some events.

    Events of an asset's days differ in day, time and metadata alone; to serialize an event takes several times as long as to write
    these into the text of another one.
    """
    last: EventLogEntry | None = None
    row: dict[str, Any] = {}
    for entry in entries:
        day = entry.get_dagster_event().partition
        blank = None if day is None else _without_day(entry)
        if blank is None:
            yield storage._event_to_row(entry)
            continue
        if last is None or blank != last:
            last, row = blank, storage._event_to_row(blank)
        facts = _serialize_metadata(entry)
        text = row["event"].replace(f'"partition": "{_DAY}"', f'"partition": {json.dumps(day)}')
        text = text.replace(f'"timestamp": {json.dumps(_TIME)}', f'"timestamp": {json.dumps(entry.timestamp)}')
        text = text.replace(f"{_METADATA}[]", f"{_METADATA}{facts}")  # the last: it may hold any text
        yield {**row, "event": text, "partition": day, "timestamp": storage._event_insert_timestamp(entry)}


_DAY, _TIME, _METADATA = "<day>", -1.0, '"metadata_entries": '


def _without_day(entry: EventLogEntry) -> EventLogEntry | None:
    """Returns an event of an asset's day without day, time and metadata; None for events of other kinds."""
    event: Any = entry.get_dagster_event()
    data = event.event_specific_data
    if event.event_type is DagsterEventType.ASSET_MATERIALIZATION_PLANNED:
        data = data._replace(partition=_DAY)
    elif event.event_type is DagsterEventType.ASSET_MATERIALIZATION:
        data = data._replace(materialization=data.materialization._replace(partition=_DAY, metadata={}))
    else:
        return None
    return entry._replace(timestamp=_TIME, dagster_event=event._replace(event_specific_data=data))


def _serialize_metadata(entry: EventLogEntry) -> str:
    """Returns the metadata of a materialization as Dagster serializes them; an empty list for other events."""
    event = entry.get_dagster_event()
    if event.event_type is not DagsterEventType.ASSET_MATERIALIZATION:
        return "[]"
    text = serialize_value(event.step_materialization_data.materialization._replace(partition=None, tags={}))
    return text[text.index(_METADATA) + len(_METADATA) : text.rindex(', "partition": null, "tags": {}')]


def store_planned_check(storage: SqliteEventLogStorage, entry: EventLogEntry, event_id: int | None) -> None:
    """Stores a planned check of each of its days as Dagster does; the event, which lists all days, is serialized once."""
    planned: Any = entry.get_dagster_event().event_specific_data
    row = {
        "asset_key": planned.asset_key.to_string(),
        "check_name": planned.check_name,
        "run_id": entry.run_id,
        "execution_status": AssetCheckExecutionRecordStatus.PLANNED.value,
        "evaluation_event": serialize_value(entry),
        "evaluation_event_timestamp": storage._event_insert_timestamp(entry),
        "evaluation_event_storage_id": event_id,
    }
    days = planned.partitions_subset.get_partition_keys() if planned.partitions_subset else [None]
    with storage.index_connection() as connection:
        connection.execute(AssetCheckExecutionsTable.insert(), [{**row, "partition": day} for day in days])


@contextmanager
def _engines_kept(storage: SqliteEventLogStorage) -> Iterator[None]:
    """Keeps SQLAlchemy's engine of each file, until the end of the block; Dagster makes one for each connection."""
    engines: dict[str, Engine] = {}
    connect_first = storage._connect

    @contextmanager
    def connect(shard: str) -> Iterator[Connection]:
        if shard not in storage._initialized_dbs:
            with connect_first(shard) as connection:
                yield connection
            return
        with storage._db_lock:
            if shard not in engines:
                url, timeout = storage.conn_string_for_shard(shard), {"timeout": SQLITE_BUSY_TIMEOUT_SECONDS}
                engines[shard] = create_engine(url, pool_size=1, connect_args=timeout)
            with engines[shard].connect() as connection, connection.begin():
                yield connection

    storage._connect = connect  # type: ignore[method-assign]
    try:
        yield
    finally:
        del storage._connect  # the method of its class again
        for engine in engines.values():
            engine.dispose()


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
