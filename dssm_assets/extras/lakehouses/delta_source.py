"""A Delta table as a source: read by deltalake's engine, which leaves out files and row groups by partition values and statistics.

It honours deletion vectors and column mapping, streams batches, and reads one file after the other, so rows have one order.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.compute as pc

from dssm_assets.core.config.pipeline import FileFormat, SourceTable
from dssm_assets.extras.lakehouses.lake_source import (
    Bounds,
    LakeSource,
    find_layout,
    find_smallest,
    need_library,
    raise_made_again,
    reading,
    rename_s3_options,
)
from dssm_assets.storage.locations import open_location
from dssm_assets.storage.sources.source import DayBounds, Stamp
from dssm_assets.storage.sources.source_columns import DS

S3_NAMES: Final = ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_REGION")
_ENGINE: Final = {"datafusion.execution.target_partitions": "1", "datafusion.execution.batch_size": "65536"}


def open_source(table: SourceTable, name: str) -> DeltaSource:
    """Returns a Delta table as of its newest version.

    Raises:
        ConfigError: deltalake is not installed.
        SourceMissingError: there is no such table.
        LakehouseError: it cannot be opened.
    """
    where = f"table {name}, {table.uri}"
    need_library("deltalake", "delta", where)
    from deltalake.exceptions import TableNotFoundError

    with reading(where, table.storage_options, missing=(TableNotFoundError,)):
        return DeltaSource(table, name, _open(table))


def survey(uri: str, name: str) -> SourceTable:
    """Returns the Delta table of a folder with its layout; errors as `open_source`."""
    table = SourceTable(uri=uri, format=FileFormat.DELTA)
    return table.model_copy(update={"layout": find_layout(open_source(table, name))})


@dataclass(frozen=True)
class DeltaSource(LakeSource):
    """A Delta table as of one version."""

    handle: Any

    @property
    def version(self) -> str:
        return f"delta {self.handle.version()}"

    def stamp(self, folder: str | None = None) -> Stamp:
        """Returns the table's id and version, and the time of its commit."""
        with self.reading():
            commits = [*self.handle.history(1), {}]  # a writer may leave out who committed, and when
            return Stamp(f"{self.version} {self.handle.metadata().id}", commits[0].get("timestamp"))

    def schema(self) -> pa.Schema:
        columns = pa.schema(self.handle.schema().to_arrow())
        return pa.schema([pa.field(column.name, column.type) for column in columns])

    def read(self, columns: Sequence[str], days: DayBounds | None = None, ds: Any = None) -> Iterator[pa.RecordBatch]:
        from deltalake import QueryBuilder

        names = ", ".join(map(_quote, columns))
        query = (
            QueryBuilder(_ENGINE)
            .register("source", self.handle)
            .execute(f"SELECT {names} FROM source{_write_condition(days, ds)}")
        )
        yield from pa.RecordBatchReader.from_stream(query)

    def bounds(self, column: str) -> list[Bounds]:
        return [*self._find_bounds(column).values()]

    def first_change(self, before: str, column: str) -> Any:
        """Returns the smallest value of a column in files that commits since a fingerprint have added or removed, with a change of rows.

        Raises:
            LakehouseError: the table was made again: its versions begin anew.
        """
        from deltalake.exceptions import DeltaError

        _, version, identity = before.split(" ")
        first, last = int(version), self.handle.version()
        if first > last:
            raise_made_again(self.where, f"version {last} after {first}")
        with self.reading(), suppress(DeltaError, FileNotFoundError):  # the log of then has been cleaned up
            known = self._open_version(first)._find_bounds(column)
            if identity != self.handle.metadata().id:
                return find_smallest([*known.values(), *self.bounds(column)])
            changed: list[Bounds] = []
            for number in range(first + 1, last + 1):
                known |= self._open_version(number)._find_bounds(column)
                changed += [known.get(path) for path in self._read_changed_paths(number)]
            return find_smallest(changed)
        return None

    def _open_version(self, version: int) -> DeltaSource:
        return DeltaSource(self.table, self.name, _open(self.table, version))

    def _read_changed_paths(self, version: int) -> Iterator[str]:
        """Yields the files that a version has added or removed, but for those whose rows it only wrote in other files."""
        fs, path = open_location(self.table.uri, self.where, self.table.storage_options)
        for line in fs.cat_file(f"{path}/_delta_log/{version:020d}.json").splitlines():
            action = json.loads(line)
            yield from (unquote(action[kind]["path"]) for kind in ("add", "remove") if action.get(kind, {}).get("dataChange"))

    def _find_bounds(self, column: str) -> dict[str, Bounds]:
        """Returns path -> bounds: a partition value, or statistics, which have a renamed column by its first name."""
        columns = pa.schema(self.handle.schema().to_arrow())
        metadata = (columns.field(column).metadata if column in columns.names else None) or {}  # an earlier version may lack it
        name = metadata.get(b"delta.columnMapping.physicalName", column.encode()).decode()
        files = pa.table(self.handle.get_add_actions())
        groups = ("partition", "partition") if column in self.handle.metadata().partition_columns else ("min", "max")
        paths, lows, highs = files.column("path").to_pylist(), *(_read_stored(files, group, name) for group in groups)
        found = zip(map(unquote, paths), lows, highs, strict=True)
        return {path: None if low is None or high is None else (low, high) for path, low, high in found}


def _open(table: SourceTable, version: int | None = None) -> Any:
    from deltalake import DeltaTable

    options = {"AWS_ALLOW_HTTP": "true", **rename_s3_options(table.storage_options, S3_NAMES)}
    return DeltaTable(table.uri, version=version, storage_options=options)


def _read_stored(files: pa.Table, group: str, name: str) -> list[Any]:
    """Returns a partition value or statistic of each file, None where there is none."""
    if group not in files.column_names or files.schema.field(group).type.get_field_index(name) < 0:
        return [None] * files.num_rows
    values: list[Any] = pc.struct_field(files.column(group), name).to_pylist()
    return values


def _write_condition(days: DayBounds | None, ds: Any) -> str:
    """Returns the condition of the wanted rows. Rows without a time are read, because they are an error."""
    if days is not None:
        time = _quote(days.column)
        spans = [f"{time} >= {_write_literal(start)} AND {time} < {_write_literal(end)}" for start, end in days.ranges]
        return f" WHERE {' OR '.join(spans)} OR {time} IS NULL"
    return "" if ds is None else f" WHERE {_quote(DS)} = {_write_literal(ds)}"


def _write_literal(value: Any) -> str:
    if isinstance(value, dt.datetime):
        return f"TIMESTAMP '{value.isoformat()}'"
    return f"DATE '{value}'" if isinstance(value, dt.date) else str(value) if isinstance(value, int) else f"'{value}'"


def _quote(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
