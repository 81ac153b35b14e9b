"""Connections to SQLite that stay open during a run.

Dagster opens one for each event, and two events for each day of an asset. When the last connection to a file closes, SQLite folds
its write-ahead log in and waits for the disk: a year of days then takes minutes.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event

_BUSY_SECONDS = 60.0


@contextmanager
def held_connections(storage: Any) -> Iterator[None]:
    """Lets the event log storage of an instance keep its connections until the end of the block; other storages than SQLite are left alone."""
    if not hasattr(storage, "conn_string_for_shard"):
        yield
        return
    engines: dict[tuple[str, ...], Engine] = {}

    def hold(name: str) -> None:
        connect_first = getattr(storage, name)

        @contextmanager
        def connect(*file: str) -> Iterator[Connection]:
            if (name, *file) not in engines:
                with connect_first(*file) as first:  # makes the file's tables
                    engines[name, *file] = _make_engine(first.engine.url)
            with engines[name, *file].begin() as connection:
                yield connection

        setattr(storage, name, connect)

    hold("run_connection")
    hold("index_connection")
    try:
        yield
    finally:
        del storage.run_connection, storage.index_connection  # the methods of its class again
        for engine in engines.values():
            engine.dispose()


def _make_engine(url: Any) -> Engine:
    engine = create_engine(url, pool_size=1, connect_args={"timeout": _BUSY_SECONDS})
    event.listen(engine, "connect", lambda connection, _: connection.execute("PRAGMA synchronous=NORMAL"))
    return engine
