"""Contracts of the raw feature tables: grain, key, columns and the meaning of generated columns."""

from __future__ import annotations

import pyarrow as pa

from dssm_assets.core import columns as c
from dssm_assets.core.features_raw import plan as names
from dssm_assets.core.features_raw.activity import PAIR_KEY
from dssm_assets.core.features_raw.preferences import PREFERENCE_KEY
from dssm_assets.core.schema import ColumnSpec, TableSpec
from dssm_assets.core.sources.canonical_tables import BEHAVIOR_TABLE

_USER = ColumnSpec(c.USER_ID, None, "User of the source tables.")
_ITEM = ColumnSpec(c.ITEM_ID, None, "Item of the source tables.")
_EVENT = ColumnSpec(c.EVENT, pa.string(), "Kind of behavior, as in events.funnel.")

BEHAVIOR = TableSpec(
    name="behavior",
    grain="one row per event of the day",
    key=BEHAVIOR_TABLE.key,
    columns=(
        *BEHAVIOR_TABLE.columns,
        ColumnSpec(c.HOUR, pa.int32(), "Hour of the event in calendar.timezone, 0 to 23."),
        ColumnSpec(c.WEEKDAY, pa.int32(), "Weekday of the event in calendar.timezone, Monday = 0."),
    ),
    extra={"*": "Value or context column of the log, or attribute of the item on the day as text (null: unknown item)."},
)


def _activity_spec(entity: ColumnSpec) -> TableSpec:
    noun = entity.name.removesuffix("_id")
    return TableSpec(
        name=f"{noun}_activity",
        grain=f"one row per {noun} and event that ever occurred up to the day",
        key=(entity.name, c.EVENT),
        columns=(
            entity,
            _EVENT,
            ColumnSpec(names.COUNT_TOTAL, pa.int64(), f"Number of these events of the {noun} since the first day."),
            ColumnSpec(names.FIRST_EVENT_TIME_MS, pa.int64(), "Time of the first such event, unix milliseconds."),
            ColumnSpec(names.LAST_EVENT_TIME_MS, pa.int64(), "Time of the last such event, unix milliseconds."),
        ),
        extra={
            "count_*d": "Number of these events in the last * days, including the day.",
            "*_sum_*d_e4": "Sum of the value over the last * days, in 1/10,000 (integers make rolling sums exact).",
        },
    )


USER_ACTIVITY = _activity_spec(_USER)
ITEM_ACTIVITY = _activity_spec(_ITEM)

PAIR_ACTIVITY = TableSpec(
    name="pair_activity",
    grain="one row per user, item and event within the largest statistic window",
    key=PAIR_KEY,
    columns=(_USER, _ITEM, _EVENT, ColumnSpec(names.LAST_DATE, pa.string(), "Day (YYYY-MM-DD) on which it last occurred.")),
)

USER_PREFERENCES = TableSpec(
    name="user_preferences",
    grain="one row per user, item attribute and value of a positive event within the preference window",
    key=PREFERENCE_KEY,
    columns=(
        _USER,
        ColumnSpec(names.ATTRIBUTE, pa.string(), "Item column, one of raw_features.preference_columns."),
        ColumnSpec(c.VALUE, pa.string(), "Value of the attribute as text."),
        ColumnSpec(c.COUNT, pa.int64(), "Number of positive events with items of that value in the last preference_days days."),
    ),
)

USER_HISTORY = TableSpec(
    name="user_history",
    grain="one row per user with a positive event on the day",
    key=(c.USER_ID,),
    columns=(
        _USER,
        ColumnSpec(c.ITEM_IDS, None, "Items of the positive events of the day, by time, then id."),
        ColumnSpec(c.EVENT_TIMES_MS, pa.list_(pa.int64()), "Times of those events, unix milliseconds, aligned with item_ids."),
    ),
    extra={"*": "Attribute of each item of item_ids as text, aligned with it; a null entry is an unknown attribute."},
)

_WIDE_EXTRA = {
    "*": "Column of the source table, unchanged; null where the source does not have the id.",
    "*_count_*d": "Number of these events in the last * days, including the day.",
    "*_to_*_ratio_*d": "Second count divided by the first in the last * days; null where the first is 0.",
    "*_sum_*d": "Sum of the value over this event in the last * days.",
    "days_since_*": "Days from this time of the source table to feature_date; null where there is none yet.",
    "*_preference": 'Attribute values of the positive events of the user as "value:count" over the preference window, most frequent first.',
}


def _wide_spec(entity: ColumnSpec, counterparts: str) -> TableSpec:
    noun = entity.name.removesuffix("_id")
    since = f"Days from the {{}} event of any kind of the {noun} to feature_date; null without events."
    float64 = pa.float64()
    return TableSpec(
        name=f"{noun}_all_feature",
        grain=f"one row per {noun} of {noun}_table or with any event up to the day",
        key=(entity.name,),
        columns=(
            ColumnSpec(c.FEATURE_DATE, pa.string(), "Day (YYYY-MM-DD) at whose end the features hold."),
            entity,
            ColumnSpec(names.DAYS_SINCE_FIRST_EVENT, float64, since.format("first"), is_nullable=True),
            ColumnSpec(names.DAYS_SINCE_LAST_EVENT, float64, since.format("last"), is_nullable=True),
        ),
        extra={**_WIDE_EXTRA, f"*_distinct_{counterparts}_*d": f"Distinct {counterparts} with this event in the last * days."},
    )


USER_ALL_FEATURE = _wide_spec(_USER, "items")
ITEM_ALL_FEATURE = _wide_spec(_ITEM, "users")
