"""A table of a database or lakehouse as a source: one piece of rows. With day folders, its column `ds` has a row's day.

Belongs here: code for all such tables. Does not belong here: calls of drivers and libraries (extras, `READERS` of
`source_files.py`).
"""

from __future__ import annotations

import datetime as dt
import importlib
import re
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote, quote_plus

import pyarrow as pa

from dssm_assets.core.config.pipeline import SourceTable
from dssm_assets.core.errors import ConfigError, Fault, InputError
from dssm_assets.storage.sources.source import DayBounds, Source, SourceMissingError, SourcePiece, find_day
from dssm_assets.storage.sources.source_columns import DS

_LONGEST: Final = 400
_LOGIN: Final = re.compile(r"(?<=//)[^/@\s]*(?::\S*)?@")


class TableError(InputError):
    """A table cannot be reached or read: its server refuses or is gone, or a file or snapshot is missing."""


@dataclass(frozen=True)
class TableSource(Source):
    """An open table. Its columns do not change after opening."""

    @property
    def where(self) -> str:
        return name_table(self.table, self.name)

    @abstractmethod
    def schema(self) -> pa.Schema:
        """Returns the columns."""

    @abstractmethod
    def read(self, columns: Sequence[str], days: DayBounds | None = None, ds: Any = None) -> Iterator[pa.Table]:
        """Yields columns in blocks. With `days`, of these days alone, and of rows without a time. With `ds`, of rows with this value.

        Raises:
            TableError: the rows cannot be read to the end.
            SchemaError: values have another type than the column.
        """

    @abstractmethod
    def newest(self, column: str) -> Any:
        """Returns the largest value of a column, None if it could only be found by reading."""

    @abstractmethod
    def find_values(self, column: str) -> Iterable[Any]:
        """Returns the distinct values of a column."""

    def days(self) -> dict[str, list[str]]:
        """Returns day -> values of the column `ds` for this day, ascending. Values that are no day are ignored."""
        days: dict[str, list[str]] = {}
        for value in sorted(map(str, self.find_values(DS))) if DS in self.schema().names else ():
            if (day := find_day(value)) is not None:
                days.setdefault(day, []).append(value)
        return dict(sorted(days.items()))

    def pieces(self, folder: str | None = None) -> list[TablePiece]:
        self.schema()  # raises an error if the table is unusable
        return [TablePiece(self, self.table.table or self.table.uri, folder)]

    def convert_day(self, folder: str | None) -> Any:
        """Converts a value from `days` to the type of the column `ds`."""
        return None if folder is None else pa.scalar(folder).cast(self.schema().field(DS).type).as_py()


@dataclass(frozen=True)
class TablePiece(SourcePiece):
    """All rows of a table, or its rows with one value of `ds`."""

    source: TableSource
    folder: str | None = None

    @property
    def where(self) -> str:
        return self.source.where

    def schema(self) -> pa.Schema:
        return self.source.schema()

    def blocks(self, columns: list[str], days: DayBounds | None = None) -> Iterator[pa.Table]:
        return self.source.read(columns, days, self.source.convert_day(self.folder))

    def newest(self, column: str) -> Any:
        return self.source.newest(column)


def name_table(table: SourceTable, name: str) -> str:
    """Returns the location of a table for errors."""
    part = table.table or (table.query and "query")
    return f"table {name}, {_LOGIN.sub('***@', table.uri)}{f', {part}' if part else ''}"


def quote_name(name: str, mark: str = '"') -> str:
    """Quotes the name of a column or table for SQL."""
    return mark + name.replace(mark, 2 * mark) + mark


def write_condition(days: DayBounds | None, ds: Any, *, mark: str = '"', has_zone: bool = True) -> str:
    """Writes the SQL condition for the wanted rows, "" for all rows.

    Rows without a time are included, because they are reported as errors.

    `ds` is a value from `TableSource.days`. Times are ISO 8601; engines convert them to the type of the column. Times with a zone
    are in UTC. If `has_zone` is false, the zone is not written.
    """

    def write(value: Any) -> str:
        if isinstance(value, int):
            return str(value)
        if isinstance(value, dt.datetime):
            value = value if has_zone else value.replace(tzinfo=None)
            return f"'{value.isoformat()}'"
        return f"'{value}'"

    if days is not None:
        time = quote_name(days.column, mark)
        spans = [f"{time} >= {write(start)} AND {time} < {write(end)}" for start, end in days.ranges]
        return " OR ".join([*spans, f"{time} IS NULL"])
    return "" if ds is None else f"{quote_name(DS, mark)} = {write(ds)}"


def need_library(module: str, extra: str, where: str) -> Any:
    """Imports a library.

    Raises:
        ConfigError: the library is not installed. The error names the pip extra.
    """
    try:
        return importlib.import_module(module)
    except ImportError:
        remedy = f"run pip install 'dssm-assets[{extra}]'"
        raise ConfigError(Fault(where, f"the package {module.split('.', maxsplit=1)[0]}", "not installed", remedy)) from None


@contextmanager
def library_errors(
    where: str, expected: str, remedy: str, secrets: Iterable[str], missing: tuple[type[Exception], ...] = ()
) -> Iterator[None]:
    """Replaces errors of a driver or library by our errors, without secrets.

    Raises:
        SourceMissingError: in place of the errors in `missing`.
        TableError: in place of any other error.
    """
    try:
        yield
    except InputError:
        raise
    except missing:
        raise SourceMissingError(Fault(where, "a table", "none", "create it, or correct its location")) from None
    except Exception as error:
        got = f"{type(error).__name__}: {hide_secrets(str(error), secrets)}"
        raise TableError(Fault(where, expected, got, remedy)) from None


def hide_secrets(text: str, secrets: Iterable[str]) -> str:
    """Puts a message on one line and hides the given secrets, also as encoded in URIs, and logins in URIs."""
    forms = {
        form for secret in secrets for form in (secret, quote(secret, safe=""), quote(secret, safe=" +"), quote_plus(secret))
    }
    for form in sorted(forms - {""}, key=len, reverse=True):
        text = text.replace(form, "***")
    return _LOGIN.sub("***@", " ".join(text.split()))[:_LONGEST].rstrip(".")
