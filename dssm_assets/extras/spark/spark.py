"""The engine on a Spark cluster: the same expressions as Spark SQL, the same kernels through mapInArrow.

Rows never pass through the driver. Workers read and write partitions with the store's own code (pyarrow, fsspec), so each worker
needs the package, its dependencies and access to the store; a store in a local folder must be the same folder on every machine.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ibis
import ibis.expr.operations as ops
import pyarrow as pa

from dssm_assets.core.schema import check_schema
from dssm_assets.extras.spark import spark_tasks as tasks
from dssm_assets.extras.spark.spark_tasks import Batches, list_pieces, spark_types
from dssm_assets.storage.engines.engine import (
    DAY,
    Acceptance,
    BatchKernel,
    Bindable,
    ByDay,
    PartKernel,
    ReportKernel,
    Target,
    contract_of,
    kernel_schema,
    manifests_of,
    partition_to_keep,
    stored_inputs,
)
from dssm_assets.storage.manifest import Manifest
from dssm_assets.storage.tables import TableStore, columns_of, stored_schema


@dataclass(frozen=True)
class SparkEngine:
    """Runs expressions and kernels on the cluster of a Spark session, a `pyspark.sql.SparkSession` that the caller stops.

    A partition has a file for each task that made rows of it. Equal inputs give equal rows; how Spark cuts them into files, and
    with it the digest, may differ.
    """

    store: TableStore
    session: Any

    def __post_init__(self) -> None:
        self.session.conf.set("spark.sql.session.timeZone", "UTC")  # as every engine compares and casts timestamps

    def write_query(
        self,
        target: Target,
        expression: Callable[..., ibis.Table],
        inputs: Mapping[str, Bindable],
        arguments: Mapping[str, Any],
        kernel: BatchKernel | None = None,
    ) -> Manifest:
        """Writes the result of an expression on the cluster's workers; see `engine.Engine`."""
        schemas = {name: self._schema(value) for name, value in inputs.items()}
        unbound = {name: ibis.table(ibis.Schema.from_pyarrow(schema), name=name) for name, schema in schemas.items()}
        result = expression(**unbound, **arguments)
        query = contract_of(result)
        schema = kernel_schema(query, kernel)
        for name, value in inputs.items():
            self._frame(value, spark_types(schemas[name])).createOrReplaceTempView(name)
        work = tasks.write_query_rows(self.store.partitions, target, query, kernel, schema)
        with self.store.partitions.reading(stored_inputs(inputs)):
            rows = self.session.sql(write_sql(result))
            return self._publish(target, schema, rows.mapInArrow(work, _spark_schema(tasks.RETURNED)))[0]

    def write_mapped(
        self,
        target: Target,
        source: Manifest,
        kernel: PartKernel,
        *,
        as_dictionaries: Sequence[str] = (),
        accepts: Acceptance | None = None,
    ) -> tuple[Manifest, list[Any]]:
        """Maps the rows of a partition on the cluster's workers; see `engine.Engine`."""
        schema = stored_schema(kernel(self.store.open(source).schema.empty_table(), 0)[0].schema)
        pieces = list_pieces(self.store.partitions, [source])
        work = tasks.map_piece(self.store.partitions, target, pieces, kernel, schema, as_dictionaries)
        with self.store.partitions.reading([source]):
            return self._publish(target, schema, self._run_tasks(len(pieces), work, tasks.RETURNED), accepts)

    def reports(self, source: Manifest, kernel: ReportKernel, columns: Sequence[str]) -> list[Any]:
        """Calls the kernel on the cluster's workers; see `engine.Engine`."""
        pieces = list_pieces(self.store.partitions, [source])
        work = tasks.report_piece(self.store.partitions, pieces, kernel, columns)
        with self.store.partitions.reading([source]):
            return tasks.read_results(self._run_tasks(len(pieces), work, tasks.RETURNED).collect())[1]

    def _publish(
        self, target: Target, schema: pa.Schema, written: Any, accepts: Acceptance | None = None
    ) -> tuple[Manifest, list[Any]]:
        """Publishes the files that the tasks of a data frame write; returns the manifest and the tasks' reports."""
        check_schema(target.spec, schema)
        files, reports = tasks.read_results(written.collect())
        if (stored := partition_to_keep(self.store, target, accepts, reports)) is not None:
            return stored, reports
        if not files:  # every partition has a file, which tells its columns
            files = [self.store.put_part(target.spec, target.ds, 0, schema, [], is_shared=target.is_shared)]
        manifest = self.store.partitions.publish(
            asset=target.spec.name,
            ds=target.ds,
            staged=files,
            columns=columns_of(target.spec, schema),
            inputs=target.inputs,
            facts=target.facts,
        )
        return manifest, reports

    def _run_tasks(self, count: int, work: Callable[[int], Batches], schema: pa.Schema) -> Any:
        """Returns the data frame of what the tasks 0 to count - 1 return."""
        return self.session.range(0, count, 1, count).mapInArrow(tasks.run_numbers(work), _spark_schema(schema))

    def _schema(self, value: Bindable) -> pa.Schema:
        if isinstance(value, pa.Table):
            return value.schema
        schema = self.store.open(manifests_of(value)[0]).schema
        return schema.append(pa.field(DAY, pa.string())) if isinstance(value, ByDay) else schema

    def _frame(self, value: Bindable, schema: pa.Schema) -> Any:
        """Returns the rows of an input as a data frame of a schema with Spark's types."""
        if isinstance(value, pa.Table):
            return self.session.createDataFrame(value.cast(schema))
        pieces = list_pieces(self.store.partitions, manifests_of(value))
        work = tasks.read_pieces(self.store.partitions, pieces, schema, by_day=isinstance(value, ByDay))
        return self._run_tasks(len(pieces), work, schema)


def _spark_schema(schema: pa.Schema) -> Any:
    from pyspark.sql.pandas.types import from_arrow_schema

    return from_arrow_schema(schema)


def write_sql(expression: ibis.Table) -> str:
    """Returns an expression over unbound tables as Spark SQL; tables are referred to by name."""
    _ = ibis.pyspark  # loads the backend: the compiler reads the options that it registers
    return str(ibis.to_sql(expression.op().replace(_sort_list).to_expr(), dialect="pyspark"))


def _sort_list(node: Any, changed: Mapping[str, Any] | None) -> Any:
    """Returns a node of an expression; in place of an ordered `collect`, which Spark lacks, sorted structs of keys and value."""
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
