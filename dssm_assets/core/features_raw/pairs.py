"""Which user met which item, by event, and when last: the state from which distinct counts of windows follow.

Belongs here: the pair state and the distinct counts. Does not belong here: counts of events (`activity.py`).

State of day D, one row per (user_id, item_id, event) seen within the largest window, ordered by that key, with
last_date (YYYY-MM-DD). A pair is in the window of w days exactly when its last_date is, so every smaller window's
distinct count is a filter on the same state.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ibis

from dssm_assets.core.columns import EVENT, ITEM_ID, USER_ID
from dssm_assets.core.features_raw.local_time import window_start
from dssm_assets.core.features_raw.plan import DS, LAST_DATE, event_distinct

PAIR_KEY = (USER_ID, ITEM_ID, EVENT)


def pair_activity(today: ibis.Table, previous: ibis.Table | None, *, ds: str, window_days: int) -> ibis.Table:
    """Returns the pair state of day `ds` from today's behaviour and the state of the day before.

    Args:
        today: behaviour of day `ds`.
        previous: state of the day before; None only when `ds` is the first day with data.
        ds: the day.
        window_days: the largest statistic window; pairs last seen before it are dropped.
    """
    met = today.select(*PAIR_KEY).distinct()
    now = met.mutate(**{LAST_DATE: ibis.literal(ds, type="string")})
    if previous is None:
        return now.order_by(PAIR_KEY)
    # Today's date is the latest there is, so a pair met today replaces its old row: no group-by over the whole state.
    kept = previous.filter(previous[LAST_DATE] >= window_start(ds, window_days)).anti_join(met, list(PAIR_KEY))
    return ibis.union(kept.select(*PAIR_KEY, LAST_DATE), now, distinct=False).order_by(PAIR_KEY)


def pair_activity_from_scratch(behavior: ibis.Table, ds: str, *, window_days: int) -> ibis.Table:
    """Returns the pair state of day `ds` from the behaviour of the window's days.

    Args:
        behavior: days as one table with a column `ds` (text or date); days outside the window are ignored.
        ds: the day.
        window_days: the largest statistic window.
    """
    days = behavior.select(*PAIR_KEY, **{LAST_DATE: behavior[DS].cast("string")})
    window = days.filter(days[LAST_DATE] >= window_start(ds, window_days), days[LAST_DATE] <= ds)
    return window.group_by(PAIR_KEY).agg(**{LAST_DATE: window[LAST_DATE].max()}).order_by(PAIR_KEY)


def distinct_counterparts(
    pairs: ibis.Table, entity: str, ds: str, statistic_days: Sequence[int], events: Sequence[str]
) -> ibis.Table:
    """Returns one row per entity of the pair state, ordered: its distinct counterparts per event and window, int64.

    Args:
        pairs: pair state of day `ds`.
        entity: user_id (counts items: {event}_distinct_items_{w}d) or item_id (counts users).
        ds: the day.
        statistic_days: windows, none larger than the state's.
        events: events that get columns; others are ignored.
    """
    columns: dict[str, Any] = {}
    for event in events:
        for days in statistic_days:
            inside = (pairs[EVENT] == event) & (pairs[LAST_DATE] >= window_start(ds, days))
            columns[event_distinct(entity, event, days)] = inside.cast("int64").sum()
    return pairs.group_by(entity).agg(**columns).order_by(entity)
