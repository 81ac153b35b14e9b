"""MySQL and MariaDB by PyMySQL: rows arrive one by one as texts, which Arrow converts.

Integers are int64, also tinyint(1); decimals stay decimals, float is float64; datetime has no zone, timestamp is in UTC; time, json, enum and
set are text. A zero date is an error, as are bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from typing import Any, Final

import pyarrow as pa
import pyarrow.types as pat

from dssm_assets.core.errors import ConfigError, Fault, InputError
from dssm_assets.extras.databases.database import BLOCK_ROWS, TIMEOUT_S, Column, DatabaseTable

_PORT: Final = "3306"
_DIGITS: Final = 38
"""Digits of Arrow's decimal128."""
_MISSING: Final = 1146
"""Error of an unknown table."""
_SESSION: Final = ("SET SESSION TRANSACTION READ ONLY", "SET time_zone = '+00:00'")


class MysqlTable(DatabaseTable):
    driver_name = "pymysql"
    quote_mark = "`"
    tables = "SELECT table_name FROM information_schema.tables WHERE table_schema = DATABASE() ORDER BY 1"

    def find_columns(self) -> list[Column]:
        with self._connect() as cursor:
            cursor.execute(f"SELECT * FROM {self.relation} LIMIT 0")
            return [self._plan(*field) for field in cursor.description]

    def run(self, sql: str, columns: Sequence[Column] = ()) -> Iterator[Sequence[Any]]:
        with self._connect() as cursor:
            cursor.execute(sql)
            self.check_kinds(columns, [self._plan(*field).kind for field in cursor.description])
            while rows := cursor.fetchmany(BLOCK_ROWS):
                yield list(zip(*rows, strict=True))

    def convert(self, values: Any, kind: pa.DataType) -> pa.Array:
        texts = pa.array(values)
        if pat.is_binary(texts.type):
            raise pa.ArrowInvalid("bytes")
        if pat.is_timestamp(kind) and kind.tz:
            texts = texts.cast(pa.timestamp("us"))
        return texts.cast(kind)

    def is_missing(self, error: Exception) -> bool:
        return isinstance(error, self.driver.Error) and error.args[0] == _MISSING

    @contextmanager
    def _connect(self) -> Iterator[Any]:
        with closing(self._open()) as connection:
            cursor = connection.cursor()
            try:
                for statement in _SESSION:
                    cursor.execute(statement)
                yield cursor
            except BaseException:  # closing the cursor would wait for all rows
                with suppress(self.driver.Error, InputError), closing(self._open()) as other:
                    other.query(f"KILL QUERY {connection.thread_id()}")
                raise
            finally:
                with suppress(self.driver.Error, AttributeError):  # of a connection that is gone
                    cursor.close()
                cursor.connection = None

    def _open(self) -> Any:
        from pymysql import converters, cursors

        address, (host, _, port) = self.address, self.address.host.partition(":")
        given: dict[str, Any] = {name: int(value) if value.isdigit() else value for name, value in address.options.items()}
        try:
            with self.errors("a connection", address.remedy):
                return self.driver.connect(
                    host=host or "localhost",
                    port=int(port or _PORT),
                    user=address.user or None,
                    password=address.password,
                    database=address.database or None,
                    charset="utf8mb4",
                    conv=converters.encoders,  # no decoders: values stay texts
                    cursorclass=cursors.SSCursor,
                    **{"connect_timeout": TIMEOUT_S, **given},
                )
        except (TypeError, ValueError) as error:
            expected, remedy = "a port, and arguments of pymysql.connect after ?", "correct them in the URI"
            raise ConfigError(Fault(self.where, expected, address.hide(str(error)), remedy)) from None

    def _plan(self, name: str, code: int, *described: Any) -> Column:
        from pymysql.constants import FIELD_TYPE as TYPES

        kinds = dict.fromkeys((TYPES.TINY, TYPES.SHORT, TYPES.INT24, TYPES.LONG, TYPES.LONGLONG, TYPES.YEAR), pa.int64())
        kinds |= {TYPES.FLOAT: pa.float64(), TYPES.DOUBLE: pa.float64(), TYPES.DATE: pa.date32()}
        kinds |= {TYPES.DATETIME: pa.timestamp("us"), TYPES.TIMESTAMP: pa.timestamp("us", "UTC")}
        kind = kinds.get(code, pa.string())
        if code in (TYPES.DECIMAL, TYPES.NEWDECIMAL):
            kind = pa.decimal128(_DIGITS, described[3])
        text = self.quote(name)
        return Column(name, text if code != TYPES.FLOAT else f"({text} + 0e0)", kind)  # a float's text has six digits
