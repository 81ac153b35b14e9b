"""Reads an Iceberg table as a source. pyiceberg skips files by partitions and column bounds.

It applies position deletes, deletion vectors, renames and missing columns, and refuses a table with equality deletes. The
wanted columns and days of one data file are in memory at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.types as pat

from dssm_assets.core.config.pipeline import SourceTable
from dssm_assets.extras.lakehouses.lake_source import Bounds, LakeSource, find_smallest, lake_errors
from dssm_assets.storage.locations import PYICEBERG_S3_OPTIONS, rename_s3_options
from dssm_assets.storage.sources.source import DayBounds, SourceState
from dssm_assets.storage.sources.table_source import name_table, need_library, write_condition


def open_source(table: SourceTable, name: str) -> IcebergSource:
    """Opens the current snapshot of an Iceberg table.

    Raises:
        ConfigError: pyiceberg is not installed.
        SourceMissingError: the table does not exist.
        TableError: the catalog is unknown or cannot be reached, or the table cannot be opened.
    """
    need_library("pyiceberg", "iceberg", name_table(table, name))
    from pyiceberg.catalog import load_catalog
    from pyiceberg.exceptions import NoSuchNamespaceError, NoSuchTableError

    with lake_errors(table, name, missing=(NoSuchTableError, NoSuchNamespaceError)):
        catalog = load_catalog(table.uri, **rename_s3_options(table.storage_options, PYICEBERG_S3_OPTIONS))
        return IcebergSource(table, name, catalog.load_table(str(table.table)))


@dataclass(frozen=True)
class IcebergSource(LakeSource):
    """An Iceberg table at one snapshot. Its metadata are read once."""

    @property
    def version(self) -> str:
        return f"iceberg {self.handle.metadata.current_snapshot_id or 0}"

    def state(self, folder: str | None = None) -> SourceState:
        """Returns the ids of the table and its snapshot, and the snapshot's time."""
        snapshot = self.handle.current_snapshot()
        return SourceState(
            f"{self.version} {self.handle.metadata.table_uuid}", None if snapshot is None else snapshot.timestamp_ms
        )

    def schema(self) -> pa.Schema:
        return pa.schema([pa.field(column.name, _to_plain(column.type)) for column in self.handle.schema().as_arrow()])

    def read_batches(self, columns: Sequence[str], days: DayBounds | None, ds: Any) -> Iterator[pa.RecordBatch]:
        from pyiceberg.io.pyarrow import ArrowScan

        scan = self.handle.scan(row_filter=write_condition(days, ds) or "true", selected_fields=tuple(columns))
        reader = ArrowScan(scan.table_metadata, scan.io, scan.projection(), scan.row_filter)
        for task in scan.plan_files():
            yield from reader.to_record_batches([task])  # given several tasks, it would hold all of them in memory

    def bounds(self, column: str) -> list[Bounds]:
        return self._read_bounds([task.file for task in self.handle.scan().plan_files()], column)

    def first_change(self, before: str, column: str) -> Any:
        """Returns the smallest value of a column in files changed by snapshots since a fingerprint.

        A snapshot changes a file if it adds it, removes it, or deletes rows of it. If the table was dropped and created again,
        all of its rows count as changed.
        """
        from pyiceberg.manifest import DataFileContent
        from pyiceberg.table.snapshots import ancestors_of

        _, then, identity = before.split(" ")
        metadata = self.handle.metadata
        with self.errors():
            if identity != str(metadata.table_uuid):
                return find_smallest(self.bounds(column))
            start = metadata.snapshot_by_id(int(then))
            if start is None and int(then):
                return None  # expired
            now = {snapshot.snapshot_id: snapshot for snapshot in ancestors_of(metadata.current_snapshot(), metadata)}
            earlier = {snapshot.snapshot_id: snapshot for snapshot in ancestors_of(start, metadata)}
            snapshots = [(now | earlier)[number] for number in now.keys() ^ earlier.keys()]  # also ones rolled back
            files = [file for snapshot in snapshots for file in self._read_changed_files(snapshot)]
            changed = [file for file in files if file.content is DataFileContent.DATA]
            deletes = {file.file_path for file in files if file.content is not DataFileContent.DATA}
            tasks = self.handle.scan().plan_files() if deletes else ()
            changed += [task.file for task in tasks if deletes & {file.file_path for file in task.delete_files}]
            return find_smallest(self._read_bounds(changed, column))

    def _read_changed_files(self, snapshot: Any) -> Iterator[Any]:
        """Yields the files that a snapshot added or removed, none if it only rewrote rows into other files."""
        from pyiceberg.manifest import ManifestEntryStatus
        from pyiceberg.table.snapshots import Operation

        if snapshot.summary is not None and snapshot.summary.operation is Operation.REPLACE:
            return
        for manifest in snapshot.manifests(self.handle.io):
            if manifest.added_snapshot_id == snapshot.snapshot_id:
                for entry in manifest.fetch_manifest_entry(self.handle.io, discard_deleted=False):
                    if entry.snapshot_id == snapshot.snapshot_id and entry.status is not ManifestEntryStatus.EXISTING:
                        yield entry.data_file

    def _read_bounds(self, files: Sequence[Any], column: str) -> list[Bounds]:
        from pyiceberg.conversions import from_bytes

        field, kind = self.handle.schema().find_field(column), self.schema().field(column).type
        ends = []
        for groups in ([file.lower_bounds for file in files], [file.upper_bounds for file in files]):
            stored = [(group or {}).get(field.field_id) for group in groups]
            values = pa.array([None if end is None else from_bytes(field.field_type, end) for end in stored])
            ends.append((values.cast(pa.int32()) if pat.is_date(kind) else values).cast(kind).to_pylist())
        return [None if None in pair else pair for pair in zip(*ends, strict=True)]


def _to_plain(kind: pa.DataType) -> pa.DataType:
    """Replaces Arrow's large text, bytes and list types by plain types, so that rows equal the rows of a parquet file."""
    if pat.is_large_list(kind) or pat.is_list(kind):
        return pa.list_(pa.field("element", _to_plain(kind.value_type)))
    return {pa.large_string(): pa.string(), pa.large_binary(): pa.binary()}.get(kind, kind)
