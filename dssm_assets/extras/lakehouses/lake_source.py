"""Base of the Delta and Iceberg sources: a table at one version, and the bounds of its files."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa

from dssm_assets.core.config.pipeline import SourceTable
from dssm_assets.storage.locations import S3_OPTIONS, rename_s3_options
from dssm_assets.storage.sources.source import DayBounds
from dssm_assets.storage.sources.table_source import TableSource, library_errors, name_table

Bounds = tuple[Any, Any] | None
"""The smallest and the largest value of a column in a file. None: the metadata do not hold the value."""
_SECRET: Final = re.compile(r"secret|token|password|key|credential|uri", re.IGNORECASE)
_OPENED: Final = "a table that can be opened"
_CORRECT: Final = "correct its uri, table or storage_options, or the configuration or credentials of the catalog or store"
_KEPT: Final = (
    "see that the table is there and that its files outlive a run (vacuum, expire_snapshots), then launch the run again: "
    "what was stored before is unchanged"
)


@dataclass(frozen=True)
class LakeSource(TableSource):
    """A Delta or Iceberg table at one version. `handle` is the library's table object."""

    handle: Any

    @abstractmethod
    def read_batches(self, columns: Sequence[str], days: DayBounds | None, ds: Any) -> Iterator[pa.RecordBatch]:
        """Yields the rows of `read` in the library's own types. Skips files whose bounds exclude the days."""

    @abstractmethod
    def bounds(self, column: str) -> list[Bounds]:
        """Returns a column's bounds in each file."""

    def read(self, columns: Sequence[str], days: DayBounds | None = None, ds: Any = None) -> Iterator[pa.Table]:
        wanted = pa.schema([self.schema().field(name) for name in columns])
        with self.errors():
            for batch in self.read_batches(columns, days, ds):
                yield pa.Table.from_batches([batch]).select(columns).cast(wanted)

    def newest(self, column: str) -> Any:
        with self.errors():
            bounds = self.bounds(column)
        return max((found[1] for found in bounds if found is not None), default=None) if all(bounds) else None

    def find_values(self, column: str) -> set[Any]:
        """Returns the distinct values of a column. Does not open a file if its bounds are equal."""
        with self.errors():
            bounds = self.bounds(column)
        if all(found is not None and found[0] == found[1] for found in bounds):
            return {found[0] for found in bounds if found is not None}
        return {value for rows in self.read([column]) for value in rows.column(0).unique().to_pylist()}

    def errors(self) -> AbstractContextManager[None]:
        return lake_errors(self.table, self.name, f"all rows of its version, {self.version}")


def find_smallest(bounds: Sequence[Bounds]) -> Any:
    """Returns the smallest value in some files. None: there are no files, or a file's bounds are unknown."""
    return min((found[0] for found in bounds if found is not None), default=None) if all(bounds) else None


def lake_errors(
    table: SourceTable, name: str, expected: str = _OPENED, missing: tuple[type[Exception], ...] = ()
) -> AbstractContextManager[None]:
    """Turns the library's errors into the ones of `library_errors`, without the values of secret options."""
    secrets = [value for key, value in rename_s3_options(table.storage_options, S3_OPTIONS).items() if _SECRET.search(key)]
    return library_errors(name_table(table, name), expected, _CORRECT if expected is _OPENED else _KEPT, secrets, missing)
