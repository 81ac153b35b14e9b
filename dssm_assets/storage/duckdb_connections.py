"""Connections to DuckDB, embedded in this process, that are lent to one call at a time.

To open and close one costs more than the query of a small day, and a range of days asks hundreds: one that a call leaves
clean serves the next. One that has spilled, or whose call has failed, is closed.

Belongs here: when a connection is opened and closed. Does not belong here: what is asked of it (`duckdb_engine.py`).
"""

from __future__ import annotations

import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ibis


class Connection:
    """A connection and the folder that DuckDB makes when it has to spill."""

    def __init__(self, connection: Any, spilled: Path) -> None:
        self.connection, self.spilled = connection, spilled
        self._last: tuple[ibis.Table, str] | None = None

    def sql_of(self, expression: ibis.Table) -> str:
        """Returns the SQL of an expression; that of the last one is kept, for days after days ask the same."""
        if self._last is None or not self._last[0].equals(expression):
            self._last = expression, self.connection.compile(expression)
        return self._last[1]

    def close(self) -> None:
        """Closes the connection; what it has spilled goes away."""
        self.connection.disconnect()
        shutil.rmtree(self.spilled, ignore_errors=True)


class DuckDBConnections:
    """Opens connections of equal settings and keeps the last one that came back clean."""

    def __init__(self, threads: int, memory: str, scratch: Path | None, *, is_kept: bool) -> None:
        """Takes what each connection may use, where it spills, and whether one is kept for the next call."""
        self._threads, self._memory = threads, memory
        self._scratch = Path(tempfile.gettempdir()) if scratch is None else scratch
        self._is_kept = is_kept
        self._idle: list[Connection] = []

    @contextmanager
    def lent(self) -> Iterator[Connection]:
        """Yields a connection without tables or views, and empties it afterwards.

        Calls may overlap: each has a connection of its own.
        """
        opened = self._idle.pop() if self._idle else self._open()
        is_clean = False
        try:
            yield opened
            _empty(opened.connection)
            is_clean = self._is_kept and not opened.spilled.exists()
        finally:
            if is_clean and not self._idle:
                self._idle.append(opened)
            else:
                opened.close()

    def _open(self) -> Connection:
        self._scratch.mkdir(parents=True, exist_ok=True)
        spilled = self._scratch / f"dssm-duckdb-{uuid.uuid4().hex}"
        connection = ibis.duckdb.connect(
            threads=self._threads,
            memory_limit=self._memory,
            temp_directory=str(spilled),
            enable_external_file_cache=False,  # stored files are read once; a connection that stays would hold them
        )
        return Connection(connection, spilled)


def _empty(connection: Any) -> None:
    """Drops all tables and views."""
    found = connection.con.execute(
        "select 'view', view_name from duckdb_views() where not internal union all select 'table', table_name from duckdb_tables()"
    )
    for kind, name in found.fetchall():
        connection.con.execute(f'drop {kind} "{name}"')
