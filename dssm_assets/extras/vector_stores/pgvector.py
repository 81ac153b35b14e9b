"""PostgreSQL with pgvector as a vector store: a table per draft, a table of versions, views as aliases. Changes are transactions."""

from __future__ import annotations

import math
import os
import socket
import threading
import weakref
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, Final, TypeAlias, TypeVar
from urllib.parse import SplitResult, parse_qsl, quote, unquote

import numpy as np
import psycopg
import pyarrow as pa
import pyarrow.types as pat
from psycopg import errors as pg
from psycopg.pq import TransactionStatus
from psycopg.rows import dict_row, namedtuple_row
from psycopg.types.json import Jsonb

from dssm_assets.core.arrays.ragged import is_list
from dssm_assets.core.config.pipeline import VectorTable
from dssm_assets.core.errors import ConfigError, Fault, StorageError
from dssm_assets.core.retrieval.vectors import Vectors, to_matrix
from dssm_assets.extras.vector_stores import store as vs
from dssm_assets.extras.vector_stores.store import KEYS, MODEL_DIGEST, VECTORS, Changes, Found, Rows
from dssm_assets.storage.sources.table_source import hide_secrets, quote_name

Connection: TypeAlias = psycopg.Connection[Any]
T = TypeVar("T")

_CANDIDATES: Final = 1000
"""A search of the index visits so many rows, pgvector's maximum."""
_INDEX_OPTIONS: Final = "m = 24, ef_construction = 48"
_MAX_INDEXED_WIDTH: Final = 2000
_TABLES: Final = """SELECT relname FROM pg_class
WHERE relnamespace = quote_ident(current_schema())::regnamespace AND relkind = 'r' AND relname ~ %s"""
_SESSION: Final = f"""SET timezone = 'UTC'; SET standard_conforming_strings = on; SET client_min_messages = warning;
SET jit = off; SET hnsw.ef_search = {_CANDIDATES}; SET lock_timeout = '10s'"""
_CONNECT_SECONDS: Final = 8
_ALIVE_SECONDS: Final = 2.0
_ARROW_TYPES: Final = {"bigint": pa.int64(), "integer": pa.int32(), "text": pa.string()}


class PgvectorStore(vs.VectorStore):
    """The tables of a scene, in the current schema of the connection."""

    def __init__(self, uri: SplitResult, scene: str, options: Mapping[str, Any], seconds: float | None) -> None:
        """Does not connect yet.

        Raises:
            ConfigError: the scene's name is too long for table names.
        """
        if len(scene) > 43:  # PostgreSQL cuts table names at 63 bytes
            expected = "at most 43 characters, for tables in PostgreSQL"
            raise ConfigError(Fault("name", expected, f"{len(scene)}", "shorten the name of the scene"))
        self._scene, self._versions, self.seconds = scene, f"{scene}_vector_versions", seconds
        login, at, hosts = uri.netloc.rpartition("@")
        user, colon, password = login.partition(":")
        place = f"postgresql://{user}{colon}{quote(unquote(password), safe='')}{at}{hosts}{uri.path}"
        waits = max(2, math.ceil(min(_CONNECT_SECONDS, seconds or _CONNECT_SECONDS)))
        limits = f"connect_timeout={waits}&tcp_user_timeout={1000 * waits}&keepalives_idle=5&keepalives_interval=2"
        self._uri = f"{place}?{limits}{uri.query and f'&{uri.query}'}"
        given = [password, *(value for name, value in parse_qsl(uri.query) if "pass" in name)]
        self._passwords = [*given, *map(unquote, given)]
        self.where = f"vector store {hide_secrets(place, self._passwords).replace('***@', '')}"
        self._idle: list[Connection] = []
        weakref.finalize(self, _close, self._idle)

    def find_versions(self) -> dict[str, str]:
        with self.connect() as connection:
            return {name: row.revision for name, row in self._read_versions(connection).items()}

    def find_served(self) -> str | None:
        with self.connect() as connection:
            return next((name for name, row in self._read_versions(connection).items() if row.is_served), None)

    def write(self, table: VectorTable, rows: Rows) -> str:
        draft = f"{self._scene}_{table}_{vs.new_token()}"
        vectors = VECTORS[table]
        width = rows.schema.field(vectors).type.list_size
        columns = [f"{quote_name(field.name)} {_sql_type(field.type)}" for field in rows.schema if field.name != vectors]
        with self._change() as connection:
            try:
                connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
            except psycopg.Error as error:
                remedy = "install pgvector, and let an administrator run CREATE EXTENSION vector in this database"
                fault = Fault(self.where, "the extension vector", hide_secrets(str(error), self._passwords), remedy)
                raise StorageError(str(fault)) from None
        with self.connect() as connection, connection.transaction():
            connection.execute(f"CREATE TABLE {draft} ({', '.join(columns)}, {vectors} vector({width}) NOT NULL)")
            _copy(connection, draft, rows.schema, rows.batches, "FORMAT BINARY, FREEZE")
            connection.execute(f"ALTER TABLE {draft} ADD PRIMARY KEY ({', '.join(KEYS[table])})")
            if table is VectorTable.ITEM and width <= _MAX_INDEXED_WIDTH:
                _create_index(connection, draft, rows.count, width)
            connection.execute(f"ANALYZE {draft}")
        return draft

    def open(self, table: VectorTable, name: str) -> vs.StoredVectors:
        return _PgvectorVectors(self, table, name)

    def add(self, version: str, revision: str, drafts: Mapping[VectorTable, str]) -> None:
        with self._change() as connection:
            for table, draft in drafts.items():
                self.find_table(connection, table, draft)
            connection.execute(
                f"INSERT INTO {self._versions} VALUES (%s, %s, %s, false) "
                "ON CONFLICT (version) DO UPDATE SET revision = excluded.revision, tables = excluded.tables",
                [version, revision, Jsonb(dict(drafts))],
            )

    def serve(self, version: str) -> None:
        with self._change() as connection:
            versions = self._read_versions(connection)
            if version not in versions:
                raise vs.missing_version(self.where, VectorTable.ITEM, version, versions)
            for table in VectorTable:
                _replace_view(connection, f"{self._scene}_{table}", versions[version].tables.get(table))
            connection.execute(f"UPDATE {self._versions} SET is_served = (version = %s)", [version])

    def update(self, version: str, revision: str, changes: Mapping[VectorTable, Changes]) -> None:
        with self._change() as connection:
            for table, change in changes.items():
                rows, keys, relation = change.rows, KEYS[table], self.find_table(connection, table, version)
                _delete(connection, relation, {keys[0]: change.gone})
                _delete(connection, relation, {key: rows.column(key) for key in keys})
                _copy(connection, relation, rows.schema, rows.to_batches(), "FORMAT BINARY")
            connection.execute(f"UPDATE {self._versions} SET revision = %s WHERE version = %s", [revision, version])

    def find_removable(self, kept: Collection[str], before: float) -> list[str]:
        with self.connect() as connection:
            versions, drafts = self._read_versions(connection), self._find_drafts(connection)
        old = [name for name, row in versions.items() if name not in kept and not row.is_served]
        return old + [draft for draft in drafts if vs.begun_at(draft) < before]

    def remove(self, name: str) -> None:
        # A table that a reader has locked, or an alias uses, stays until the next cleanup.
        busy = suppress(pg.LockNotAvailable, pg.DependentObjectsStillExist)
        with self._change() as connection, busy, connection.transaction():
            versions = self._read_versions(connection)
            relations = [draft for draft in self._find_drafts(connection) if draft == name]
            if name in versions and not versions[name].is_served:
                relations = list(versions[name].tables.values())
                connection.execute(f"DELETE FROM {self._versions} WHERE version = %s", [name])
            for relation in relations:
                connection.execute(f"DROP TABLE IF EXISTS {relation}")

    @contextmanager
    def connect(self) -> Iterator[Connection]:
        """Lends a connection with autocommit. Opens a new connection if an old one is lost."""
        with vs.store_errors(self.where, self._passwords):
            connection = None
            with suppress(IndexError):
                connection = self._idle.pop()
            if connection is None or not _is_alive(connection, min(_ALIVE_SECONDS, (self.seconds or math.inf) / 2)):
                connection = psycopg.connect(self._uri, autocommit=True, prepare_threshold=None)
                connection.execute(f"{_SESSION}; SET statement_timeout = {math.ceil(1000 * (self.seconds or 0))}")
            try:
                with _cut_after(connection, self.seconds):
                    yield connection
            finally:
                is_idle = connection.info.transaction_status is TransactionStatus.IDLE
                self._idle.append(connection) if is_idle else connection.close()

    @contextmanager
    def _change(self) -> Iterator[Connection]:
        """Begins a transaction that changes the scene's versions. It waits for other such transactions, but not long for readers."""
        with self.connect() as connection, connection.transaction():
            connection.execute("SELECT pg_advisory_xact_lock(hashtext(%s))", [self._versions])
            connection.execute(
                f"CREATE TABLE IF NOT EXISTS {self._versions} "
                "(version text PRIMARY KEY, revision text NOT NULL, tables jsonb NOT NULL, is_served bool NOT NULL)"
            )
            connection.execute("SET LOCAL lock_timeout = '3s'")
            yield connection

    def _read_versions(self, connection: Connection) -> dict[str, Any]:
        try:
            rows: list[Any] = connection.cursor(row_factory=namedtuple_row).execute(f"TABLE {self._versions}").fetchall()
        except pg.UndefinedTable:  # nothing is published yet
            return {}
        return {row.version: row for row in rows}

    def find_table(self, connection: Connection, table: VectorTable, name: str) -> str:
        """Returns the name of the current table of a version or draft.

        Raises:
            PartitionMissingError: the version or draft does not have the table.
        """
        versions = self._read_versions(connection)
        relation = versions[name].tables.get(table) if name in versions else name
        if relation not in self._find_tables(connection):
            raise vs.missing_version(self.where, table, name, versions)
        return str(relation)

    def _find_tables(self, connection: Connection) -> list[str]:
        names = f"^{self._scene}_({'|'.join(VectorTable)})_[0-9a-f]{{14}}$"
        return [name for (name,) in connection.execute(_TABLES, [names])]

    def _find_drafts(self, connection: Connection) -> list[str]:
        used = {relation for row in self._read_versions(connection).values() for relation in row.tables.values()}
        return [name for name in self._find_tables(connection) if name not in used]


class _PgvectorVectors(vs.StoredVectors):
    """The rows of a version or draft. Its table is looked up for each answer, because publishing again replaces the table."""

    def __init__(self, store: PgvectorStore, table: VectorTable, name: str) -> None:
        self._store, self._table, self._name, self._id = store, table, name, KEYS[table][0]
        columns = "SELECT attname, atttypid::regtype::text, atttypmod FROM pg_attribute WHERE attrelid = %s::regclass"
        found = self._ask(lambda connection, relation: connection.execute(columns, [relation]).fetchall())
        types = {column: (kind, size) for column, kind, size in found}
        self._types = {key: _ARROW_TYPES[types[key][0]] for key in (*KEYS[table], MODEL_DIGEST)}
        self._types[VECTORS[table]] = pa.list_(pa.float32(), next(size for kind, size in types.values() if kind == "vector"))

    def count(self) -> int:
        ((count,),) = self._ask(lambda connection, table: connection.execute(f"SELECT count(*) FROM {table}").fetchall())
        return int(count)

    def read(self, ids: pa.Array) -> pa.Table:
        *names, vectors = self._types
        wanted = f"{self._id} = ANY(%b::{_sql_type(self._types[self._id])}[])"

        def read_rows(connection: Connection, relation: str) -> list[Any]:
            selected = f"SELECT {', '.join(names)}, {vectors}::float4[] FROM {relation}"
            with connection.cursor(binary=True, row_factory=dict_row) as cursor:
                return cursor.execute(f"{selected} WHERE {wanted}", [ids.to_pylist()]).fetchall()

        return pa.Table.from_pylist(self._ask(read_rows), pa.schema(self._types))

    def search(self, vectors: Vectors, k: int, *, is_exact: bool = False) -> list[Found]:
        deadline = vs.Deadline(self._store.where, self._store.seconds)

        def find_lists(connection: Connection, relation: str) -> list[Found]:
            negative = f"({VECTORS[self._table]} <#> %(vector)b::float8[]::vector)"
            lists, sql = list[Found](), f"SELECT {self._id}, {negative} FROM {relation} ORDER BY {negative}"
            with connection.cursor(binary=True) as cursor:
                for vector in vectors:
                    deadline.check()
                    found, given = list[Any](), {"vector": vector.tolist()}
                    if not is_exact and 2 * k <= _CANDIDATES:
                        found = cursor.execute(f"{sql} LIMIT {2 * k}", given).fetchall()
                    if len(found) < 2 * k:  # the index may have missed rows, so all rows are compared
                        deadline.check()
                        found = cursor.execute(f"{sql} + 0 LIMIT {k}", given).fetchall()
                    ids, negatives = zip(*found[:k], strict=True) if found else ((), ())
                    lists.append((pa.array(ids, self._types[self._id]), -np.array(negatives, np.float32)))
            return lists

        return self._ask(find_lists)

    def _ask(self, read: Callable[[Connection, str], T]) -> T:
        with self._store.connect() as connection:
            with suppress(pg.UndefinedTable):  # the table was dropped when the version was published again
                return read(connection, self._store.find_table(connection, self._table, self._name))
            return read(connection, self._store.find_table(connection, self._table, self._name))


def _sql_type(kind: pa.DataType) -> str:
    if is_list(kind):
        return f"{_sql_type(kind.value_type)}[]"
    if pat.is_integer(kind):
        return "numeric" if pat.is_unsigned_integer(kind) else f"int{max(kind.bit_width // 8, 2)}"
    if pat.is_floating(kind):
        return f"float{kind.bit_width // 8}"
    if pat.is_timestamp(kind):
        return "timestamptz" if kind.tz else "timestamp"
    return "bool" if pat.is_boolean(kind) else "date" if pat.is_date(kind) else "text"


def _copy(connection: Connection, relation: str, schema: pa.Schema, batches: Iterable[pa.RecordBatch], how: str) -> None:
    names = ", ".join(map(quote_name, schema.names))
    with connection.cursor().copy(f"COPY {relation} ({names}) FROM STDIN WITH ({how})") as copy:
        copy.set_types(["bytea" if pat.is_fixed_size_list(field.type) else _sql_type(field.type) for field in schema])
        for batch in batches:
            for row in zip(*map(_to_values, batch.columns), strict=True):
                copy.write_row(row)


def _to_values(column: pa.Array) -> list[Any]:
    """Converts a column to values that psycopg can write. Vectors become bytes in pgvector's binary format."""
    if pat.is_fixed_size_list(column.type):
        vectors = to_matrix(column, "vectors").astype(">f4").view(np.uint8)
        head = np.array([column.type.list_size, 0], ">u2").view(np.uint8)
        cells = np.hstack([np.broadcast_to(head, (len(vectors), 4)), vectors])
        return list(cells.view(f"V{cells.shape[1]}").ravel().tolist())
    return list((column.cast(pa.timestamp("us", column.type.tz)) if pat.is_timestamp(column.type) else column).to_pylist())


def _delete(connection: Connection, relation: str, keys: Mapping[str, Any]) -> None:
    arrays = ", ".join(f"%b::{_sql_type(values.type)}[]" for values in keys.values())
    wanted = f"({', '.join(keys)}) IN (SELECT * FROM unnest({arrays}))"
    connection.execute(f"DELETE FROM {relation} WHERE {wanted}", [values.to_pylist() for values in keys.values()])


def _create_index(connection: Connection, relation: str, count: int, width: int) -> None:
    # Each row of the graph takes about 1,400 bytes in addition to its vector.
    index = f"CREATE INDEX ON {relation} USING hnsw ({VECTORS[VectorTable.ITEM]} vector_ip_ops) WITH ({_INDEX_OPTIONS})"
    memory_mb = min(64 + count * (4 * width + 1400) // 2**20, 2048)
    connection.execute(f"SET LOCAL maintenance_work_mem = '{memory_mb}MB'")
    try:
        with connection.transaction():
            connection.execute(index)
    except pg.DiskFull:  # no shared memory left for parallel workers: containers have little of it
        connection.execute("SET LOCAL max_parallel_maintenance_workers = 0")
        connection.execute(index)


def _replace_view(connection: Connection, view: str, relation: str | None) -> None:
    select_rows = f"VIEW {view} AS SELECT * FROM {relation}"
    try:
        with connection.transaction():
            connection.execute(f"CREATE OR REPLACE {select_rows}" if relation else f"DROP VIEW IF EXISTS {view}")
    except pg.InvalidTableDefinition:  # the old view has other columns
        connection.execute(f"DROP VIEW {view}")
        connection.execute(f"CREATE {select_rows}")


def _is_alive(connection: Connection, seconds: float) -> bool:
    with _cut_after(connection, seconds / 2), suppress(psycopg.OperationalError):
        connection.execute("")
    return not connection.closed


@contextmanager
def _cut_after(connection: Connection, seconds: float | None) -> Iterator[None]:
    """Closes a connection if the block takes twice the given seconds: a frozen server does not end a statement itself."""
    if seconds is None:
        yield
        return
    with socket.socket(fileno=os.dup(connection.fileno())) as line:
        timer = threading.Timer(2 * seconds, _cut, [line])
        timer.start()
        try:
            yield
        finally:
            timer.cancel()


def _cut(line: socket.socket) -> None:
    with suppress(OSError):  # the connection has just been closed
        line.shutdown(socket.SHUT_RDWR)


def _close(connections: Iterable[Connection]) -> None:
    for connection in connections:
        connection.close()
