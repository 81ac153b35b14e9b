"""The default engine: embedded DuckDB, and kernels in this process.

DuckDB and Ibis are imported by the first query, which saves half a second in a step without queries.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

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
from dssm_assets.storage.local_files import ScratchFolder
from dssm_assets.storage.manifest import Manifest
from dssm_assets.storage.sized_files import SizedFileSystem
from dssm_assets.storage.tables import ROW_GROUP_ROWS, TableStore

if TYPE_CHECKING:
    import ibis

RANGE_GROUPS: Final = 8
"""A range has so many row groups of the longest input that is sorted by the key."""


class DuckDBEngine:
    """Runs expressions in embedded DuckDB. A call sees only its own tables."""

    def __init__(self, store: TableStore, threads: int = 2, memory: str = "1GB", scratch: Path | None = None) -> None:
        """Prepares an engine. `scratch`: local folder for spilled data (default: the system's temporary folder)."""
        self.store = store
        self.threads = threads
        self.memory = memory
        self.scratch = Path(tempfile.gettempdir()) if scratch is None else scratch
        self._database: _Database | None = None

    def table(self, expression: Callable[..., ibis.Table], inputs: Mapping[str, Bindable], /, **arguments: Any) -> pa.Table:
        """Returns the rows of `expression(**tables, **arguments)`. For small results only."""
        with self._connect(inputs) as connection:
            tables = self._read_inputs(connection, inputs)
            query = _prepare(connection, tables, expression, inputs, arguments)
            with closing(_batches(connection, tables, query)) as batches:
                return pa.Table.from_batches(batches, schema=query.schema)

    def write_query(
        self,
        target: Target,
        expression: Callable[..., ibis.Table],
        inputs: Mapping[str, Bindable],
        arguments: Mapping[str, Any],
        kernel: BatchKernel | None = None,
    ) -> Manifest:
        """Streams the result into the partition, one range of keys at a time if `target.by_key`. See `Engine`."""
        key = target.by_key
        cuts = [] if key is None else find_cuts(self.store, key, stored_inputs(inputs))
        with self._connect(inputs) as connection:
            query = _prepare(connection, self._read_inputs(connection, inputs), expression, inputs, arguments)

            def stream() -> Generator[pa.RecordBatch, None, None]:
                for first, end in itertools.pairwise([None, *cuts, None]):
                    yield from _batches(connection, self._read_inputs(connection, inputs, key, first, end), query)

            with closing(stream()) as batches:
                rows = batches if kernel is None else map(kernel, batches)
                return self._write(target, rows, kernel_schema(query.schema, kernel))

    def write_mapped(
        self,
        target: Target,
        source: Manifest,
        kernel: PartKernel,
        *,
        as_dictionaries: Sequence[str] = (),
        accepts: Acceptance | None = None,
    ) -> tuple[Manifest, list[Any]]:
        reports: list[Any] = []

        def map_tables() -> Iterator[pa.Table]:
            for table, report in _map_batches(self.store.batches(source, as_dictionaries=as_dictionaries), kernel):
                reports.append(report)
                yield table
            if (kept := partition_to_keep(self.store, target, accepts, reports)) is not None:
                raise _NotAccepted(kept)

        mapped = map_tables()
        try:
            if (first := next(mapped, None)) is None:
                first = kernel(self.store.read_schema(source).empty_table(), 0)[0]
            tables = itertools.chain([first], mapped)
            return self._write(target, (batch for table in tables for batch in table.to_batches()), first.schema), reports
        except _NotAccepted as refused:
            return refused.args[0], reports

    def reports(self, source: Manifest, kernel: ReportKernel, columns: Sequence[str]) -> list[Any]:
        return list(_map_batches(self.store.batches(source, columns), kernel))

    def _write(self, target: Target, batches: Iterator[pa.RecordBatch], schema: pa.Schema) -> Manifest:
        return self.store.write(
            target.spec, target.ds, batches, schema=schema, inputs=target.inputs, facts=target.facts, is_shared=target.is_shared
        )

    @contextmanager
    def _connect(self, inputs: Mapping[str, Bindable]) -> Iterator[Any]:
        stored, partitions = stored_inputs(inputs), self.store.partitions
        with partitions.reading(stored):
            if self._database is None or not partitions.is_local:
                self._database = _Database(self.threads, self.memory, self.scratch)
            database = self._database
            if not partitions.is_local:  # a filesystem with only the files of this call
                database.connection.register_filesystem(partitions.filesystem_for(stored))
            with closing(database.connection.cursor()) as connection:
                yield connection

    def _read_inputs(
        self, connection: Any, inputs: Mapping[str, Bindable], key: str | None = None, first: Any = None, end: Any = None
    ) -> str:
        """Returns SQL that names each input's rows. With a key, only rows from `first` on and before `end` (None: no limit)."""
        prefix = "" if self.store.partitions.is_local else f"{SizedFileSystem.protocol}://"
        bounds = [f'"{key}" {sign} {_sql_literal(value)}' for sign, value in ((">=", first), ("<", end)) if value is not None]
        named = []
        for name, value in inputs.items():
            if isinstance(value, pa.Table):
                columns, rows = value.column_names, f'"{name} in memory"'
                connection.register(f"{name} in memory", value)
            else:
                columns = [column.name for column in manifests_of(value)[0].columns]
                paths = ", ".join(_sql_literal(prefix + path) for path in self.store.paths(manifests_of(value)))
                days = f", hive_types = {{'{DAY}': varchar}}" if isinstance(value, ByDay) else ""
                rows = f"read_parquet([{paths}], hive_partitioning = {bool(days)}{days})"
            condition = f" where {' and '.join(bounds)}" if bounds and key in columns else ""
            named.append(f'"{name}" as not materialized (select * from {rows}{condition})')
        return f"with {', '.join(named)} "


def _map_batches(batches: Iterator[pa.RecordBatch], kernel: Callable[[pa.Table, int], Any]) -> Iterator[Any]:
    start = 0
    for batch in batches:
        yield kernel(pa.Table.from_batches([batch]), start)
        start += batch.num_rows


class _Database:
    """An empty database in memory, and the folder for its spilled data."""

    def __init__(self, threads: int, memory: str, scratch: Path) -> None:
        import duckdb

        scratch.mkdir(parents=True, exist_ok=True)
        self._folder = ScratchFolder("duckdb", scratch)
        self.connection = duckdb.connect(
            config={
                "threads": threads,
                "memory_limit": memory,
                "temp_directory": str(self._folder.path / "spilled"),
                "enable_external_file_cache": False,  # stored files are read once
            }
        )


def find_cuts(store: TableStore, key: str, inputs: Sequence[Manifest]) -> list[Any]:
    """Returns the keys at which to cut the inputs into ranges, ascending. Empty if the inputs are short."""
    longest = max((_first_keys(store, key, manifest) for manifest in inputs), key=len, default=[])
    return sorted(set(longest[RANGE_GROUPS::RANGE_GROUPS]))


def _first_keys(store: TableStore, key: str, manifest: Manifest) -> list[Any]:
    """Returns the smallest key of each row group. Empty if the table is short or its keys are unknown or not ascending."""
    if manifest.rows <= RANGE_GROUPS * ROW_GROUP_ROWS or key not in [column.name for column in manifest.columns]:
        return []
    reader = store.partitions.filesystem_for([manifest])
    groups: list[Any] = []
    for path in store.paths([manifest]):
        with reader.open(path, "rb") as handle:
            metadata = pq.read_metadata(handle)
        number = metadata.schema.names.index(key)
        groups += [metadata.row_group(group).column(number).statistics for group in range(metadata.num_row_groups)]
    known = [(bounds.min, bounds.max) for bounds in groups if bounds is not None and bounds.has_min_max]
    is_ordered = len(known) == len(groups) and all(a[1] <= b[0] for a, b in itertools.pairwise(known))
    return [low for low, _ in known] if is_ordered else []


class _NotAccepted(Exception):  # noqa: N818
    """Raised inside `TableStore.write` to end it before it publishes. Its argument is the manifest of the existing partition."""


class _Query(NamedTuple):
    sql: str
    schema: pa.Schema


def _variable(name: str) -> ibis.Value:
    import ibis

    @ibis.udf.scalar.builtin(name="getvariable")  # type: ignore[untyped-decorator]
    def read(variable: str) -> str:
        raise NotImplementedError

    return read(name)


_QUERIES: Final[dict[Any, _Query]] = {}
"""Compiled queries of this process. Building and compiling an expression takes longer than running it over a short day, so the day is
a variable, and a query serves all days with the same types of inputs."""


def _prepare(
    connection: Any,
    tables: str,
    expression: Callable[..., ibis.Table],
    inputs: Mapping[str, Bindable],
    arguments: Mapping[str, Any],
) -> _Query:
    """Returns the query of an expression, and sets its day in the connection. The SQL `tables` names the inputs."""
    import ibis

    given = dict(arguments)
    if DAY in given:
        connection.execute(f"set variable {DAY} = {_sql_literal(given[DAY])}")
        given[DAY] = None
    shapes = {
        name: value.schema if isinstance(value, pa.Table) else (manifests_of(value)[0].columns, isinstance(value, ByDay))
        for name, value in inputs.items()
    }
    key = (expression, *sorted(given.items()), *sorted(shapes.items()))
    if key not in _QUERIES:
        if DAY in given:
            given[DAY] = _variable(DAY)
        schemas = {name: connection.sql(f'{tables} from "{name}" limit 0').to_arrow_table().schema for name in inputs}
        unbound = {name: ibis.table(ibis.Schema.from_pyarrow(schema), name=name) for name, schema in schemas.items()}
        result = expression(**unbound, **given)
        # A subquery, because the SQL that names the inputs comes first, and the expression may begin with named tables, too.
        _QUERIES[key] = _Query(f"select * from ({ibis.to_sql(result, dialect='duckdb')})", contract_of(result))
    return _QUERIES[key]


def _batches(connection: Any, tables: str, query: _Query) -> Generator[pa.RecordBatch, None, None]:
    """Yields the result in the types of its schema. DuckDB widens sums to HUGEINT; a sum that does not fit raises ArrowInvalid."""
    reader = connection.sql(tables + query.sql).to_arrow_reader(ROW_GROUP_ROWS)
    try:
        for batch in reader:
            columns = [column.cast(kind) for column, kind in zip(batch.columns, query.schema.types, strict=True)]
            yield pa.RecordBatch.from_arrays(columns, schema=query.schema)
    finally:
        reader.close()


def _sql_literal(value: str | int) -> str:
    return f"{value}::bigint" if isinstance(value, int) else "'" + value.replace("'", "''") + "'"
