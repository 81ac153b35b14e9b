"""Rolling states of activity: counts and value sums of users and items, and the last day of each (user, item, event).

The activity state of day D has one row per entity and event that occurred up to D, ordered by both. Its columns are
count_{w}d for each window w (days D-w+1 to D), count_total, {value}_sum_{w}d_e4, first_event_time_ms, last_event_time_ms.
All are integers, so state(D) = state(D-1) + day D - day D-w holds exactly in any order of addition. A row stays after its
windows are empty, because its total and its first and last event are still needed.

The pair state of day D has one row per user, item and event that occurred in the largest window, with its last day.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ibis

from dssm_assets.core.columns import EVENT, EVENT_TIME_MS, ITEM_ID, USER_ID
from dssm_assets.core.features_raw import plan as names
from dssm_assets.core.features_raw.local_time import QueryDay, day_text, first_day_text


def window_sign(log: ibis.Table, ds: QueryDay, days: int, *, is_rolled: bool) -> Any:
    """Returns an int64 column: each log row's summand (1, 0 or -1) for the window of `days` days up to day `ds`.

    Args:
        log: has the day of each row in a text column `ds`.
        is_rolled: whether the rows are added to the state of the day before. If so, a row counts 1 on the day itself, -1 on
            the day that just left the window, else 0. If not, a row counts 1 in the window and 0 before it.
    """
    if not is_rolled:
        return (log[names.DS] >= first_day_text(ds, days)).cast("int64")
    return (log[names.DS] == day_text(ds)).cast("int64") - (log[names.DS] == first_day_text(ds, days + 1)).cast("int64")


def roll_activity(
    log: ibis.Table,
    previous: ibis.Table | None = None,
    *,
    ds: QueryDay,
    entity: str,
    statistic_days: Sequence[int],
    value_columns: Sequence[str],
) -> ibis.Table:
    """Returns the activity state of day `ds`. One group-by sums the rows of the log and of the previous state.

    Args:
        log: behavior with a text column `ds`. With `previous`: the day itself and each day that just left a window. Without:
            all days up to `ds`.
        previous: state of the day before.
        entity: user_id or item_id.
        value_columns: columns to add up. Null and NaN count as 0; each value is rounded to 1/10,000, halves away from 0.
    """
    signs = {days: window_sign(log, ds, days, is_rolled=previous is not None) for days in statistic_days}
    # Only rows of the new day change the total and the first and last event; a day that leaves a window does not.
    is_new = ibis.literal(True) if previous is None else log[names.DS] == day_text(ds)
    added: dict[str, Any] = {names.window_count(days): sign for days, sign in signs.items()}
    added[names.COUNT_TOTAL] = is_new.cast("int64")
    for value in value_columns:
        number = log[value].cast("float64")
        fixed = (number.isnan().ifelse(0.0, number) * names.FIXED_POINT).round().cast("int64").fill_null(0)
        added |= {names.window_sum(value, days): fixed * sign for days, sign in signs.items()}
    time = is_new.ifelse(log[EVENT_TIME_MS].cast("int64"), ibis.null("int64"))
    rows = log.select(entity, EVENT, **added, **{names.FIRST_EVENT_TIME_MS: time, names.LAST_EVENT_TIME_MS: time})
    if previous is not None:
        rows = ibis.union(rows, previous.select(*rows.columns), distinct=False)
    sums = {name: rows[name].sum() for name in added}
    times = {
        names.FIRST_EVENT_TIME_MS: rows[names.FIRST_EVENT_TIME_MS].min(),
        names.LAST_EVENT_TIME_MS: rows[names.LAST_EVENT_TIME_MS].max(),
    }
    return rows.group_by(entity, EVENT).agg(**sums, **times).order_by(entity, EVENT)


PAIR_KEY = (USER_ID, ITEM_ID, EVENT)


def roll_pair_activity(log: ibis.Table, previous: ibis.Table | None = None, *, ds: QueryDay, window_days: int) -> ibis.Table:
    """Returns the pair state of day `ds`. Drops pairs last seen before the window. For the arguments see `roll_activity`."""
    first = first_day_text(ds, window_days)
    recent = log.filter(log[names.DS] >= first)
    pairs = recent.group_by(PAIR_KEY).agg(**{names.LAST_DATE: recent[names.DS].max()})
    if previous is not None:
        # A pair of the day replaces its older row, because no date is later. This saves a group-by over the whole state.
        others = previous.filter(previous[names.LAST_DATE] >= first).anti_join(pairs, list(PAIR_KEY))
        pairs = ibis.union(others.select(*pairs.columns), pairs, distinct=False)
    return pairs.order_by(PAIR_KEY)


def count_counterparts(
    pairs: ibis.Table, entity: str, ds: QueryDay, statistic_days: Sequence[int], events: Sequence[str]
) -> ibis.Table:
    """Counts each entity's distinct counterparts per event and window, int64: a user's items, or an item's users.

    Returns one row per entity of the pair state, with columns such as {event}_distinct_items_{w}d. Other events are ignored.
    """
    columns: dict[str, Any] = {}
    for event in events:
        for days in statistic_days:
            inside = (pairs[EVENT] == event) & (pairs[names.LAST_DATE] >= first_day_text(ds, days))
            # In DuckDB a sum would take twice the memory, and count(where=) a quarter more time.
            columns[names.event_distinct(entity, event, days)] = inside.ifelse(1, ibis.null("int8")).count()
    return pairs.group_by(entity).agg(**columns)
