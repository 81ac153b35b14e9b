"""The interface of an open source table: its days, its state, and the pieces with its rows.

`source_files.py` opens tables and reads files. `table_source.py` and extras read tables of databases and lakehouses.
"""

from __future__ import annotations

import datetime as dt
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from dssm_assets.core.config.pipeline import BehaviorTable, SourceTable
from dssm_assets.core.errors import InputError
from dssm_assets.core.sources.canonical_tables import EVENT_TIME
from dssm_assets.core.sources.event_time import to_event_time_ms


class SourceMissingError(InputError):
    """A source table's file or folder does not exist, or has no data files."""


@dataclass(frozen=True)
class DayBounds:
    """The wanted days of a log. A piece may skip rows of other days, but need not.

    Attributes:
        column: the source's name of the time column.
        ranges: wanted ranges [start, end) of its values, ascending.
        may_hold: returns whether the values from first to last may include a wanted day.
    """

    column: str
    ranges: Sequence[tuple[Any, Any]]
    may_hold: Callable[[Any, Any], bool]


@dataclass(frozen=True)
class SourceState:
    """The state of a source table. A table with an unchanged state is not read again.

    Attributes:
        fingerprint: changes with the content, "" if a change could only be found by reading.
        written_ms: time of the last write, unix milliseconds. None if the store does not tell.
        newest_ms: newest timestamp of the table, unix milliseconds. None before it is read, without rows, or with day folders.
    """

    fingerprint: str
    written_ms: int | None = None
    newest_ms: int | None = None


@dataclass(frozen=True)
class Source(ABC):
    """An open source table. `name` is user_table, item_table or behavior_table. A table with versions is read at one version."""

    table: SourceTable
    name: str

    @property
    def key(self) -> str:
        return f"tables.{self.name.removesuffix('_table')}"

    @property
    @abstractmethod
    def where(self) -> str: ...

    @property
    def time_unit(self) -> str:
        return self.table.time_unit if isinstance(self.table, BehaviorTable) else "auto"

    def read_times(self, values: Any, timezone: str) -> pa.Array:
        """Converts values of the time column to unix milliseconds. For errors see `to_event_time_ms`."""
        where, time_format = f"table {self.name}, column {EVENT_TIME}", self.table.time_format
        return to_event_time_ms(values, unit=self.time_unit, timezone=timezone, where=where, time_format=time_format)

    @property
    def version(self) -> str:
        """Returns the version being read, for manifests. "" for a table without versions."""
        return ""

    @abstractmethod
    def days(self) -> dict[str, list[str]]:
        """Returns day -> its folders, ascending. For a database table: values of its column `ds` in place of folders."""

    @abstractmethod
    def pieces(self, folder: str | None = None) -> Sequence[SourcePiece]:
        """Returns at least one piece: of a folder from `days`, or of the whole table.

        Raises:
            SourceMissingError: there are no pieces.
        """

    @abstractmethod
    def state(self, folder: str | None = None) -> SourceState:
        """Returns the state of a folder's rows (None: of the whole table), without `newest_ms`."""

    def has_marker(self, folder: str, marker: str) -> bool:
        """Returns whether a day has a marker file. A database table needs none, because it is written as a whole."""
        return True

    def first_change(self, before: str, column: str) -> Any:
        """Returns a column's smallest value among rows added or removed since the fingerprint `before`, None if unknown."""
        return None


@dataclass(frozen=True)
class SourcePiece(ABC):
    """Rows with one schema: a file, or a table of a database. Errors name a piece by its path."""

    source: Source
    path: str

    @property
    @abstractmethod
    def where(self) -> str: ...

    @abstractmethod
    def schema(self) -> pa.Schema:
        """Returns the columns.

        Raises:
            SchemaError: the columns cannot be read, or two have the same name.
        """

    @abstractmethod
    def blocks(self, columns: list[str], days: DayBounds | None = None) -> Iterator[pa.Table]:
        """Yields some columns, in blocks of limited size."""

    def estimate_rows(self) -> int | None:
        """Returns about how many rows there are; None if only reading could tell."""
        return None

    @abstractmethod
    def newest(self, column: str) -> Any:
        """Returns the largest value of a column, None if it could only be found by reading."""


def find_day(label: str) -> str | None:
    """Converts YYYY-MM-DD or YYYYMMDD to YYYY-MM-DD. None for any other text."""
    digits = label.replace("-", "")
    with suppress(ValueError):  # 2024-02-30
        return dt.date.fromisoformat(digits).isoformat() if re.fullmatch(r"[0-9]{8}", digits) else None
    return None
