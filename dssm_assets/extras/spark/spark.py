"""The engine on a Spark cluster: the same expressions as Spark SQL, the same kernels through mapInArrow.

Rows never pass through the driver. Workers write partitions with the store's own code (pyarrow, fsspec), so each worker needs
the package, its dependencies and access to the store; a store in a local folder must be the same folder on every machine.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final

import ibis
import pyarrow as pa
import sqlglot.expressions as sge
from ibis.backends.sql.compilers.pyspark import PySparkCompiler

from dssm_assets.core.config.engines import ReadWith
from dssm_assets.core.schema import check_schema
from dssm_assets.extras.spark import spark_tasks as tasks
from dssm_assets.extras.spark.spark_tasks import Batches, needs_workers, pieces_of, spark_types
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
from dssm_assets.storage.partitions import StoreAddress
from dssm_assets.storage.tables import TableStore, columns_of, stored_schema

_HADOOP_SCHEMES: Final = {"s3": "s3a", "local": "file"}
"""fsspec's name of a filesystem -> Hadoop's, where they differ."""

Send = Callable[[str], list[Any]]
"""Runs tasks that stage rows in a folder of the store; returns their rows."""


@dataclass(frozen=True)
class SparkEngine:
    """Runs expressions and kernels on the cluster of a Spark session.

    Attributes:
        session: a `pyspark.sql.SparkSession`; the caller stops it.
        read_with: which reader queries use for stored files.
    """

    store: TableStore
    session: Any
    is_distributed: ClassVar[bool] = True
    read_with: ReadWith = ReadWith.SPARK
    address: StoreAddress = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "address", StoreAddress.from_store(self.store.partitions))
        # Timestamps are compared and cast in UTC by every engine.
        self.session.conf.set("spark.sql.session.timeZone", "UTC")

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
            self._frame(value, schemas[name]).createOrReplaceTempView(name)
        rows = self.session.sql(spark_sql(result))

        def send(folder: str) -> list[Any]:
            stage = tasks.stage_query_rows(self.address, folder, query, kernel, schema)
            return list(rows.mapInArrow(stage, self._spark_schema(tasks.RETURNED)).collect())

        with self.store.partitions.reading(stored_inputs(inputs)):
            return self._write(target, schema, send)[0]

    def write_mapped(
        self,
        target: Target,
        source: Manifest,
        kernel: PartKernel,
        *,
        as_dictionaries: Sequence[str] = (),
        accepts: Acceptance | None = None,
    ) -> tuple[Manifest, list[Any]]:
        """Maps the rows of a partition on the cluster's workers, with a row group per task; see `engine.Engine`."""
        schema = stored_schema(kernel(self.store.open(source).schema.empty_table(), 0)[0].schema)
        pieces = pieces_of(self.store.partitions, [source])

        def send(folder: str) -> list[Any]:
            work = tasks.map_piece(self.address, folder, pieces, kernel, schema, as_dictionaries)
            return list(self._run_tasks(len(pieces), work, tasks.RETURNED).collect())

        with self.store.partitions.reading([source]):
            return self._write(target, schema, send, accepts)

    def reports(self, source: Manifest, kernel: ReportKernel, columns: Sequence[str]) -> list[Any]:
        """Calls the kernel on the cluster's workers, with a row group per task; see `engine.Engine`."""
        pieces = pieces_of(self.store.partitions, [source])
        work = tasks.report_piece(self.address, pieces, kernel, columns)
        with self.store.partitions.reading([source]):
            return tasks.reports_of(self._run_tasks(len(pieces), work, tasks.RETURNED).collect())

    def _write(
        self, target: Target, schema: pa.Schema, send: Send, accepts: Acceptance | None = None
    ) -> tuple[Manifest, list[Any]]:
        """Publishes the rows that the sent tasks stage; returns the manifest and the tasks' reports."""
        check_schema(target.spec, schema)
        partitions = self.store.partitions
        with partitions.staging_in_store() as folder:
            fragments, reports = tasks.fragments_of(send(folder))
            if (kept := partition_to_keep(self.store, target, accepts, reports)) is not None:
                return kept, reports
            parts = tasks.cut_parts(fragments)
            work = tasks.write_part(self.address, parts, target.spec, target.ds, schema, is_shared=target.is_shared)
            files = tasks.files_of(self._run_tasks(len(parts), work, tasks.RETURNED).collect())
        manifest = partitions.publish_files(
            asset=target.spec.name,
            ds=target.ds,
            files=files,
            columns=columns_of(target.spec, schema),
            inputs=target.inputs,
            facts=target.facts,
        )
        return manifest, reports

    def _run_tasks(self, count: int, work: Callable[[int], Batches], schema: pa.Schema) -> Any:
        """Returns the data frame of what the tasks 0 to count - 1 return."""
        numbers = self.session.range(0, count, 1, count)
        return numbers.mapInArrow(tasks.run_numbers(work), self._spark_schema(schema))

    def _schema(self, value: Bindable) -> pa.Schema:
        if isinstance(value, pa.Table):
            return value.schema
        schema = self.store.open(manifests_of(value)[0]).schema
        if not isinstance(value, ByDay):
            return schema
        return pa.schema([*(field for field in schema if field.name != DAY), pa.field(DAY, pa.string())])

    def _frame(self, value: Bindable, schema: pa.Schema) -> Any:
        """Returns the rows of an input as a data frame."""
        typed = spark_types(schema)
        if isinstance(value, pa.Table):
            return self.session.createDataFrame(value.cast(typed))
        manifests, by_day = manifests_of(value), isinstance(value, ByDay)
        if self.read_with is ReadWith.WORKERS or needs_workers(schema):
            pieces = pieces_of(self.store.partitions, manifests)
            return self._run_tasks(len(pieces), tasks.read_pieces(self.address, pieces, typed, by_day=by_day), typed)
        return self._read_natively(manifests, typed, by_day=by_day)

    def _read_natively(self, manifests: Sequence[Manifest], schema: pa.Schema, *, by_day: bool) -> Any:
        from pyspark.sql import functions

        stored = pa.schema([field for field in schema if not (by_day and field.name == DAY)])
        urls = [self._url(path) for path in self.store.paths(manifests)]
        frame = self.session.read.schema(self._spark_schema(stored)).parquet(*urls)
        if not by_day:
            return frame
        # The day is in the path: .../ds=2024-01-31/part-00000-0123456789ab.parquet
        return frame.withColumn(DAY, functions.regexp_extract("_metadata.file_path", r"/ds=([0-9-]+)/", 1))

    def _url(self, path: str) -> str:
        scheme, _, rest = str(self.store.partitions.fs.unstrip_protocol(path)).partition("://")
        return f"{_HADOOP_SCHEMES.get(scheme, scheme)}://{rest}"

    def _spark_schema(self, schema: pa.Schema) -> Any:
        from pyspark.sql.pandas.types import from_arrow_schema

        return from_arrow_schema(schema)


_ENTRY: Final = "entry"
_VALUE: Final = "value"


class SparkCompiler(PySparkCompiler):  # type: ignore[misc]  # ibis is skipped by the type check
    """Ibis's compiler for PySpark, with ordered lists."""

    __slots__ = ()

    def visit_ArrayCollect(  # noqa: N802 - Ibis looks for this name
        self, op: Any, *, arg: Any, where: Any, order_by: Sequence[Any], include_null: bool, distinct: bool
    ) -> Any:
        """Returns the SQL of an ordered `collect`.

        Spark's collect_list has no order, so structs of keys and value are collected and sorted, and then the values extracted.

        Raises:
            NotImplementedError: for descending keys and distinct entries, which no expression needs.
        """
        if distinct or any(key.args.get("desc") for key in order_by):
            raise NotImplementedError("on Spark, collect takes ascending keys and keeps every entry")
        keys = [key.this for key in order_by]
        fields = [part for place, key in enumerate(keys) for part in (sge.convert(f"key_{place}"), key)]
        entries = self.f.anon.collect_list(self.f.anon.named_struct(*fields, sge.convert(_VALUE), arg))
        condition = where if include_null else _both(where, arg.is_(sge.Not(this=sge.Null())))
        if condition is not None:
            entries = sge.Filter(this=entries, expression=sge.Where(this=condition))
        entry = sge.to_identifier(_ENTRY)
        value = sge.Lambda(this=sge.Dot(this=entry, expression=sge.to_identifier(_VALUE)), expressions=[entry])
        return self.f.anon.transform(self.f.anon.array_sort(entries) if keys else entries, value)


def spark_sql(expression: ibis.Table) -> str:
    """Returns an expression over unbound tables as Spark SQL; tables are referred to by name."""
    _ = ibis.pyspark  # loads the backend: the compiler reads the options that it registers
    compiler = SparkCompiler()
    return str(compiler.to_sqlglot(expression).sql(dialect=compiler.dialect))


def _both(first: Any, second: Any) -> Any:
    return second if first is None else sge.And(this=first, expression=second)
