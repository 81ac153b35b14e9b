"""SQLite by Python's own driver. A column has the type of its values, whatever was declared: all rows are looked at.

Integers and fractions together are float64; other mixtures are an error. Times are texts or integers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Any, Final
from urllib.parse import quote

import pyarrow as pa

from dssm_assets.extras.databases.database import BLOCK_ROWS, Column, DatabaseTable

_KINDS: Final = {
    frozenset[str](): pa.null(),
    frozenset({"integer"}): pa.int64(),
    frozenset({"real"}): pa.float64(),
    frozenset({"integer", "real"}): pa.float64(),
    frozenset({"text"}): pa.string(),
}


class SqliteTable(DatabaseTable):
    driver_name = "sqlite3"
    tables = "SELECT name FROM sqlite_master WHERE type IN ('table', 'view') ORDER BY 1"

    def find_columns(self) -> list[Column]:
        with closing(self._connect()) as connection:
            names = [name for name, *_ in connection.execute(f"SELECT * FROM {self.relation} LIMIT 0").description]
            chosen = ", ".join(f"group_concat(DISTINCT typeof({self.quote(name)}))" for name in names)
            (types,) = connection.execute(f"SELECT {chosen} FROM {self.relation}")
        return [
            self._plan(name, sorted({*(found or "").split(",")} - {"null", ""}))
            for name, found in zip(names, types, strict=True)
        ]

    def run(self, sql: str, columns: Sequence[Column] = ()) -> Iterator[Sequence[Any]]:
        with closing(self._connect()) as connection:
            cursor = connection.execute(sql)
            while rows := cursor.fetchmany(BLOCK_ROWS):
                yield list(zip(*rows, strict=True))

    def convert(self, values: Any, kind: pa.DataType) -> pa.Array:
        return pa.array(values, kind)

    def is_missing(self, error: Exception) -> bool:
        return "no such table" in str(error)

    def _connect(self) -> Any:
        with self.errors("a file that can be opened", self.address.remedy):
            return self.driver.connect(f"file:{quote(self.address.database)}?mode=ro", uri=True)

    def _plan(self, name: str, types: list[str]) -> Column:
        kind = _KINDS.get(frozenset(types))
        fault = "" if kind is not None else " and ".join("bytes" if each == "blob" else each for each in types)
        return Column(name, self.quote(name), pa.null() if kind is None else kind, fault)
