"""Formats of times in texts that are not ISO 8601: read by the directives of strptime as DuckDB has them.

Numbers of days, months and hours may lack the leading zero, unless the format is digits alone. Names of months and weekdays are English,
whole or short, in any case. The zone is an offset, or UTC. Two digits of a year are 1969 to 2068, as POSIX has it.

A configuration checks its formats without DuckDB: the code location loads no heavy library.

Belongs here: texts to timestamps. Does not belong here: ISO 8601 texts, zones, days (`event_time.py`).
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
    """Returns texts of a format as timestamps in microseconds, in UTC if the format has a zone; null where a text does not fit.

    By hand: "3.1.2026 14:05" of `%d.%m.%Y %H:%M` is 2026-01-03 14:05:00.
    """
    return query_texts(text, f"SELECT {write_parser(time_format)} AS time FROM texts").column(0).combine_chunks()


def query_texts(text: Any, query: str) -> pa.Table:
    """Returns the result of a query of the table `texts`, whose column is `text`."""
    import pyarrow as pa

    with _database().cursor() as db:
        db.register("texts", pa.table({"text": text}))
        return db.sql(query).to_arrow_table()


@functools.cache
def _database() -> Any:
    """Opened once: opening takes longer than to read a thousand times."""
    import duckdb

    db = duckdb.connect()
    db.execute("SET GLOBAL TimeZone = 'UTC'")
    return db


def write_parser(time_format: str) -> str:
    """Returns the SQL that reads the column `text` as times; a year of two digits is none of four, and digits alone need all zeros."""
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
    """Returns whether a format has nothing between its numbers, so that integers may be such times: 20260131."""
    return all(token in DIRECTIVES and token not in _NO_NUMBERS for token in TOKEN.findall(time_format))


def digits_width(time_format: str) -> int:
    """Returns how many digits a format that `reads_integers` has, 0 if that varies; an integer lacks leading zeros: 60131 of %y%m%d is "060131"."""
    tokens = TOKEN.findall(time_format)
    return 0 if "%f" in tokens else sum(4 if token == "%Y" else 2 for token in tokens)
