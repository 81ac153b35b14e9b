"""The functions that run in Spark's Python workers: read pieces of tables, stage rows, write the parts of a partition.

A result leaves Spark in two steps. First each task of the query stages its rows as a fragment inside the store. Once their
row counts are known, the fragments are cut into parts of PART_ROWS rows. So the files follow from the rows and their order
alone and not from how Spark distributed them: a partition that is materialized again from equal inputs has an equal digest,
and a shuffle of 200 tasks does not leave 200 small files. The driver sees row counts and file names only.
"""

from __future__ import annotations

import json
import pickle
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.types as pat

from dssm_assets.core.schema import TableSpec
from dssm_assets.storage import tables
from dssm_assets.storage.engines.engine import BatchKernel, PartKernel, ReportKernel
from dssm_assets.storage.manifest import Manifest, StoredFile
from dssm_assets.storage.partitions import PartitionStore, StoreAddress
from dssm_assets.storage.sized_files import SizedFileSystem
from dssm_assets.storage.tables import PART_ROWS, TableStore

_UNSIGNED: Final = {pa.uint8(): pa.int16(), pa.uint16(): pa.int32(), pa.uint32(): pa.int64(), pa.uint64(): pa.decimal128(20)}


@dataclass(frozen=True)
class Piece:
    """Consecutive row groups of a stored file, which is divided into `count` pieces.

    Attributes:
        path: inside the store's filesystem.
        bytes: size of the file.
        start: position, in its partition, of the file's first row.
        number: number of the piece, from 0 on.
        count: pieces of the file.
        ds: day of the partition.
    """

    path: str
    bytes: int
    start: int
    number: int
    count: int
    ds: str


def pieces_of(partitions: PartitionStore, manifests: Sequence[Manifest]) -> list[Piece]:
    """Returns the pieces of some partitions in order, a row group each."""
    found = []
    for manifest in manifests:
        start = 0
        for file in manifest.files:
            count = max(1, -(-file.rows // tables.ROW_GROUP_ROWS))
            path = partitions.file_path(manifest, file)
            found += [Piece(path, file.bytes, start, number, count, manifest.ds) for number in range(count)]
            start += file.rows
    return found


def read_piece(
    partitions: PartitionStore, piece: Piece, as_dictionaries: Sequence[str] = (), columns: Sequence[str] | None = None
) -> Iterator[tuple[pa.Table, int]]:
    """Yields the rows of a piece by row group, each with the position of its first row in the partition."""
    names = None if columns is None else list(columns)
    fs = partitions.fs if partitions.is_local else SizedFileSystem(partitions.fs, {piece.path: piece.bytes})
    with fs.open(piece.path, "rb") as handle:
        file = pq.ParquetFile(handle, read_dictionary=list(as_dictionaries))
        groups = file.metadata.num_row_groups
        first, end = piece.number * groups // piece.count, (piece.number + 1) * groups // piece.count
        start = piece.start + sum(file.metadata.row_group(group).num_rows for group in range(first))
        for group in range(first, end):
            table = file.read_row_group(group, columns=names)
            yield table, start
            start += table.num_rows


def needs_workers(schema: pa.Schema) -> bool:
    """Returns whether a table has a type that Spark cannot read from parquet."""
    return any(pat.is_timestamp(field.type) and field.type.unit == "ns" for field in schema)


def spark_types(schema: pa.Schema) -> pa.Schema:
    """Returns the schema in types that Spark has; each holds every value of the original type."""
    return pa.schema([pa.field(field.name, _spark_type(field.type)) for field in schema])


def _spark_type(kind: pa.DataType) -> pa.DataType:
    if pat.is_list(kind) or pat.is_large_list(kind):
        return pa.list_(_spark_type(kind.value_type))
    if pat.is_timestamp(kind):
        return pa.timestamp("us", kind.tz)
    return _UNSIGNED.get(kind, kind)


RETURNED: Final = pa.schema([("position", pa.int64()), ("body", pa.string()), ("report", pa.binary())])
"""What a task returns: its position among the tasks, a fragment or a stored file as JSON, a pickled report."""

Batches = Iterator[pa.RecordBatch]


@dataclass(frozen=True)
class Fragment:
    """Rows that one task staged."""

    path: str
    rows: int


@dataclass(frozen=True)
class Cut:
    """A range of a fragment's rows: `rows` of them after the first `skip`."""

    fragment: Fragment
    skip: int
    rows: int


def cut_parts(fragments: Sequence[Fragment], part_rows: int = PART_ROWS) -> list[list[Cut]]:
    """Returns the ranges of ordered fragments that make up each part of a table; at least one part, possibly empty."""
    parts: list[list[Cut]] = [[]]
    room = part_rows
    for fragment in fragments:
        skip = 0
        while skip < fragment.rows:
            if not room:
                parts.append([])
                room = part_rows
            rows = min(room, fragment.rows - skip)
            parts[-1].append(Cut(fragment, skip, rows))
            skip += rows
            room -= rows
    return parts


def read_pieces(address: StoreAddress, pieces: Sequence[Piece], schema: pa.Schema, *, by_day: bool) -> Callable[[int], Batches]:
    """Returns the task that reads piece n in the types of the schema, with a column `ds` if `by_day`."""

    def work(number: int) -> Batches:
        for table, _ in read_piece(address.open(), pieces[number]):
            dated = table.append_column("ds", pa.repeat(pieces[number].ds, table.num_rows)) if by_day else table
            yield from dated.cast(schema).to_batches()

    return work


def map_piece(
    address: StoreAddress,
    folder: str,
    pieces: Sequence[Piece],
    kernel: PartKernel,
    schema: pa.Schema,
    as_dictionaries: Sequence[str],
) -> Callable[[int], Batches]:
    """Returns the task that maps piece n, stages the result and returns RETURNED rows."""

    def work(number: int) -> Batches:
        store, reports = address.open(), []

        def map_rows() -> Batches:
            for table, start in read_piece(store, pieces[number], as_dictionaries):
                made, report = kernel(table, start)
                reports.append(report)
                # The cast decodes dictionaries, as in every stored table.
                yield from made.cast(schema).to_batches()

        yield from _returned(number, _stage_fragment(store, folder, number, schema, map_rows()), reports)

    return work


def report_piece(
    address: StoreAddress, pieces: Sequence[Piece], kernel: ReportKernel, columns: Sequence[str]
) -> Callable[[int], Batches]:
    """Returns the task that calls the kernel on piece n and returns RETURNED rows."""

    def work(number: int) -> Batches:
        rows = read_piece(address.open(), pieces[number], columns=columns)
        yield _row(number, "", [kernel(table, start) for table, start in rows])

    return work


def run_numbers(work: Callable[[int], Batches]) -> Callable[[Batches], Batches]:
    """Returns the mapInArrow function that runs a task for every number of the first column."""

    def run(batches: Batches) -> Batches:
        for batch in batches:
            for number in batch.column(0).to_pylist():
                yield from work(number)

    return run


def stage_query_rows(
    address: StoreAddress, folder: str, query: pa.Schema, kernel: BatchKernel | None, schema: pa.Schema
) -> Callable[[Batches], Batches]:
    """Returns the mapInArrow function that stages the rows of a query, kernel applied, and returns RETURNED rows."""

    def run(batches: Batches) -> Batches:
        from pyspark import TaskContext

        context = TaskContext.get()
        if context is None:
            raise RuntimeError("fragments are staged by Spark tasks only")
        typed = (batch.cast(query) for batch in batches)
        rows = typed if kernel is None else map(kernel, typed)
        position = context.partitionId()
        yield from _returned(position, _stage_fragment(address.open(), folder, position, schema, rows), [])

    return run


def write_part(
    address: StoreAddress, parts: Sequence[Sequence[Cut]], spec: TableSpec, ds: str, schema: pa.Schema, *, is_shared: bool
) -> Callable[[int], Batches]:
    """Returns the task that writes part n into the partition's folder and returns RETURNED rows."""

    def work(number: int) -> Batches:
        store = address.open()
        rows = (batch for cut in parts[number] for batch in _read_cut(store, cut))
        file = TableStore(store).put_part(spec, ds, number, schema, rows, is_shared=is_shared)
        yield _row(number, json.dumps(asdict(file)), [])

    return work


def fragments_of(returned: Iterable[Any]) -> tuple[list[Fragment], list[Any]]:
    """Returns the fragments that tasks staged, in the order of their rows, and all reports."""
    rows = sorted(returned, key=lambda row: row["position"])
    return [Fragment(**json.loads(row["body"])) for row in rows], reports_of(rows)


def reports_of(returned: Iterable[Any]) -> list[Any]:
    """Returns all reports, in the order of the rows that they describe."""
    return [report for row in sorted(returned, key=lambda row: row["position"]) for report in pickle.loads(row["report"])]


def files_of(returned: Iterable[Any]) -> list[StoredFile]:
    """Returns the parts that tasks wrote, in order."""
    return [StoredFile(**json.loads(row["body"])) for row in sorted(returned, key=lambda row: row["position"])]


def _stage_fragment(store: PartitionStore, folder: str, position: int, schema: pa.Schema, batches: Batches) -> Fragment:
    """Writes rows under a unique name: a task that runs twice leaves two files, and the driver hears of one."""
    target, rows = f"{folder}/{position:06d}-{uuid.uuid4().hex}.parquet", 0
    with store.staging() as local:
        path = local / "fragment.parquet"
        with pq.ParquetWriter(path, schema, compression="lz4", use_dictionary=False) as writer:
            for batch in batches:
                writer.write_batch(batch)
                rows += batch.num_rows
        if rows:
            store.move_in(path, target)
    return Fragment(target, rows)


def _read_cut(store: PartitionStore, cut: Cut) -> Batches:
    with store.fs.open(cut.fragment.path, "rb") as handle:
        file = pq.ParquetFile(handle)
        start, end, group_start = cut.skip, cut.skip + cut.rows, 0
        for group in range(file.metadata.num_row_groups):
            count = file.metadata.row_group(group).num_rows
            first, last = max(start - group_start, 0), min(end - group_start, count)
            if first < last:
                yield from file.read_row_group(group).slice(first, last - first).to_batches()
            group_start += count


def _returned(position: int, fragment: Fragment, reports: Sequence[Any]) -> Batches:
    if fragment.rows or reports:
        yield _row(position, json.dumps(asdict(fragment)), reports)


def _row(position: int, body: str, reports: Sequence[Any]) -> pa.RecordBatch:
    return pa.RecordBatch.from_pydict(
        {"position": [position], "body": [body], "report": [pickle.dumps(list(reports))]}, schema=RETURNED
    )
