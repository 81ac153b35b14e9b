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

from dssm_assets.extras.databases.database import BLOCK_ROWS, DIGITS, TIMEOUT_S, Column, DatabaseSource

_SESSION: Final = ("SET SESSION TRANSACTION READ ONLY", "SET time_zone = '+00:00'")


class MysqlSource(DatabaseSource):
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
                for statement in (*_SESSION, sql):
                    cursor.execute(statement)
                yield cursor
            except BaseException:  # closing the cursor would read all rows that are left
                with suppress(Exception), closing(self._connect()) as other:
                    other.query(f"KILL QUERY {connection.thread_id()}")
                raise
            finally:
                with suppress(Exception):  # of a connection that is gone
                    cursor.close()

    def _connect(self) -> Any:
        url = self.url.set(drivername="mysql+pymysql")
        with self.errors("a connection"):
            _, given = url.get_dialect()().create_connect_args(url)
            given = {"charset": "utf8mb4", "connect_timeout": TIMEOUT_S, **given}
            return self.driver.connect(**given, conv=self.driver.converters.encoders)  # no decoders: values stay texts

    def _plan(self, name: str, code: int, scale: int) -> Column:
        TYPES = self.driver.constants.FIELD_TYPE
        kinds = dict.fromkeys((TYPES.TINY, TYPES.SHORT, TYPES.INT24, TYPES.LONG, TYPES.LONGLONG, TYPES.YEAR), pa.int64())
        kinds |= {TYPES.FLOAT: pa.float64(), TYPES.DOUBLE: pa.float64(), TYPES.DATE: pa.date32()}
        kinds |= {TYPES.DATETIME: pa.timestamp("us"), TYPES.TIMESTAMP: pa.timestamp("us", "UTC")}
        if code in (TYPES.DECIMAL, TYPES.NEWDECIMAL):
            kinds[code] = pa.decimal128(DIGITS, scale)
        text = self.quote(name)
        if code == TYPES.FLOAT:  # its text has six digits
            text = f"({text} + 0e0)"
        return Column(name, text, kinds.get(code, pa.string()))
