"""Tables: parquet partitions written in bounded memory and read as what their manifest names.

Belongs here: parquet in and out, with the contract checked at the border. Does not belong here: what the rows mean.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq

from dssm_assets.core.schema import TableSpec, check_no_nulls, check_schema
from dssm_assets.storage.manifest import Column, Manifest
from dssm_assets.storage.partition_store import PartitionStore

ROW_GROUP_ROWS = 131_072


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
        """Writes one partition and makes it visible in one step; returns its manifest.

        Rows keep their order; row groups have 131,072 rows however the data arrives, so equal rows give equal bytes.
        An iterable of batches needs `schema`.

        Raises:
            SchemaError: if the data does not fit the contract; nothing is visible then.
        """
        whole: Any = data if isinstance(data, pa.Table) else None
        actual = schema if whole is None else whole.schema
        if actual is None:
            raise TypeError("an iterable of batches needs schema=")
        actual = actual.remove_metadata()
        check_schema(spec, actual)
        batches = data if whole is None else whole.to_batches()
        with self.partitions.staging() as folder:
            path = folder / "part-00000.parquet"
            rows = 0
            with pq.ParquetWriter(path, actual, compression="lz4" if spec.is_hot else "zstd") as writer:
                for group in _regroup(batches, actual):
                    check_no_nulls(spec, group)
                    writer.write_table(group, row_group_size=ROW_GROUP_ROWS)
                    rows += group.num_rows
            columns = [Column(field.name, str(field.type), spec.describe(field.name)) for field in actual]
            return self.partitions.publish(
                asset=spec.name,
                ds=ds,
                staged=[(path, rows)],
                columns=columns,
                inputs=inputs,
                facts=facts,
                is_shared=is_shared,
            )

    def write_same(self, spec: TableSpec, manifest: Manifest, *, inputs: Mapping[str, str]) -> Manifest:
        """Writes the very files of another table's partition as a partition of this table, for the same day.

        Raises:
            SchemaError: if they do not fit the contract.
        """
        schema = self.open(manifest).schema
        check_schema(spec, schema)
        columns = [Column(field.name, str(field.type), spec.describe(field.name)) for field in schema]
        with self.partitions.staging() as folder:
            staged = []
            for file in manifest.files:
                path = folder / file.name
                self.partitions.fs.get_file(self.partitions.path(manifest, file), str(path))
                staged.append((path, file.rows))
            return self.partitions.publish(asset=spec.name, ds=manifest.ds, staged=staged, columns=columns, inputs=inputs)

    def open(self, manifest: Manifest) -> pads.Dataset:
        """Returns a lazy dataset over the files of a partition."""
        return pads.dataset(self.paths([manifest]), format="parquet", filesystem=self.partitions.fs)

    def read(self, manifest: Manifest, columns: Sequence[str] | None = None) -> pa.Table:
        """Returns a partition, or some of its columns, as one table."""
        return self.open(manifest).to_table(columns=list(columns) if columns is not None else None)

    def batches(
        self, manifest: Manifest, columns: Sequence[str] | None = None, *, as_dictionaries: Sequence[str] = ()
    ) -> Iterator[pa.RecordBatch]:
        """Yields a partition in record batches of bounded size, in order.

        Args:
            manifest: the partition.
            columns: those to read, all by default.
            as_dictionaries: text columns to be left dictionary-encoded as they are stored, which saves whoever works on
                distinct values the encoding.
        """
        names = list(columns) if columns is not None else None
        encoded = list(as_dictionaries)
        for path in self.paths([manifest]):
            with self.partitions.fs.open(path, "rb") as handle:
                file = pq.ParquetFile(handle, read_dictionary=encoded)
                yield from file.iter_batches(batch_size=ROW_GROUP_ROWS, columns=names)

    def paths(self, manifests: Sequence[Manifest]) -> list[str]:
        """Returns the paths of all files of some partitions, inside the store's filesystem."""
        return [self.partitions.path(manifest, file) for manifest in manifests for file in manifest.files]


def _regroup(batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> Iterator[pa.Table]:
    """Yields the rows in tables of ROW_GROUP_ROWS rows, the last one shorter; at least one, possibly empty."""
    held: list[pa.Table] = []
    count = 0
    is_first = True
    for batch in batches:
        held.append(pa.Table.from_batches([batch]).cast(schema))
        count += batch.num_rows
        while count >= ROW_GROUP_ROWS:
            joined = pa.concat_tables(held)
            yield joined.slice(0, ROW_GROUP_ROWS).combine_chunks()
            is_first = False
            held = [joined.slice(ROW_GROUP_ROWS)]
            count -= ROW_GROUP_ROWS
    if count or is_first:
        yield (pa.concat_tables(held) if held else schema.empty_table()).combine_chunks()
