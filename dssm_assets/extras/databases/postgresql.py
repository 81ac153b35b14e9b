"""PostgreSQL by ADBC: binary COPY, which arrives as Arrow batches.

Types keep their meaning. numeric(p, s) is a decimal, numeric without precision float64; uuid, json, enum and other types that Arrow does not
have are text; char(n) loses its padding; an array is a list.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final
from urllib.parse import quote, urlencode

import pyarrow as pa
import pyarrow.types as pat

from dssm_assets.extras.databases.database import TIMEOUT_S, Column, DatabaseTable

_DIGITS: Final = 38
"""Digits of Arrow's decimal128."""
_REFUSED: Final = ("bytea", "interval", "money")
_MISSING: Final = ("42P01", "3F000")
"""SQLSTATE of an undefined table or schema."""
_SESSION: Final = ("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY", "SET LOCAL TIME ZONE 'UTC'")


class PostgresTable(DatabaseTable):
    driver_name = "adbc_driver_postgresql.dbapi"
    tables = (
        "SELECT nspname || '.' || relname FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace "
        "WHERE relkind IN ('r', 'p', 'v', 'm', 'f') AND nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast') ORDER BY 1"
    )

    def find_columns(self) -> list[Column]:
        with self._cursor() as cursor:
            return [self._plan(field) for field in cursor.adbc_execute_schema(f"SELECT * FROM {self.relation}")]

    def run(self, sql: str, columns: Sequence[Column] = ()) -> Iterator[Sequence[Any]]:
        with self._cursor() as cursor:
            cursor.execute(sql)
            with cursor.fetch_record_batch() as batches:
                self.check_kinds(columns, [self._plan(field).kind for field in batches.schema])
                yield from (batch.columns for batch in batches)

    def convert(self, values: Any, kind: pa.DataType) -> pa.Array:
        return (values.storage if isinstance(values, pa.ExtensionArray) else values).cast(kind)

    def is_missing(self, error: Exception) -> bool:
        return getattr(error, "sqlstate", None) in _MISSING

    def write_literal(self, value: Any) -> str:
        if isinstance(value, dt.datetime) and value.tzinfo is not None:
            return f"TIMESTAMPTZ '{value.isoformat(sep=' ')}'"
        return super().write_literal(value)

    @contextmanager
    def _cursor(self) -> Iterator[Any]:
        address = self.address
        login = ":".join(quote(part, safe="") for part in (address.user, address.password) if part)
        options = urlencode({"connect_timeout": TIMEOUT_S, **address.options}, quote_via=quote)
        uri = f"postgresql://{f'{login}@' if login else ''}{address.host}/{quote(address.database)}?{options}"
        with self.errors("a connection", address.remedy):
            connection = self.driver.connect(uri)
        with connection, connection.cursor() as cursor:
            for statement in _SESSION:
                cursor.execute(statement)
            yield cursor

    def _plan(self, field: pa.Field) -> Column:
        name, kind = self.quote(field.name), field.type
        element = field.type.value_field if pat.is_list(field.type) else field
        label = (element.metadata or {}).get(b"POSTGRESQL:type", b"").decode()
        brackets = "" if element is field else "[]"
        if label in _REFUSED:
            return Column(field.name, name, kind, f"{label}{brackets}, which is no text, number or time")
        if label == "numeric" and not brackets and (limits := int(field.metadata.get(b"POSTGRESQL:typmod", -1)) - 4) >= 0:
            digits, scale = limits >> 16, limits & 0x7FF
            if digits <= _DIGITS and scale <= digits:
                return Column(field.name, name, pa.decimal128(digits, scale))
        if label == "numeric":
            name, kind = f"CAST({name} AS float8{brackets})", pa.list_(pa.float64()) if brackets else pa.float64()
        elif label == "bpchar" or isinstance(element.type, pa.BaseExtensionType):
            name, kind = f"CAST({name} AS text{brackets})", pa.list_(pa.string()) if brackets else pa.string()
        return Column(field.name, name, kind)
