"""Reads a Delta table as a source. deltalake skips files and row groups by partition values and statistics.

It applies deletion vectors and column mapping. It streams one file after the other, so the order of the rows is fixed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import unquote

import pyarrow as pa

from dssm_assets.core.config.pipeline import SourceTable
from dssm_assets.extras.lakehouses.lake_source import Bounds, LakeSource, find_smallest, lake_errors
from dssm_assets.storage.locations import open_location, rename_s3_options
from dssm_assets.storage.sources.source import DayBounds, SourceState
from dssm_assets.storage.sources.table_source import name_table, need_library, quote_name, write_condition

S3_NAMES: Final = ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_REGION")
_ENGINE: Final = {"datafusion.execution.target_partitions": "1", "datafusion.execution.batch_size": "65536"}


def open_source(table: SourceTable, name: str) -> DeltaSource:
    """Opens the newest version of a Delta table.

    Raises:
        ConfigError: deltalake is not installed.
        SourceMissingError: the table does not exist.
        TableError: the table cannot be opened.
    """
    need_library("deltalake", "delta", name_table(table, name))
    from deltalake.exceptions import TableNotFoundError

    with lake_errors(table, name, missing=(TableNotFoundError,)):
        return _open(table, name)


@dataclass(frozen=True)
class DeltaSource(LakeSource):
    @property
    def version(self) -> str:
        return f"delta {self.handle.version()}"

    def state(self, folder: str | None = None) -> SourceState:
        """Returns the table's id and version, and the time of its last commit."""
        with self.errors():
            commits = [*self.handle.history(1), {}]  # a commit may lack its author and time
            return SourceState(f"{self.version} {self.handle.metadata().id}", commits[0].get("timestamp"))

    def schema(self) -> pa.Schema:
        return pa.schema([pa.field(column.name, column.type) for column in pa.schema(self.handle.schema().to_arrow())])

    def read_batches(self, columns: Sequence[str], days: DayBounds | None, ds: Any) -> Iterator[pa.RecordBatch]:
        from deltalake import QueryBuilder

        query = f"SELECT {', '.join(map(quote_name, columns))} FROM source WHERE {write_condition(days, ds) or True}"
        yield from pa.RecordBatchReader.from_stream(QueryBuilder(_ENGINE).register("source", self.handle).execute(query))

    def bounds(self, column: str) -> list[Bounds]:
        return [*self._find_bounds(column).values()]

    def first_change(self, before: str, column: str) -> Any:
        """Returns the smallest value of a column in files added or removed since a fingerprint. Compaction does not count.

        If the table was dropped and created again, all of its rows count as changed.
        """
        from deltalake.exceptions import DeltaError

        _, version, identity = before.split(" ")
        first, last = int(version), self.handle.version()
        with self.errors(), suppress(DeltaError, FileNotFoundError):  # the log of that version has been removed
            start = _open(self.table, self.name, min(first, last))
            if first > last or identity != start.handle.metadata().id:
                return find_smallest(self.bounds(column))
            known, changed = start._find_bounds(column) | self._find_bounds(column), list[Bounds]()
            for number in range(first + 1, last + 1):
                paths = [*self._read_changed_paths(number)]
                for near in () if known.keys() >= {*paths} else (number - 1, number):  # a file added and removed in between
                    known |= _open(self.table, self.name, near)._find_bounds(column)
                changed += map(known.get, paths)
            return find_smallest(changed)
        return None

    def _read_changed_paths(self, version: int) -> Iterator[str]:
        """Yields the files that a version added or removed, but not by compaction."""
        fs, path = open_location(self.table.uri, self.where, self.table.storage_options)
        for line in fs.cat_file(f"{path}/_delta_log/{version:020d}.json").splitlines():
            action = json.loads(line)
            yield from (unquote(action[kind]["path"]) for kind in ("add", "remove") if action.get(kind, {}).get("dataChange"))

    def _find_bounds(self, column: str) -> dict[str, Bounds]:
        """Returns file path -> bounds: the partition value, or statistics, which keep the first name of a renamed column."""
        columns = pa.schema(self.handle.schema().to_arrow())
        metadata = (columns.field(column).metadata if column in columns.names else None) or {}  # old versions may lack it
        name = metadata.get(b"delta.columnMapping.physicalName", column.encode()).decode()
        groups = ("partition", "partition") if column in self.handle.metadata().partition_columns else ("min", "max")
        low, high = (f"{group}.{name}" for group in groups)
        files = pa.table(self.handle.get_add_actions(flatten=True))
        known = files.select(["path", *{low, high} & {*files.column_names}]).to_pylist()
        found = {unquote(file["path"]): (file.get(low), file.get(high)) for file in known}
        return {path: None if None in ends else ends for path, ends in found.items()}


def _open(table: SourceTable, name: str, version: int | None = None) -> DeltaSource:
    from deltalake import DeltaTable

    options = {"AWS_ALLOW_HTTP": "true", **rename_s3_options(table.storage_options, S3_NAMES)}
    return DeltaSource(table, name, DeltaTable(table.uri, version=version, storage_options=options))
