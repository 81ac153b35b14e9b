"""Activity of a user or an item: counts and value sums per event over rolling windows, kept as a state per day.

Belongs here: the state's arithmetic. Does not belong here: distinct counterparts (`pairs.py`), the wide feature table
(`all_features.py`).

State of day D, one row per entity and event ever seen up to D, ordered by both: count_{w}d for each window w (days
D-w+1 to D), count_total, {value}_sum_{w}d_e4, first_event_time_ms, last_event_time_ms. Integers only, so that
state(D) = state(D-1) + day D - day D-w holds exactly, whatever the order of summing. Rows whose windows have all run
empty stay: their totals and first and last events are still facts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import ibis

from dssm_assets.core.columns import EVENT, EVENT_TIME_MS, ITEM_ID, USER_ID
from dssm_assets.core.features_raw.local_time import window_start
from dssm_assets.core.features_raw.plan import (
    COUNT_TOTAL,
    DS,
    FIRST_EVENT_TIME_MS,
    FIXED_POINT,
    LAST_DATE,
    LAST_EVENT_TIME_MS,
    event_distinct,
    window_count,
    window_sum,
)
from dssm_assets.core.features_raw.signed_days import check_previous, check_step, union_all


def roll_activity(
    entity_column: str,
    *,
    today: ibis.Table,
    leaving: Mapping[int, ibis.Table | None],
    previous: ibis.Table | None,
    statistic_days: Sequence[int],
    value_columns: Sequence[str],
) -> ibis.Table:
    """Returns the state of day D from that of D-1: one union of signed contributions, one group-by.

    Args:
        entity_column: user_id or item_id.
        today: behaviour of day D.
        leaving: window w -> behaviour of day D-w; None where that day lies before the first one.
        previous: state of D-1; None only when D is the first day with data.
        statistic_days: the windows, in days.
        value_columns: columns to sum. Null and NaN count as 0; each value is rounded to 1/10,000, halves away from 0.

    Raises:
        WindowIncompleteError: a window has no entry in leaving, or days leave though there is no previous state.
        SchemaError: the previous state lacks a column (a window or value column is new): build from scratch.
    """
    check_step("activity", windows=statistic_days, leaving=leaving, previous=previous)
    added = {days: ibis.literal(1, type="int64") for days in statistic_days}
    parts = [_contribution(entity_column, today, added, value_columns, is_new=True)]
    for days in statistic_days:
        gone = leaving[days]
        if gone is not None:
            taken = {other: ibis.literal(-1 if other == days else 0, type="int64") for other in statistic_days}
            parts.append(_contribution(entity_column, gone, taken, value_columns, is_new=False))
    if previous is not None:
        columns = [entity_column, EVENT, *_sums(statistic_days, value_columns), FIRST_EVENT_TIME_MS, LAST_EVENT_TIME_MS]
        check_previous("activity", previous, columns)
        parts.append(previous.select(*columns))
    return _reduce(entity_column, union_all(parts), statistic_days, value_columns)


def build_activity(
    entity_column: str, behavior: ibis.Table, ds: str, *, statistic_days: Sequence[int], value_columns: Sequence[str]
) -> ibis.Table:
    """Returns the state of day `ds` from the behaviour of all days up to it, in one scan and one group-by.

    Memory grows with the number of (entity, event) pairs, not with the days.

    Args:
        entity_column: user_id or item_id.
        behavior: all days as one table with a column `ds` (text or date); later days are ignored.
        ds: the day.
        statistic_days: the windows, in days.
        value_columns: columns to sum, as in `activity`.
    """
    day = behavior[DS].cast("string")
    past = behavior.filter(day <= ds)
    past_day = past[DS].cast("string")
    signs = {days: (past_day >= window_start(ds, days)).cast("int64") for days in statistic_days}
    parts = _contribution(entity_column, past, signs, value_columns, is_new=True)
    return _reduce(entity_column, parts, statistic_days, value_columns)


def _sums(statistic_days: Sequence[int], value_columns: Sequence[str]) -> list[str]:
    sums = [window_sum(value, days) for value in value_columns for days in statistic_days]
    return [*(window_count(days) for days in statistic_days), COUNT_TOTAL, *sums]


def _contribution(
    entity: str, rows: ibis.Table, signs: Mapping[int, Any], value_columns: Sequence[str], *, is_new: bool
) -> ibis.Table:
    """Returns what each behaviour row adds to each column of its entity's state."""
    columns: dict[str, Any] = {window_count(days): sign for days, sign in signs.items()}
    columns[COUNT_TOTAL] = ibis.literal(int(is_new), type="int64")
    for value in value_columns:
        fixed = _fixed_point(rows[value])
        columns |= {window_sum(value, days): fixed * sign for days, sign in signs.items()}
    # A day that leaves a window does not unmake a first or last event.
    moment = rows[EVENT_TIME_MS].cast("int64") if is_new else ibis.null("int64")
    return rows.select(entity, EVENT, **columns, **{FIRST_EVENT_TIME_MS: moment, LAST_EVENT_TIME_MS: moment})


def _fixed_point(value: Any) -> Any:
    number = value.cast("float64")
    known = number.isnan().ifelse(ibis.null("float64"), number)
    return (known * FIXED_POINT).round().cast("int64").fill_null(0)


def _reduce(entity: str, parts: ibis.Table, statistic_days: Sequence[int], value_columns: Sequence[str]) -> ibis.Table:
    sums = {name: parts[name].sum() for name in _sums(statistic_days, value_columns)}
    first, last = parts[FIRST_EVENT_TIME_MS].min(), parts[LAST_EVENT_TIME_MS].max()
    reduced = parts.group_by(entity, EVENT).agg(**sums, **{FIRST_EVENT_TIME_MS: first, LAST_EVENT_TIME_MS: last})
    return reduced.order_by(entity, EVENT)


PAIR_KEY = (USER_ID, ITEM_ID, EVENT)


def roll_pair_activity(today: ibis.Table, previous: ibis.Table | None, *, ds: str, window_days: int) -> ibis.Table:
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


def build_pair_activity(behavior: ibis.Table, ds: str, *, window_days: int) -> ibis.Table:
    """Returns the pair state of day `ds` from the behaviour of the window's days.

    Args:
        behavior: days as one table with a column `ds` (text or date); days outside the window are ignored.
        ds: the day.
        window_days: the largest statistic window.
    """
    days = behavior.select(*PAIR_KEY, **{LAST_DATE: behavior[DS].cast("string")})
    window = days.filter(days[LAST_DATE] >= window_start(ds, window_days), days[LAST_DATE] <= ds)
    return window.group_by(PAIR_KEY).agg(**{LAST_DATE: window[LAST_DATE].max()}).order_by(PAIR_KEY)


def count_counterparts(
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
