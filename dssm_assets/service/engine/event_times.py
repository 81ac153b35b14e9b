"""Which times events of a request may have, so that seconds are not taken for milliseconds.

From two years before the calendar of the bundle starts, to the end of tomorrow (UTC); if the bundle's day is later than today, to the end of the
day after it. A bundle of an earlier version does not say when its calendar starts: then any earlier time is taken.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

import numpy as np

from dssm_assets.core import columns as col
from dssm_assets.core.errors import Fault

_DAYS_BEFORE: Final = 731
_DAY_MS: Final = 86_400_000
_EPOCH: Final = dt.date(1970, 1, 1)


class EventTimes:
    """The times that events may have."""

    def __init__(self, start: str | None, ds: str) -> None:
        """Takes the first day of the calendar, None if it is not known, and the day of the bundle."""
        self._first = None if start is None else dt.date.fromisoformat(start) - dt.timedelta(days=_DAYS_BEFORE)
        self._ds = dt.date.fromisoformat(ds)

    def find_faults(self, parts: Mapping[str, Mapping[str, Any]]) -> Iterator[Fault]:
        """Yields a fault for each part of a request (history, events) whose event_times_ms has a time out of bounds."""
        last = max(self._ds, dt.datetime.now(dt.UTC).date()) + dt.timedelta(days=1)
        low = float("-inf") if self._first is None else _to_ms(self._first)
        high = _to_ms(last) + _DAY_MS
        for part, lists in parts.items():
            times = lists.get(col.EVENT_TIMES_MS)
            wrong = [time_ms for time_ms in _numbers(times) if not low <= time_ms < high]
            if not wrong:
                continue
            span = f"up to {last}" if self._first is None else f"from {self._first} to {last}"
            got, remedy = f"{wrong[0]}, which is {_show(wrong[0])}", "send unix milliseconds"
            if low <= (meant := wrong[0] * 1000) < high and self._first is not None:
                got, remedy = f"{got}; as seconds it is {_show(meant)}", "send milliseconds, not seconds"
            got = f"{got}; and {len(wrong) - 1} more" if len(wrong) > 1 else got
            yield Fault(f"request, {part}, {col.EVENT_TIMES_MS}", f"unix milliseconds {span}", got, remedy)


def _numbers(values: Any) -> Iterable[int]:
    """Returns the integers of a list; whoever reads it says what is wrong with other values."""
    if not isinstance(values, list | tuple | np.ndarray):
        return []
    return [int(value) for value in values if isinstance(value, int | np.integer) and not isinstance(value, bool)]


def _to_ms(day: dt.date) -> int:
    return (day - _EPOCH).days * _DAY_MS


def _show(time_ms: int) -> str:
    try:
        return f"{dt.datetime(1970, 1, 1) + dt.timedelta(milliseconds=time_ms):%Y-%m-%d %H:%M:%S}"
    except OverflowError:
        return "no date of the years 1 to 9999"
