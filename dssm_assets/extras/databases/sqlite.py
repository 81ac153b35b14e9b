"""SQLite by Python's own driver. A column has the type of its values, whatever was declared: all rows are looked at.

Integers and fractions together are float64; numbers and texts together are an error. Times are texts or integers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Any
from urllib.parse import quote

import pyarrow as pa

from dssm_assets.extras.databases.database import BLOCK_ROWS, Column, DatabaseSource


class SqliteSource(DatabaseSource):
    driver_name = "sqlite3"
    missing = "no such table"
    tables = "SELECT name FROM sqlite_master WHERE type IN ('table', 'view') ORDER BY 1 LIMIT 10"

    def find_columns(self) -> list[Column]:
        with closing(self._connect()) as connection:
            names = [name for name, *_ in connection.execute(f"SELECT * FROM {self.relation} LIMIT 0").description]
            chosen = ", ".join(f"group_concat(DISTINCT typeof({self.quote(name)}))" for name in names)
            (types,) = connection.execute(f"SELECT {chosen} FROM {self.relation}")
        return [Column(name, self.quote(name), _find_kind(each or "")) for name, each in zip(names, types, strict=True)]

    def run(self, sql: str) -> Iterator[Sequence[Any]]:
        with closing(self._connect()) as connection:
            cursor = connection.execute(sql)
            while rows := cursor.fetchmany(BLOCK_ROWS):
                yield list(zip(*rows, strict=True))

    def _connect(self) -> Any:
        with self.errors("a connection"):
            return self.driver.connect(f"file:{quote(str(self.url.database))}?mode=ro", uri=True)


def _find_kind(types: str) -> pa.DataType:
    """Returns the type of a column whose values have some of SQLite's types."""
    found = {*types.split(",")} - {"null", ""}
    if not found:
        return pa.null()
    return pa.int64() if found == {"integer"} else pa.float64() if found <= {"integer", "real"} else pa.string()
