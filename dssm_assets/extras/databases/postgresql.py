"""PostgreSQL by ADBC: binary COPY, which arrives as Arrow batches.

Types keep their meaning. numeric(p, s) is a decimal, numeric without precision float64; an array is a list; uuid, json, enum, bytea, interval
and other types that Arrow does not have are text, as PostgreSQL writes it; char(n) loses its padding.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import pyarrow as pa
import pyarrow.types as pat

from dssm_assets.extras.databases.database import DIGITS, TIMEOUT_S, Column, DatabaseSource

_TEXTS: Final = ("bpchar", "bytea", "interval", "money")
_SESSION: Final = ("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY", "SET LOCAL TIME ZONE 'UTC'")


class PostgresSource(DatabaseSource):
    driver_name = "adbc_driver_postgresql.dbapi"
    missing = "SQLSTATE: 42P01"
    tables = "SELECT schemaname || '.' || tablename FROM pg_tables WHERE schemaname !~ '^pg_|^information_' ORDER BY 1 LIMIT 10"

    def find_columns(self) -> list[Column]:
        with self._cursor() as cursor:
            return [self._plan(field) for field in cursor.adbc_execute_schema(f"SELECT * FROM {self.relation}")]

    def run(self, sql: str) -> Iterator[Sequence[Any]]:
        with self._cursor() as cursor:
            cursor.execute(sql)
            with cursor.fetch_record_batch() as batches:
                yield from (batch.columns for batch in batches)

    @contextmanager
    def _cursor(self) -> Iterator[Any]:
        url = self.url.set(drivername="postgresql", query={"connect_timeout": str(TIMEOUT_S), **self.url.query})
        with self.errors("a connection"):
            connection = self.driver.connect(url.render_as_string(hide_password=False))
        with connection, connection.cursor() as cursor:
            for statement in _SESSION:
                cursor.execute(statement)
            yield cursor

    def _plan(self, field: pa.Field) -> Column:
        name, is_list = self.quote(field.name), pat.is_list(field.type)
        element = field.type.value_field if is_list else field
        label = (element.metadata or {}).get(b"POSTGRESQL:type", b"").decode()
        limits = int((field.metadata or {}).get(b"POSTGRESQL:typmod", -1)) - 4  # digits and scale of numeric(p, s)
        if label == "numeric" and not is_list and limits >= 0 and (limits & 0x7FF) <= limits >> 16 <= DIGITS:
            return Column(field.name, name, pa.decimal128(limits >> 16, limits & 0x7FF))
        if label == "numeric":
            target, kind = "float8", pa.float64()
        elif label in _TEXTS or isinstance(element.type, pa.BaseExtensionType):
            target, kind = "text", pa.string()
        else:
            target, kind = "", element.type
        if is_list:
            kind = pa.list_(pa.field("element", kind))  # as parquet names it
        return Column(field.name, f"CAST({name} AS {target}{'[]' if is_list else ''})" if target else name, kind)
