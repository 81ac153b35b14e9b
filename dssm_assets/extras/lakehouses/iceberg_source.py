"""An Iceberg table as a source: planned and read by pyiceberg, which leaves out files by partitions and column bounds.

It honours position deletes, deletion vectors, renames and columns that files lack; a table with equality deletes is refused. Memory: the
wanted columns and days of one data file.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any, Final

import pyarrow as pa
import pyarrow.types as pat

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
from dssm_assets.storage.sources.source import DayBounds, Stamp
from dssm_assets.storage.sources.source_columns import DS

S3_NAMES: Final = ("s3.endpoint", "s3.access-key-id", "s3.secret-access-key", "s3.session-token", "s3.region")


def open_source(table: SourceTable, name: str) -> IcebergSource:
    """Returns an Iceberg table as of its current snapshot.

    Raises:
        ConfigError: pyiceberg is not installed.
        SourceMissingError: there is no such table.
        LakehouseError: the catalog is unknown or cannot be reached, or the table cannot be opened.
    """
    where = f"table {name}, {table.table} of catalog {table.uri}"
    need_library("pyiceberg", "iceberg", where)
    from pyiceberg.catalog import load_catalog
    from pyiceberg.exceptions import NoSuchNamespaceError, NoSuchTableError

    with reading(where, table.storage_options, missing=(NoSuchTableError, NoSuchNamespaceError)):
        catalog = load_catalog(table.uri, **rename_s3_options(table.storage_options, S3_NAMES))
        return IcebergSource(table, name, catalog.load_table(str(table.table)))


def survey(uri: str, name: str) -> SourceTable:
    """Returns the table of `iceberg:CATALOG#shop.clicks` with its layout; errors as `open_source`."""
    catalog, _, identifier = uri.partition(":")[2].partition("#")
    table = SourceTable(uri=catalog, format=FileFormat.ICEBERG, table=identifier)
    return table.model_copy(update={"layout": find_layout(open_source(table, name))})


@dataclass(frozen=True)
class IcebergSource(LakeSource):
    """An Iceberg table as of one snapshot: its metadata is not loaded again."""

    handle: Any

    @property
    def version(self) -> str:
        return f"iceberg {self._snapshot_id}"

    @property
    def _snapshot_id(self) -> int:
        snapshot = self.handle.current_snapshot()
        return 0 if snapshot is None else int(snapshot.snapshot_id)

    def stamp(self, folder: str | None = None) -> Stamp:
        """Returns the ids of the table and its snapshot, and the time of that."""
        snapshot = self.handle.current_snapshot()
        identity = f"iceberg {self._snapshot_id} {self.handle.metadata.table_uuid}"
        return Stamp(identity, None if snapshot is None else snapshot.timestamp_ms)

    def schema(self) -> pa.Schema:
        return pa.schema([pa.field(column.name, _to_plain(column.type)) for column in self.handle.schema().as_arrow()])

    def read(self, columns: Sequence[str], days: DayBounds | None = None, ds: Any = None) -> Iterator[pa.RecordBatch]:
        from pyiceberg.io.pyarrow import ArrowScan

        scan = self.handle.scan(row_filter=_make_filter(days, ds), selected_fields=tuple(columns))
        reader = ArrowScan(scan.table_metadata, scan.io, scan.projection(), scan.row_filter)
        for task in scan.plan_files():
            yield from reader.to_record_batches([task])  # of several tasks it would hold all

    def bounds(self, column: str) -> list[Bounds]:
        return self._read_bounds([task.file for task in self.handle.scan().plan_files()], column)

    def first_change(self, before: str, column: str) -> Any:
        """Returns the smallest value of a column in files that snapshots since a fingerprint have added, removed or deleted rows of.

        Raises:
            LakehouseError: the table was dropped and made again.
        """
        from pyiceberg.manifest import DataFileContent

        _, then, identity = before.split(" ")
        if identity != str(self.handle.metadata.table_uuid):
            raise_made_again(self.where, "another table of that name")
        with self.reading():
            now, before_now = self._find_ancestors(self._snapshot_id), self._find_ancestors(int(then))
            snapshots = [self.handle.snapshot_by_id(number) for number in now ^ before_now]  # also those that were rolled back
            if None in snapshots:
                return None  # expired
            files = [file for snapshot in snapshots for file in self._read_changed_files(snapshot)]
            changed = [file for file in files if file.content is DataFileContent.DATA]
            deletes = {file.file_path for file in files if file.content is not DataFileContent.DATA}
            for task in self.handle.scan().plan_files() if deletes else ():
                if deletes & {file.file_path for file in task.delete_files}:
                    changed.append(task.file)
            return find_smallest(self._read_bounds(changed, column))

    def _find_ancestors(self, number: int) -> set[int]:
        """Returns a snapshot and those before it, the last of which may have expired."""
        found: set[int] = set()
        while number:
            found.add(number)
            snapshot = self.handle.snapshot_by_id(number)
            number = 0 if snapshot is None else snapshot.parent_snapshot_id or 0
        return found

    def _read_changed_files(self, snapshot: Any) -> Iterator[Any]:
        """Yields the files that a snapshot has added or removed, none if it only wrote rows in other files."""
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
        return [None if low is None or high is None else (low, high) for low, high in zip(*ends, strict=True)]


def _make_filter(days: DayBounds | None, ds: Any) -> Any:
    """Returns the condition of the wanted rows. Rows without a time are read, because they are an error."""
    from pyiceberg import expressions

    make: Any = expressions  # its types know no names of columns
    if days is not None:
        spans = [
            make.And(make.GreaterThanOrEqual(days.column, start), make.LessThan(days.column, end)) for start, end in days.ranges
        ]
        return reduce(make.Or, spans, make.IsNull(days.column))
    return make.AlwaysTrue() if ds is None else make.EqualTo(DS, ds)


def _to_plain(kind: pa.DataType) -> pa.DataType:
    """Returns a type with plain texts, binaries and lists in place of large ones, so that it is that of the same rows in parquet."""
    if pat.is_large_string(kind) or pat.is_large_binary(kind):
        return pa.string() if pat.is_large_string(kind) else pa.binary()
    if pat.is_large_list(kind) or pat.is_list(kind):
        return pa.list_(pa.field("element", _to_plain(kind.value_type)))  # as parquet names it
    if pat.is_struct(kind):
        return pa.struct([(inner.name, _to_plain(inner.type)) for inner in kind])
    return pa.map_(_to_plain(kind.key_type), _to_plain(kind.item_type)) if pat.is_map(kind) else kind
