"""The table engine on a Spark cluster. It compiles expressions to Spark SQL and runs kernels through mapInArrow.

Each task writes its rows to a file in the partition's folder and returns the file's manifest entry. If a task fails or runs twice,
no manifest lists its extra file, and a cleanup removes it.

Rows never pass through the driver. Workers read and write partitions with the store's own code (pyarrow, fsspec). So each worker
needs the package, its dependencies and access to the store. A local store must be in the same shared folder on every machine.
"""

from __future__ import annotations

import itertools
import pickle
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import ibis
import ibis.expr.operations as ops
import pyarrow as pa
import pyarrow.types as pat

from dssm_assets.core.schema import check_schema
from dssm_assets.storage import tables
from dssm_assets.storage.engines import engine
from dssm_assets.storage.manifest import Manifest, StoredFile
from dssm_assets.storage.partitions import PartitionStore
from dssm_assets.storage.tables import TableStore, stored_schema

PIECE_GROUPS: Final = 4
"""A task reads so many row groups."""
RETURNED: Final = pa.schema([("result", pa.binary())])
"""A task's result: its position among the tasks, its file or None, and its reports. It is pickled: it is sent and never stored."""
_UNSIGNED: Final = {pa.uint8(): pa.int16(), pa.uint16(): pa.int32(), pa.uint32(): pa.int64(), pa.uint64(): pa.decimal128(20)}

Batches = Iterator[pa.RecordBatch]


@dataclass(frozen=True)
class SparkEngine:
    """Runs expressions and kernels in a `pyspark.sql.SparkSession`, which the caller stops.

    A partition has one file per task that has rows. Equal inputs give equal rows, but Spark may split them into other files, and
    then the digest changes.
    """

    store: TableStore
    session: Any

    def __post_init__(self) -> None:
        self.session.conf.set("spark.sql.session.timeZone", "UTC")  # every engine compares and casts timestamps in UTC

    def write_query(
        self,
        target: engine.Target,
        expression: Callable[..., ibis.Table],
        inputs: Mapping[str, engine.Bindable],
        arguments: Mapping[str, Any],
        kernel: engine.BatchKernel | None = None,
    ) -> Manifest:
        """Computes an expression on the cluster's workers and stores its rows as a partition. See `engine.Engine`."""
        schemas = {name: self._schema(value) for name, value in inputs.items()}
        unbound = {name: ibis.table(ibis.Schema.from_pyarrow(schema), name=name) for name, schema in schemas.items()}
        result = expression(**unbound, **arguments)
        query = engine.contract_of(result)
        schema = engine.kernel_schema(query, kernel)
        for name, value in inputs.items():
            self._frame(value, spark_types(schemas[name])).createOrReplaceTempView(name)
        store = self.store.partitions

        def work(batches: Batches) -> Batches:
            from pyspark import TaskContext

            context = TaskContext.get()
            assert context is not None  # Spark calls it in a task
            typed = (batch.cast(query) for batch in batches)
            rows = typed if kernel is None else map(kernel, typed)
            yield _result(context.partitionId(), _write_rows(store, target, context.partitionId(), schema, rows), [])

        with store.reading(engine.stored_inputs(inputs)):
            rows = self.session.sql(write_sql(result))
            return self._publish(target, schema, rows.mapInArrow(work, _spark_schema(RETURNED)))[0]

    def write_mapped(
        self,
        target: engine.Target,
        source: Manifest,
        kernel: engine.PartKernel,
        *,
        as_dictionaries: Sequence[str] = (),
        accepts: engine.Acceptance | None = None,
    ) -> tuple[Manifest, list[Any]]:
        """Maps the rows of a partition on the cluster's workers and stores the result. See `engine.Engine`."""
        store, schema = self.store.partitions, stored_schema(kernel(self.store.open(source).schema.empty_table(), 0)[0].schema)
        pieces = list_pieces([source])

        def work(number: int) -> Batches:
            reports: list[Any] = []

            def map_rows() -> Batches:
                for table, start in read_piece(store, pieces[number], as_dictionaries):
                    mapped, report = kernel(table, start)
                    reports.append(report)
                    yield from mapped.cast(schema).to_batches()  # the cast decodes dictionaries, as in every stored table

            yield _result(number, _write_rows(store, target, number, schema, map_rows()), reports)

        with store.reading([source]):
            return self._publish(target, schema, self._run_tasks(len(pieces), work, RETURNED), accepts)

    def reports(self, source: Manifest, kernel: engine.ReportKernel, columns: Sequence[str]) -> list[Any]:
        """Calls a kernel on the rows of a partition, on the cluster's workers, and returns its reports. See `engine.Engine`."""
        store = self.store.partitions
        pieces = list_pieces([source])

        def work(number: int) -> Batches:
            rows = read_piece(store, pieces[number], columns=columns)
            yield _result(number, None, [kernel(table, start) for table, start in rows])

        with store.reading([source]):
            return read_results(self._run_tasks(len(pieces), work, RETURNED).collect())[1]

    def _publish(
        self, target: engine.Target, schema: pa.Schema, written: Any, accepts: engine.Acceptance | None = None
    ) -> tuple[Manifest, list[Any]]:
        check_schema(target.spec, schema)
        files, reports = read_results(written.collect())
        if (stored := engine.partition_to_keep(self.store, target, accepts, reports)) is not None:
            return stored, reports
        if not files:  # every partition has at least one file, because the file holds the schema
            files = [self.store.put_part(target.spec, target.ds, 0, schema, [], is_shared=target.is_shared)]
        manifest = self.store.publish_parts(
            target.spec, target.ds, files, schema=schema, inputs=target.inputs, facts=target.facts
        )
        return manifest, reports

    def _run_tasks(self, count: int, work: Callable[[int], Batches], schema: pa.Schema) -> Any:
        """Returns a data frame with the results of the tasks 0 to count - 1, which run when it is collected."""

        def run(batches: Batches) -> Batches:
            for batch in batches:
                for number in batch.column(0).to_pylist():
                    yield from work(number)

        return self.session.range(0, count, 1, count).mapInArrow(run, _spark_schema(schema))

    def _schema(self, value: engine.Bindable) -> pa.Schema:
        if isinstance(value, pa.Table):
            return value.schema
        schema = self.store.open(engine.manifests_of(value)[0]).schema
        return schema.append(pa.field(engine.DAY, pa.string())) if isinstance(value, engine.ByDay) else schema

    def _frame(self, value: engine.Bindable, schema: pa.Schema) -> Any:
        """Returns the rows of an input as a data frame. `schema` has Spark's types."""
        if isinstance(value, pa.Table):
            return self.session.createDataFrame(value.cast(schema))
        store, by_day = self.store.partitions, isinstance(value, engine.ByDay)
        pieces = list_pieces(engine.manifests_of(value))

        def work(number: int) -> Batches:
            day = pieces[number].manifest.ds
            for table, _ in read_piece(store, pieces[number]):
                dated = table.append_column(engine.DAY, pa.repeat(day, table.num_rows)) if by_day else table
                yield from dated.cast(schema).to_batches()

        return self._run_tasks(len(pieces), work, schema)


def _spark_schema(schema: pa.Schema) -> Any:
    from pyspark.sql.pandas.types import from_arrow_schema

    return from_arrow_schema(schema)


def write_sql(expression: ibis.Table) -> str:
    """Compiles an expression over unbound tables to Spark SQL, in which each table appears by its name."""
    _ = ibis.pyspark  # loads the backend: it registers options for the compiler
    return str(ibis.to_sql(expression.op().replace(_sort_list).to_expr(), dialect="pyspark"))


def _sort_list(node: Any, changed: Mapping[str, Any] | None) -> Any:
    """Replaces an ordered `collect`, which Spark lacks, by a sorted list of structs (keys, value). Returns other nodes as they are."""
    node = node if changed is None else node.copy(**changed)
    if not isinstance(node, ops.ArrayCollect) or not (node.order_by or node.include_null):
        return node
    if node.distinct or any(key.descending for key in node.order_by):
        raise NotImplementedError("on Spark, collect takes ascending keys and keeps every entry")
    value = node.arg.to_expr()
    where = None if node.where is None else node.where.to_expr()
    if not node.include_null:
        where = value.notnull() if where is None else where & value.notnull()
    keys = {f"key_{number}": key.arg.to_expr() for number, key in enumerate(node.order_by)}
    entries = ibis.struct({**keys, "value": value}).collect(where=where)
    return (entries.sort() if keys else entries).map(lambda entry: entry["value"]).op()


@dataclass(frozen=True)
class Piece:
    """The rows `start` to `end - 1` of a partition, all in one file."""

    manifest: Manifest
    start: int
    end: int


def list_pieces(manifests: Sequence[Manifest]) -> list[Piece]:
    pieces, size = [], PIECE_GROUPS * tables.ROW_GROUP_ROWS
    for manifest in manifests:
        first = 0
        for file in manifest.files:
            starts = range(first, first + max(1, file.rows), size)
            pieces += [Piece(manifest, start, min(start + size, first + file.rows)) for start in starts]
            first += file.rows
    return pieces


def read_piece(
    partitions: PartitionStore, piece: Piece, as_dictionaries: Sequence[str] = (), columns: Sequence[str] = ()
) -> Iterator[tuple[pa.Table, int]]:
    """Yields each row group of a piece with the position of its first row in the partition. No `columns` means all."""
    store, start = TableStore(partitions), piece.start
    names = columns or [column.name for column in piece.manifest.columns]
    for batch in store.rows(piece.manifest, names, piece.start, piece.end, as_dictionaries=as_dictionaries):
        yield pa.Table.from_batches([batch]), start
        start += batch.num_rows


def spark_types(schema: pa.Schema) -> pa.Schema:
    """Replaces types that Spark lacks by wider types, without loss of values."""
    return pa.schema([pa.field(field.name, _spark_type(field.type)) for field in schema])


def _spark_type(kind: pa.DataType) -> pa.DataType:
    if pat.is_list(kind) or pat.is_large_list(kind):
        return pa.list_(_spark_type(kind.value_type))
    if pat.is_timestamp(kind):
        return pa.timestamp("us", kind.tz)
    return _UNSIGNED.get(kind, kind)


def read_results(returned: Iterable[Any]) -> tuple[list[StoredFile], list[Any]]:
    """Unpickles the tasks' results. Returns their files and their reports, both in the order of the rows."""
    results = sorted((pickle.loads(row["result"]) for row in returned), key=lambda result: int(result[0]))
    return [file for _, file, _ in results if file is not None], [report for *_, reports in results for report in reports]


def _write_rows(
    store: PartitionStore, target: engine.Target, position: int, schema: pa.Schema, batches: Batches
) -> StoredFile | None:
    first = next((batch for batch in batches if batch.num_rows), None)
    if first is None:
        return None
    rows = itertools.chain([first], batches)
    return TableStore(store).put_part(target.spec, target.ds, position, schema, rows, is_shared=target.is_shared)


def _result(position: int, file: StoredFile | None, reports: Sequence[Any]) -> pa.RecordBatch:
    return pa.RecordBatch.from_pydict({"result": [pickle.dumps((position, file, list(reports)))]}, schema=RETURNED)
