"""Dagster's SQLite files while a run of this process writes to them.

Dagster opens and closes a file for every event, four times for a materialized partition. Closing the last connection folds
the write-ahead log back into the file, and every commit waits for the disk: over a year of days that took as long as half
of the work itself. While a run lasts, each file is held open and its commits do not wait; the log stays whole, also after
a power cut, which may cost the last events. What they tell of is safe: partitions are written before them, and waited for.

Belongs here: that. Does not belong here: other databases, which are left as they are.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Engine, event


@contextmanager
def held_open() -> Iterator[None]:
    """Holds open every SQLite file that this process connects to through SQLAlchemy, until the end."""
    held: dict[str, sqlite3.Connection] = {}

    def connected(connection: Any, _record: Any) -> None:
        if not isinstance(connection, sqlite3.Connection):
            return
        path = connection.execute("PRAGMA database_list").fetchone()[2]
        if not path:
            return  # in memory
        connection.execute("PRAGMA synchronous=NORMAL")
        if path not in held:
            held[path] = sqlite3.connect(path, timeout=30.0, check_same_thread=False)
        # Only what has looked since the file has a write-ahead log holds that open.
        held[path].execute("PRAGMA schema_version").fetchone()

    event.listen(Engine, "connect", connected)
    try:
        yield
    finally:
        event.remove(Engine, "connect", connected)
        for connection in held.values():
            connection.close()
