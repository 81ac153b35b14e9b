"""The default engine: embedded DuckDB, and kernels in this process.

Belongs here: lending connections, binding partitions, streaming what comes out. Does not belong here: what an engine is
(`engine.py`), the connections (`duckdb_connections.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, ClassVar

import ibis
import pyarrow as pa

from dssm_assets.storage.duckdb_connections import Connection, DuckDBConnections
from dssm_assets.storage.engine import (
    BatchKernel,
    Bindable,
    ByDay,
    Judge,
    PartKernel,
    ReportKernel,
    Target,
    contract_of,
    kernel_schema,
    manifests_of,
    standing,
)
from dssm_assets.storage.key_ranges import key_ranges, within
from dssm_assets.storage.manifest import Manifest
from dssm_assets.storage.stored_files import StoredFiles
from dssm_assets.storage.table_store import ROW_GROUP_ROWS, TableStore


class DuckDBEngine:
    """Runs expressions in embedded DuckDB connections that are empty when a call begins, so that calls share nothing."""

    is_spread: ClassVar[bool] = False

    def __init__(self, store: TableStore, threads: int = 2, memory: str = "1GB", scratch: Path | None = None) -> None:
        """Takes what the engine may use.

        Args:
            store: where partitions are.
            threads: each holds blocks of its own.
            memory: what it may hold before it spills, e.g. "512MB".
            scratch: local folder for what it spills, made when it is needed; by default the system's temporary one.
        """
        self.store = store
        self.threads = threads
        self.memory = memory
        self.scratch = scratch
        # The filesystem that a remote store is read through knows one call's files.
        self._connections = DuckDBConnections(threads, memory, scratch, is_kept=store.partitions.is_local)

    @contextmanager
    def run(
        self, expression: Callable[..., ibis.Table], inputs: Mapping[str, Bindable], /, **arguments: Any
    ) -> Iterator[tuple[pa.Schema, Iterator[pa.RecordBatch]]]:
        """Yields the schema and the batches of `expression(**tables, **arguments)`, of which some may be left."""
        with self._opened(inputs) as (lent, tables):
            result = expression(**tables, **arguments)
            # The expression's own types are the contract: DuckDB widens sums (HUGEINT), another engine may not.
            schema = contract_of(result)
            with closing(_batches(lent, [result], schema)) as batches:
                yield schema, batches

    def write_query(
        self,
        target: Target,
        expression: Callable[..., ibis.Table],
        inputs: Mapping[str, Bindable],
        arguments: Mapping[str, Any],
        kernel: BatchKernel | None = None,
    ) -> Manifest:
        """Streams the result into the partition, with `target.by_key` a range of keys after the other; see `Engine`."""
        with self._opened(inputs) as (lent, tables):
            results = [expression(**part, **arguments) for part in self._parts(target.by_key, inputs, tables)]
            schema = contract_of(results[0])
            with closing(_batches(lent, results, schema)) as batches:
                done = batches if kernel is None else map(kernel, batches)
                return self._write(target, done, kernel_schema(schema, kernel))

    def write_mapped(
        self,
        target: Target,
        source: Manifest,
        kernel: PartKernel,
        *,
        as_dictionaries: Sequence[str] = (),
        is_whole: bool = False,
        judge: Judge | None = None,
    ) -> tuple[Manifest, list[Any]]:
        """Takes the rows through the kernel in this process, in a stream or at once; see `Engine`."""
        if is_whole:
            made, report = kernel(self.store.read(source, as_dictionaries=as_dictionaries), 0)
            stays = standing(self.store, target, judge, [report])
            return stays or self._write(target, iter(made.to_batches()), made.schema), [report]
        reports: list[Any] = []

        def mapped() -> Iterator[pa.RecordBatch]:
            start = 0
            for batch in self.store.batches(source, as_dictionaries=as_dictionaries):
                table, report = kernel(pa.Table.from_batches([batch]), start)
                reports.append(report)
                start += batch.num_rows
                yield from table.to_batches()
            if (stays := standing(self.store, target, judge, reports)) is not None:
                raise _Kept(stays)

        schema = kernel(self.store.open(source).schema.empty_table(), 0)[0].schema
        try:
            return self._write(target, mapped(), schema), reports
        except _Kept as kept:
            return kept.manifest, reports

    def reports(self, source: Manifest, kernel: ReportKernel, columns: Sequence[str]) -> list[Any]:
        """Streams the rows through the kernel in this process; see `Engine`."""
        found, start = [], 0
        for batch in self.store.batches(source, columns):
            found.append(kernel(pa.Table.from_batches([batch]), start))
            start += batch.num_rows
        return found

    def _write(self, target: Target, batches: Iterator[pa.RecordBatch], schema: pa.Schema) -> Manifest:
        return self.store.write(
            target.spec,
            target.ds,
            batches,
            schema=schema,
            inputs=target.inputs,
            facts=target.facts,
            is_shared=target.is_shared,
        )

    def table(self, expression: Callable[..., ibis.Table], inputs: Mapping[str, Bindable], /, **arguments: Any) -> pa.Table:
        """Returns the whole result as one table; for results that are known to be small."""
        with self.run(expression, inputs, **arguments) as (schema, batches):
            return _collect(schema, batches)

    @contextmanager
    def _opened(self, inputs: Mapping[str, Bindable]) -> Iterator[tuple[Connection, dict[str, ibis.Table]]]:
        """Yields a connection with the inputs bound in it."""
        with self._connections.lent() as lent:
            connection = lent.connection
            if not self.store.partitions.is_local:
                connection.register_filesystem(self.store.partitions.reader(_stored(inputs)))
            yield lent, {name: self._bind(connection, name, value) for name, value in inputs.items()}

    def _parts(
        self, key: str | None, inputs: Mapping[str, Bindable], tables: dict[str, ibis.Table]
    ) -> Iterator[dict[str, ibis.Table]]:
        """Yields the bound inputs: all their rows, or those of each range of a key."""
        if key is None:
            yield tables
            return
        for keys in key_ranges(self.store, key, _stored(inputs)):
            yield within(tables, key, keys)

    def _bind(self, connection: Any, name: str, value: Bindable) -> ibis.Table:
        if isinstance(value, pa.Table):
            return connection.create_table(name, value, temp=True)
        prefix = "" if self.store.partitions.is_local else f"{StoredFiles.protocol}://"
        paths = [prefix + path for path in self.store.paths(manifests_of(value))]
        # Not by Ibis: for a path like s3:// it would fetch an extension of DuckDB, which knows nothing of the store.
        connection.con.read_parquet(paths, hive_partitioning=isinstance(value, ByDay)).create_view(name)
        return connection.table(name)


class _Kept(Exception):  # noqa: N818
    """What was written aside is not published: a partition stays."""

    def __init__(self, manifest: Manifest) -> None:
        super().__init__(manifest.key)
        self.manifest = manifest


def _stored(inputs: Mapping[str, Bindable]) -> list[Manifest]:
    return [stored for value in inputs.values() if not isinstance(value, pa.Table) for stored in manifests_of(value)]


def _batches(lent: Connection, results: Sequence[ibis.Table], schema: pa.Schema) -> Generator[pa.RecordBatch, None, None]:
    """Yields the rows of some results of equal types, one result after the other."""
    for result in results:
        # Ibis 12 calls a streaming method that DuckDB 2 renamed, so the compiled SQL goes to DuckDB directly.
        reader = lent.connection.con.sql(lent.sql_of(result)).to_arrow_reader(ROW_GROUP_ROWS)
        try:
            yield from (_typed(batch, schema) for batch in reader)
        finally:
            reader.close()


def _typed(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    return batch if batch.schema.equals(schema) else batch.cast(schema)


def _collect(schema: pa.Schema, batches: Iterator[pa.RecordBatch]) -> pa.Table:
    return pa.Table.from_batches(list(batches), schema=schema)
