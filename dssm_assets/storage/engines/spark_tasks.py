"""What Spark's Python workers do: read pieces of tables, write rows aside, write the parts of a partition.

A result leaves Spark in two steps. Each task of the query writes its rows aside, as a fragment inside the store. Then,
once their counts are known, the fragments are cut into the parts that the table store would have written: which rows
are in which part follows from the rows alone, never from how Spark spread them, so a partition that is made again has
the digest that it had, and so has one that another engine made. The driver sees counts and names of files only.

Belongs here: functions that are sent to workers, and what they return. Does not belong here: sending them
(`spark_engine.py`).
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
            count = max(1, -(-file.rows // tables.ROW_GROUP_ROWS))
            path = partitions.file_path(manifest, file)
            found += [Piece(path, file.bytes, start, share, count, manifest.ds) for share in range(count)]
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


RETURNED: Final = pa.schema([("place", pa.int64()), ("body", pa.string()), ("report", pa.binary())])
"""What a task that writes returns: its place, a fragment or a stored file as JSON, a pickled report."""

Batches = Iterator[pa.RecordBatch]


@dataclass(frozen=True)
class Fragment:
    """Rows that one task wrote aside."""

    path: str
    rows: int


@dataclass(frozen=True)
class Cut:
    """Some rows of a fragment: `rows` of them from `skip` on."""

    fragment: Fragment
    skip: int
    rows: int


def cut(fragments: Sequence[Fragment], part_rows: int = PART_ROWS) -> list[list[Cut]]:
    """Returns what each part of a table consists of, fragments being in order; at least one part, possibly empty."""
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


def reading(address: StoreAddress, pieces: Sequence[Piece], schema: pa.Schema, *, by_day: bool) -> Callable[[int], Batches]:
    """Returns the work of reading piece number n, in the types of the schema; by day with a column `ds`."""

    def work(number: int) -> Batches:
        for table, _ in read_piece(address.open(), pieces[number]):
            dated = table.append_column("ds", pa.repeat(pieces[number].ds, table.num_rows)) if by_day else table
            yield from dated.cast(schema).to_batches()

    return work


def mapping(
    address: StoreAddress,
    folder: str,
    pieces: Sequence[Piece],
    kernel: PartKernel,
    schema: pa.Schema,
    as_dictionaries: Sequence[str],
) -> Callable[[int], Batches]:
    """Returns the work of mapping piece number n and writing what comes of it aside; it returns RETURNED rows."""

    def work(number: int) -> Batches:
        store, reports = address.open(), []

        def mapped() -> Batches:
            for table, start in read_piece(store, pieces[number], as_dictionaries):
                made, report = kernel(table, start)
                reports.append(report)
                # Codes of a dictionary become what they stand for, as in every stored table.
                yield from made.cast(schema).to_batches()

        yield from _returned(number, _write_fragment(store, folder, number, schema, mapped()), reports)

    return work


def reporting(
    address: StoreAddress, pieces: Sequence[Piece], kernel: ReportKernel, columns: Sequence[str]
) -> Callable[[int], Batches]:
    """Returns the work of reporting on piece number n; it returns RETURNED rows."""

    def work(number: int) -> Batches:
        rows = read_piece(address.open(), pieces[number], columns=columns)
        yield _row(number, "", [kernel(table, start) for table, start in rows])

    return work


def numbered(work: Callable[[int], Batches]) -> Callable[[Batches], Batches]:
    """Returns the function that does a work for every number of a column."""

    def run(batches: Batches) -> Batches:
        for batch in batches:
            for number in batch.column(0).to_pylist():
                yield from work(number)

    return run


def keeping(
    address: StoreAddress, folder: str, query: pa.Schema, kernel: BatchKernel | None, schema: pa.Schema
) -> Callable[[Batches], Batches]:
    """Returns the function that writes the rows of a query's task aside, kernel applied; it returns RETURNED rows."""

    def run(batches: Batches) -> Batches:
        from pyspark import TaskContext

        context = TaskContext.get()
        if context is None:
            raise RuntimeError("a fragment is written by a task of Spark")
        typed = (batch.cast(query) for batch in batches)
        done = typed if kernel is None else map(kernel, typed)
        place = context.partitionId()
        yield from _returned(place, _write_fragment(address.open(), folder, place, schema, done), [])

    return run


def placing(
    address: StoreAddress, parts: Sequence[Sequence[Cut]], spec: TableSpec, ds: str, schema: pa.Schema, *, is_shared: bool
) -> Callable[[int], Batches]:
    """Returns the work of writing part number n where it kept; it returns RETURNED rows."""

    def work(number: int) -> Batches:
        store = address.open()
        rows = (batch for some in parts[number] for batch in _read_cut(store, some))
        file = TableStore(store).put_part(spec, ds, number, schema, rows, is_shared=is_shared)
        yield _row(number, json.dumps(asdict(file)), [])

    return work


def fragments_of(returned: Iterable[Any]) -> tuple[list[Fragment], list[Any]]:
    """Returns the fragments that tasks wrote, in the order of their rows, and all reports."""
    rows = sorted(returned, key=lambda row: row["place"])
    return [Fragment(**json.loads(row["body"])) for row in rows], reports_of(rows)


def reports_of(returned: Iterable[Any]) -> list[Any]:
    """Returns all reports, in the order of the rows that they are on."""
    return [report for row in sorted(returned, key=lambda row: row["place"]) for report in pickle.loads(row["report"])]


def files_of(returned: Iterable[Any]) -> list[StoredFile]:
    """Returns the parts that tasks wrote, in order."""
    return [StoredFile(**json.loads(row["body"])) for row in sorted(returned, key=lambda row: row["place"])]


def _write_fragment(store: PartitionStore, folder: str, place: int, schema: pa.Schema, batches: Batches) -> Fragment:
    """Writes rows under a name of their own: a task that is run twice leaves two, and one of them is returned."""
    target, rows = f"{folder}/{place:06d}-{uuid.uuid4().hex}.parquet", 0
    with store.staging() as local:
        path = local / "fragment.parquet"
        with pq.ParquetWriter(path, schema, compression="lz4", use_dictionary=False) as writer:
            for batch in batches:
                writer.write_batch(batch)
                rows += batch.num_rows
        if rows:
            store.move_in(path, target)
    return Fragment(target, rows)


def _read_cut(store: PartitionStore, some: Cut) -> Batches:
    with store.fs.open(some.fragment.path, "rb") as handle:
        file = pq.ParquetFile(handle)
        start, end, here = some.skip, some.skip + some.rows, 0
        for group in range(file.metadata.num_row_groups):
            count = file.metadata.row_group(group).num_rows
            first, last = max(start - here, 0), min(end - here, count)
            if first < last:
                yield from file.read_row_group(group).slice(first, last - first).to_batches()
            here += count


def _returned(place: int, fragment: Fragment, reports: Sequence[Any]) -> Batches:
    if fragment.rows or reports:
        yield _row(place, json.dumps(asdict(fragment)), reports)


def _row(place: int, body: str, reports: Sequence[Any]) -> pa.RecordBatch:
    return pa.RecordBatch.from_pydict(
        {"place": [place], "body": [body], "report": [pickle.dumps(list(reports))]}, schema=RETURNED
    )
