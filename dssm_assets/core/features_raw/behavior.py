"""The behavior log of a day with item attributes and calendar columns, and the history of positive events per user.

`enrich_behavior` is a query of the engine. `calendar_columns` then adds hour and weekday to each Arrow batch of its result,
so the engine needs no support for time zones.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ibis
import pyarrow as pa
import pyarrow.compute as pc

from dssm_assets.core.columns import EVENT, EVENT_TIME_MS, EVENT_TIMES_MS, HOUR, ITEM_ID, ITEM_IDS, USER_ID, WEEKDAY
from dssm_assets.core.errors import Fault, SchemaError

BEHAVIOR_KEY = (EVENT_TIME_MS, USER_ID, ITEM_ID, EVENT)


def enrich_behavior(behavior_table: ibis.Table, item_table: ibis.Table, *, item_columns: Sequence[str]) -> ibis.Table:
    """Adds to every row of the log the attributes of the row's item, as text. They are null if the item is unknown.

    The rows are ordered by the key (event_time_ms, user_id, item_id, event), and for equal keys by the other columns of the
    log. Item ids are unique in item_table, so the number of rows does not change.

    Raises:
        SchemaError: an item column is missing, or the log already has a column with its name.
    """
    got, remedy = f"columns {', '.join(item_table.columns)}", "correct preference_columns or history_columns"
    missing = [name for name in item_columns if name not in item_table.columns]
    SchemaError.raise_if(Fault(f"table item_table, column {name}", "the column to exist", got, remedy) for name in missing)
    check_log_names(behavior_table.columns, item_columns)
    log_columns = list(behavior_table.columns)
    ordered = list(dict.fromkeys([*BEHAVIOR_KEY, *log_columns]))
    if not item_columns:
        return behavior_table.order_by(ordered)
    attributes = item_table.select(ITEM_ID, **{name: item_table[name].cast("string") for name in item_columns})
    joined = behavior_table.left_join(attributes, ITEM_ID)
    return joined.select(*log_columns, *item_columns).order_by(ordered)


def calendar_columns(event_time_ms: pa.Array | pa.ChunkedArray, timezone: str) -> tuple[Any, Any]:
    """Returns the hour (0 to 23) and the weekday (Monday is 0) of each instant in the time zone, both int32.

    When clocks go back, the same hour occurs twice. Example: 1704067200000 (2024-01-01 00:00 UTC, a Monday) gives (0, 0) in
    UTC and (19, 6) in America/New_York.
    """
    instants = event_time_ms.cast(pa.timestamp("ms", timezone))
    return pc.hour(instants).cast(pa.int32()), pc.day_of_week(instants).cast(pa.int32())


def check_log_names(log_columns: Sequence[str], item_columns: Sequence[str]) -> None:
    """Raises a SchemaError if the log, the generated columns and the item columns share a name. Lists all such names."""
    expected, remedy = "a name that behavior does not have", "rename one of them in tables.*.columns"
    clashing = [name for name in dict.fromkeys(item_columns) if name in {*log_columns, HOUR, WEEKDAY}]
    faults = [
        Fault(f"table item_table, column {name}", expected, "a column of that name in behavior", remedy) for name in clashing
    ]
    expected, remedy = "a name that is not generated", "rename it in tables.behavior.columns"
    generated = [name for name in (HOUR, WEEKDAY) if name in log_columns]
    faults += [Fault(f"table behavior_table, column {name}", expected, f"source column {name}", remedy) for name in generated]
    SchemaError.raise_if(faults)


def collect_user_history(behavior: ibis.Table, *, positive_events: Sequence[str], history_columns: Sequence[str]) -> ibis.Table:
    """Returns one row per user with a positive event on the day, ordered by user_id, with aligned lists.

    item_ids, event_times_ms and one list<string> per history column have one entry per positive event, ordered by
    (event_time_ms, item_id). An unknown attribute is a null entry. The order is unique: events with equal time and item have
    equal entries in all lists, because the other lists are attributes of the item.
    """
    positive = behavior.filter(behavior[EVENT].isin(positive_events))
    order = [positive[EVENT_TIME_MS], positive[ITEM_ID]]
    lists = {
        ITEM_IDS: positive[ITEM_ID].collect(order_by=order),
        EVENT_TIMES_MS: positive[EVENT_TIME_MS].collect(order_by=order),
    }
    for name in history_columns:
        # include_null, because a dropped unknown attribute would shift the later entries.
        lists[name] = positive[name].cast("string").collect(order_by=order, include_null=True)
    return positive.group_by(USER_ID).agg(**lists).order_by(USER_ID)
