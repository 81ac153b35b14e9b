"""Rolling states of activity: counts and value sums of users and items, and the last day of each user, item and event.

The activity state of day D has one row per entity and event that ever occurred up to D, ordered by both: count_{w}d for each
window w (days D-w+1 to D), count_total, {value}_sum_{w}d_e4, first_event_time_ms, last_event_time_ms. All are integers, so
state(D) = state(D-1) + day D - day D-w holds exactly, whatever the order of addition. A row stays when all its windows are
empty, because its total and its first and last event are still needed.

The pair state of day D has one row per user, item and event within the largest window, with the day on which it last
occurred. From it follow the numbers of distinct items of a user and of distinct users of an item.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import ibis
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dssm_assets.core.arrays import ragged
from dssm_assets.core.arrays.ids import IdIndex
from dssm_assets.core.arrays.ragged import Mask
from dssm_assets.core.columns import EVENT, EVENT_TIME_MS, ITEM_ID, USER_ID
from dssm_assets.core.features_raw.local_time import QueryDay, day_text, each_row, first_day_text, window_start
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
from dssm_assets.core.features_raw.signed_days import (
    MOVE_WINDOW,
    check_previous,
    check_step,
    move_rows,
    number_keys,
    union_all,
)


def roll_activity(
    entity_column: str,
    *,
    today: ibis.Table,
    leaving: Mapping[int, ibis.Table | None],
    previous: ibis.Table | None,
    statistic_days: Sequence[int],
    value_columns: Sequence[str],
    is_change: bool = False,
) -> ibis.Table:
    """Returns the activity state of day D from that of D-1, by one union of signed contributions and one group-by.

    Args:
        leaving: window w -> behaviour of day D-w; None if that day is before the first one.
        previous: state of day D-1; None only if D is the first day with data.
        value_columns: columns to add up. Null and NaN count as 0; each value is rounded to 1/10,000, halves away from 0.
        is_change: returns what the day adds to the previous state, which is not given, for `signed_days.merge_changes`.

    Raises:
        WindowIncompleteError: a window has no entry in `leaving`, or days leave although there is no previous state.
        SchemaError: the previous state lacks a column, because a window or a value column is new: build from scratch.
    """
    if not is_change:
        check_step("activity", windows=statistic_days, leaving=leaving, previous=previous)
    added = {days: ibis.literal(1, type="int64") for days in statistic_days}
    parts = [_contribution(entity_column, today, added, value_columns, is_new=True)]
    for days in statistic_days:
        gone = leaving[days]
        if gone is not None:
            removed = {other: ibis.literal(-1 if other == days else 0, type="int64") for other in statistic_days}
            parts.append(_contribution(entity_column, gone, removed, value_columns, is_new=False))
    if previous is not None:
        columns = [entity_column, EVENT, *list_sums(statistic_days, value_columns), FIRST_EVENT_TIME_MS, LAST_EVENT_TIME_MS]
        check_previous("activity", previous, columns)
        parts.append(previous.select(*columns))
    return _reduce(entity_column, union_all(parts), statistic_days, value_columns)


def list_activity_changes(
    entity_column: str,
    *,
    log: ibis.Table,
    moves: ibis.Table,
    previous: ibis.Table,
    ds: QueryDay,
    statistic_days: Sequence[int],
    value_columns: Sequence[str],
) -> ibis.Table:
    """Returns what `roll_activity` adds on each of several days, for `signed_days.running_states`.

    Args:
        log: behaviour with a column `ds`: the days, and those that leave a window on one of them.
        moves: see `signed_days.list_moves`.
        previous: state of the day before the first one.
        value_columns: as in `roll_activity`.
    """
    rows = move_rows(log, moves, [entity_column, EVENT, EVENT_TIME_MS, *value_columns])
    is_new = rows[MOVE_WINDOW] == 0
    signs = {days: is_new.cast("int64") - (rows[MOVE_WINDOW] == days).cast("int64") for days in statistic_days}
    moved = _contribution(entity_column, rows, signs, value_columns, is_new=is_new, by=[DS])
    columns = [*list_sums(statistic_days, value_columns), FIRST_EVENT_TIME_MS, LAST_EVENT_TIME_MS]
    before = previous.select(**{DS: day_text(ds)}, **{name: previous[name] for name in (entity_column, EVENT, *columns)})
    added = _reduce(entity_column, union_all([moved, before]), statistic_days, value_columns, by=[DS])
    return number_keys(added, (entity_column, EVENT))


def build_activity(
    entity_column: str, behavior: ibis.Table, ds: QueryDay, *, statistic_days: Sequence[int], value_columns: Sequence[str]
) -> ibis.Table:
    """Returns the activity state of day `ds` from the behaviour of all days up to it, by one scan and one group-by.

    Memory grows with the number of (entity, event) pairs, not with the number of days.

    Args:
        behavior: all days as one table with a column `ds` (text or date); later days are ignored.
        value_columns: columns to sum, as in `activity`.
    """
    day = behavior[DS].cast("string")
    past = behavior.filter(day <= day_text(ds))
    past_day = past[DS].cast("string")
    signs = {days: (past_day >= first_day_text(ds, days)).cast("int64") for days in statistic_days}
    parts = _contribution(entity_column, past, signs, value_columns, is_new=True)
    return _reduce(entity_column, parts, statistic_days, value_columns)


def list_sums(statistic_days: Sequence[int], value_columns: Sequence[str]) -> list[str]:
    """Returns the columns of the state that are sums."""
    sums = [window_sum(value, days) for value in value_columns for days in statistic_days]
    return [*(window_count(days) for days in statistic_days), COUNT_TOTAL, *sums]


def _contribution(
    entity: str,
    rows: ibis.Table,
    signs: Mapping[int, Any],
    value_columns: Sequence[str],
    *,
    is_new: Any,
    by: Sequence[str] = (),
) -> ibis.Table:
    """Returns the contribution of each behaviour row to each column of the state of its entity."""
    columns: dict[str, Any] = {window_count(days): sign for days, sign in signs.items()}
    columns[COUNT_TOTAL] = ibis.literal(int(is_new), type="int64") if isinstance(is_new, bool) else is_new.cast("int64")
    for value in value_columns:
        fixed = _fixed_point(rows[value])
        columns |= {window_sum(value, days): fixed * sign for days, sign in signs.items()}
    # A day that leaves a window does not change the first and last event.
    times, none = rows[EVENT_TIME_MS].cast("int64"), ibis.null("int64")
    timestamp = (times if is_new else none) if isinstance(is_new, bool) else is_new.ifelse(times, none)
    return rows.select(*by, entity, EVENT, **columns, **{FIRST_EVENT_TIME_MS: timestamp, LAST_EVENT_TIME_MS: timestamp})


def _fixed_point(value: Any) -> Any:
    number = value.cast("float64")
    known = number.isnan().ifelse(ibis.null("float64"), number)
    return (known * FIXED_POINT).round().cast("int64").fill_null(0)


def _reduce(
    entity: str, parts: ibis.Table, statistic_days: Sequence[int], value_columns: Sequence[str], by: Sequence[str] = ()
) -> ibis.Table:
    sums = {name: parts[name].sum() for name in list_sums(statistic_days, value_columns)}
    first, last = parts[FIRST_EVENT_TIME_MS].min(), parts[LAST_EVENT_TIME_MS].max()
    reduced = parts.group_by(*by, entity, EVENT).agg(**sums, **{FIRST_EVENT_TIME_MS: first, LAST_EVENT_TIME_MS: last})
    return reduced if by else reduced.order_by(entity, EVENT)


PAIR_KEY = (USER_ID, ITEM_ID, EVENT)


def roll_pair_activity(today: ibis.Table, previous: ibis.Table | None = None, *, ds: QueryDay, window_days: int) -> ibis.Table:
    """Returns the pair state of day `ds` from the behaviour of the day and the state of the previous day.

    Args:
        today: behaviour of day `ds`.
        previous: state of the previous day; None only if `ds` is the first day with data.
        window_days: the largest statistic window; pairs that last occurred before it are dropped.
    """
    keys = today.select(*PAIR_KEY).distinct()
    current = keys.mutate(**{LAST_DATE: day_text(ds)})
    if previous is None:
        return current.order_by(PAIR_KEY)
    # The day is the latest date, so a pair of the day replaces its old row, without a group-by over the whole state.
    kept = previous.filter(previous[LAST_DATE] >= first_day_text(ds, window_days)).anti_join(keys, list(PAIR_KEY))
    return ibis.union(kept.select(*PAIR_KEY, LAST_DATE), current, distinct=False).order_by(PAIR_KEY)


def list_pair_changes(log: ibis.Table, previous: ibis.Table, *, ds: QueryDay, window_days: int) -> ibis.Table:
    """Returns what `roll_pair_activity` adds on each of several days, for `signed_days.running_states`.

    Args:
        log: behaviour of the days, with a column `ds`.
        previous: state of the day before the first one.
    """
    day = log[DS].cast("string")
    new = log.select(**{DS: day}, **{name: log[name] for name in PAIR_KEY}, **{LAST_DATE: day})
    kept = previous.filter(previous[LAST_DATE] >= first_day_text(ds, window_days))
    old = kept.select(**{DS: day_text(ds)}, **{name: kept[name] for name in (*PAIR_KEY, LAST_DATE)})
    parts = union_all([old, new])
    return number_keys(parts.group_by(DS, *PAIR_KEY).agg(**{LAST_DATE: parts[LAST_DATE].max()}), PAIR_KEY)


def build_pair_activity(behavior: ibis.Table, ds: QueryDay, *, window_days: int) -> ibis.Table:
    """Returns the pair state of day `ds` from the behaviour of the days of the window.

    Args:
        behavior: days as one table with a column `ds` (text or date); days outside the window are ignored.
    """
    days = behavior.select(*PAIR_KEY, **{LAST_DATE: behavior[DS].cast("string")})
    window = days.filter(days[LAST_DATE] >= first_day_text(ds, window_days), days[LAST_DATE] <= day_text(ds))
    return window.group_by(PAIR_KEY).agg(**{LAST_DATE: window[LAST_DATE].max()}).order_by(PAIR_KEY)


def count_counterparts(
    pairs: ibis.Table, entity: str, ds: QueryDay, statistic_days: Sequence[int], events: Sequence[str], by: Sequence[str] = ()
) -> ibis.Table:
    """Returns one row per entity of the pair state, with its distinct counterparts per event and window, int64.

    Args:
        pairs: pair state of day `ds`; of several days with `by`.
        entity: user_id (counts items: {event}_distinct_items_{w}d) or item_id (counts users).
        statistic_days: windows, none larger than that of the state.
        events: events that get columns; other events are ignored.
    """
    columns: dict[str, Any] = {}
    day = each_row(ds, pairs, by)
    for event in events:
        for days in statistic_days:
            inside = (pairs[EVENT] == event) & (pairs[LAST_DATE] >= first_day_text(day, days))
            # A sum takes twice the memory in DuckDB, and count(where=) a quarter more time.
            columns[event_distinct(entity, event, days)] = inside.ifelse(1, ibis.null("int8")).count()
    return pairs.group_by(*by, entity).agg(**columns)


def count_items(
    pairs: Iterable[pa.Table], users: IdIndex, is_active: Mask, ds: str, statistic_days: Sequence[int], events: Sequence[str]
) -> dict[str, pa.Array]:
    """Returns the columns of `count_counterparts` for some users by name, int64 [U].

    Args:
        pairs: these users' rows of the pair state, in its order, in parts; event and last date dictionary-encoded.
        users: ids [U].
        is_active: bool [U], users with activity; the counts of others are 0.
    """
    starts, windows = [window_start(ds, days) for days in statistic_days], len(statistic_days)
    width = len(events) * windows + 1
    ids, counts = [users.ids.slice(0, 0)], [np.zeros((0, width), np.int64)]
    for part in pairs:
        event, date, user = (ragged.combine_chunks(part.column(name)) for name in (EVENT, LAST_DATE, USER_ID))
        # A row is counted in the smallest window that has its date, of its event; in the last column if there is none.
        smallest = [sum(known < start for start in starts) for known in date.dictionary.to_pylist()]
        first = {name: number * windows for number, name in enumerate(events)}
        cells = [
            [first[name] + window if name in first and window < windows else width - 1 for window in smallest]
            for name in event.dictionary.to_pylist()
        ]
        runs = pc.run_end_encode(user)
        row = ragged.repeat_rows(np.diff(runs.run_ends.to_numpy(), prepend=0))
        cell = np.array(cells)[event.indices.to_numpy(), date.indices.to_numpy()]
        ids.append(runs.values)
        counts.append(np.bincount(row * width + cell, minlength=len(runs.values) * width).reshape(-1, width))
    found = np.zeros((len(users) + 1, width), np.int64)
    np.add.at(found, users.lookup(pa.concat_arrays(ids)), np.concatenate(counts))
    found[:-1][~is_active] = 0
    by_event = found[:-1, :-1].reshape(len(users), len(events), windows).cumsum(axis=2)
    return {
        event_distinct(USER_ID, event, days): pa.array(by_event[:, row, window])
        for row, event in enumerate(events)
        for window, days in enumerate(statistic_days)
    }
