"""The wide feature tables of a day: one row per user or item with its profile, statistics and preferences.

Each join matches at most one row, because ids are unique in every joined table: the source layer checks the profiles, and
the other tables are grouped by id. The result has one row per id that the profile or the activity has.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import Any

import ibis

from dssm_assets.core.columns import EVENT, FEATURE_DATE, ITEM_ID, USER_ID
from dssm_assets.core.errors import Fault, SchemaError
from dssm_assets.core.features_raw import plan as names
from dssm_assets.core.features_raw.activity import count_counterparts
from dssm_assets.core.features_raw.local_time import QueryDay, day_text, days_since
from dssm_assets.core.features_raw.plan import FeaturePlan
from dssm_assets.core.features_raw.preferences import collect_preferences


def join_user_features(
    user_table: ibis.Table,
    *,
    user_activity: ibis.Table,
    pair_activity: ibis.Table,
    user_preferences: ibis.Table,
    ds: QueryDay,
    plan: FeaturePlan,
) -> ibis.Table:
    """Returns one row per user of user_table or with any activity up to `ds`, ordered by user_id.

    Columns: feature_date (= ds), user_id, the columns of user_table (null for a user that it lacks), then
    `plan.generated(USER_ID)`. Counts, distinct counts and sums are 0 without activity. Ratios are null if their denominator
    is 0. Days since an event are null without events. Preference lists are unordered; `order_preferences` sorts them.
    """
    wide = _statistics(USER_ID, user_activity, pair_activity, ds, plan)
    if plan.preference_columns:
        lists = collect_preferences(user_preferences, attributes=plan.preference_columns)
        wide = _left_join(wide, lists, USER_ID)
    return _with_profile(user_table, wide, USER_ID, ds, plan)


def join_item_features(
    item_table: ibis.Table, *, item_activity: ibis.Table, pair_activity: ibis.Table, ds: QueryDay, plan: FeaturePlan
) -> ibis.Table:
    """Returns one row per item of item_table or with any activity up to `ds`, ordered by item_id.

    Columns: feature_date (= ds), item_id, the columns of item_table (null for an item that it lacks), then
    `plan.generated(ITEM_ID)`. Without events, columns are 0 or null as in `join_user_features`.
    """
    return _with_profile(item_table, _statistics(ITEM_ID, item_activity, pair_activity, ds, plan), ITEM_ID, ds, plan)


def _statistics(entity: str, activity: ibis.Table, pairs: ibis.Table, ds: QueryDay, plan: FeaturePlan) -> ibis.Table:
    """Returns one row per entity with activity: counts, sums, days since events, distinct counterparts."""
    columns: dict[str, Any] = {}
    none = ibis.null("int64")
    for event in plan.funnel:
        is_event = activity[EVENT] == event
        for days in plan.statistic_days:
            # The state has one row per entity and event, so max picks its value, faster than a sum.
            columns[names.event_count(event, days)] = is_event.ifelse(activity[names.window_count(days)], none).max()
            for value in plan.value_columns:
                columns[names.event_sum(event, value, days)] = is_event.ifelse(
                    activity[names.window_sum(value, days)], none
                ).max()
    columns[names.DAYS_SINCE_FIRST_EVENT] = activity[names.FIRST_EVENT_TIME_MS].min()
    columns[names.DAYS_SINCE_LAST_EVENT] = activity[names.LAST_EVENT_TIME_MS].max()
    counts = activity.group_by(entity).agg(**columns)
    return _left_join(counts, count_counterparts(pairs, entity, ds, plan.statistic_days, plan.funnel), entity)


def _with_profile(profile: ibis.Table, wide: ibis.Table, entity: str, ds: QueryDay, plan: FeaturePlan) -> ibis.Table:
    source = [name for name in profile.columns if name != entity]
    check_generated_names(entity, source, plan)
    joined = profile.outer_join(wide, entity)
    right = f"{entity}_right"
    others = [name for name in joined.columns if name not in (entity, right)]
    rows = joined.select(ibis.coalesce(joined[entity], joined[right]).name(entity), *others)
    columns: dict[str, Any] = {FEATURE_DATE: day_text(ds), entity: rows[entity], **{name: rows[name] for name in source}}
    finished = _finish(rows, entity, ds, plan)
    columns |= {name: finished[name] for name in plan.generated(entity)[1:]}
    return rows.select(**columns).order_by(entity)


def _finish(rows: ibis.Table, entity: str, ds: QueryDay, plan: FeaturePlan) -> dict[str, Any]:
    done: dict[str, Any] = {}
    for days in plan.statistic_days:
        counts = {event: rows[names.event_count(event, days)].fill_null(0) for event in plan.funnel}
        for event in plan.funnel:
            done[names.event_count(event, days)] = counts[event]
            distinct = names.event_distinct(entity, event, days)
            done[distinct] = rows[distinct].fill_null(0)
            for value in plan.value_columns:
                total = names.event_sum(event, value, days)
                done[total] = rows[total].fill_null(0).cast("float64") / float(names.FIXED_POINT)
        for wide, narrow in plan.steps:
            done[names.event_ratio(wide, narrow, days)] = counts[narrow].cast("float64") / counts[wide].nullif(0).cast(
                "float64"
            )
    since = partial(days_since, ds=ds, timezone=plan.timezone, first_day=plan.first_day, last_day=plan.last_day)
    for name in (names.DAYS_SINCE_FIRST_EVENT, names.DAYS_SINCE_LAST_EVENT):
        done[name] = since(rows[name])
    for name in plan.times(entity):
        age = since(rows[name])
        done[names.days_since_time(name)] = (age < 0).ifelse(ibis.null("float64"), age)
    if entity == USER_ID:
        done |= {name: rows[name] for name in map(names.preference, plan.preference_columns)}
    return done


def _left_join(left: ibis.Table, right: ibis.Table, key: str) -> ibis.Table:
    joined = left.left_join(right, key)
    return joined.select(*left.columns, *(name for name in right.columns if name != key))


def check_generated_names(entity: str, source: Sequence[str], plan: FeaturePlan) -> None:
    """Raises a SchemaError if generated columns have the same name, or a source column has the name of a generated column."""
    table, generated = f"{entity.removesuffix('_id')}_table", plan.generated(entity)
    got, remedy = "two, from different events and values", "rename an event or value column"
    repeated = [name for name, count in Counter(generated).items() if count > 1]
    faults = [Fault(f"generated column {name}", "one meaning", got, remedy) for name in repeated]
    expected, remedy = "a name that is not generated", "rename it in the tables section of the configuration"
    conflicts = set(generated) & set(source)
    faults += [Fault(f"table {table}, column {name}", expected, "a source column", remedy) for name in conflicts]
    SchemaError.raise_if(faults)
