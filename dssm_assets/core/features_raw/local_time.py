"""Calendar arithmetic in a time zone: shifting days, and days since an instant.

Ibis gets offsets from UTC as numbers, so all engines give the same result.
"""

from __future__ import annotations

import datetime as dt
from typing import Any, TypeAlias

import ibis
import ibis.expr.types as ir
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

DAY_MS = 86_400_000
_MINUTE_MS = 60_000
_STEP_MS = 15 * _MINUTE_MS
"""Clock changes are searched in steps of this length, then located to the minute."""
_EPOCH = dt.date(1970, 1, 1)

QueryDay: TypeAlias = str | ir.StringValue
"""A day in a query: YYYY-MM-DD, or a text expression that gets its value when the query runs."""


def day_text(ds: QueryDay) -> Any:
    return ibis.literal(ds, type="string") if isinstance(ds, str) else ds


def first_day_text(ds: QueryDay, days: int) -> Any:
    """Returns the first day of the window of `days` days that ends with `ds`, as an Ibis text."""
    if isinstance(ds, str):
        return day_text(shift_day(ds, 1 - days))
    return (ds.cast("date") - ibis.interval(days=days - 1)).strftime("%Y-%m-%d")


def shift_day(ds: str, days: int) -> str:
    """Adds a number of days, which may be negative, to the day `ds`. Days are YYYY-MM-DD."""
    return (dt.date.fromisoformat(ds) + dt.timedelta(days=days)).isoformat()


def days_since(event_time_ms: Any, *, ds: QueryDay, timezone: str, first_day: str, last_day: str) -> Any:
    """Returns an Ibis float64 column: calendar days from an instant's local date to `ds`; null stays null.

    Instants before `first_day` get this day's offset from UTC, instants after `last_day` that day's.
    """
    first_ms, last_ms = (
        ((dt.date.fromisoformat(day) - _EPOCH).days + shift) * DAY_MS for day, shift in ((first_day, -1), (last_day, 2))
    )
    starts, offsets = offset_steps(timezone, first_ms, last_ms)
    later = [(event_time_ms >= start, offset) for start, offset in zip(starts[:0:-1], offsets[:0:-1], strict=True)]
    base = ibis.literal(offsets[0], type="int64")
    offset = ibis.cases(*later, else_=base) if later else base
    local_day = ((event_time_ms + offset) // DAY_MS).cast("int64")
    return (day_text(ds).cast("date").delta(_EPOCH, unit="day").cast("int64") - local_day).cast("float64")


def offset_steps(timezone: str, first_ms: int, last_ms: int) -> tuple[list[int], list[int]]:
    """Returns starts and offsets: from `starts[i]` on, the zone's offset from UTC is `offsets[i]` milliseconds.

    The first start is `first_ms`, which must be a whole quarter of an hour.
    """
    instants = np.arange(first_ms, last_ms + 1, _STEP_MS)
    offsets = _offsets(instants, timezone)
    changed = np.flatnonzero(np.diff(offsets)) + 1
    minutes = instants[changed - 1, None] + np.arange(_MINUTE_MS, _STEP_MS + 1, _MINUTE_MS)
    is_new = _offsets(minutes.ravel(), timezone).reshape(minutes.shape) == offsets[changed, None]
    starts = minutes[np.arange(len(changed)), is_new.argmax(axis=1)]
    return [first_ms, *starts.tolist()], [int(offsets[0]), *offsets[changed].tolist()]


def _offsets(instants: npt.NDArray[np.int64], timezone: str) -> npt.NDArray[np.int64]:
    """Returns the offset at each instant. Arrow knows the changes up to 2037."""
    local = pc.local_timestamp(pa.array(instants, pa.timestamp("ms", timezone)))
    return np.asarray(local.cast(pa.int64())) - instants
