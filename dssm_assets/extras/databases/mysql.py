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
_MISSING: Final = (1146, 1049)
"""Error of an unknown table or database."""
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
            self.check_stored(columns, [_name_type(code) for _, code, *_ in cursor.description])
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
        return isinstance(error, self.driver.Error) and error.args[0] in _MISSING

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

    def _open(self) -> Any:
        from pymysql import converters, cursors

        address, (host, _, port) = self.address, self.address.host.partition(":")
        options = {"connect_timeout": TIMEOUT_S, "charset": "utf8mb4", **address.options}
        options |= {"host": host or "localhost", "port": int(port or _PORT), "database": address.database or None}
        options |= {"conv": converters.encoders, "cursorclass": cursors.SSCursor}  # no decoders: values stay texts
        with self.errors("a connection", address.remedy):
            try:
                return self.driver.connect(user=address.user or None, password=address.password, **options)
            except (TypeError, ValueError) as error:
                got, remedy = address.hide(str(error)), "correct what follows ? in its URI"
                raise ConfigError(Fault(self.where, "arguments of pymysql.connect", got, remedy)) from None

    def _plan(self, name: str, code: int, *described: Any) -> Column:
        from pymysql.constants import FIELD_TYPE as TYPES

        integers = (TYPES.TINY, TYPES.SHORT, TYPES.INT24, TYPES.LONG, TYPES.LONGLONG, TYPES.YEAR)
        kinds = dict.fromkeys(integers, pa.int64()) | dict.fromkeys((TYPES.FLOAT, TYPES.DOUBLE), pa.float64())
        kinds |= dict.fromkeys((TYPES.DECIMAL, TYPES.NEWDECIMAL), pa.decimal128(_DIGITS, described[3]))
        kinds |= {TYPES.DATE: pa.date32(), TYPES.DATETIME: pa.timestamp("us"), TYPES.TIMESTAMP: pa.timestamp("us", "UTC")}
        expression = self.quote(name)
        if code == TYPES.FLOAT:  # as text it would have six digits
            expression, code = f"({expression} + 0e0)", TYPES.DOUBLE
        return Column(name, expression, kinds.get(code, pa.string()), _name_type(code))


def _name_type(code: int) -> str:
    from pymysql.constants import FIELD_TYPE

    return next(name.lower() for name, number in vars(FIELD_TYPE).items() if number == code)
