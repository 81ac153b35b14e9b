"""Tables: parquet partitions, written with little memory and read through their manifests. Writing checks the table contract."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
import pyarrow.parquet as pq

from dssm_assets.core.schema import TableSpec, check_no_nulls, check_schema
from dssm_assets.storage.layout import part_name
from dssm_assets.storage.manifest import Column, Manifest, StoredFile
from dssm_assets.storage.partitions import PartitionStore

ROW_GROUP_ROWS = 131_072
"""Rows of a file, which has one row group. A longer table has several files. To forget a user, only files with its rows are rewritten."""


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
        """Writes one partition and publishes it in one step. Returns its manifest.

        Rows keep their order. Files have ROW_GROUP_ROWS rows, whatever the batches, so equal rows give equal bytes.
        Dictionary-encoded columns are stored decoded. An iterable of batches needs `schema`.

        Raises:
            SchemaError: the data does not fit the contract. Nothing is published then.
        """
        actual = stored_schema(data.schema if isinstance(data, pa.Table) else schema)
        check_schema(spec, actual)
        groups = _regroup(data.to_batches() if isinstance(data, pa.Table) else data, actual)
        with self.partitions.staging() as folder:
            staged = []
            for number, group in enumerate(groups):
                path = folder / part_name(number)
                staged.append((path, _write_file(path, spec, iter([group]), actual)))
            return self.publish_parts(spec, ds, staged, schema=actual, inputs=inputs, facts=facts, is_shared=is_shared)

    def write_part(self, path: Path, spec: TableSpec, batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> int:
        """Writes one staged file of a partition, for `publish_parts`. Returns its number of rows. See `write`."""
        actual = stored_schema(schema)
        check_schema(spec, actual)
        return _write_file(path, spec, _regroup(batches, actual), actual)

    def publish_parts(
        self,
        spec: TableSpec,
        ds: str,
        staged: Sequence[tuple[Path, int] | StoredFile],
        *,
        schema: pa.Schema,
        inputs: Mapping[str, str] | None = None,
        facts: Mapping[str, object] | None = None,
        is_shared: bool = False,
    ) -> Manifest:
        """Publishes files from `write_part` (path, rows) or `put_part` as one partition, in order. Returns its manifest."""
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
        """Stores one part of a partition, with at most ROW_GROUP_ROWS rows, in the form of `write`. No manifest lists it yet."""
        with self.partitions.staging() as folder:
            path = folder / part_name(number)
            rows = _write_file(path, spec, _regroup(batches, schema), schema)
            return self.partitions.put_file(spec.name, ds, path, rows, is_shared=is_shared)

    def open(self, manifest: Manifest) -> pads.Dataset:
        """Returns a lazy dataset over the files of a partition."""
        with self.partitions.reading([manifest]):
            return pads.dataset(self.paths([manifest]), format="parquet", filesystem=self.partitions.filesystem_for([manifest]))

    def read_schema(self, manifest: Manifest) -> pa.Schema:
        """Returns the schema of a partition, from its first file."""
        with self._open_file(manifest, self.paths([manifest])[0]) as file:
            return file.schema_arrow.remove_metadata()

    def read(
        self, manifest: Manifest, columns: Sequence[str] | None = None, *, as_dictionaries: Sequence[str] = ()
    ) -> pa.Table:
        """Returns a partition, with all or some of its columns, as one table. For `as_dictionaries` see `batches`.

        Raises:
            PartitionReplacedError: files were removed because the partition was written again.
        """
        wanted = [column.name for column in manifest.columns] if columns is None else list(columns)
        encoded = [column.name for column in manifest.columns if column.name in as_dictionaries and column.type == "string"]
        parts = []
        for path in self.paths([manifest]):
            with self._open_file(manifest, path, encoded) as file:
                rows = file.read(columns=wanted, use_threads=manifest.rows > ROW_GROUP_ROWS)
                parts.append(rows.replace_schema_metadata(None).select(wanted))
        return pa.concat_tables(parts)

    def batches(
        self,
        manifest: Manifest,
        columns: Sequence[str] | None = None,
        *,
        as_dictionaries: Sequence[str] = (),
        batch_rows: int | None = None,
    ) -> Iterator[pa.RecordBatch]:
        """Yields a partition in record batches of limited size, in order.

        Args:
            columns: the columns to read (default: all).
            as_dictionaries: text columns to leave dictionary-encoded, for work on distinct values.
            batch_rows: most rows of a batch (default: as many as a row group).
        """
        names = list(columns) if columns is not None else None
        is_long = manifest.rows > ROW_GROUP_ROWS  # threads cost more than reading a short table
        for path in self.paths([manifest]):
            with self._open_file(manifest, path, as_dictionaries) as file:
                yield from file.iter_batches(batch_size=batch_rows or ROW_GROUP_ROWS, columns=names, use_threads=is_long)

    def rows(
        self, manifest: Manifest, columns: Sequence[str], first: int, end: int, *, as_dictionaries: Sequence[str] = ()
    ) -> Iterator[pa.RecordBatch]:
        """Yields rows first .. end - 1 of a partition in batches. Reads only their files. For `as_dictionaries` see `batches`."""
        begin = 0
        for stored, path in zip(manifest.files, self.paths([manifest]), strict=True):
            low, high = max(first - begin, 0), min(end - begin, stored.rows)
            begin += stored.rows
            if low < high:
                with self._open_file(manifest, path, as_dictionaries) as file:
                    yield from file.read(list(columns)).slice(low, high - low).to_batches(ROW_GROUP_ROWS)

    @contextlib.contextmanager
    def _open_file(self, manifest: Manifest, path: str, encoded: Sequence[str] = ()) -> Iterator[pq.ParquetFile]:
        """Yields a file of a partition. Local files are read without Python's file objects: a history is hundreds of small files."""
        store = self.partitions
        with (
            store.reading([manifest]),
            pa.OSFile(path, "rb") if store.is_local else store.filesystem_for([manifest]).open(path, "rb") as handle,
        ):
            yield pq.ParquetFile(handle, read_dictionary=list(encoded))

    def paths(self, manifests: Sequence[Manifest]) -> list[str]:
        return [self.partitions.file_path(manifest, file) for manifest in manifests for file in manifest.files]


def columns_of(spec: TableSpec, schema: pa.Schema) -> list[Column]:
    return [Column(field.name, str(field.type), spec.describe(field.name)) for field in schema]


def _write_file(path: Path, spec: TableSpec, groups: Iterator[pa.Table], schema: pa.Schema) -> int:
    first = next(groups)
    rows = 0
    compression = _compression_by_column(schema, "lz4" if spec.is_hot else "zstd")
    with pq.ParquetWriter(path, schema, compression=compression, use_dictionary=_dictionary_columns(first)) as writer:
        for group in itertools.chain([first], groups):
            check_no_nulls(spec, group)
            writer.write_table(group, row_group_size=ROW_GROUP_ROWS)
            rows += group.num_rows
    return rows


def stored_schema(schema: pa.Schema) -> pa.Schema:
    """Returns the schema to store: without metadata, and with dictionaries and lists of dictionaries decoded.

    A stored dictionary would keep values of filtered rows, even of forgotten users.
    """
    return pa.schema([field.with_type(_decode_type(field.type)) for field in schema])


def _decode_type(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_dictionary(kind):
        return _decode_type(kind.value_type)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        make = pa.list_ if pa.types.is_list(kind) else pa.large_list
        return make(kind.value_field.with_type(_decode_type(kind.value_type)))
    return kind


def _regroup(batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> Iterator[pa.Table]:
    """Yields the rows in tables of ROW_GROUP_ROWS rows; the last may be shorter. Yields at least one table, possibly empty."""
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
"""A column of numbers is dictionary-encoded if at most this fraction of the first rows' values is distinct."""


def _dictionary_columns(first: pa.Table) -> bool | list[str]:
    """Returns the parquet columns to dictionary-encode, judged by the first row group. True: all columns.

    Numbers that rarely repeat (user ids, times) are not encoded: their dictionary would be larger than the numbers, and
    building it would take most of the writing time.
    """
    sample = first.slice(0, _SAMPLE_ROWS)
    numbers = [field.name for field in sample.schema if pa.types.is_primitive(field.type) and field.type.bit_width >= 32]
    limit = _MAX_DISTINCT_FRAC * sample.num_rows
    plain = {name for name in numbers if pc.count_distinct(sample.column(name)).as_py() > limit}
    plain |= {field.name for field in sample.schema if _is_vector(field.type)}
    encoded = [path for field in sample.schema if field.name not in plain for path in _leaves(field.name, field.type)]
    return encoded if plain else True


def _compression_by_column(schema: pa.Schema, codec: str) -> dict[str, str]:
    """Returns the codec of every parquet column. Vectors get none: compression would save 10% and take most of the time."""
    return {path: "none" if _is_vector(field.type) else codec for field in schema for path in _leaves(field.name, field.type)}


def _is_vector(kind: pa.DataType) -> bool:
    return bool(pa.types.is_fixed_size_list(kind) and pa.types.is_floating(kind.value_type))


def _leaves(path: str, kind: pa.DataType) -> list[str]:
    if not pa.types.is_nested(kind):
        return [path]
    if pa.types.is_struct(kind):
        return [leaf for field in kind for leaf in _leaves(f"{path}.{field.name}", field.type)]
    if pa.types.is_map(kind):
        return [f"{path}.key_value.key", *_leaves(f"{path}.key_value.value", kind.item_type)]
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    return _leaves(f"{path}.list.element", kind.value_type) if is_list else [path]
