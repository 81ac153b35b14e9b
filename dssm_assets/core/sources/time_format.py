"""Reads times from texts that are not ISO 8601, by a format of DuckDB's strptime directives.

Days, months and hours may lack the leading zero, unless the format is digits alone. Names of months and weekdays are
English, whole or short, in upper or lower case. The zone is an offset or UTC. Two-digit years are 1969 to 2068, as in POSIX.

A configuration checks its formats without DuckDB, because the code location must load no heavy library.

Does not belong here: ISO 8601 texts, zones, days (`event_time.py`).
"""

from __future__ import annotations

import functools
import itertools
from typing import TYPE_CHECKING, Any, Final

from dssm_assets.core.names import DIRECTIVES, TOKEN

if TYPE_CHECKING:
    import pyarrow as pa

_NO_NUMBERS: Final = ("%p", "%z", "%b", "%B", "%a", "%A")
_NAMES: Final = tuple(itertools.product(("%b", "%B"), ("%a", "%A")))


def read_times(text: Any, time_format: str) -> pa.Array:
    """Parses texts in a format. Returns times in microseconds, in UTC if the format has a zone; null if a text does not fit.

    By hand: "3.1.2026 14:05" in the format `%d.%m.%Y %H:%M` is 2026-01-03 14:05:00.
    """
    return query_texts(text, f"SELECT {write_parser(time_format)} AS time FROM texts").column(0).combine_chunks()


def query_texts(text: Any, query: str) -> pa.Table:
    """Runs a query on a table `texts` with one column `text`."""
    import pyarrow as pa

    with _database().cursor() as db:
        db.register("texts", pa.table({"text": text}))
        return db.sql(query).to_arrow_table()


@functools.cache
def _database() -> Any:
    """Cached, because opening takes longer than reading a thousand times."""
    import duckdb

    db = duckdb.connect()
    db.execute("SET GLOBAL TimeZone = 'UTC'")
    return db


def write_parser(time_format: str) -> str:
    """Writes the SQL that parses the column `text`. %Y needs four digits; a format of digits alone needs all leading zeros."""
    short = time_format.replace("%B", "%b").replace("%A", "%a")
    names = {short.replace("%b", month).replace("%a", day) for month, day in _NAMES}
    quoted = ", ".join("'" + form.replace("'", "''") + "'" for form in sorted(names))
    text = r"regexp_replace(text, '\b(GMT|UTC)\b|[zZ]$', '+0000')" if "%z" in time_format else "text"
    time = f"try_strptime({text}, [{quoted}])"
    digits = digits_width(time_format) if reads_integers(time_format) else 0
    width = f" AND length(text) = {digits}" if digits else ""
    return f"CASE WHEN year({time}) >= 1000{width} THEN {time} END"


def has_clock(time_format: str) -> bool:
    """Returns whether a format has a time of day."""
    return bool({"%H", "%I"} & set(TOKEN.findall(time_format)))


def reads_integers(time_format: str) -> bool:
    """Returns whether a format has nothing between its numbers, so that integers such as 20260131 may be times."""
    return all(token in DIRECTIVES and token not in _NO_NUMBERS for token in TOKEN.findall(time_format))


def digits_width(time_format: str) -> int:
    """Returns the number of digits in a format of digits alone, 0 if it varies. In %y%m%d, the integer 60131 means "060131"."""
    tokens = TOKEN.findall(time_format)
    return 0 if "%f" in tokens else sum(4 if token == "%Y" else 2 for token in tokens)
