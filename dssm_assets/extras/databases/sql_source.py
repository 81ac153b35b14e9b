"""Reads tables and queries of databases as source tables (`format: sql`): PostgreSQL, MySQL, MariaDB, SQLite. Parses their URIs."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, ClassVar, Final
from urllib.parse import quote

import pyarrow as pa
import pyarrow.types as pat
from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from dssm_assets.core.config.pipeline import Layout, SourceTable
from dssm_assets.core.errors import ConfigError, Fault, SchemaError
from dssm_assets.storage.files import check_names
from dssm_assets.storage.sources.source import DayBounds, SourceMissingError, SourceState
from dssm_assets.storage.sources.table_source import (
    TableSource,
    hide_secrets,
    library_errors,
    name_table,
    need_library,
    quote_name,
    write_condition,
)

DIGITS: Final = 38
"""Most digits of Arrow's decimal128."""
BLOCK_ROWS: Final = 65_536
"""Rows of a block, if a driver reads row by row."""
TIMEOUT_S: Final = 30
"""Seconds to wait for a connection."""
_MYSQL_SESSION: Final = ("SET SESSION TRANSACTION READ ONLY", "SET time_zone = '+00:00'")
_POSTGRES_TEXTS: Final = ("bpchar", "bytea", "interval", "money")
_POSTGRES_SESSION: Final = ("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY", "SET LOCAL TIME ZONE 'UTC'")


@dataclass(frozen=True)
class Column:
    """A column: the SQL expression that reads it, and its type."""

    name: str
    expression: str
    kind: pa.DataType


@dataclass(frozen=True)
class DatabaseSource(TableSource):
    """A table or query. Each statement runs in its own read-only session in UTC, and sees one state of the table."""

    url: URL = field(repr=False)
    driver: Any

    driver_name: ClassVar[str]
    quote_mark: ClassVar[str] = '"'
    has_zone: ClassVar[bool] = True
    """Whether a time in SQL may have a zone."""
    tables: ClassVar[str]
    """A SELECT of the names of some tables."""
    missing: ClassVar[str]
    """Text in the driver's error for a missing table."""

    @abstractmethod
    def find_columns(self) -> list[Column]:
        """Returns the columns."""

    @abstractmethod
    def run(self, sql: str) -> Iterator[Sequence[Any]]:
        """Yields the result of a SELECT in blocks: the values of each column."""

    def convert(self, values: Any, kind: pa.DataType) -> pa.Array:
        """Converts the values of a block to a type."""
        return values.cast(kind) if isinstance(values, pa.Array) else pa.array(values, kind)

    @property
    def relation(self) -> str:
        if self.table.query is not None:
            return f"({self.table.query.rstrip().rstrip(';')}\n) AS source"
        return ".".join(map(self.quote, str(self.table.table).split(".")))

    @cached_property
    def columns(self) -> dict[str, Column]:
        """Returns the columns by name, looked up once.

        Raises:
            SourceMissingError, TableError: the table, query or database cannot be used.
            SchemaError: two columns have the same name.
        """
        with self.errors("a table or query that can be read"):
            columns = self.find_columns()
        check_names([column.name for column in columns], self.where)
        return {column.name: column for column in columns}

    def schema(self) -> pa.Schema:
        return pa.schema([(column.name, column.kind) for column in self.columns.values()])

    def read(self, columns: Sequence[str], days: DayBounds | None = None, ds: Any = None) -> Iterator[pa.Table]:
        return self._select([self.columns[name] for name in columns], days, ds)

    def newest(self, column: str) -> Any:
        (value,) = self._compute(self.columns[column], "max({})")
        return value

    def find_values(self, column: str) -> list[Any]:
        return self._compute(self.columns[column], "DISTINCT {}")

    def state(self, folder: str | None = None) -> SourceState:
        """Returns a state with the number of rows, because databases have no versions. Replaced rows are not noticed.

        For a log the fingerprint is "", because its newest time shows changes.
        """
        if self.table.layout is Layout.TIME_COLUMN:
            return SourceState("")
        (count,) = self._compute(Column("count", "*", pa.int64()), "count({})", self.convert_day(folder))
        return SourceState(str(count))

    def quote(self, name: str) -> str:
        return quote_name(name, self.quote_mark)

    @contextmanager
    def errors(self, expected: str) -> Iterator[None]:
        """Replaces the driver's errors by our errors, without passwords.

        Raises:
            SourceMissingError: there is no such table. The error names some existing tables.
            TableError: in place of any other error.
        """
        login = f"{self.table.uri.removeprefix('env:')} (user, password, host, port, name, options)"
        remedy = f"run again once the database answers, or correct {self.key}.table, {self.key}.query or {login}"
        options = [str(value) for name, value in self.url.query.items() if "pass" in name]
        secrets = [str(self.url.password or ""), *options]
        with library_errors(self.where, expected, remedy, secrets):
            try:
                yield
            except self.driver.Error as error:
                if self.missing not in str(error):
                    raise
                names = [str(name) for (block,) in self.run(self.tables) for name in block]
                remedy = f"correct the table; there are: {', '.join(names) or 'none'}"
                raise SourceMissingError(Fault(self.where, expected, hide_secrets(str(error), secrets), remedy)) from None

    def _compute(self, column: Column, form: str, ds: Any = None) -> list[Any]:
        wanted = replace(column, expression=form.format(column.expression))
        return [value for block in self._select([wanted], None, ds) for value in block.column(0).to_pylist()]

    def _select(self, columns: Sequence[Column], days: DayBounds | None, ds: Any) -> Iterator[pa.Table]:
        condition = write_condition(days, ds, mark=self.quote_mark, has_zone=self.has_zone)
        chosen = ", ".join(f"{column.expression} AS {self.quote(column.name)}" for column in columns)
        with self.errors("all requested rows"):
            for block in self.run(f"SELECT {chosen} FROM {self.relation} WHERE {condition or '1 = 1'}"):
                yield self._convert_block(columns, block)

    def _convert_block(self, columns: Sequence[Column], block: Sequence[Any]) -> pa.Table:
        arrays, faults = {}, []
        for column, values in zip(columns, block, strict=True):
            try:
                arrays[column.name] = self.convert(values, column.kind)
            except (pa.ArrowException, OverflowError) as error:
                remedy = "run again if the column has changed; else correct these rows, or leave out or cast the column in the key query"
                faults.append(Fault(f"{self.where}, column {column.name}", f"values of type {column.kind}", str(error), remedy))
        SchemaError.raise_if(faults)
        return pa.table(arrays)


class PostgresSource(DatabaseSource):
    """Reads PostgreSQL by ADBC. Its binary COPY arrives as Arrow batches.

    Types keep their meaning: numeric(p, s) becomes a decimal, numeric without precision float64, an array a list. Types without
    an Arrow type, such as uuid, json, enum, bytea and interval, become text in PostgreSQL's form. char(n) loses its padding.
    """

    driver_name = "adbc_driver_postgresql.dbapi"
    missing = "SQLSTATE: 42P01"
    tables = "SELECT schemaname || '.' || tablename FROM pg_tables WHERE schemaname !~ '^pg_|^information_' ORDER BY 1 LIMIT 10"

    def find_columns(self) -> list[Column]:
        with self._cursor() as cursor:
            return [self._plan(one) for one in cursor.adbc_execute_schema(f"SELECT * FROM {self.relation}")]

    def run(self, sql: str) -> Iterator[Sequence[Any]]:
        with self._cursor() as cursor:
            cursor.execute(sql)
            with cursor.fetch_record_batch() as batches:
                yield from (batch.columns for batch in batches)

    @contextmanager
    def _cursor(self) -> Iterator[Any]:
        url = self.url.set(drivername="postgresql", query={"connect_timeout": str(TIMEOUT_S), **self.url.query})
        # libpq accepts a space only as %20, but SQLAlchemy leaves it in the login and writes + in options.
        login, mark, options = url.render_as_string(hide_password=False).partition("?")
        with self.errors("a connection"):
            connection = self.driver.connect(login.replace(" ", "%20") + mark + options.replace("+", "%20"))
        with connection, connection.cursor() as cursor:
            for statement in _POSTGRES_SESSION:
                cursor.execute(statement)
            yield cursor

    def _plan(self, given: pa.Field) -> Column:
        name, is_list = self.quote(given.name), pat.is_list(given.type)
        element = given.type.value_field if is_list else given
        label = (element.metadata or {}).get(b"POSTGRESQL:type", b"").decode()
        limits = int((given.metadata or {}).get(b"POSTGRESQL:typmod", -1)) - 4  # digits and scale of numeric(p, s)
        if label == "numeric" and not is_list and limits >= 0 and (limits & 0x7FF) <= limits >> 16 <= DIGITS:
            return Column(given.name, name, pa.decimal128(limits >> 16, limits & 0x7FF))
        if label == "numeric":
            target, kind = "float8", pa.float64()
        elif label in _POSTGRES_TEXTS or isinstance(element.type, pa.BaseExtensionType):
            target, kind = "text", pa.string()
        else:
            target, kind = "", element.type
        if is_list:
            kind = pa.list_(pa.field("element", kind))  # the name that parquet uses
        return Column(given.name, f"CAST({name} AS {target}{'[]' if is_list else ''})" if target else name, kind)


class MysqlSource(DatabaseSource):
    """Reads MySQL and MariaDB by PyMySQL. Rows arrive one by one as texts, and Arrow converts them.

    Integers are int64, also tinyint(1). Decimals stay decimals, float becomes float64. datetime has no zone, timestamp is in UTC.
    time, json, enum and set are text. A zero date is an error, and so are bytes.
    """

    driver_name = "pymysql"
    quote_mark = "`"
    has_zone = False
    missing = "(1146,"
    tables = "SELECT table_name FROM information_schema.tables WHERE table_schema = DATABASE() ORDER BY 1 LIMIT 10"

    def find_columns(self) -> list[Column]:
        with self._execute(f"SELECT * FROM {self.relation} LIMIT 0") as cursor:
            return [self._plan(name, code, scale) for name, code, *_, scale, _ in cursor.description]

    def run(self, sql: str) -> Iterator[Sequence[Any]]:
        with self._execute(sql) as cursor:
            while rows := cursor.fetchmany(BLOCK_ROWS):
                yield list(zip(*rows, strict=True))

    def convert(self, values: Any, kind: pa.DataType) -> pa.Array:
        texts = pa.array(values)
        if pat.is_binary(texts.type):
            raise pa.ArrowInvalid("bytes")
        if pat.is_timestamp(kind) and kind.tz:
            texts = texts.cast(pa.timestamp("us"))
        return texts.cast(kind)

    @contextmanager
    def _execute(self, sql: str) -> Iterator[Any]:
        with closing(self._connect()) as connection:
            cursor = connection.cursor(self.driver.cursors.SSCursor)
            try:
                for statement in (*_MYSQL_SESSION, sql):
                    cursor.execute(statement)
                yield cursor
            except BaseException:  # killed, because closing the cursor would read all remaining rows
                with suppress(Exception), closing(self._connect()) as other:
                    other.query(f"KILL QUERY {connection.thread_id()}")
                raise
            finally:
                with suppress(Exception):  # the connection may be gone
                    cursor.close()

    def _connect(self) -> Any:
        url = self.url.set(drivername="mysql+pymysql")
        with self.errors("a connection"):
            _, given = url.get_dialect()().create_connect_args(url)
            given = {"charset": "utf8mb4", "connect_timeout": TIMEOUT_S, **given}
            return self.driver.connect(**given, conv=self.driver.converters.encoders)  # without decoders values stay texts

    def _plan(self, name: str, code: int, scale: int) -> Column:
        TYPES = self.driver.constants.FIELD_TYPE
        kinds = dict.fromkeys((TYPES.TINY, TYPES.SHORT, TYPES.INT24, TYPES.LONG, TYPES.LONGLONG, TYPES.YEAR), pa.int64())
        kinds |= {TYPES.FLOAT: pa.float64(), TYPES.DOUBLE: pa.float64(), TYPES.DATE: pa.date32()}
        kinds |= {TYPES.DATETIME: pa.timestamp("us"), TYPES.TIMESTAMP: pa.timestamp("us", "UTC")}
        if code in (TYPES.DECIMAL, TYPES.NEWDECIMAL):
            kinds[code] = pa.decimal128(DIGITS, scale)
        text = self.quote(name)
        if code == TYPES.FLOAT:  # as text it would have only six digits
            text = f"({text} + 0e0)"
        return Column(name, text, kinds.get(code, pa.string()))


class SqliteSource(DatabaseSource):
    """Reads SQLite by Python's own driver. A column's type is found from all of its values, not from its declaration.

    Integers mixed with fractions become float64. Numbers mixed with texts are an error. Times are texts or integers.
    """

    driver_name = "sqlite3"
    missing = "no such table"
    tables = "SELECT name FROM sqlite_master WHERE type IN ('table', 'view') ORDER BY 1 LIMIT 10"

    def find_columns(self) -> list[Column]:
        with closing(self._connect()) as connection:
            names = [name for name, *_ in connection.execute(f"SELECT * FROM {self.relation} LIMIT 0").description]
            chosen = ", ".join(f"group_concat(DISTINCT typeof({self.quote(name)}))" for name in names)
            (types,) = connection.execute(f"SELECT {chosen} FROM {self.relation}")
        return [Column(name, self.quote(name), _find_kind(each or "")) for name, each in zip(names, types, strict=True)]

    def run(self, sql: str) -> Iterator[Sequence[Any]]:
        with closing(self._connect()) as connection:
            cursor = connection.execute(sql)
            while rows := cursor.fetchmany(BLOCK_ROWS):
                yield list(zip(*rows, strict=True))

    def _connect(self) -> Any:
        with self.errors("a connection"):
            return self.driver.connect(f"file:{quote(str(self.url.database))}?mode=ro", uri=True)


def _find_kind(types: str) -> pa.DataType:
    found = {*types.split(",")} - {"null", ""}
    if not found:
        return pa.null()
    return pa.int64() if found == {"integer"} else pa.float64() if found <= {"integer", "real"} else pa.string()


_SOURCES: Final[dict[str, type[DatabaseSource]]] = {
    **dict.fromkeys(("postgresql", "postgres"), PostgresSource),
    **dict.fromkeys(("mysql", "mariadb"), MysqlSource),
    "sqlite": SqliteSource,
}
"""Scheme of a URI -> class that reads its tables."""


def open_source(table: SourceTable, name: str) -> DatabaseSource:
    """Opens a table or query of a database.

    Raises:
        ConfigError: the URI has an unknown scheme, the environment variable is not set, or the driver is not installed.
    """
    where = name_table(table, name)
    url = read_url(table.uri, where)
    source = _SOURCES[url.get_backend_name()]
    return source(table, name, url, need_library(source.driver_name, "sql", where))


def read_url(uri: str, where: str) -> URL:
    """Parses the URI of a database. `env:NAME` stands for a URI in an environment variable.

    A password may contain any character; it ends at the last @.

    Raises:
        ConfigError: the variable is not set, or the URI has another scheme. The error does not show the URI.
    """
    name = uri.removeprefix("env:") if uri.startswith("env:") else ""
    given = os.environ.get(name, "").strip() if name else uri
    login, mark, rest = given.rpartition("@")
    try:
        url = make_url(login.replace("@", "%40") + mark + rest)
        if url.get_backend_name() in _SOURCES:
            return url
    except (ArgumentError, ValueError):  # for example if the port is no number
        pass
    expected = f"a URI of a database{f' in the environment variable {name}' if name else ''}: {'://, '.join(_SOURCES)}://"
    got = "another URI, not shown because it may be secret" if given else "no value"
    raise ConfigError(Fault(where, expected, got, f"export {name or 'NAME'}=postgresql://USER:PASSWORD@HOST/DATABASE"))
