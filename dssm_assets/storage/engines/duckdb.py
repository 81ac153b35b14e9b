"""The default engine: embedded DuckDB, and kernels in this process.

Belongs here: connections, binding partitions, streaming results, ranges of keys. Does not belong here: the interface of an
engine (`engine.py`).
"""

from __future__ import annotations

import itertools
import tempfile
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
    stored_inputs,
)
from dssm_assets.storage.manifest import Column, Manifest
from dssm_assets.storage.scratch_folder import ScratchFolder
from dssm_assets.storage.sized_files import SizedFileSystem
from dssm_assets.storage.tables import ROW_GROUP_ROWS, TableStore


class Connection:
    """A connection and the folder that DuckDB creates, inside one of the connection, when it has to spill."""

    def __init__(self, connection: Any, folder: ScratchFolder, spilled: Path) -> None:
        self.connection, self.folder, self.spilled = connection, folder, spilled
        self._last: tuple[ibis.Table, str] | None = None

    def sql_of(self, expression: ibis.Table) -> str:
        """Returns the SQL of an expression; the last one is cached, because days in a row run the same query."""
        if self._last is None or not self._last[0].equals(expression):
            self._last = expression, self.connection.compile(expression)
        return self._last[1]

    def close(self) -> None:
        """Closes the connection and removes what it has spilled."""
        self.connection.disconnect()
        self.folder.close()


class DuckDBConnections:
    """A pool of at most one idle connection."""

    def __init__(self, threads: int, memory: str, scratch: Path | None, *, is_kept: bool) -> None:
        """Opens connections with these limits; `is_kept`: a clean connection is kept for the next call."""
        self._threads, self._memory = threads, memory
        self._scratch = Path(tempfile.gettempdir()) if scratch is None else scratch
        self._is_kept = is_kept
        self._idle: list[Connection] = []

    @contextmanager
    def borrow(self) -> Iterator[Connection]:
        """Yields a connection without tables or views and drops them all afterwards.

        Overlapping calls get different connections.
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
        folder = ScratchFolder("duckdb", self._scratch)
        spilled = folder.path / "spilled"
        connection = ibis.duckdb.connect(
            threads=self._threads,
            memory_limit=self._memory,
            temp_directory=str(spilled),
            enable_external_file_cache=False,  # stored files are read once; an idle connection would hold them
        )
        return Connection(connection, folder, spilled)


def _empty(connection: Any) -> None:
    """Drops all tables and views."""
    found = connection.con.execute(
        "select 'view', view_name from duckdb_views() where not internal union all select 'table', table_name from duckdb_tables()"
    )
    for kind, name in found.fetchall():
        connection.con.execute(f'drop {kind} "{name}"')


RANGE_GROUPS: Final = 8
"""Row groups per range, of the longest input that is stored in the order of the key."""


@dataclass(frozen=True)
class KeyRange:
    """The keys from `first` on and before `end`; None means unbounded."""

    first: Any = None
    end: Any = None

    def filter_rows(self, table: ibis.Table, key: str) -> ibis.Table:
        """Returns a table's rows with these keys; all its rows if it lacks the column."""
        if key not in table.columns:
            return table
        bounds = [] if self.first is None else [table[key] >= self.first]
        bounds += [] if self.end is None else [table[key] < self.end]
        return table.filter(*bounds) if bounds else table


def key_ranges(store: TableStore, key: str, inputs: Sequence[Manifest]) -> list[KeyRange]:
    """Returns disjoint ranges that cover every key, ascending; a single unbounded one if the inputs are short."""
    longest = max((_first_keys(store, key, manifest) for manifest in inputs), key=len, default=[])
    starts = sorted(set(longest[RANGE_GROUPS::RANGE_GROUPS]))
    return [KeyRange(first, end) for first, end in zip([None, *starts], [*starts, None], strict=True)]


def rows_in_range(tables: Mapping[str, ibis.Table], key: str, keys: KeyRange) -> dict[str, ibis.Table]:
    """Returns the rows of some tables whose keys are in a range."""
    return {name: keys.filter_rows(table, key) for name, table in tables.items()}


def _first_keys(store: TableStore, key: str, manifest: Manifest) -> list[Any]:
    """Returns the smallest key of each row group; nothing if they are unknown or the rows are not in the key's order."""
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
    """Returns the smallest and the largest key of each non-empty row group of a file, None for one without statistics."""
    column = metadata.schema.names.index(key)
    groups = [metadata.row_group(number).column(column) for number in range(metadata.num_row_groups)]
    statistics = [group.statistics for group in groups if group.num_values]
    return [(known.min, known.max) if known is not None and known.has_min_max else None for known in statistics]


class DuckDBEngine:
    """Runs expressions in embedded DuckDB connections that share no tables between calls."""

    is_distributed: ClassVar[bool] = False

    def __init__(self, store: TableStore, threads: int = 2, memory: str = "1GB", scratch: Path | None = None) -> None:
        """Prepares an engine.

        Args:
            store: the tables.
            threads: of DuckDB; each one needs memory for its own blocks.
            memory: limit at which DuckDB spills to disk, e.g. "512MB".
            scratch: local folder to spill to, created when it is needed (default: the system's temporary folder).
        """
        self.store = store
        self.threads = threads
        self.memory = memory
        self.scratch = scratch
        self._schemas: dict[tuple[tuple[Column, ...], bool], ibis.Schema] = {}
        # A remote store is read through a filesystem that knows the files of one call only.
        self._connections = DuckDBConnections(threads, memory, scratch, is_kept=store.partitions.is_local)

    @contextmanager
    def run(
        self, expression: Callable[..., ibis.Table], inputs: Mapping[str, Bindable], /, **arguments: Any
    ) -> Iterator[tuple[pa.Schema, Iterator[pa.RecordBatch]]]:
        """Yields the schema and the batches of `expression(**tables, **arguments)`; they need not all be read."""
        with self._bind_inputs(inputs) as (borrowed, tables):
            result = expression(**tables, **arguments)
            # The expression's own types are the contract: DuckDB widens sums to HUGEINT, Spark does not.
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
        """Streams the result into the partition, one range of keys after the other if `target.by_key`; see `Engine`."""
        with self._bind_inputs(inputs) as (borrowed, tables):
            results = [expression(**part, **arguments) for part in self._tables_by_range(target.by_key, inputs, tables)]
            schema = contract_of(results[0])
            with closing(_batches(borrowed, results, schema)) as batches:
                rows = batches if kernel is None else map(kernel, batches)
                return self._write(target, rows, kernel_schema(schema, kernel))

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
        """Calls the kernel in this process, on batches or on all rows at once; see `Engine`."""
        if is_whole:
            made, report = kernel(self.store.read(source, as_dictionaries=as_dictionaries), 0)
            kept = partition_to_keep(self.store, target, accepts, [report])
            return kept or self._write(target, iter(made.to_batches()), made.schema), [report]
        reports: list[Any] = []

        def map_batches() -> Iterator[pa.RecordBatch]:
            start = 0
            for batch in self.store.batches(source, as_dictionaries=as_dictionaries):
                table, report = kernel(pa.Table.from_batches([batch]), start)
                reports.append(report)
                start += batch.num_rows
                yield from table.to_batches()
            if (kept := partition_to_keep(self.store, target, accepts, reports)) is not None:
                raise _NotAccepted(kept)

        schema = kernel(self.store.open(source).schema.empty_table(), 0)[0].schema
        try:
            return self._write(target, map_batches(), schema), reports
        except _NotAccepted as refused:
            return refused.manifest, reports

    def reports(self, source: Manifest, kernel: ReportKernel, columns: Sequence[str]) -> list[Any]:
        """Calls the kernel on batches in this process; see `Engine`."""
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
        """Returns the result as one table; for small results."""
        with self.run(expression, inputs, **arguments) as (schema, batches):
            return pa.Table.from_batches(list(batches), schema=schema)

    @contextmanager
    def _bind_inputs(self, inputs: Mapping[str, Bindable]) -> Iterator[tuple[Connection, dict[str, ibis.Table]]]:
        """Yields a connection and the inputs as tables of it."""
        with self.store.partitions.reading(stored_inputs(inputs)), self._connections.borrow() as borrowed:
            connection = borrowed.connection
            if not self.store.partitions.is_local:
                connection.register_filesystem(self.store.partitions.filesystem_for(stored_inputs(inputs)))
            yield borrowed, {name: self._bind(connection, name, value) for name, value in inputs.items()}

    def _tables_by_range(
        self, key: str | None, inputs: Mapping[str, Bindable], tables: dict[str, ibis.Table]
    ) -> Iterator[dict[str, ibis.Table]]:
        """Yields the inputs with all their rows, or with those of one range of keys after the other."""
        if key is None:
            yield tables
            return
        for keys in key_ranges(self.store, key, stored_inputs(inputs)):
            yield rows_in_range(tables, key, keys)

    def _bind(self, connection: Any, name: str, value: Bindable) -> ibis.Table:
        if isinstance(value, pa.Table):
            return connection.create_table(name, value, temp=True)
        prefix = "" if self.store.partitions.is_local else f"{SizedFileSystem.protocol}://"
        paths = [prefix + path for path in self.store.paths(manifests_of(value))]
        # Not through Ibis, which would fetch a DuckDB extension for a path like s3://.
        is_by_day = isinstance(value, ByDay)
        connection.con.read_parquet(paths, hive_partitioning=is_by_day).create_view(name)
        # To ask DuckDB for the types takes longer than to read a short table: they follow from the manifest's.
        columns = (manifests_of(value)[0].columns, is_by_day)
        if columns not in self._schemas:
            self._schemas[columns] = connection.table(name).schema()
        return ibis.table(self._schemas[columns], name=name)


class _NotAccepted(Exception):  # noqa: N818
    """Leaves `TableStore.write` before it publishes: the existing partition is kept."""

    def __init__(self, manifest: Manifest) -> None:
        super().__init__(manifest.key)
        self.manifest = manifest


def _batches(borrowed: Connection, results: Sequence[ibis.Table], schema: pa.Schema) -> Generator[pa.RecordBatch, None, None]:
    """Yields the rows of several results of one schema, one result after the other."""
    for result in results:
        # Ibis 12 calls a streaming method that DuckDB 2 renamed: the compiled SQL goes to DuckDB directly.
        reader = borrowed.connection.con.sql(borrowed.sql_of(result)).to_arrow_reader(ROW_GROUP_ROWS)
        try:
            yield from (batch if batch.schema.equals(schema) else batch.cast(schema) for batch in reader)
        finally:
            reader.close()
