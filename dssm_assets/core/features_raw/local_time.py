"""Calendar arithmetic in a time zone: shifting days, local hour and weekday, days since an instant.

The only module that handles daylight saving. Offsets come from the time zone database of Python and reach numpy and Ibis as
numbers, so all engines agree.
"""

from __future__ import annotations

import datetime as dt
from typing import Any, TypeAlias
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import ibis
import ibis.expr.types as ir
import numpy as np
import numpy.typing as npt

from dssm_assets.core.errors import ConfigError, Fault

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
_EPOCH = dt.date(1970, 1, 1)
_EPOCH_WEEKDAY = 3  # 1970-01-01 was a Thursday, Monday is 0

Int64s = npt.NDArray[np.int64]


QueryDay: TypeAlias = str | ir.StringValue
"""The day of an expression: YYYY-MM-DD, or a text that is known when the query runs."""


def day_text(ds: QueryDay) -> Any:
    """Returns the day as an Ibis text."""
    return ibis.literal(ds, type="string") if isinstance(ds, str) else ds


def first_day_text(ds: QueryDay, days: int) -> Any:
    """Returns the first day of the window of `days` days that ends with `ds`, as an Ibis text."""
    if isinstance(ds, str):
        return day_text(window_start(ds, days))
    return (ds.cast("date") - ibis.interval(days=days - 1)).strftime("%Y-%m-%d")


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


def days_since(event_time_ms: Any, *, ds: QueryDay, timezone: str, first_day: str, last_day: str) -> Any:
    """Returns an Ibis float64 column: calendar days from the local date of an instant to `ds`; null stays null.

    Args:
        event_time_ms: Ibis int64 column of instants.
        ds: the day that counts as 0.
        first_day: earlier instants get the offset of this day.
        last_day: later instants get the offset of this day.
    """
    first_ms, last_ms = (_day_number(first_day) - 1) * DAY_MS, (_day_number(last_day) + 2) * DAY_MS
    starts, offsets = offset_steps(timezone, first_ms, last_ms)
    later = [(event_time_ms >= start, offset) for start, offset in zip(starts[:0:-1], offsets[:0:-1], strict=True)]
    base = ibis.literal(offsets[0], type="int64")
    offset = ibis.cases(*later, else_=base) if later else base
    local_day = ((event_time_ms + offset) // DAY_MS).cast("int64")
    return (day_text(ds).cast("date").delta(_EPOCH, unit="day").cast("int64") - local_day).cast("float64")


def _day_number(ds: str) -> int:
    return (dt.date.fromisoformat(ds) - _EPOCH).days


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
