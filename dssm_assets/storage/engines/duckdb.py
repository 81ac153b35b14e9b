"""The default engine: embedded DuckDB, and kernels in this process."""

from __future__ import annotations

import itertools
import re
import tempfile
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import FunctionType
from typing import Any, ClassVar, Final

import ibis
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dssm_assets.core.features_raw.local_time import VariableDay, variable_value
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
from dssm_assets.storage.scratch_folder import ScratchFolder
from dssm_assets.storage.sized_files import SizedFileSystem
from dssm_assets.storage.tables import ROW_GROUP_ROWS, TableStore, bounds_of_groups


class Connection:
    """A connection and the folder that DuckDB creates, inside one of the connection, when it has to spill."""

    def __init__(self, connection: Any, folder: ScratchFolder, spilled: Path) -> None:
        self.connection, self.folder, self.spilled = connection, folder, spilled
        self.made: dict[str, str] = {}
        """Name of a table or view that was made for a call -> "table" or "view"."""

    def drop_made(self) -> None:
        """Drops the tables and views of a call."""
        if self.made:
            self.connection.con.execute("; ".join(f'drop {kind} "{name}"' for name, kind in self.made.items()))
            self.made.clear()

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
        """Yields a connection without tables or views and drops those of `Connection.made` afterwards.

        Overlapping calls get different connections.
        """
        opened = self._idle.pop() if self._idle else self._open()
        is_clean = False
        try:
            yield opened
            opened.drop_made()
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


RANGE_GROUPS: Final = 8
"""Row groups per range, of the longest input that is stored in the order of the key."""


@dataclass(frozen=True)
class KeyRange:
    """The keys from `first` on and before `end`; None means unbounded."""

    first: Any = None
    end: Any = None

    def to_sql(self, key: str) -> str:
        """Returns the condition on a column as SQL, "" without bounds."""
        bounds = [] if self.first is None else [f'"{key}" >= {_sql_literal(self.first)}']
        bounds += [] if self.end is None else [f'"{key}" < {_sql_literal(self.end)}']
        return f" where {' and '.join(bounds)}" if bounds else ""

    def filter_table(self, table: pa.Table, key: str) -> pa.Table:
        """Returns a table's rows with these keys; all its rows if it lacks the column."""
        if key not in table.column_names:
            return table
        if self.first is not None:
            table = table.filter(pc.greater_equal(table.column(key), self.first))
        return table if self.end is None else table.filter(pc.less(table.column(key), self.end))


_ALL: Final = KeyRange()


def _sql_literal(value: str | int) -> str:
    """Returns an id, a path or a day as SQL."""
    return f"{value}::bigint" if isinstance(value, int) else "'" + value.replace("'", "''") + "'"


def key_ranges(store: TableStore, key: str, inputs: Sequence[Manifest]) -> list[KeyRange]:
    """Returns disjoint ranges that cover every key, ascending; a single unbounded one if the inputs are short."""
    longest = max((_first_keys(store, key, manifest) for manifest in inputs), key=len, default=[])
    starts = sorted(set(longest[RANGE_GROUPS::RANGE_GROUPS]))
    return [KeyRange(first, end) for first, end in zip([None, *starts], [*starts, None], strict=True)]


def _first_keys(store: TableStore, key: str, manifest: Manifest) -> list[Any]:
    """Returns the smallest key of each row group; nothing if they are unknown or the rows are not in the key's order."""
    if key not in [column.name for column in manifest.columns]:
        return []
    reader = store.partitions.filesystem_for([manifest])
    seen: list[tuple[Any, Any] | None] = []
    for path in store.paths([manifest]):
        with reader.open(path, "rb") as handle:
            seen += bounds_of_groups(pq.read_metadata(handle), key)
    known = [bounds for bounds in seen if bounds is not None]
    is_ordered = len(known) == len(seen) and all(a[1] <= b[0] for a, b in itertools.pairwise(known))
    return [low for low, _ in known] if is_ordered else []


class DuckDBEngine:
    """Runs expressions in embedded DuckDB connections that share no tables between calls."""

    is_distributed: ClassVar[bool] = False

    def __init__(self, store: TableStore, threads: int = 2, memory: str = "1GB", scratch: Path | None = None) -> None:
        """Prepares an engine.

        Args:
            threads: of DuckDB; each one needs memory for its own blocks.
            memory: limit at which DuckDB spills to disk, e.g. "512MB".
            scratch: local folder to spill to, created when it is needed (default: the system's temporary folder).
        """
        self.store = store
        self.threads = threads
        self.memory = memory
        self.scratch = scratch
        # A remote store is read through a filesystem that knows the files of one call only.
        self._connections = DuckDBConnections(threads, memory, scratch, is_kept=store.partitions.is_local)

    @contextmanager
    def run(
        self, expression: Callable[..., ibis.Table], inputs: Mapping[str, Bindable], /, **arguments: Any
    ) -> Iterator[tuple[pa.Schema, Iterator[pa.RecordBatch]]]:
        """Yields the schema and the batches of `expression(**tables, **arguments)`; they need not all be read."""
        with self._borrow(inputs) as borrowed:
            self._bind(borrowed, inputs)
            query = self._compile(borrowed.connection, expression, inputs, arguments)
            with closing(_batches(borrowed.connection, query)) as batches:
                yield query.schema, batches

    def write_query(
        self,
        target: Target,
        expression: Callable[..., ibis.Table],
        inputs: Mapping[str, Bindable],
        arguments: Mapping[str, Any],
        kernel: BatchKernel | None = None,
    ) -> Manifest:
        """Streams the result into the partition, one range of keys after the other if `target.by_key`; see `Engine`."""
        with self._borrow(inputs) as borrowed:
            ranges = [_ALL] if target.by_key is None else key_ranges(self.store, target.by_key, stored_inputs(inputs))
            first, *others = ranges
            self._bind(borrowed, inputs, target.by_key, first)
            query = self._compile(borrowed.connection, expression, inputs, arguments)

            def stream() -> Generator[pa.RecordBatch, None, None]:
                yield from _batches(borrowed.connection, query)
                for keys in others:
                    self._bind(borrowed, inputs, target.by_key, keys)
                    yield from _batches(borrowed.connection, query)

            with closing(stream()) as batches:
                rows = batches if kernel is None else map(kernel, batches)
                return self._write(target, rows, kernel_schema(query.schema, kernel))

    def write_days(
        self,
        targets: Iterable[Target],
        expression: Callable[..., ibis.Table],
        inputs: Mapping[str, Bindable],
        arguments: Mapping[str, Any],
        kernel: BatchKernel | None = None,
    ) -> Iterator[Manifest]:
        """Streams the result of one query into the partitions; see `Engine`."""
        with self._borrow(inputs) as borrowed:
            self._bind(borrowed, inputs)
            query = self._compile(borrowed.connection, expression, inputs, {**arguments, "by": (DAY,)})
            with closing(_batches(borrowed.connection, query)) as batches:
                rows = batches if kernel is None else map(kernel, batches)
                made = kernel_schema(query.schema, kernel)
                by_day = itertools.groupby(_pieces_by_day(rows), key=lambda piece: piece[0])
                waiting = next(by_day, None)
                for target in targets:
                    pieces: Iterator[tuple[str, pa.RecordBatch]] = iter(())  # of a day without rows
                    if waiting is not None and waiting[0] == target.ds:
                        pieces = waiting[1]
                    yield self._write(target, (piece for _, piece in pieces), made.remove(made.get_field_index(DAY)))
                    if waiting is not None and waiting[0] == target.ds:
                        waiting = next(by_day, None)

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
    def _borrow(self, inputs: Mapping[str, Bindable]) -> Iterator[Connection]:
        """Yields a connection that can read some inputs."""
        with self.store.partitions.reading(stored_inputs(inputs)), self._connections.borrow() as borrowed:
            if not self.store.partitions.is_local:
                borrowed.connection.register_filesystem(self.store.partitions.filesystem_for(stored_inputs(inputs)))
            yield borrowed

    def _bind(
        self, borrowed: Connection, inputs: Mapping[str, Bindable], key: str | None = None, keys: KeyRange = _ALL
    ) -> None:
        """Makes each input a view, or a table if it is in memory, with the rows of a range of keys."""
        prefix = "" if self.store.partitions.is_local else f"{SizedFileSystem.protocol}://"
        views = []
        for name, value in inputs.items():
            if isinstance(value, pa.Table):
                rows = value if key is None else keys.filter_table(value, key)
                borrowed.connection.create_table(name, rows, temp=True, overwrite=True)
                borrowed.made[name] = "table"
                continue
            paths = ", ".join(_sql_literal(prefix + path) for path in self.store.paths(manifests_of(value)))
            has_key = key is not None and key in [column.name for column in manifests_of(value)[0].columns]
            condition = keys.to_sql(key) if key is not None and has_key else ""
            read = f"read_parquet([{paths}], hive_partitioning = {isinstance(value, ByDay)})"
            views.append(f'create or replace view "{name}" as select * from {read}{condition}')
            borrowed.made[name] = "view"
        if views:  # not through Ibis, which would fetch a DuckDB extension for a path like s3://
            borrowed.connection.con.execute("; ".join(views))

    def _compile(
        self,
        connection: Any,
        expression: Callable[..., ibis.Table],
        inputs: Mapping[str, Bindable],
        arguments: Mapping[str, Any],
    ) -> _Query:
        """Returns the query of an expression over bound inputs.

        Building and compiling an expression takes longer than a query over a short day. The queries of functions without
        captured variables are kept, and serve all days of a year: their argument `ds` becomes a variable.
        """
        ds = arguments.get("ds")
        is_plain = isinstance(expression, FunctionType) and expression.__closure__ is None
        given = dict(arguments)
        if is_plain and isinstance(ds, str):
            given["ds"] = VariableDay(int(ds[:4]))
        key = (expression, _hashable(given), *((name, self._shape(value)) for name, value in sorted(inputs.items())))
        query = _QUERIES.get(key) if is_plain else None
        if query is None:
            result = expression(**{name: self._table(connection, name, value) for name, value in inputs.items()}, **given)
            schema = contract_of(result)
            query = _Query(_narrow_sums(connection.compile(result), schema), schema)
            if is_plain:
                if len(_QUERIES) >= _MAX_QUERIES:
                    _QUERIES.clear()
                _QUERIES[key] = query
        for name in query.variables:
            value = variable_value(name, ds or "")
            connection.con.execute(f"set variable {name} = {_sql_literal(value)}")
        return query

    def _shape(self, value: Bindable) -> Any:
        """Returns what the types of an input's columns follow from."""
        return value.schema if isinstance(value, pa.Table) else (manifests_of(value)[0].columns, isinstance(value, ByDay))

    def _table(self, connection: Any, name: str, value: Bindable) -> ibis.Table:
        shape = self._shape(value)
        # To ask DuckDB for the types takes longer than to read a short table: they follow from the manifest's.
        schema = _SCHEMAS.get(shape)
        if schema is None:
            schema = connection.table(name).schema()
            if len(_SCHEMAS) >= _MAX_QUERIES:
                _SCHEMAS.clear()
            _SCHEMAS[shape] = schema
        return ibis.table(schema, name=name)


_MAX_QUERIES: Final = 512
_SCHEMAS: Final[dict[Any, ibis.Schema]] = {}
"""What the types of an input's columns follow from -> its schema, in this process."""
_QUERIES: Final[dict[Any, _Query]] = {}
"""Compiled queries of this process: each asset of each run has an engine of its own, and the same expressions."""
_VARIABLE: Final = re.compile(r"getvariable\('(\w+)'\)", re.IGNORECASE)


@dataclass(frozen=True)
class _Query:
    """A compiled expression: its SQL and the schema of its result."""

    sql: str
    schema: pa.Schema

    @cached_property
    def variables(self) -> list[str]:
        """The variables that are set before it runs."""
        return sorted(set(_VARIABLE.findall(self.sql)))


def _hashable(value: Any) -> Any:
    """Returns an argument with tuples in place of lists and mappings."""
    if isinstance(value, Mapping):
        return tuple((name, _hashable(inner)) for name, inner in sorted(value.items()))
    return tuple(map(_hashable, value)) if isinstance(value, (list, tuple)) else value


class _NotAccepted(Exception):  # noqa: N818
    """Leaves `TableStore.write` before it publishes: the existing partition is kept."""

    def __init__(self, manifest: Manifest) -> None:
        super().__init__(manifest.key)
        self.manifest = manifest


def _pieces_by_day(batches: Iterator[pa.RecordBatch]) -> Iterator[tuple[str, pa.RecordBatch]]:
    """Yields (day, its rows without the column of days) for batches that are ordered by the day."""
    for batch in batches:
        days = batch.column(DAY).cast(pa.string()).dictionary_encode()
        rows = batch.drop_columns([DAY])
        starts = [0, *(np.flatnonzero(np.diff(days.indices.to_numpy())) + 1).tolist(), len(days)]
        for start, end in itertools.pairwise(starts if len(days) else []):
            yield days.dictionary[days.indices[start].as_py()].as_py(), rows.slice(start, end - start)


def _batches(connection: Any, query: _Query) -> Generator[pa.RecordBatch, None, None]:
    """Yields the rows of a query over bound inputs."""
    # Ibis 12 calls a streaming method that DuckDB 2 renamed: the compiled SQL goes to DuckDB directly.
    reader = connection.con.sql(query.sql).to_arrow_reader(ROW_GROUP_ROWS)
    try:
        yield from (batch if batch.schema.equals(query.schema) else _cast(batch, query.schema) for batch in reader)
    finally:
        reader.close()


def _cast(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """Returns a batch with the types of a schema.

    Raises:
        pa.ArrowInvalid: a value does not fit.
    """
    columns = [column.cast(kind) for column, kind in zip(batch.columns, schema.types, strict=True)]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _narrow_sums(sql: str, schema: pa.Schema) -> str:
    """Returns a query whose integers have the type of the schema: the expression's own types are the contract, as in Spark.

    DuckDB widens sums to HUGEINT, and narrows them in less time than Arrow. A sum that does not fit ends the query with its
    ConversionException.
    """
    if pa.int64() not in schema.types:
        return sql
    names = {field.name: '"' + field.name.replace('"', '""') + '"' for field in schema}
    columns = [f"{name}::bigint as {name}" if schema.field(field).type == pa.int64() else name for field, name in names.items()]
    return f"select {', '.join(columns)} from ({sql})"
