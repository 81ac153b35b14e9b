"""Converts timestamps of any source format to int64 milliseconds since 1970-01-01 UTC, and finds their days.

Rules:
    - integers are seconds or milliseconds. `auto` reads absolute values below 10**11 as seconds (the year 5138 in seconds,
      March 1973 in milliseconds) and refuses a column with both, or with values of 10**14 and more;
    - floats must be whole numbers and are then read as integers;
    - text is ISO 8601 (`2026-01-31`, `2026-01-31 10:00`, `2026-01-31T10:00:00.123+02:00`, `...Z`) or a decimal integer. A
      format (`time_format.py`) replaces both. A format of digits alone also reads integers and whole floats (20260131);
    - a timestamp without a zone is wall-clock time in the calendar's zone. If the clock shows it twice, the earlier instant
      counts; if the clock skips it, the first instant after the gap;
    - digits finer than a millisecond are cut off.
Missing timestamps stay null.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Any, Final
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pat

from dssm_assets.core.arrays.ragged import is_text
from dssm_assets.core.errors import Fault, SchemaError
from dssm_assets.core.sources.convert import check_text, decode_column, whole_numbers
from dssm_assets.core.sources.time_format import digits_width, read_times, reads_integers

SECONDS_BELOW: Final = 10**11
TOO_FINE_FROM: Final = 10**14
_FIRST_MS: Final = -62_135_596_800_000
_END_MS: Final = 253_402_300_800_000
_YEARS: Final = "times of the years 1 to 9999"
_DAY: Final = dt.timedelta(days=1)

_ZONE: Final = r"(?:Z|[+-]\d{2}(?::?\d{2})?)"
_ISO: Final = rf"^\d{{4}}-\d{{2}}-\d{{2}}(?:[T ]\d{{2}}:\d{{2}}(?::\d{{2}}(?:\.\d{{1,9}})?)?{_ZONE}?)?$"
_REMEDY: Final = (
    "name the format of text in time_format, or give seconds or milliseconds since 1970-01-01 UTC, ISO 8601 text, or timestamps"
)


def to_event_time_ms(
    values: pa.ChunkedArray | pa.Array, *, unit: str, timezone: str, where: str, time_format: str | None = None
) -> pa.Array:
    """Returns the timestamps of a column as int64 milliseconds since 1970-01-01 UTC, nulls kept.

    Args:
        values: integers, whole floats, ISO 8601 or integer text, dates or timestamps of any unit, with or without zone.
        unit: "s", "ms" or "auto"; applies to integers only.
        timezone: the zone of timestamps without zone.

    Raises:
        SchemaError: a value is not a timestamp of the years 1 to 9999, or the unit is ambiguous.
    """
    try:
        times = _convert_times(values, unit=unit, timezone=timezone, where=where, time_format=time_format)
        ends = pc.min_max(times).as_py()
    except pa.ArrowInvalid as error:
        raise SchemaError(Fault(where, _YEARS, str(error), "fix those rows in the source")) from error
    if ends["min"] is not None and not _FIRST_MS <= ends["min"] <= ends["max"] < _END_MS:
        got = f"{ends['min']:,} to {ends['max']:,} milliseconds since 1970"
        raise SchemaError(Fault(where, _YEARS, got, "fix those rows in the source"))
    return times


def _convert_times(
    values: pa.ChunkedArray | pa.Array, *, unit: str, timezone: str, where: str, time_format: str | None
) -> pa.Array:
    column = check_text(decode_column(values), where)
    kind = column.type
    if pat.is_null(kind):
        return column.cast(pa.int64())
    is_number = pat.is_integer(kind) or pat.is_floating(kind) or pat.is_decimal(kind)
    if time_format is not None and is_number and reads_integers(time_format):
        column = pc.utf8_lpad(whole_numbers(column, where, _REMEDY).cast(pa.string()), digits_width(time_format), "0")
    if is_text(column.type):
        text = pc.utf8_trim_whitespace(column.cast(pa.string()))
        text = pc.if_else(pc.equal(text, ""), None, text)
        if time_format is None:
            return _from_text(text, unit=unit, timezone=timezone, where=where)
        column = read_times(text, time_format)
        is_unread = pc.and_(pc.is_valid(text), pc.is_null(column))
        remedy = "correct time_format, or fix those rows"
        _refuse_unread(text, is_unread, where, f"text in the format {time_format!r}", remedy)
        kind = column.type
    if pat.is_timestamp(kind):
        coarse = column.cast(pa.timestamp("ms", kind.tz), safe=False)
        return coarse.cast(pa.int64()) if kind.tz else _from_wall_clock(coarse, timezone)
    if pat.is_date(kind):
        return _from_wall_clock(column.cast(pa.timestamp("ms")), timezone)
    if is_number:
        return _from_integers(whole_numbers(column, where, _REMEDY), unit, where)
    raise SchemaError(Fault(where, "timestamps", str(kind), _REMEDY))


def join_clock(dates: pa.ChunkedArray | pa.Array, clocks: pa.ChunkedArray | pa.Array) -> pa.Array:
    """Joins dates and times of day to texts with a space between; null if either is missing.

    By hand: the date 2016-10-30 and "9:58" give "2016-10-30 9:58". So does the date's midnight, as timestamp or text, and "9:58".
    """
    date, clock = decode_column(dates), decode_column(clocks)
    if pat.is_timestamp(date.type):
        date = date.cast(pa.date32(), safe=False)
    day, time = (pc.utf8_trim_whitespace(part.cast(pa.string())) for part in (date, clock))
    day = pc.replace_substring_regex(day, r"[ T]00:00(?::00(?:\.0+)?)?$", "")
    return pc.binary_join_element_wise(day, time, " ")


def time_text_format(kind: pa.DataType) -> str:
    """Returns the format of the text that `join_clock` writes for a typed time of day. Units below a second add digits: 09:58:00.000."""
    return "%H:%M:%S" if kind.unit == "s" else "%H:%M:%S.%f"


def dates_of(event_time_ms: pa.ChunkedArray | pa.Array, timezone: str) -> pa.Array:
    """Returns the day (date32) of each timestamp in a zone, with daylight saving time; nulls stay null.

    Example: 1_711_839_600_000 is 2024-03-30 23:00 in UTC and on 2024-03-31 in Berlin.
    """
    return pc.local_timestamp(decode_column(event_time_ms).cast(pa.timestamp("ms", timezone))).cast(pa.date32(), safe=False)


def day_ranges(days: Sequence[str], kind: pa.DataType, *, unit: str, timezone: str) -> list[tuple[Any, Any]]:
    """Returns ranges [start, end) of a time column's values that cover some days. Adjoining ranges are merged.

    Args:
        days: YYYY-MM-DD, ascending.
        kind: an integer, a date or a timestamp. Integers with unit auto get ranges of seconds, then of milliseconds.
    """
    dates = [dt.date.fromisoformat(day) for day in days]
    firsts = [day for day in dates if day - _DAY not in dates]
    spans = list(zip(firsts, [day + _DAY for day in dates if day + _DAY not in dates], strict=True))
    if pat.is_date(kind):
        return spans
    walls = [[dt.datetime.combine(day, dt.time()) for day in span] for span in spans]
    if pat.is_timestamp(kind) and kind.tz is None:
        return [(start, end) for start, end in walls]
    zoned = [[wall.replace(tzinfo=ZoneInfo(timezone)).astimezone(dt.UTC) for wall in span] for span in walls]
    if pat.is_timestamp(kind):
        return [(start, end) for start, end in zoned]
    seconds = [[round(moment.timestamp()) for moment in span] for span in zoned]
    factors = {"s": (1,), "ms": (1000,)}.get(unit, (1, 1000))
    return [(start * factor, end * factor) for factor in factors for start, end in seconds]


def is_ordered(kind: pa.DataType) -> bool:
    """Returns whether the largest value of a type is always the newest timestamp. For text this does not hold."""
    return bool(pat.is_integer(kind) or pat.is_timestamp(kind) or pat.is_date(kind))


def _from_integers(numbers: pa.Array, unit: str, where: str) -> pa.Array:
    size = pc.abs(numbers)
    largest = pc.max(size).as_py()
    if largest is None:
        return numbers
    if largest >= TOO_FINE_FROM and unit != "s":
        got = f"values up to {largest}, probably micro- or nanoseconds"
        raise SchemaError(Fault(where, "seconds or milliseconds", got, "divide in the source, or store timestamps"))
    if unit == "auto":
        seconds = pc.sum(pc.less(size, SECONDS_BELOW)).as_py()
        milliseconds = len(numbers) - numbers.null_count - seconds
        if seconds and milliseconds:
            got = f"{seconds} values that look like seconds and {milliseconds} that look like milliseconds"
            raise SchemaError(Fault(where, "one unit", got, "set time_unit to s or ms, or fix the source"))
        unit = "s" if seconds else "ms"
    if unit == "s" and largest >= SECONDS_BELOW:
        raise SchemaError(Fault(where, "seconds, as time_unit says", f"values up to {largest}", "set time_unit to ms or auto"))
    return pc.multiply(numbers, 1000) if unit == "s" else numbers


def _from_text(text: pa.Array, *, unit: str, timezone: str, where: str) -> pa.Array:
    if pc.all(pc.match_substring_regex(text, r"^-?\d{1,18}$")).as_py():
        return _from_integers(text.cast(pa.int64()), unit, where)
    plain = pc.replace_substring_regex(text, r"\s*(?:z|Z|UTC|GMT)$", "Z")
    plain = pc.replace_substring_regex(pc.replace_substring_regex(plain, r"\s+([+-])", r"\1"), r",(\d)", r".\1")
    is_unread = pc.invert(pc.match_substring_regex(plain, _ISO))
    _refuse_unread(text, is_unread, where, "ISO 8601 text or integers", _REMEDY)
    plain = pc.replace_substring_regex(plain, r"(\.\d{6})\d+", r"\1")
    has_zone = pc.match_substring_regex(plain, rf":.*{_ZONE}$")
    try:
        wall = pc.if_else(has_zone, None, plain).cast(pa.timestamp("us"))
        zoned = pc.if_else(has_zone, plain, None).cast(pa.timestamp("us", "UTC"))
    except pa.ArrowInvalid as error:
        raise SchemaError(Fault(where, "existing days and times", str(error), "fix those rows in the source")) from error
    local = _from_wall_clock(wall.cast(pa.timestamp("ms"), safe=False), timezone)
    return pc.coalesce(zoned.cast(pa.timestamp("ms", "UTC"), safe=False).cast(pa.int64()), local)


def _from_wall_clock(naive: pa.Array, timezone: str) -> pa.Array:
    return pc.assume_timezone(naive, timezone, ambiguous="earliest", nonexistent="latest").cast(pa.int64())


def _refuse_unread(text: pa.Array, is_unread: pa.Array, where: str, expected: str, remedy: str) -> None:
    count = pc.sum(is_unread).as_py()
    if count:
        samples = sorted(set(text.filter(is_unread).slice(0, 1000).to_pylist()))[:3]
        raise SchemaError(Fault(where, expected, f"{count} others, such as {samples}", remedy))
