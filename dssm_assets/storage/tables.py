"""Tables: parquet partitions, written in bounded memory and read through their manifests.

Belongs here: writing and reading parquet, with the table contract checked on writing. Does not belong here: what the rows mean.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
import pyarrow.parquet as pq

from dssm_assets.core.errors import Fault, PartitionReplacedError, SchemaError
from dssm_assets.core.schema import TableSpec, check_no_nulls, check_schema
from dssm_assets.storage.layout import part_name
from dssm_assets.storage.local_files import read_bytes
from dssm_assets.storage.manifest import Column, Manifest, StoredFile
from dssm_assets.storage.partitions import SMALL_BYTES, MemoryFile, PartitionStore

ROW_GROUP_ROWS = 131_072
PART_ROWS = 32 * ROW_GROUP_ROWS
"""Rows per file; a longer table has several."""
SMALL_ROWS = 16_384
"""Rows up to which a partition is read by one thread: handing its columns to several costs more than reading them."""
_READ_TRIES = 10


class TableStore:
    """Parquet tables in a partition store."""

    def __init__(self, partitions: PartitionStore) -> None:
        self.partitions = partitions

    def write(
        self,
        spec: TableSpec,
        ds: str,
        data: pa.Table | Iterable[pa.RecordBatch],
        *,
        schema: pa.Schema | None = None,
        inputs: Mapping[str, str] | None = None,
        facts: Mapping[str, object] | None = None,
        is_shared: bool = False,
    ) -> Manifest:
        """Writes one partition and publishes it in one step; returns its manifest.

        Rows keep their order. Row groups have ROW_GROUP_ROWS rows and files PART_ROWS rows, whatever the batches, so equal rows
        give equal bytes. Dictionary-encoded columns are stored decoded. An iterable of batches needs `schema`.

        Raises:
            SchemaError: if the data does not fit the contract; nothing is published then.
        """
        actual = data.schema if isinstance(data, pa.Table) else schema
        if actual is None:
            raise TypeError("an iterable of batches needs schema=")
        actual = stored_schema(actual)
        check_schema(spec, actual)
        groups = _regroup(data.to_batches() if isinstance(data, pa.Table) else data, actual)
        first = next(groups)
        is_only = first.num_rows < ROW_GROUP_ROWS
        if is_only and first.num_rows <= SMALL_ROWS and self.partitions.is_local and not is_shared:
            file = _write_to_memory(spec, first, actual)
            return self.publish_parts(spec, ds, [(file, first.num_rows)], schema=actual, inputs=inputs, facts=facts)
        with self.partitions.staging() as folder:
            staged = list(_write_parts(spec, folder, itertools.chain([first], groups), actual))
            return self.publish_parts(spec, ds, staged, schema=actual, inputs=inputs, facts=facts, is_shared=is_shared)

    def write_part(self, path: Path, spec: TableSpec, batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> int:
        """Writes a staged file of a partition, for `publish_parts`; returns its rows. See `write`.

        Raises:
            SchemaError: if the data does not fit the contract.
        """
        actual = stored_schema(schema)
        check_schema(spec, actual)
        return _write_file(path, spec, _regroup(batches, actual), actual)

    def publish_parts(
        self,
        spec: TableSpec,
        ds: str,
        staged: Sequence[tuple[Path | MemoryFile, int]],
        *,
        schema: pa.Schema,
        inputs: Mapping[str, str] | None = None,
        facts: Mapping[str, object] | None = None,
        is_shared: bool = False,
    ) -> Manifest:
        """Publishes files that `write_part` wrote (path, rows) as one partition, in order; returns its manifest."""
        columns = columns_of(spec, stored_schema(schema))
        return self.partitions.publish(
            asset=spec.name, ds=ds, staged=staged, columns=columns, inputs=inputs, facts=facts, is_shared=is_shared
        )

    def put_part(
        self,
        spec: TableSpec,
        ds: str,
        number: int,
        schema: pa.Schema,
        batches: Iterable[pa.RecordBatch],
        *,
        is_shared: bool = False,
    ) -> StoredFile:
        """Stores one part of a partition, of at most PART_ROWS rows, as `write` would; no manifest lists it yet.

        Raises:
            SchemaError: if a required column has nulls.
        """
        with self.partitions.staging() as folder:
            path = folder / part_name(number)
            rows = _write_file(path, spec, _regroup(batches, schema), schema)
            return self.partitions.put_file(spec.name, ds, path, rows, is_shared=is_shared)

    def copy_partition(self, spec: TableSpec, manifest: Manifest, *, inputs: Mapping[str, str]) -> Manifest:
        """Publishes copies of another table's files as a partition of this table, for the same day.

        Raises:
            SchemaError: if they do not fit the contract.
        """
        schema = self.read_schema(manifest)
        check_schema(spec, schema)
        with self.partitions.reading([manifest]):
            return self.partitions.publish_copy(manifest, spec.name, columns=columns_of(spec, schema), inputs=inputs)

    def open(self, manifest: Manifest, *, as_dictionaries: Sequence[str] = ()) -> pads.Dataset:
        """Returns a lazy dataset over the files of a partition; `as_dictionaries`: text columns to leave dictionary-encoded."""
        stored = pads.ParquetFileFormat(dictionary_columns=set(as_dictionaries))
        with self.partitions.reading([manifest]):
            return pads.dataset(self.paths([manifest]), format=stored, filesystem=self.partitions.filesystem_for([manifest]))

    def read_schema(self, manifest: Manifest) -> pa.Schema:
        """Returns the schema of a partition, from its first file."""
        path = self.paths([manifest])[0]
        with self.partitions.reading([manifest]), self._open_file(manifest, path) as handle:
            return pq.read_schema(handle).remove_metadata()

    def min_max(self, manifest: Manifest, column: str) -> tuple[Any, Any] | None:
        """Returns the smallest and the largest value of a column without nulls, from the files' statistics.

        None if there are no rows, or a row group has no statistics.
        """
        bounds: list[tuple[Any, Any] | None] = []
        for path in self.paths([manifest]):
            with self.partitions.reading([manifest]), self._open_file(manifest, path) as handle:
                bounds += bounds_of_groups(pq.read_metadata(handle), column)
        known = [pair for pair in bounds if pair is not None]
        if not known or len(known) < len(bounds):
            return None
        return min(low for low, _ in known), max(high for _, high in known)

    def read(
        self, manifest: Manifest, columns: Sequence[str] | None = None, *, as_dictionaries: Sequence[str] = ()
    ) -> pa.Table:
        """Returns a partition, or some of its columns, as one table; for `as_dictionaries` see `batches`.

        Raises:
            PartitionReplacedError: its files were removed because the partition was written again, see `read_day`.
        """
        stored = [column.name for column in manifest.columns]
        wanted = stored if columns is None else list(columns)
        is_large = manifest.rows > SMALL_ROWS
        with self.partitions.reading([manifest]):
            if not wanted or not self.partitions.is_local or not set(wanted) <= set(stored):
                dataset = self.open(manifest, as_dictionaries=as_dictionaries)
                return dataset.to_table(columns=None if columns is None else wanted, use_threads=is_large)
            # A dataset costs a millisecond more than a short table.
            encoded = [column.name for column in manifest.columns if column.name in as_dictionaries and column.type == "string"]
            is_small = manifest.size_bytes <= SMALL_BYTES
            files = [
                pq.ParquetFile(pa.BufferReader(read_bytes(path)) if is_small else path, read_dictionary=encoded)
                for path in self.paths([manifest])
            ]
            return pa.concat_tables([file.read(columns=wanted, use_threads=is_large).select(wanted) for file in files])

    def read_day(self, asset: str, ds: str) -> tuple[Manifest, pa.Table]:
        """Returns the partition of a day and its rows; if it is written again meanwhile, the newer one.

        Raises:
            PartitionMissingError: if it was never written.
        """
        for _ in range(_READ_TRIES - 1):
            manifest = self.partitions.manifest(asset, ds)
            with contextlib.suppress(PartitionReplacedError):
                return manifest, self.read(manifest)
        manifest = self.partitions.manifest(asset, ds)
        return manifest, self.read(manifest)

    def batches(
        self,
        manifest: Manifest,
        columns: Sequence[str] | None = None,
        *,
        as_dictionaries: Sequence[str] = (),
        batch_rows: int | None = None,
    ) -> Iterator[pa.RecordBatch]:
        """Yields a partition in record batches of bounded size, in order.

        Args:
            columns: the columns to read (default: all).
            as_dictionaries: text columns to leave dictionary-encoded, for work on distinct values.
            batch_rows: rows per batch at most (default: those of a row group).
        """
        names = list(columns) if columns is not None else None
        encoded = list(as_dictionaries)
        for path in self.paths([manifest]):
            with self.partitions.reading([manifest]), self._open_file(manifest, path) as handle:
                file = pq.ParquetFile(handle, read_dictionary=encoded)
                is_large = manifest.rows > SMALL_ROWS
                yield from file.iter_batches(batch_size=batch_rows or ROW_GROUP_ROWS, columns=names, use_threads=is_large)

    def rows(self, manifest: Manifest, columns: Sequence[str], first: int, end: int) -> Iterator[pa.RecordBatch]:
        """Yields rows first .. end - 1 of a partition in batches; other row groups are not read."""
        begin = 0
        for path, stored in zip(self.paths([manifest]), manifest.files, strict=True):
            if begin < end and begin + stored.rows > first:
                with self.partitions.reading([manifest]), self._open_file(manifest, path) as handle:
                    yield from _rows_of(pq.ParquetFile(handle), list(columns), first - begin, end - begin)
            begin += stored.rows

    def read_ascending(
        self, manifest: Manifest, key: str, columns: Sequence[str] | None = None, *, as_dictionaries: Sequence[str] = ()
    ) -> AscendingRows:
        """Returns a reader of a partition that is stored in the order of a key; for the arguments see `batches`."""
        schema = self.open(manifest, as_dictionaries=as_dictionaries).schema.remove_metadata()
        schema = schema if columns is None else pa.schema([field for field in schema if field.name in columns])
        where = f"partition {manifest.key}, column {key}"
        return AscendingRows(self.batches(manifest, columns, as_dictionaries=as_dictionaries), key, schema, where=where)

    def _open_file(self, manifest: Manifest, path: str) -> Any:
        """Returns a file open for reading; a local one without Python in every read: histories are hundreds of small files."""
        is_local = self.partitions.is_local
        return pa.OSFile(path, "rb") if is_local else self.partitions.filesystem_for([manifest]).open(path, "rb")

    def paths(self, manifests: Sequence[Manifest]) -> list[str]:
        """Returns the paths of all files of some partitions, inside the store's filesystem."""
        return [self.partitions.file_path(manifest, file) for manifest in manifests for file in manifest.files]


class AscendingRows:
    """Rows that are stored in the order of a key, each of which is read and returned once."""

    def __init__(self, batches: Iterator[pa.RecordBatch], key: str, schema: pa.Schema, *, where: str) -> None:
        self.schema = schema
        self._batches, self._key, self._where = batches, key, where
        self._waiting = schema.empty_table()
        self._last_key: Any = None

    def read_through(self, last: Any) -> pa.Table:
        """Returns the next rows, up to the key `last`; None: none of them.

        Raises:
            SchemaError: the rows are in another order.
        """
        return pa.concat_tables(list(self.parts_through(last)) or [self.schema.empty_table()])

    def parts_through(self, last: Any) -> Iterator[pa.Table]:
        """Yields the rows of `read_through`, those of a batch at a time."""
        while last is not None and self.peek_key() is not None:
            count = pc.sum(pc.less_equal(self._waiting.column(self._key), last), min_count=0).as_py()
            rows, self._waiting = self._waiting.slice(0, count), self._waiting.slice(count)
            if count:
                yield rows
            if len(self._waiting):
                return

    def peek_key(self) -> Any:
        """Returns the key of the last row that waits, of the next batch if none does; None after the last row.

        Raises:
            SchemaError: the rows are in another order.
        """
        while not len(self._waiting) and (part := self._read_batch()) is not None:
            self._waiting = part
        return self._last_key if len(self._waiting) else None

    def _read_batch(self) -> pa.Table | None:
        batch = next(self._batches, None)
        if batch is None:
            return None
        self._check_order(batch.column(self._key))
        return pa.Table.from_batches([batch]).cast(self.schema)

    def _check_order(self, keys: pa.Array) -> None:
        """Checks the keys of the next rows."""
        if not len(keys):
            return
        is_ascending = self._last_key is None or self._last_key <= keys[0].as_py()
        if not is_ascending or pc.any(pc.less(keys.slice(1), keys.slice(0, len(keys) - 1))).as_py():
            raise SchemaError(Fault(self._where, "ascending values", "a smaller one after a larger", "materialize it again"))
        self._last_key = keys[-1].as_py()


def bounds_of_groups(metadata: pq.FileMetaData, column: str) -> list[tuple[Any, Any] | None]:
    """Returns the smallest and the largest value of a column in each non-empty row group, None for one without statistics."""
    number = metadata.schema.names.index(column)
    groups = [metadata.row_group(group).column(number) for group in range(metadata.num_row_groups)]
    statistics = [group.statistics for group in groups if group.num_values]
    return [(known.min, known.max) if known is not None and known.has_min_max else None for known in statistics]


def columns_of(spec: TableSpec, schema: pa.Schema) -> list[Column]:
    """Returns the columns of a table for its manifest."""
    return [Column(field.name, str(field.type), spec.describe(field.name)) for field in schema]


def _write_parts(spec: TableSpec, folder: Path, groups: Iterator[pa.Table], schema: pa.Schema) -> Iterator[tuple[Path, int]]:
    """Writes row groups as parts of PART_ROWS rows; yields path and rows of each, of at least one."""
    for number, first in enumerate(groups):
        part = itertools.chain([first], itertools.islice(groups, PART_ROWS // ROW_GROUP_ROWS - 1))
        path = folder / part_name(number)
        yield path, _write_file(path, spec, part, schema)


def _write_to_memory(spec: TableSpec, rows: pa.Table, schema: pa.Schema) -> MemoryFile:
    """Returns the only part of a short table as a file in memory: Arrow writes to a disk in many small pieces."""
    sink = pa.BufferOutputStream()
    _write_file(sink, spec, iter([rows]), schema)
    return MemoryFile(part_name(0), memoryview(sink.getvalue()))


def _write_file(path: Path | pa.NativeFile, spec: TableSpec, groups: Iterator[pa.Table], schema: pa.Schema) -> int:
    """Writes row groups, at least one, as a file; returns its rows."""
    first = next(groups)
    rows = 0
    compression = _compression_by_column(schema, "lz4" if spec.is_hot else "zstd")
    with pq.ParquetWriter(path, schema, compression=compression, use_dictionary=_dictionary_columns(first)) as writer:
        for group in itertools.chain([first], groups):
            check_no_nulls(spec, group)
            writer.write_table(group, row_group_size=ROW_GROUP_ROWS)
            rows += group.num_rows
    return rows


def _rows_of(file: pq.ParquetFile, columns: list[str], first: int, end: int) -> Iterator[pa.RecordBatch]:
    """Yields the rows first .. end - 1 of a file, clipped to the rows that it has."""
    counts = [file.metadata.row_group(group).num_rows for group in range(file.metadata.num_row_groups)]
    ends = list(itertools.accumulate(counts))
    groups = [g for g, count in enumerate(counts) if ends[g] > first and ends[g] - count < end]
    begin = ends[groups[0]] - counts[groups[0]] if groups else 0
    for batch in file.iter_batches(batch_size=ROW_GROUP_ROWS, row_groups=groups, columns=columns):
        low, high = max(first - begin, 0), min(end - begin, batch.num_rows)
        begin += batch.num_rows
        if low < high:
            yield batch.slice(low, high - low)


def stored_schema(schema: pa.Schema) -> pa.Schema:
    """Returns the schema that is stored: without metadata, and with dictionary-encoded columns decoded."""
    kinds = {field.name: field.type.value_type for field in schema if pa.types.is_dictionary(field.type)}
    return pa.schema([field.with_type(kinds.get(field.name, field.type)) for field in schema])


def _regroup(batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> Iterator[pa.Table]:
    """Yields the rows in tables of ROW_GROUP_ROWS rows, the last one shorter; at least one, possibly empty."""
    pending: list[pa.Table] = []
    count = 0
    is_first = True
    for batch in batches:
        table = pa.Table.from_batches([batch])
        pending.append(table if batch.schema == schema else table.cast(schema))
        count += batch.num_rows
        while count >= ROW_GROUP_ROWS:
            rows = pa.concat_tables(pending)
            yield rows.slice(0, ROW_GROUP_ROWS).combine_chunks()
            is_first = False
            pending = [rows.slice(ROW_GROUP_ROWS)]
            count -= ROW_GROUP_ROWS
    if count or is_first:
        yield (pa.concat_tables(pending) if pending else schema.empty_table()).combine_chunks()


_SAMPLE_ROWS = 16_384
_MAX_DISTINCT_FRAC = 0.75
"""Fraction of distinct values among the first rows up to which a column of numbers is dictionary-encoded."""


def _dictionary_columns(first: pa.Table) -> bool | list[str]:
    """Returns the parquet columns to dictionary-encode, judged by the first row group; True means all.

    Numbers that rarely repeat (user ids, times) are stored plainly: their dictionary would be larger than the numbers and cost
    most of the time of writing.
    """
    sample = first.slice(0, _SAMPLE_ROWS)
    numbers = [field.name for field in sample.schema if pa.types.is_primitive(field.type) and field.type.bit_width >= 32]
    limit = _MAX_DISTINCT_FRAC * sample.num_rows
    plain = {name for name in numbers if pc.count_distinct(sample.column(name)).as_py() > limit}
    plain |= {field.name for field in sample.schema if _is_vector(field.type)}
    encoded = [path for field in sample.schema if field.name not in plain for path in _leaves(field.name, field.type)]
    return encoded if plain else True


def _compression_by_column(schema: pa.Schema, codec: str) -> dict[str, str]:
    """Returns the codec of every parquet column: none for vectors, where compression saves 10% and takes most of the time."""
    return {path: "none" if _is_vector(field.type) else codec for field in schema for path in _leaves(field.name, field.type)}


def _is_vector(kind: pa.DataType) -> bool:
    return bool(pa.types.is_fixed_size_list(kind) and pa.types.is_floating(kind.value_type))


def _leaves(path: str, kind: pa.DataType) -> list[str]:
    """Returns the parquet columns of a column: several for nested types."""
    if not pa.types.is_nested(kind):
        return [path]
    if pa.types.is_struct(kind):
        return [leaf for field in kind for leaf in _leaves(f"{path}.{field.name}", field.type)]
    if pa.types.is_map(kind):
        return [f"{path}.key_value.key", *_leaves(f"{path}.key_value.value", kind.item_type)]
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    return _leaves(f"{path}.list.element", kind.value_type) if is_list else [path]
