"""A source table that is open, whatever it is stored as: its days, and the pieces that its rows are read from.

Files are `source_files.py`; tables of databases and lakehouses are extras (`READERS`).
"""

from __future__ import annotations

import datetime as dt
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
from pydantic import ValidationError

from dssm_assets.core.config.pipeline import BehaviorTable, FileFormat, Layout, SourceTable
from dssm_assets.core.errors import ConfigError, Fault
from dssm_assets.core.sources.canonical_tables import EVENT_TIME
from dssm_assets.core.sources.event_time import to_event_time_ms
from dssm_assets.installed_extras import load_extra
from dssm_assets.storage.locations import location_errors, open_location

_DATABASES: Final = frozenset({"env", "postgresql", "postgres", "mysql", "mariadb", "sqlite"})
READERS: Final = {
    FileFormat.SQL: ("databases", "sql_source"),
    FileFormat.DELTA: ("lakehouses", "delta_source"),
    FileFormat.ICEBERG: ("lakehouses", "iceberg_source"),
}
"""Format -> the extra and its module with `open_source(table, name)`."""


@dataclass(frozen=True)
class DayBounds:
    """The wanted days of a log, for pieces that can leave out rows of other days. They may yield some of them.

    Attributes:
        column: the time column, as the source names it.
        ranges: [start, end) of its values, ascending.
        may_hold: tells whether values from a first to a last one may be of a wanted day.
    """

    column: str
    ranges: Sequence[tuple[Any, Any]]
    may_hold: Callable[[Any, Any], bool]


@dataclass(frozen=True)
class Named(ABC):
    """A configured source table, and the name of our table: user_table, item_table or behavior_table."""

    table: SourceTable
    name: str

    @property
    def key(self) -> str:
        """Returns the configuration's section."""
        return f"tables.{self.name.removesuffix('_table')}"

    @property
    @abstractmethod
    def where(self) -> str:
        """Returns the location for errors."""


@dataclass(frozen=True)
class SourcePiece(Named):
    """Rows of one schema: a file, or a table of a database. Its path is its name in messages."""

    path: str

    @abstractmethod
    def schema(self) -> pa.Schema:
        """Returns the columns.

        Raises:
            SchemaError: they cannot be read, or two have one name.
        """

    @abstractmethod
    def blocks(self, columns: list[str], days: DayBounds | None = None) -> Iterator[pa.Table]:
        """Yields some columns in blocks of bounded size."""

    @abstractmethod
    def newest(self, column: str) -> Any:
        """Returns the largest value of a column, None where only reading it tells."""


@dataclass(frozen=True)
class Stamp:
    """What tells whether a table has changed.

    Attributes:
        fingerprint: changes with the content; "" if nothing but reading tells.
        written_ms: when it was written last, unix milliseconds; None if the store does not tell it.
    """

    fingerprint: str
    written_ms: int | None = None


class Source(Named):
    """An open source table. One that has versions is read as of one of them."""

    @property
    def time_unit(self) -> str:
        """Returns the unit of an integer time column."""
        return self.table.time_unit if isinstance(self.table, BehaviorTable) else "auto"

    def read_times(self, values: Any, timezone: str) -> pa.Array:
        """Returns values of the time column as unix milliseconds; see `to_event_time_ms` for errors."""
        where, time_format = f"table {self.name}, column {EVENT_TIME}", self.table.time_format
        return to_event_time_ms(values, unit=self.time_unit, timezone=timezone, where=where, time_format=time_format)

    @property
    def version(self) -> str:
        """Returns the version that is read, for manifests; "" of a table without versions."""
        return ""

    @abstractmethod
    def days(self) -> dict[str, list[str]]:
        """Returns day -> its folders, ascending; of a table, the values of its column `ds`."""

    @abstractmethod
    def pieces(self, folder: str | None = None) -> Sequence[SourcePiece]:
        """Returns what the rows are read from, at least one: of a folder that `days` returned, or all.

        Raises:
            SourceMissingError: there is nothing.
        """

    @abstractmethod
    def stamp(self, folder: str | None = None) -> Stamp:
        """Returns what tells whether the rows of a folder, or all, have changed."""

    def has_marker(self, folder: str, marker: str) -> bool:
        """Returns whether a day has a marker file; tables need none, they are written whole."""
        return True

    def first_change(self, before: str, column: str) -> Any:
        """Returns the smallest value of a column among rows that were added or removed since a fingerprint, None if unknown."""
        return None


def open_source(table: SourceTable, name: str) -> Source:
    """Returns a source table.

    Raises:
        InputError: the place cannot be used.
        SourceMissingError: it does not exist.
        ConfigError: the installation does not have the extra for its format.
    """
    from dssm_assets.storage.sources.source_files import open_folder

    if table.format not in READERS:
        return open_folder(table, name)
    source: Source = load_extra(*READERS[table.format]).open_source(table, name)
    return source


def find_day(label: str) -> str | None:
    """Returns the day (YYYY-MM-DD) of such a text or of YYYYMMDD, None of another."""
    digits = label.replace("-", "")
    with suppress(ValueError):  # 2024-02-30
        return dt.date.fromisoformat(digits).isoformat() if re.fullmatch(r"[0-9]{8}", digits) else None
    return None


def survey_uri(uri: str, name: str) -> SourceTable | None:
    """Returns a table of a database or lakehouse with its layout, None for files.

    A table of a database is `env:SHOP_DB#public.clicks`, `sqlite:///shop.db#clicks` or another of its URIs; a Delta table is its folder;
    an Iceberg table is `iceberg:CATALOG#shop.clicks`.

    Raises:
        InputError, ConfigError: as `open_source`; or there is no table, or a password.
    """
    scheme, (location, _, part) = uri.partition(":")[0].lower(), uri.rpartition("#")
    if scheme.partition("+")[0] in _DATABASES:  # postgresql+psycopg2 is SQLAlchemy's
        given: dict[str, Any] = {"format": FileFormat.SQL, "table": part}
    elif scheme == "iceberg":
        given = {"format": FileFormat.ICEBERG, "table": part}
        location = location.partition(":")[2]
    else:
        fs, path = open_location(uri, name)
        with location_errors(uri, name):
            if not fs.isdir(f"{path}/_delta_log"):
                return None
        given, location = {"format": FileFormat.DELTA}, uri
    if scheme == "sqlite":
        location = f"sqlite:///{Path(location.removeprefix('sqlite:///')).absolute()}"
    try:
        SourceTable(uri=uri, **given)  # a # may be one of a password
        table = SourceTable(uri=location, **given)
    except ValidationError:  # it would show the URI
        remedy = "put a URI with a password into an environment variable and give env:NAME#TABLE"
        raise ConfigError(Fault(f"table {name}", "DATABASE#TABLE without a password", "another text", remedy)) from None
    has_days = open_source(table, name).days()
    return table.model_copy(update={"layout": Layout.DS_FOLDERS}) if has_days else table
