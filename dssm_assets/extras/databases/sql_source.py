"""A table or query of a database as a source table (`format: sql`)."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.types as pat
from pydantic import ValidationError

from dssm_assets.core.config.pipeline import FileFormat, Layout, SourceTable
from dssm_assets.core.errors import ConfigError, Fault, SchemaError
from dssm_assets.extras.databases.address import read_address
from dssm_assets.extras.databases.database import Column, DatabaseTable
from dssm_assets.extras.databases.mysql import MysqlTable
from dssm_assets.extras.databases.postgresql import PostgresTable
from dssm_assets.extras.databases.sqlite import SqliteTable
from dssm_assets.storage.files import check_names
from dssm_assets.storage.sources.source import DayBounds, Source, SourcePiece, Stamp, find_day
from dssm_assets.storage.sources.source_columns import DS

_TABLES: Final[dict[str, type[DatabaseTable]]] = {
    **dict.fromkeys(("postgresql", "postgres"), PostgresTable),
    **dict.fromkeys(("mysql", "mariadb"), MysqlTable),
    "sqlite": SqliteTable,
}
"""Scheme of a URI -> how its tables are read."""
_SQLITE: Final = "sqlite:///"


@dataclass(frozen=True)
class SqlPiece(SourcePiece):
    """All rows, or those with a value of the column `ds`."""

    source: SqlSource
    folder: str | None = None

    @property
    def where(self) -> str:
        return self.source.where

    def schema(self) -> pa.Schema:
        return pa.schema([(column.name, column.kind) for column in self.source.columns.values()])

    def blocks(self, columns: list[str], days: DayBounds | None = None) -> Iterator[pa.Table]:
        """Yields some columns in blocks; the database leaves out rows of other days, and keeps those without a time."""
        conditions = self._conditions()
        if days is not None:
            column, literal = self.source.opened.quote(days.column), self.source.opened.write_literal
            spans = [f"{column} >= {literal(start)} AND {column} < {literal(end)}" for start, end in days.ranges]
            conditions.append(f"({' OR '.join([*spans, f'{column} IS NULL'])})")
        chosen = [self.source.columns[name] for name in columns]
        yield from self.source.opened.read(chosen, _where(conditions))

    def newest(self, column: str) -> Any:
        """Returns the largest value of a column, None without rows."""
        chosen = self.source.columns[column]
        return self._read_value(replace(chosen, expression=f"max({chosen.expression})"))

    def count_rows(self) -> int:
        """Returns the number of rows."""
        return int(self._read_value(Column("count", "count(*)", pa.int64())))

    def _read_value(self, column: Column) -> Any:
        blocks = self.source.opened.read([column], _where(self._conditions()))
        (value,) = [value for block in blocks for value in block.column(0).to_pylist()]
        return value

    def _conditions(self) -> list[str]:
        if self.folder is None:
            return []
        kind, value = self.source.columns[DS].kind, self.folder
        typed = dt.date.fromisoformat(value) if pat.is_date(kind) else int(value) if pat.is_integer(kind) else value
        return [f"{self.source.opened.quote(DS)} = {self.source.opened.write_literal(typed)}"]


@dataclass(frozen=True)
class SqlSource(Source):
    """An open table. Its columns are looked up once; a later block in which one has another type is refused."""

    opened: DatabaseTable

    @property
    def where(self) -> str:
        return self.opened.where

    @cached_property
    def columns(self) -> dict[str, Column]:
        """The columns by name.

        Raises:
            SourceMissingError, DatabaseError: the table, query or database cannot be used.
            SchemaError: two have one name.
        """
        with self.opened.errors("a table or query that can be read", f"correct {self.key}.table or {self.key}.query"):
            columns = self.opened.find_columns()
        check_names([column.name for column in columns], self.where)
        return {column.name: column for column in columns}

    def days(self) -> dict[str, list[str]]:
        """Returns day -> the values of the column `ds` that name it, days ascending.

        Raises:
            SchemaError: there is no such column, or it has a value that is no day.
        """
        if DS not in self.columns:
            remedy = f"add it, or set {self.key}.layout to snapshot or time_column"
            got = f"columns {', '.join(self.columns)}"
            raise SchemaError(Fault(f"{self.where}, column {DS}", "the column to exist", got, remedy))
        is_set = f"WHERE {self.opened.quote(DS)} IS NOT NULL"
        blocks = self.opened.read([self.columns[DS]], is_set, "SELECT DISTINCT")
        values = sorted(str(value) for block in blocks for value in block.column(0).to_pylist())
        days: dict[str, list[str]] = {}
        for value in values:
            days.setdefault(find_day(value) or "", []).append(value)
        if wrong := days.get(""):
            got, remedy = f"others, such as {', '.join(wrong[:3])}", "correct those rows"
            raise SchemaError(Fault(f"{self.where}, column {DS}", "dates, YYYY-MM-DD or YYYYMMDD", got, remedy))
        return dict(sorted(days.items()))

    def pieces(self, folder: str | None = None) -> list[SqlPiece]:
        """Returns one piece.

        Raises:
            SourceMissingError, DatabaseError, SchemaError: as `columns`.
        """
        self.columns  # noqa: B018 - looks the table up
        path = self.table.table or "the query"
        return [SqlPiece(self.table, self.name, path if folder is None else f"{path}, ds {folder}", self, folder)]

    def stamp(self, folder: str | None = None) -> Stamp:
        """Returns the number of rows, as a database tells no versions: replaced rows are not seen. "" of a log, whose newest time tells."""
        if self.table.layout is Layout.TIME_COLUMN:
            return Stamp("")
        return Stamp(str(self.pieces(folder)[0].count_rows()))


def open_source(table: SourceTable, name: str) -> SqlSource:
    """Returns a table or query of a database.

    Raises:
        ConfigError: its URI is in no environment variable of that name or of an unknown kind, or the driver is not installed.
    """
    where = f"table {name}, {table.uri}, {table.table or 'query'}"
    address = read_address(table.uri, _TABLES, where)
    return SqlSource(table, name, _TABLES[address.scheme](address, table, where))


def survey(uri: str, name: str) -> SourceTable:
    """Returns the table that `DATABASE#TABLE` names; it has day folders if it has a column `ds` of days.

    Raises:
        ConfigError: as `open_source`, or the URI has a password.
        SourceMissingError, DatabaseError: the table or the database cannot be used.
    """
    database, _, table = uri.rpartition("#")
    if not database or "@" in table:  # then the # is one of a password
        remedy = f"name a table: {uri.split('://', maxsplit=1)[0]}#clicks"
        raise ConfigError(Fault(f"table {name}", "DATABASE#TABLE", "no #TABLE", remedy))
    if database.startswith(_SQLITE):
        database = _SQLITE + str(Path(database.removeprefix(_SQLITE)).absolute())
    try:
        found = SourceTable(uri=database, format=FileFormat.SQL, table=table)
    except ValidationError:  # it would show the URI
        remedy = "put the URI into an environment variable and give env:NAME#TABLE"
        raise ConfigError(Fault(f"table {name}", "a URI without a password", "another one", remedy)) from None
    source = open_source(found, name)
    with suppress(SchemaError):
        return found.model_copy(update={"layout": Layout.DS_FOLDERS}) if source.days() else found
    return found


def _where(conditions: Sequence[str]) -> str:
    return f"WHERE {' AND '.join(conditions)}" if conditions else ""
