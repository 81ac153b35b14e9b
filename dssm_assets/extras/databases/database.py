"""A table or query of a database as a source: what all databases share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, ClassVar, Final

import pyarrow as pa
from sqlalchemy import URL

from dssm_assets.core.config.pipeline import Layout
from dssm_assets.core.errors import Fault, SchemaError
from dssm_assets.storage.files import check_names
from dssm_assets.storage.sources.source import DayBounds, Stamp
from dssm_assets.storage.sources.source_files import SourceMissingError
from dssm_assets.storage.sources.table_source import TableSource, hide_secrets, library_errors, quote_name, write_condition

DIGITS: Final = 38
"""Digits of Arrow's decimal128."""
BLOCK_ROWS: Final = 65_536
"""Rows of a block that is read row by row."""
TIMEOUT_S: Final = 30
"""Seconds to wait for a connection."""


@dataclass(frozen=True)
class Column:
    """A column: the SQL that reads it, and the type that its values get."""

    name: str
    expression: str
    kind: pa.DataType


@dataclass(frozen=True)
class DatabaseSource(TableSource):
    """A table or query. Each statement has a read-only session of its own in UTC, and sees one state of the table."""

    url: URL = field(repr=False)
    driver: Any

    driver_name: ClassVar[str]
    quote_mark: ClassVar[str] = '"'
    has_zone: ClassVar[bool] = True
    """Whether a literal may have a zone."""
    tables: ClassVar[str]
    """A SELECT of the names of some tables."""
    missing: ClassVar[str]
    """What the driver's error says of a table that there is not."""

    @abstractmethod
    def find_columns(self) -> list[Column]:
        """Returns the columns."""

    @abstractmethod
    def run(self, sql: str) -> Iterator[Sequence[Any]]:
        """Yields the result of a SELECT in blocks: the values of each column."""

    def convert(self, values: Any, kind: pa.DataType) -> pa.Array:
        """Returns values of a block in a type."""
        return values.cast(kind) if isinstance(values, pa.Array) else pa.array(values, kind)

    @property
    def relation(self) -> str:
        if self.table.query is not None:
            return f"({self.table.query.rstrip().rstrip(';')}\n) AS source"
        return ".".join(map(self.quote, str(self.table.table).split(".")))

    @cached_property
    def columns(self) -> dict[str, Column]:
        """The columns by name, looked up once.

        Raises:
            SourceMissingError, TableError: the table, query or database cannot be used.
            SchemaError: two have one name.
        """
        with self.errors("a table or query that can be read"):
            columns = self.find_columns()
        check_names([column.name for column in columns], self.where)
        return {column.name: column for column in columns}

    def schema(self) -> pa.Schema:
        return pa.schema([(column.name, column.kind) for column in self.columns.values()])

    def read(self, columns: Sequence[str], days: DayBounds | None = None, ds: Any = None) -> Iterator[pa.Table]:
        return self._select([self.columns[name] for name in columns], days, ds)

    def newest(self, column: str) -> Any:
        (value,) = self._compute(self.columns[column], "max({})")
        return value

    def find_values(self, column: str) -> list[Any]:
        return self._compute(self.columns[column], "DISTINCT {}")

    def stamp(self, folder: str | None = None) -> Stamp:
        """Returns the number of rows, as a database tells no versions: replaced rows are not seen. "" of a log, whose newest time tells."""
        if self.table.layout is Layout.TIME_COLUMN:
            return Stamp("")
        (count,) = self._compute(Column("count", "*", pa.int64()), "count({})", self.convert_day(folder))
        return Stamp(str(count))

    def quote(self, name: str) -> str:
        return quote_name(name, self.quote_mark)

    @contextmanager
    def errors(self, expected: str) -> Iterator[None]:
        """Turns the driver's errors into ours, without passwords.

        Raises:
            SourceMissingError: there is no such table; names some that there are.
            TableError: any other error.
        """
        login = f"{self.table.uri.removeprefix('env:')} (user, password, host, port, name, options)"
        remedy = f"run again once the database answers, or correct {self.key}.table, {self.key}.query or {login}"
        options = [str(value) for name, value in self.url.query.items() if "pass" in name]
        secrets = [str(self.url.password or ""), *options]
        with library_errors(self.where, expected, remedy, secrets):
            try:
                yield
            except self.driver.Error as error:
                if self.missing not in str(error):
                    raise
                names = [str(name) for (block,) in self.run(self.tables) for name in block]
                remedy = f"correct the table; there are: {', '.join(names) or 'none'}"
                raise SourceMissingError(Fault(self.where, expected, hide_secrets(str(error), secrets), remedy)) from None

    def _compute(self, column: Column, form: str, ds: Any = None) -> list[Any]:
        wanted = replace(column, expression=form.format(column.expression))
        return [value for block in self._select([wanted], None, ds) for value in block.column(0).to_pylist()]

    def _select(self, columns: Sequence[Column], days: DayBounds | None, ds: Any) -> Iterator[pa.Table]:
        condition = write_condition(days, ds, mark=self.quote_mark, has_zone=self.has_zone)
        chosen = ", ".join(f"{column.expression} AS {self.quote(column.name)}" for column in columns)
        with self.errors("all rows that were asked for"):
            for block in self.run(f"SELECT {chosen} FROM {self.relation} WHERE {condition or '1 = 1'}"):
                yield self._convert_block(columns, block)

    def _convert_block(self, columns: Sequence[Column], block: Sequence[Any]) -> pa.Table:
        arrays, faults = {}, []
        for column, values in zip(columns, block, strict=True):
            try:
                arrays[column.name] = self.convert(values, column.kind)
            except (pa.ArrowException, OverflowError) as error:
                remedy = "run again if the column has changed, correct those rows, or leave it out or cast it in the key query"
                faults.append(Fault(f"{self.where}, column {column.name}", f"values of type {column.kind}", str(error), remedy))
        SchemaError.raise_if(faults)
        return pa.table(arrays)
