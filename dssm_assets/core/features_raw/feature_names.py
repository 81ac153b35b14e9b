"""Names of the columns that features_raw generates, each built in one place.

Belongs here: names made of an event, a window, a value column or an attribute. Does not belong here: names shared with
other parts (`core/columns.py`).
"""

from __future__ import annotations

from typing import Final

from dssm_assets.core.columns import ITEM_ID, USER_ID

DS: Final = "ds"
ATTRIBUTE: Final = "attribute"
LAST_DATE: Final = "last_date"
COUNT_TOTAL: Final = "count_total"
FIRST_EVENT_TIME_MS: Final = "first_event_time_ms"
LAST_EVENT_TIME_MS: Final = "last_event_time_ms"
DAYS_SINCE_FIRST_EVENT: Final = "days_since_first_event"
DAYS_SINCE_LAST_EVENT: Final = "days_since_last_event"

FIXED_POINT: Final = 10_000
"""Value sums are kept as integers of 1/10,000, so that adding and taking away a day is exact."""

_COUNTERPARTS: Final = {USER_ID: "items", ITEM_ID: "users"}


def window_count(days: int) -> str:
    """Returns the column of a state that counts a window's events."""
    return f"count_{days}d"


def window_sum(value: str, days: int) -> str:
    """Returns the column of a state that holds a window's sum of a value, in 1/10,000."""
    return f"{value}_sum_{days}d_e4"


def event_count(event: str, days: int) -> str:
    """Returns the wide column of one event's count in a window."""
    return f"{event}_count_{days}d"


def event_sum(event: str, value: str, days: int) -> str:
    """Returns the wide column of one event's sum of a value in a window."""
    return f"{event}_{value}_sum_{days}d"


def event_ratio(wide: str, narrow: str, days: int) -> str:
    """Returns the wide column of narrow / wide counts of two neighbours in the funnel."""
    return f"{wide}_to_{narrow}_ratio_{days}d"


def event_distinct(entity: str, event: str, days: int) -> str:
    """Returns the wide column of the distinct items of a user (or users of an item) with one event in a window."""
    return f"{event}_distinct_{_COUNTERPARTS[entity]}_{days}d"


def preference(attribute: str) -> str:
    """Returns the wide column of a user's preference list of an item attribute."""
    return f"{attribute}_preference"
