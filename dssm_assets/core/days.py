"""Days as arguments name them: a date, `first`, `latest`, or `latest-3` (three calendar days before the latest)."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Sequence
from itertools import groupby
from typing import Final

from dssm_assets.core.errors import Fault, PartitionMissingError

LATEST: Final = "latest"
FIRST: Final = "first"
DAY_FORMS: Final = "YYYY-MM-DD, first, latest or latest-N"
_SHOWN_RANGES: Final = 5


def read_day(text: str) -> str:
    """Returns the text of a day in its normal form: `YYYY-MM-DD`, `first`, `latest` or `latest-N`.

    Raises:
        ValueError: the text is none of these.
    """
    if text in (FIRST, LATEST) or re.fullmatch(rf"{LATEST}-[0-9]{{1,5}}", text):
        return text
    return dt.date.fromisoformat(text).isoformat()


def is_date(day: str) -> bool:
    return not day.startswith((FIRST, LATEST))


def choose_day(day: str, days: Sequence[str], where: str, kind: str) -> str:
    """Resolves the text of a day to a date. A date is returned unchecked, because the caller can explain better why it is missing.

    Example: of the 1st, 2nd and 5th of a month, `first` is the 1st, `latest` the 5th, `latest-3` the 2nd; `latest-1` is an error.

    Args:
        day: a text in the form of `read_day`.
        days: ascending dates to choose from.
        where: the command or function with this argument.
        kind: a phrase for the days, such as `a stored day`.

    Raises:
        PartitionMissingError: there are no days, or the day is not among them. The message lists them.
    """
    if is_date(day):
        return day
    if not days:
        raise PartitionMissingError(Fault(f"{where}, day {day}", kind, "none", "make one first"))
    back = int(day.partition("-")[2] or 0)
    chosen = days[0] if day == FIRST else (dt.date.fromisoformat(days[-1]) - dt.timedelta(days=back)).isoformat()
    if chosen not in days:
        raise PartitionMissingError(Fault(f"{where}, day {day}", kind, chosen, f"name one of {name_ranges(days)}"))
    return chosen


def name_ranges(days: Sequence[str]) -> str:
    """Writes ascending days as ranges: `2026-01-01 to 2026-01-04, 2026-01-07`. Many ranges are cut to the last ones."""
    numbered = groupby(enumerate(days), lambda pair: dt.date.fromisoformat(pair[1]).toordinal() - pair[0])
    ranges = [[ds for _, ds in pairs] for _, pairs in numbered]
    named = [part[0] if len(part) == 1 else f"{part[0]} to {part[-1]}" for part in ranges[-_SHOWN_RANGES:]]
    return ("" if len(ranges) <= _SHOWN_RANGES else f"{days[0]}, ..., ") + ", ".join(named)
