"""Rows of a stored table on their way into and out of Spark: types that Spark knows, and pieces that a task reads.

Belongs here: both. Does not belong here: Spark itself (`spark_engine.py`), writing (`spark_tasks.py`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.types as pat

from dssm_assets.storage import table_store
from dssm_assets.storage.manifest import Manifest
from dssm_assets.storage.partition_store import PartitionStore
from dssm_assets.storage.stored_files import StoredFiles

_UNSIGNED: Final = {pa.uint8(): pa.int16(), pa.uint16(): pa.int32(), pa.uint32(): pa.int64(), pa.uint64(): pa.decimal128(20)}


@dataclass(frozen=True)
class Piece:
    """Consecutive row groups of a stored file: share number `share` of `of` shares.

    Attributes:
        path: inside the store's filesystem.
        bytes: size of the file.
        start: position, in its partition, of the file's first row.
        ds: day of the partition.
    """

    path: str
    bytes: int
    start: int
    share: int
    of: int
    ds: str


def pieces(partitions: PartitionStore, manifests: Sequence[Manifest]) -> list[Piece]:
    """Returns the rows of some partitions in pieces of a row group, in order."""
    found = []
    for manifest in manifests:
        start = 0
        for file in manifest.files:
            count = max(1, -(-file.rows // table_store.ROW_GROUP_ROWS))
            path = partitions.path(manifest, file)
            found += [Piece(path, file.bytes, start, share, count, manifest.ds) for share in range(count)]
            start += file.rows
    return found


def read_piece(
    partitions: PartitionStore, piece: Piece, as_dictionaries: Sequence[str] = (), columns: Sequence[str] | None = None
) -> Iterator[tuple[pa.Table, int]]:
    """Yields the rows of a piece by row group, each with the position of its first row in the partition."""
    names = None if columns is None else list(columns)
    fs = partitions.fs if partitions.is_local else StoredFiles(partitions.fs, {piece.path: piece.bytes})
    with fs.open(piece.path, "rb") as handle:
        file = pq.ParquetFile(handle, read_dictionary=list(as_dictionaries))
        groups = file.metadata.num_row_groups
        first, end = piece.share * groups // piece.of, (piece.share + 1) * groups // piece.of
        start = piece.start + sum(file.metadata.row_group(group).num_rows for group in range(first))
        for group in range(first, end):
            table = file.read_row_group(group, columns=names)
            yield table, start
            start += table.num_rows


def needs_workers(schema: pa.Schema) -> bool:
    """Tells whether a table has a type whose parquet form Spark refuses to read."""
    return any(pat.is_timestamp(field.type) and field.type.unit == "ns" for field in schema)


def sparkable(schema: pa.Schema) -> pa.Schema:
    """Returns the schema in types that Spark has; every value fits."""
    return pa.schema([pa.field(field.name, _sparkable(field.type)) for field in schema])


def _sparkable(kind: pa.DataType) -> pa.DataType:
    if pat.is_list(kind) or pat.is_large_list(kind):
        return pa.list_(_sparkable(kind.value_type))
    if pat.is_timestamp(kind):
        return pa.timestamp("us", kind.tz)
    return _UNSIGNED.get(kind, kind)
