"""The behavior log of a day with item attributes and calendar columns, and the history of positive events per user.

behavior_table is sorted, so `enrich_behavior` keeps its order. `collect_user_history` is a query of the engine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import ibis
import pyarrow as pa
import pyarrow.compute as pc

from dssm_assets.core.arrays.ids import IdIndex
from dssm_assets.core.arrays.ragged import combine_chunks, mask_numbers
from dssm_assets.core.columns import EVENT, EVENT_TIME_MS, EVENT_TIMES_MS, HOUR, ITEM_ID, ITEM_IDS, USER_ID, WEEKDAY
from dssm_assets.core.errors import Fault, SchemaError
from dssm_assets.core.features.column_values import text_values

BEHAVIOR_KEY = (EVENT_TIME_MS, USER_ID, ITEM_ID, EVENT)


class ItemTexts:
    """The attributes of items as text, by item id. Numbers become the texts that item features hash: 7.0 is "7"."""

    def __init__(self, item_table: pa.Table, names: Sequence[str]) -> None:
        """Reads the columns item_id and `names`.

        Raises:
            SchemaError: the values of a column have no text, such as lists.
        """
        self.index = IdIndex(item_table.column(ITEM_ID), where="item_table")
        self._texts = {
            name: text_values(combine_chunks(item_table.column(name)), f"table item_table, column {name}") for name in names
        }

    def take(self, rows: Any) -> dict[str, pa.Array]:
        """Returns the attributes of some row numbers, null for -1."""
        found = mask_numbers(rows, rows < 0)
        return {name: texts.take(found) for name, texts in self._texts.items()}


class UnknownIds(NamedTuple):
    """The ids of rows whose user or item its table lacks, one per row. Such ids are accepted; they have no features."""

    users: pa.Array
    items: pa.Array


def enrich_behavior(log: pa.Table, users: IdIndex, items: ItemTexts, timezone: str) -> tuple[pa.Table, UnknownIds]:
    """Adds to each row of the log the attributes of its item as text (null: unknown item), the hour and the weekday."""
    user_rows, item_rows = users.lookup(log.column(USER_ID)), items.index.lookup(log.column(ITEM_ID))
    hour, weekday = calendar_columns(log.column(EVENT_TIME_MS), timezone)
    added = {**items.take(item_rows), HOUR: hour, WEEKDAY: weekday}
    columns = dict(zip(log.column_names, log.columns, strict=True)) | added
    unknown = (
        combine_chunks(log.column(name).filter(pa.array(rows < 0)).cast(index.ids.type))
        for name, rows, index in ((USER_ID, user_rows, users), (ITEM_ID, item_rows, items.index))
    )
    return pa.table(columns), UnknownIds(*unknown)


def count_unknown_ids(parts: Sequence[UnknownIds]) -> dict[str, int]:
    """Returns unknown_users, unknown_user_rows, unknown_items and unknown_item_rows of the parts of a log."""
    counts: dict[str, int] = {}
    for kind, lacking in (("user", [part.users for part in parts]), ("item", [part.items for part in parts])):
        distinct = pc.count_distinct(pa.chunked_array(lacking)).as_py() if lacking else 0
        counts |= {f"unknown_{kind}s": distinct, f"unknown_{kind}_rows": sum(map(len, lacking))}
    return counts


def calendar_columns(event_time_ms: pa.Array | pa.ChunkedArray, timezone: str) -> tuple[Any, Any]:
    """Returns the hour (0 to 23) and the weekday (Monday is 0) of each instant in the time zone, both int32.

    When clocks go back, the same hour occurs twice. Example: 1704067200000 (2024-01-01 00:00 UTC, a Monday) gives (0, 0) in
    UTC and (19, 6) in America/New_York.
    """
    instants = event_time_ms.cast(pa.timestamp("ms", timezone))
    return pc.hour(instants).cast(pa.int32()), pc.day_of_week(instants).cast(pa.int32())


def check_columns(
    log: Mapping[str, str], items: Mapping[str, str], users: Mapping[str, str], item_columns: Sequence[str]
) -> None:
    """Checks that the tables of a day fit together. Each maps the name of a column to its type.

    Raises:
        SchemaError: an item column is missing, names clash (`check_log_names`), or ids are numbers in one table and text in another.
    """
    got, remedy = f"columns {', '.join(items)}", "correct preference_columns or history_columns"
    missing = [name for name in item_columns if name not in items]
    SchemaError.raise_if(Fault(f"table item_table, column {name}", "the column to exist", got, remedy) for name in missing)
    check_log_names(list(log), item_columns)
    SchemaError.raise_if(
        Fault(
            f"tables behavior_table and {name}, column {key}",
            "one type of id",
            f"{log[key]} and {table[key]}",
            "store the ids with one type in both sources",
        )
        for name, key, table in (("user_table", USER_ID, users), ("item_table", ITEM_ID, items))
        if log[key] != table[key]
    )


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
