"""The default engine: embedded DuckDB, and kernels in this process.

Belongs here: lending connections, binding partitions, streaming what comes out. Does not belong here: what an engine is
(`engine.py`), the connections (`duckdb_connections.py`).
"""

from __future__ import annotations

import itertools
import shutil
import tempfile
import uuid
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final

import ibis
import pyarrow as pa
import pyarrow.parquet as pq

from dssm_assets.storage.engines.engine import (
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
)
from dssm_assets.storage.manifest import Manifest
from dssm_assets.storage.sized_files import SizedFileSystem
from dssm_assets.storage.tables import ROW_GROUP_ROWS, TableStore


class Connection:
    """A connection and the folder that DuckDB makes when it has to spill."""

    def __init__(self, connection: Any, spilled: Path) -> None:
        self.connection, self.spilled = connection, spilled
        self._last: tuple[ibis.Table, str] | None = None

    def sql_of(self, expression: ibis.Table) -> str:
        """Returns the SQL of an expression; that of the last one is kept, for days after days ask the same."""
        if self._last is None or not self._last[0].equals(expression):
            self._last = expression, self.connection.compile(expression)
        return self._last[1]

    def close(self) -> None:
        """Closes the connection; what it has spilled goes away."""
        self.connection.disconnect()
        shutil.rmtree(self.spilled, ignore_errors=True)


class DuckDBConnections:
    """Opens connections of equal settings and keeps the last one that came back clean."""

    def __init__(self, threads: int, memory: str, scratch: Path | None, *, is_kept: bool) -> None:
        """Takes what each connection may use, where it spills, and whether one is kept for the next call."""
        self._threads, self._memory = threads, memory
        self._scratch = Path(tempfile.gettempdir()) if scratch is None else scratch
        self._is_kept = is_kept
        self._idle: list[Connection] = []

    @contextmanager
    def borrow(self) -> Iterator[Connection]:
        """Yields a connection without tables or views, and empties it afterwards.

        Calls may overlap: each has a connection of its own.
        """
        opened = self._idle.pop() if self._idle else self._open()
        is_clean = False
        try:
            yield opened
            _empty(opened.connection)
            is_clean = self._is_kept and not opened.spilled.exists()
        finally:
            if is_clean and not self._idle:
                self._idle.append(opened)
            else:
                opened.close()

    def _open(self) -> Connection:
        self._scratch.mkdir(parents=True, exist_ok=True)
        spilled = self._scratch / f"dssm-duckdb-{uuid.uuid4().hex}"
        connection = ibis.duckdb.connect(
            threads=self._threads,
            memory_limit=self._memory,
            temp_directory=str(spilled),
            enable_external_file_cache=False,  # stored files are read once; a connection that kept would hold them
        )
        return Connection(connection, spilled)


def _empty(connection: Any) -> None:
    """Drops all tables and views."""
    found = connection.con.execute(
        "select 'view', view_name from duckdb_views() where not internal union all select 'table', table_name from duckdb_tables()"
    )
    for kind, name in found.fetchall():
        connection.con.execute(f'drop {kind} "{name}"')


RANGE_GROUPS: Final = 8
"""Row groups of the longest input that is stored in the key's order, for a range."""


@dataclass(frozen=True)
class KeyRange:
    """Keys from `first` on and before `end`; None: there is no such bound."""

    first: Any = None
    end: Any = None

    def of(self, table: ibis.Table, key: str) -> ibis.Table:
        """Returns a table's rows with these keys; all its rows if it has no such column."""
        if key not in table.columns:
            return table
        bounds = [] if self.first is None else [table[key] >= self.first]
        bounds += [] if self.end is None else [table[key] < self.end]
        return table.filter(*bounds) if bounds else table


def key_ranges(store: TableStore, key: str, inputs: Sequence[Manifest]) -> list[KeyRange]:
    """Returns ranges that hold every key once, in ascending order; one without bounds where inputs are short."""
    longest = max((_first_keys(store, key, manifest) for manifest in inputs), key=len, default=[])
    starts = sorted(set(longest[RANGE_GROUPS::RANGE_GROUPS]))
    return [KeyRange(first, end) for first, end in zip([None, *starts], [*starts, None], strict=True)]


def within(tables: Mapping[str, ibis.Table], key: str, keys: KeyRange) -> dict[str, ibis.Table]:
    """Returns the rows of some tables that are in a range."""
    return {name: keys.of(table, key) for name, table in tables.items()}


def _first_keys(store: TableStore, key: str, manifest: Manifest) -> list[Any]:
    """Returns the least key of each row group; nothing where they are unknown or not in the key's order."""
    if key not in [column.name for column in manifest.columns]:
        return []
    reader = store.partitions.filesystem_for([manifest])
    seen: list[tuple[Any, Any] | None] = []
    for path in store.paths([manifest]):
        with reader.open(path, "rb") as handle:
            seen += _bounds(pq.ParquetFile(handle).metadata, key)
    known = [bounds for bounds in seen if bounds is not None]
    is_ordered = len(known) == len(seen) and all(a[1] <= b[0] for a, b in itertools.pairwise(known))
    return [low for low, _ in known] if is_ordered else []


def _bounds(metadata: pq.FileMetaData, key: str) -> list[tuple[Any, Any] | None]:
    """Returns the least and the greatest key of each row group of a file that has rows; None: it does not say."""
    column = metadata.schema.names.index(key)
    groups = [metadata.row_group(number).column(column) for number in range(metadata.num_row_groups)]
    said = [group.statistics for group in groups if group.num_values]
    return [(known.min, known.max) if known is not None and known.has_min_max else None for known in said]


class DuckDBEngine:
    """Runs expressions in embedded DuckDB connections that are empty when a call begins, so that calls share nothing."""

    is_distributed: ClassVar[bool] = False

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
        with self._opened(inputs) as (borrowed, tables):
            result = expression(**tables, **arguments)
            # The expression's own types are the contract: DuckDB widens sums (HUGEINT), another engine may not.
            schema = contract_of(result)
            with closing(_batches(borrowed, [result], schema)) as batches:
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
        with self._opened(inputs) as (borrowed, tables):
            results = [expression(**part, **arguments) for part in self._parts(target.by_key, inputs, tables)]
            schema = contract_of(results[0])
            with closing(_batches(borrowed, results, schema)) as batches:
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
        accepts: Acceptance | None = None,
    ) -> tuple[Manifest, list[Any]]:
        """Takes the rows through the kernel in this process, in a stream or at once; see `Engine`."""
        if is_whole:
            made, report = kernel(self.store.read(source, as_dictionaries=as_dictionaries), 0)
            kept = partition_to_keep(self.store, target, accepts, [report])
            return kept or self._write(target, iter(made.to_batches()), made.schema), [report]
        reports: list[Any] = []

        def mapped() -> Iterator[pa.RecordBatch]:
            start = 0
            for batch in self.store.batches(source, as_dictionaries=as_dictionaries):
                table, report = kernel(pa.Table.from_batches([batch]), start)
                reports.append(report)
                start += batch.num_rows
                yield from table.to_batches()
            if (kept := partition_to_keep(self.store, target, accepts, reports)) is not None:
                raise _Kept(kept)

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
        with self._connections.borrow() as borrowed:
            connection = borrowed.connection
            if not self.store.partitions.is_local:
                connection.register_filesystem(self.store.partitions.filesystem_for(_stored(inputs)))
            yield borrowed, {name: self._bind(connection, name, value) for name, value in inputs.items()}

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
        prefix = "" if self.store.partitions.is_local else f"{SizedFileSystem.protocol}://"
        paths = [prefix + path for path in self.store.paths(manifests_of(value))]
        # Not by Ibis: for a path like s3:// it would fetch an extension of DuckDB, which knows nothing of the store.
        connection.con.read_parquet(paths, hive_partitioning=isinstance(value, ByDay)).create_view(name)
        return connection.table(name)


class _Kept(Exception):  # noqa: N818
    """What was written aside is not published: a partition kept."""

    def __init__(self, manifest: Manifest) -> None:
        super().__init__(manifest.key)
        self.manifest = manifest


def _stored(inputs: Mapping[str, Bindable]) -> list[Manifest]:
    return [stored for value in inputs.values() if not isinstance(value, pa.Table) for stored in manifests_of(value)]


def _batches(borrowed: Connection, results: Sequence[ibis.Table], schema: pa.Schema) -> Generator[pa.RecordBatch, None, None]:
    """Yields the rows of some results of equal types, one result after the other."""
    for result in results:
        # Ibis 12 calls a streaming method that DuckDB 2 renamed, so the compiled SQL goes to DuckDB directly.
        reader = borrowed.connection.con.sql(borrowed.sql_of(result)).to_arrow_reader(ROW_GROUP_ROWS)
        try:
            yield from (_typed(batch, schema) for batch in reader)
        finally:
            reader.close()


def _typed(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    return batch if batch.schema.equals(schema) else batch.cast(schema)


def _collect(schema: pa.Schema, batches: Iterator[pa.RecordBatch]) -> pa.Table:
    return pa.Table.from_batches(list(batches), schema=schema)
