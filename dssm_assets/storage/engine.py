"""The table engine: runs Ibis expressions over stored partitions with DuckDB, embedded.

Belongs here: binding partitions to Ibis tables, running, streaming the result out. Does not belong here: the
expressions, which are written once in `core` for every engine.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import ibis
import pyarrow as pa

from dssm_assets.storage.manifest import Manifest
from dssm_assets.storage.stored_files import StoredFiles
from dssm_assets.storage.table_store import ROW_GROUP_ROWS, TableStore


@dataclass(frozen=True)
class ByDay:
    """Several days of one table, read as one with a column `ds` that says which day a row is of."""

    manifests: tuple[Manifest, ...]


Bindable: TypeAlias = Manifest | list[Manifest] | ByDay | pa.Table
"""A partition, several partitions of one table (read as one, with or without their day), or a table in memory."""


class DuckDBEngine:
    """Runs expressions in one embedded DuckDB connection per call, so that calls share nothing."""

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

    @contextmanager
    def run(
        self, expression: Callable[..., ibis.Table], inputs: Mapping[str, Bindable], /, **arguments: Any
    ) -> Iterator[tuple[pa.Schema, Iterator[pa.RecordBatch]]]:
        """Yields the schema and the batches of `expression(**tables, **arguments)`."""
        with self._connection() as connection:
            if not self.store.partitions.is_local:
                stored = [value for value in inputs.values() if not isinstance(value, pa.Table)]
                manifests = [manifest for value in stored for manifest in _manifests(value)]
                connection.register_filesystem(self.store.partitions.reader(manifests))
            tables = {name: self._bind(connection, name, value) for name, value in inputs.items()}
            result = expression(**tables, **arguments)
            # Ibis 12 calls a streaming method that DuckDB 2 renamed, so the compiled SQL goes to DuckDB directly.
            reader = connection.con.sql(connection.compile(result)).to_arrow_reader(ROW_GROUP_ROWS)
            # The expression's own types are the contract: DuckDB widens sums (HUGEINT), another engine may not.
            schema = _stable(result.schema().to_pyarrow())
            yield schema, (_typed(batch, schema) for batch in reader)
            reader.close()

    def table(self, expression: Callable[..., ibis.Table], inputs: Mapping[str, Bindable], /, **arguments: Any) -> pa.Table:
        """Returns the whole result as one table; for results that are known to be small."""
        with self.run(expression, inputs, **arguments) as (schema, batches):
            return _collect(schema, batches)

    @contextmanager
    def _connection(self) -> Iterator[Any]:
        """Yields a connection that spills into a folder of its own, which goes away with it."""
        if self.scratch is not None:
            self.scratch.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="dssm-duckdb-", dir=self.scratch) as spilled:
            connection = ibis.duckdb.connect(threads=self.threads, memory_limit=self.memory, temp_directory=spilled)
            try:
                yield connection
            finally:
                connection.disconnect()

    def _bind(self, connection: Any, name: str, value: Bindable) -> ibis.Table:
        if isinstance(value, pa.Table):
            return connection.create_table(name, value, temp=True)
        prefix = "" if self.store.partitions.is_local else f"{StoredFiles.protocol}://"
        paths = [prefix + path for path in self.store.paths(_manifests(value))]
        # Not by Ibis: for a path like s3:// it would fetch an extension of DuckDB, which knows nothing of the store.
        connection.con.read_parquet(paths, hive_partitioning=isinstance(value, ByDay)).create_view(name)
        return connection.table(name)


def _manifests(value: Manifest | list[Manifest] | ByDay) -> list[Manifest]:
    return list(value.manifests) if isinstance(value, ByDay) else value if isinstance(value, list) else [value]


def _typed(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    return batch if batch.schema.equals(schema) else batch.cast(schema)


def _collect(schema: pa.Schema, batches: Iterator[pa.RecordBatch]) -> pa.Table:
    return pa.Table.from_batches(list(batches), schema=schema)


def _stable(schema: pa.Schema) -> pa.Schema:
    """Returns the schema with `large_` and nullability variants folded, so that every engine writes the same types."""
    return pa.schema([pa.field(field.name, _plain(field.type)) for field in schema])


def _plain(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_large_list(kind) or pa.types.is_list(kind):
        return pa.list_(_plain(kind.value_type))
    return pa.string() if pa.types.is_large_string(kind) else kind
