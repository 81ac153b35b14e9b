"""The functions that run in Spark's Python workers: they read pieces of tables and write the files of a partition.

Each task writes the file of its rows into the partition's folder and returns what the manifest says about it. No manifest lists the
file of a task that failed or ran twice: it is a leftover.
"""

from __future__ import annotations

import itertools
import pickle
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.types as pat

from dssm_assets.storage import tables
from dssm_assets.storage.engines.engine import DAY, BatchKernel, PartKernel, ReportKernel, Target
from dssm_assets.storage.manifest import Manifest, StoredFile
from dssm_assets.storage.partitions import PartitionStore
from dssm_assets.storage.sized_files import SizedFileSystem
from dssm_assets.storage.tables import TableStore

PIECE_GROUPS: Final = 4
"""Row groups that a task reads."""
RETURNED: Final = pa.schema([("result", pa.binary())])
"""A task's result: its position among the tasks, the file that it wrote or None, and its reports, pickled."""
_UNSIGNED: Final = {pa.uint8(): pa.int16(), pa.uint16(): pa.int32(), pa.uint32(): pa.int64(), pa.uint64(): pa.decimal128(20)}

Batches = Iterator[pa.RecordBatch]


@dataclass(frozen=True)
class Piece:
    """Consecutive row groups of a stored file: its piece `number` of `count`.

    `start` is the position of the file's first row in the partition.
    """

    path: str
    bytes: int
    start: int
    number: int
    count: int
    ds: str


def list_pieces(partitions: PartitionStore, manifests: Sequence[Manifest]) -> list[Piece]:
    """Returns the pieces of some partitions in order."""
    pieces = []
    for manifest in manifests:
        start = 0
        for file in manifest.files:
            count = max(1, -(-file.rows // (PIECE_GROUPS * tables.ROW_GROUP_ROWS)))
            path = partitions.file_path(manifest, file)
            pieces += [Piece(path, file.bytes, start, number, count, manifest.ds) for number in range(count)]
            start += file.rows
    return pieces


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


def spark_types(schema: pa.Schema) -> pa.Schema:
    """Returns the schema in types that Spark has; each holds every value of the original type."""
    return pa.schema([pa.field(field.name, _spark_type(field.type)) for field in schema])


def _spark_type(kind: pa.DataType) -> pa.DataType:
    if pat.is_list(kind) or pat.is_large_list(kind):
        return pa.list_(_spark_type(kind.value_type))
    if pat.is_timestamp(kind):
        return pa.timestamp("us", kind.tz)
    return _UNSIGNED.get(kind, kind)


def read_pieces(store: PartitionStore, pieces: Sequence[Piece], schema: pa.Schema, *, by_day: bool) -> Callable[[int], Batches]:
    """Returns the task that reads piece n in the types of the schema, with the column of its day if `by_day`."""

    def work(number: int) -> Batches:
        for table, _ in read_piece(store, pieces[number]):
            dated = table.append_column(DAY, pa.repeat(pieces[number].ds, table.num_rows)) if by_day else table
            yield from dated.cast(schema).to_batches()

    return work


def map_piece(
    store: PartitionStore,
    target: Target,
    pieces: Sequence[Piece],
    kernel: PartKernel,
    schema: pa.Schema,
    as_dictionaries: Sequence[str],
) -> Callable[[int], Batches]:
    """Returns the task that maps piece n and writes the result."""

    def work(number: int) -> Batches:
        reports: list[Any] = []

        def map_rows() -> Batches:
            for table, start in read_piece(store, pieces[number], as_dictionaries):
                mapped, report = kernel(table, start)
                reports.append(report)
                yield from mapped.cast(schema).to_batches()  # the cast decodes dictionaries, as in every stored table

        yield _result(number, _write_rows(store, target, number, schema, map_rows()), reports)

    return work


def report_piece(
    store: PartitionStore, pieces: Sequence[Piece], kernel: ReportKernel, columns: Sequence[str]
) -> Callable[[int], Batches]:
    """Returns the task that calls the kernel on piece n."""

    def work(number: int) -> Batches:
        rows = read_piece(store, pieces[number], columns=columns)
        yield _result(number, None, [kernel(table, start) for table, start in rows])

    return work


def run_numbers(work: Callable[[int], Batches]) -> Callable[[Batches], Batches]:
    """Returns the mapInArrow function that runs a task for every number of the first column."""

    def run(batches: Batches) -> Batches:
        for batch in batches:
            for number in batch.column(0).to_pylist():
                yield from work(number)

    return run


def write_query_rows(
    store: PartitionStore, target: Target, query: pa.Schema, kernel: BatchKernel | None, schema: pa.Schema
) -> Callable[[Batches], Batches]:
    """Returns the mapInArrow function that writes the rows of a query, kernel applied."""

    def run(batches: Batches) -> Batches:
        from pyspark import TaskContext

        context = TaskContext.get()
        assert context is not None  # Spark calls it in a task
        typed = (batch.cast(query) for batch in batches)
        rows = typed if kernel is None else map(kernel, typed)
        yield _result(context.partitionId(), _write_rows(store, target, context.partitionId(), schema, rows), [])

    return run


def read_results(returned: Iterable[Any]) -> tuple[list[StoredFile], list[Any]]:
    """Returns the files that tasks wrote and their reports, both in the order of the rows."""
    results = sorted((pickle.loads(row["result"]) for row in returned), key=lambda result: int(result[0]))
    return [file for _, file, _ in results if file is not None], [report for *_, reports in results for report in reports]


def _write_rows(store: PartitionStore, target: Target, position: int, schema: pa.Schema, batches: Batches) -> StoredFile | None:
    """Writes the file of a task's rows into the partition's folder; returns None if there are no rows."""
    first = next((batch for batch in batches if batch.num_rows), None)
    if first is None:
        return None
    rows = itertools.chain([first], batches)
    return TableStore(store).put_part(target.spec, target.ds, position, schema, rows, is_shared=target.is_shared)


def _result(position: int, file: StoredFile | None, reports: Sequence[Any]) -> pa.RecordBatch:
    return pa.RecordBatch.from_pydict({"result": [pickle.dumps((position, file, list(reports)))]}, schema=RETURNED)
