"""What all databases share: columns with their types, reading a table in blocks, and typed errors in place of the drivers'."""

from __future__ import annotations

import datetime as dt
import difflib
import importlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa

from dssm_assets.core.config.pipeline import SourceTable
from dssm_assets.core.errors import ConfigError, Fault, InputError, SchemaError
from dssm_assets.extras.databases.address import Address
from dssm_assets.storage.sources.source_files import SourceMissingError

BLOCK_ROWS: Final = 65_536
"""Rows of a block that is read row by row."""
TIMEOUT_S: Final = 30
"""Seconds to wait for a connection."""
_SHOWN: Final = 10


class DatabaseError(InputError):
    """A database cannot be reached, refuses a statement, or goes away."""


@dataclass(frozen=True)
class Column:
    """A column of a table or query.

    Attributes:
        expression: SQL that reads it.
        kind: the type that its values get.
        fault: why it cannot be read; "" if it can.
    """

    name: str
    expression: str
    kind: pa.DataType
    fault: str = ""


class DatabaseTable(ABC):
    """A table or query of a database. Each statement has a read-only session of its own in UTC, and sees one state of the table."""

    driver_name = ""
    quote_mark = '"'
    tables = ""
    """A SELECT of the names of all tables and views."""

    def __init__(self, address: Address, table: SourceTable, where: str) -> None:
        """Loads the driver.

        Raises:
            ConfigError: it is not installed.
        """
        self.address, self.where, self.name = address, where, table.table or ""
        parts = [self.quote(part) for part in self.name.split(".")]
        self.relation = ".".join(parts) if table.query is None else f"({table.query.rstrip().rstrip(';')}\n) AS source"
        try:
            self.driver: Any = importlib.import_module(self.driver_name)
        except ModuleNotFoundError as error:
            remedy = "pip install 'dssm-assets[sql]'"
            raise ConfigError(Fault(where, f"the package {self.driver_name.split('.')[0]}", str(error), remedy)) from error

    @abstractmethod
    def find_columns(self) -> list[Column]:
        """Returns the columns."""

    @abstractmethod
    def run(self, sql: str, columns: Sequence[Column] = ()) -> Iterator[Sequence[Any]]:
        """Yields the result of a SELECT in blocks, the values of each column, after `check_kinds`."""

    @abstractmethod
    def convert(self, values: Any, kind: pa.DataType) -> pa.Array:
        """Returns values of a block in a type."""

    @abstractmethod
    def is_missing(self, error: Exception) -> bool:
        """Returns whether the driver's error says that there is no such table."""

    def quote(self, name: str) -> str:
        return self.quote_mark + name.replace(self.quote_mark, 2 * self.quote_mark) + self.quote_mark

    def write_literal(self, value: Any) -> str:
        """Returns an integer, a text, a date or a time as SQL has it; a time with a zone is in UTC."""
        if isinstance(value, dt.datetime):
            return f"TIMESTAMP '{value.replace(tzinfo=None).isoformat(sep=' ')}'"
        if isinstance(value, dt.date):
            return f"DATE '{value.isoformat()}'"
        return str(value) if isinstance(value, int) else "'" + value.replace("'", "''") + "'"

    def read(self, columns: Sequence[Column], rest: str = "", select: str = "SELECT") -> Iterator[pa.Table]:
        """Yields columns in blocks.

        Args:
            rest: what follows FROM and the table.

        Raises:
            DatabaseError: the database refuses, or goes away.
            SchemaError: naming every column that cannot be read or has another type than before.
        """
        remedy = "leave it out by the keys columns and keep, or cast it in the key query"
        self._refuse("values that can be read", {column.name: column.fault for column in columns if column.fault}, remedy)
        chosen = ", ".join(f"{column.expression} AS {self.quote(column.name)}" for column in columns)
        with self.errors("all rows that were asked for"):
            for block in self.run(f"{select} {chosen} FROM {self.relation} {rest}", columns):
                yield self._convert_block(columns, block)

    def check_kinds(self, columns: Sequence[Column], kinds: Iterable[pa.DataType]) -> None:
        """Compares the types of a result with those that the columns had.

        Raises:
            SchemaError: naming every column that has another.
        """
        pairs = zip(columns, kinds, strict=False)
        changed = {column.name: f"{column.kind}, then {kind}" for column, kind in pairs if kind != column.kind}
        self._refuse("one type while the table is read", changed, "run again")

    @contextmanager
    def errors(self, expected: str, remedy: str = "") -> Iterator[None]:
        """Turns the driver's errors into typed ones, without passwords.

        Raises:
            SourceMissingError: there is no such table; names similar ones.
            DatabaseError: any other error of the driver.
            SchemaError: text is not UTF-8.
        """
        try:
            yield
        except UnicodeError as error:
            raise SchemaError(Fault(self.where, "text in UTF-8", str(error), "store it in UTF-8")) from error
        except (self.driver.Error, pa.ArrowException, OSError) as error:  # Arrow hands on what a driver's stream raises
            got = self.address.hide(str(error))
            if not self.is_missing(error):
                remedy = remedy or "run again once the database answers, or correct the keys table, query and columns"
                raise DatabaseError(Fault(self.where, expected, got, remedy)) from None
            with suppress(self.driver.Error):
                names = [name for (block,) in self.run(self.tables) for name in pa.array(block).to_pylist()]
                near = difflib.get_close_matches(self.name, names, _SHOWN, 0.5) or names[:_SHOWN]
                remedy = f"correct the table; there are: {', '.join(near) or 'none'}"
            raise SourceMissingError(Fault(self.where, expected, got, remedy)) from None

    def _convert_block(self, columns: Sequence[Column], block: Sequence[Any]) -> pa.Table:
        arrays, wrong = {}, {}
        for column, values in zip(columns, block, strict=True):
            try:
                arrays[column.name] = self.convert(values, column.kind)
            except (pa.ArrowException, OverflowError) as error:
                wrong[column.name] = str(error)
        self._refuse("values of the type that the column has", wrong, "correct those rows, or cast the column in the key query")
        return pa.table(arrays)

    def _refuse(self, expected: str, got: Mapping[str, str], remedy: str) -> None:
        SchemaError.raise_if(Fault(f"{self.where}, column {name}", expected, what, remedy) for name, what in got.items())
