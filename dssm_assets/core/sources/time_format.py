"""Formats of times in texts that are not ISO 8601: read by the directives of strptime as DuckDB has them, and recognised by the values.

Numbers of days, months and hours may lack the leading zero, unless the format is digits alone. Names of months and weekdays are English,
whole or short, in any case. The zone is an offset, or UTC. Two digits of a year are 1969 to 2068, as POSIX has it.

A configuration checks its formats without DuckDB: the code location loads no heavy library.

Belongs here: texts to timestamps. Does not belong here: ISO 8601 texts, zones, days (`event_time.py`).
"""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from dssm_assets.core.names import DIRECTIVES, TOKEN

if TYPE_CHECKING:
    import pyarrow as pa

_NO_NUMBERS: Final = ("%p", "%z", "%b", "%B", "%a", "%A")
_NAMES: Final = tuple(itertools.product(("%b", "%B"), ("%a", "%A")))
CLOCKS: Final = (
    "%H:%M:%S",
    "%H:%M",
    "%H:%M:%S.%f",
    "%I:%M:%S %p",
    "%I:%M %p",
    "%H.%M.%S",
    "%H.%M",
    "%H:%M:%S%z",
    "%H:%M:%S %z",
)
"""The formats of times of day that are recognised by their values."""
_DATES: Final = (
    *(date.format(separator) for separator in (".", "/", "-") for date in ("%d{0}%m{0}%Y", "%m{0}%d{0}%Y")),
    "%Y.%m.%d",
    "%Y/%m/%d",
    *(date.format(separator) for separator in ("/", "-") for date in ("%d{0}%m{0}%y", "%m{0}%d{0}%y", "%y{0}%m{0}%d")),
    "%d/%b/%Y",
    "%d-%b-%Y",
    "%d-%b-%y",
    "%d %b %Y",
    "%b %d, %Y",
    "%b %d %Y",
    "%m %d, %Y",
)
KNOWN: Final = (
    "%Y%m%d",
    *_DATES,
    *(f"{date}{gap}{clock}" for date, gap, clock in itertools.product(_DATES, (" ", "T", ", "), CLOCKS)),
    "%d/%b/%Y:%H:%M:%S %z",
    "%a %b %d %H:%M:%S %Y",
    "%a %b %d %H:%M:%S %z %Y",
    "%a, %d %b %Y %H:%M:%S %z",
)
"""The formats that are recognised by their values; none of them reads ISO 8601."""


def read_times(text: Any, time_format: str) -> pa.Array:
    """Returns texts of a format as timestamps in microseconds, in UTC if the format has a zone; null where a text does not fit.

    By hand: "3.1.2026 14:05" of `%d.%m.%Y %H:%M` is 2026-01-03 14:05:00.
    """
    return _query(text, f"SELECT {_parse(time_format)} AS time FROM texts").column(0).combine_chunks()


def find_time_formats(text: Any, among: Sequence[str] = KNOWN) -> tuple[str, ...]:
    """Returns the formats that read every one of some texts: none, one, or several, as "03.04.2026" has a day and a month in either order.

    Args:
        text: texts without nulls; without any, all formats are left.
        among: the formats to try.
    """
    letters = set(text[0].as_py()) if len(text) else set()
    possible = tuple(one for one in among if not len(text) or set(re.sub("%.", "", one)) <= letters)
    for some in (text[:1], text):  # the first text leaves few
        if possible and len(some):
            columns = ", ".join(f"count({_parse(one)}) AS c{number}" for number, one in enumerate(possible))
            counts = _query(some, f"SELECT {columns} FROM texts").to_pylist()[0].values()
            possible = tuple(one for one, count in zip(possible, counts, strict=True) if count == len(some))
    return possible


def _query(text: Any, query: str) -> pa.Table:
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


def _parse(time_format: str) -> str:
    """Returns the expression of a text's time; a year of two digits is none of four, and digits alone need all zeros."""
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
