"""Calendar arithmetic in a time zone: shifting days, local hour and weekday, days since an instant.

The only module that handles daylight saving. Offsets come from the time zone database of Python and reach numpy and Ibis as
numbers, so all engines agree.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import ibis
import numpy as np
import numpy.typing as npt

from dssm_assets.core.errors import ConfigError, Fault

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
_EPOCH = dt.date(1970, 1, 1)
_EPOCH_WEEKDAY = 3  # 1970-01-01 was a Thursday, Monday is 0

Int64s = npt.NDArray[np.int64]


@dataclass(frozen=True)
class VariableDay:
    """A day of a year whose values an engine sets before it runs a query: one compiled query serves all these days.

    In place of literals, expressions get calls of `getvariable`; `variable_value` returns what the engine sets.
    """

    year: int


@dataclass(frozen=True)
class RowDay:
    """The day of each row of a query over several days: a date column, no date later than the end of `year`."""

    column: Any
    year: int


QueryDay = str | VariableDay | RowDay
"""The day of an expression: YYYY-MM-DD, unknown until the query runs, or a column."""
_DS: Final = "ds"
_DAY_INDEX: Final = "day_index"
_WINDOW_START: Final = "window_start_"


@ibis.udf.scalar.builtin(name="getvariable")  # type: ignore[untyped-decorator]
def _text_variable(variable: str) -> str:
    raise NotImplementedError


@ibis.udf.scalar.builtin(name="getvariable")  # type: ignore[untyped-decorator]
def _number_variable(variable: str) -> int:
    raise NotImplementedError


def variable_value(name: str, ds: str) -> str | int:
    """Returns the value on a day of a variable that an expression for a `VariableDay` reads."""
    if name.startswith(_WINDOW_START):
        return window_start(ds, int(name.removeprefix(_WINDOW_START)))
    return (dt.date.fromisoformat(ds) - _EPOCH).days if name == _DAY_INDEX else ds


def day_text(ds: QueryDay) -> Any:
    """Returns the day as an Ibis text."""
    if isinstance(ds, RowDay):
        return ds.column.cast("string")
    return ibis.literal(ds, type="string") if isinstance(ds, str) else _text_variable(_DS)


def first_day_text(ds: QueryDay, days: int) -> Any:
    """Returns the first day of the window of `days` days that ends with `ds`, as an Ibis text."""
    if isinstance(ds, str):
        return ibis.literal(window_start(ds, days), type="string")
    if isinstance(ds, RowDay):
        return (ds.column - ibis.interval(days=days - 1)).strftime("%Y-%m-%d")
    return _text_variable(f"{_WINDOW_START}{days}")


def each_row(ds: QueryDay, rows: ibis.Table, by: Sequence[str]) -> QueryDay:
    """Returns the day of each row in place of the last of several days, where `by` names the column of days; else `ds`."""
    if not by:
        return ds
    return RowDay(rows[by[0]], int(ds[:4]) if isinstance(ds, str) else ds.year)


def shift_day(ds: str, days: int) -> str:
    """Returns the day `days` days after `ds` (before it, if negative), both YYYY-MM-DD."""
    return (dt.date.fromisoformat(ds) + dt.timedelta(days=days)).isoformat()


def window_start(ds: str, days: int) -> str:
    """Returns the first day of the window of `days` days that ends with `ds`."""
    return shift_day(ds, 1 - days)


def local_ms(event_time_ms: Int64s, timezone: str) -> Int64s:
    """Returns the local time of each instant, as milliseconds since 1970-01-01 00:00 local time."""
    if len(event_time_ms) == 0:
        return event_time_ms
    starts, offsets = offset_steps(timezone, int(event_time_ms.min()), int(event_time_ms.max()))
    position = np.searchsorted(np.asarray(starts, dtype=np.int64), event_time_ms, side="right") - 1
    shifted: Int64s = event_time_ms + np.asarray(offsets, dtype=np.int64)[position]
    return shifted


def hour_and_weekday(event_time_ms: Int64s, timezone: str) -> tuple[Int64s, Int64s]:
    """Returns the local hour (0 to 23) and weekday (Monday = 0) of each instant."""
    local = local_ms(event_time_ms, timezone)
    return local // HOUR_MS % 24, (local // DAY_MS + _EPOCH_WEEKDAY) % 7


def days_since(event_time_ms: Any, *, ds: QueryDay, timezone: str, first_day: str) -> Any:
    """Returns an Ibis float64 column: calendar days from the local date of an instant to `ds`; null stays null.

    Args:
        event_time_ms: Ibis int64 column of instants up to the end of `ds`.
        ds: the day that counts as 0.
        first_day: first day with data. Earlier instants get its offset.
    """
    if isinstance(ds, str):
        year, index = int(ds[:4]), ibis.literal(variable_value(_DAY_INDEX, ds), type="int64")
    elif isinstance(ds, RowDay):
        year, index = ds.year, ds.column.delta(ibis.date(_EPOCH), unit="day").cast("int64")
    else:
        year, index = ds.year, _number_variable(_DAY_INDEX)
    first_ms = (dt.date.fromisoformat(first_day) - _EPOCH).days * DAY_MS - DAY_MS
    # To the end of the year, so that the expression is the same for all its days.
    starts, offsets = offset_steps(timezone, first_ms, (dt.date(year, 12, 31) - _EPOCH).days * DAY_MS + 2 * DAY_MS)
    later = [(event_time_ms >= start, offset) for start, offset in zip(starts[:0:-1], offsets[:0:-1], strict=True)]
    base = ibis.literal(offsets[0], type="int64")
    offset = ibis.cases(*later, else_=base) if later else base
    local_day = ((event_time_ms + offset) // DAY_MS).cast("int64")
    return (index - local_day).cast("float64")


def offset_steps(timezone: str, first_ms: int, last_ms: int) -> tuple[list[int], list[int]]:
    """Returns the offset of the zone from UTC between two instants as steps: `offsets[i]` is valid from `starts[i]` on.

    The first step starts at `first_ms`. Offsets are compared once a day, and a change is located by bisection, so only a
    change that is reverted within a day is missed.

    Raises:
        ConfigError: the time zone is unknown.
    """
    zone = _zone(timezone)
    starts, offsets = [first_ms], [_offset_ms(zone, first_ms)]
    for instant in [*range(first_ms + DAY_MS, last_ms, DAY_MS), last_ms]:
        offset = _offset_ms(zone, instant)
        if offset != offsets[-1]:
            starts.append(_first_with(zone, offset, max(starts[-1], instant - DAY_MS), instant))
            offsets.append(offset)
    return starts, offsets


def _first_with(zone: ZoneInfo, offset: int, before: int, known: int) -> int:
    """Returns the first instant after `before` with the offset, which `known` has and `before` has not."""
    while known - before > 1:
        middle = (before + known) // 2
        if _offset_ms(zone, middle) == offset:
            known = middle
        else:
            before = middle
    return known


def _offset_ms(zone: ZoneInfo, instant_ms: int) -> int:
    # Whole seconds and a timedelta are exact and work for instants before 1970.
    time = dt.datetime(1970, 1, 1, tzinfo=dt.UTC) + dt.timedelta(seconds=instant_ms // 1000)
    offset = time.astimezone(zone).utcoffset()
    return 0 if offset is None else round(offset.total_seconds() * 1000)


def _zone(timezone: str) -> ZoneInfo:
    try:
        return ZoneInfo(timezone)
    except (ZoneInfoNotFoundError, ValueError) as error:
        fault = Fault("calendar.timezone", "an IANA time zone", repr(timezone), 'name one, for example "Europe/Berlin"')
        raise ConfigError(fault) from error
