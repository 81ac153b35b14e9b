"""Group features_raw: statistics, preferences and histories as of the end of each day, computed incrementally."""

from dssm_assets.defs.asset_row import AssetRow
from dssm_assets.defs.lazy_steps import steps_of

features_raw = steps_of("features_raw")

_KINDS = frozenset({"ibis", "duckdb", "parquet"})

ROWS = (
    AssetRow(
        name="behavior",
        runs_on_engine=True,
        step=features_raw("behavior"),
        deps=("behavior_table", "user_table", "item_table"),
        kinds=_KINDS,
        is_log=True,
        description="The day's log with hour, weekday and the item columns that histories and preferences use.",
        reading="One row per event of the day. unknown_users and unknown_items in the metadata count those without a row in "
        "user_table or item_table.",
    ),
    AssetRow(
        name="user_activity",
        runs_on_engine=True,
        step=features_raw("user_activity"),
        deps=("behavior",),
        kinds=_KINDS,
        is_rolling=True,
        description="Rolling state per user and event: counts and value sums over 1, 3, 7, 15, 30 days and in total, first and "
        "last time. Computed as the previous day's state plus the day minus the day that leaves each window; rebuilt from all "
        "days if the previous one is missing.",
        reading="One row per user seen so far. Cheap if days are materialized in order, expensive for a single day: without the "
        "previous day it reads every earlier day.",
    ),
    AssetRow(
        name="item_activity",
        runs_on_engine=True,
        step=features_raw("item_activity"),
        deps=("behavior",),
        kinds=_KINDS,
        is_rolling=True,
        description="Rolling state per item and event, computed like user_activity.",
        reading="One row per item seen so far. Look at its counts before you blame a model for lists full of popular items.",
    ),
    AssetRow(
        name="pair_activity",
        runs_on_engine=True,
        step=features_raw("pair_activity"),
        deps=("behavior",),
        kinds=_KINDS,
        is_rolling=True,
        description="The last day of each user, item and event within the longest window. Distinct counts are computed from it.",
        reading="One row per user, item and event. It is the largest rolling table: its row count bounds the cost of a day.",
    ),
    AssetRow(
        name="user_preferences",
        runs_on_engine=True,
        step=features_raw("user_preferences"),
        deps=("behavior",),
        kinds=_KINDS,
        is_rolling=True,
        description="Per user, item column and value: positive events of the last days (category -> count), for lookup_feature.",
        reading="One row per user, item column and value. Empty unless raw_features.preference_columns names columns.",
    ),
    AssetRow(
        name="user_history",
        runs_on_engine=True,
        step=features_raw("user_history"),
        deps=("behavior",),
        kinds=_KINDS,
        is_log=True,
        description="The day's positive items of each user in order of time, with item attributes. A longer history is read from "
        "several days, so each event is stored once.",
        reading="One row per user with a positive event on the day. Sequence features are computed from it; window.history_days "
        "sets how far back.",
    ),
    AssetRow(
        name="user_all_feature",
        runs_on_engine=True,
        step=features_raw("user_all_feature"),
        deps=("user_table", "user_activity", "pair_activity", "user_preferences"),
        kinds=_KINDS,
        description="Profile, counts, funnel ratios, distinct items, value sums, days since first and last event, and "
        "preferences of every user, as of the end of the day.",
        reading="One row per user. `user:` expressions in fg.json can name exactly its columns: see the column schema.",
    ),
    AssetRow(
        name="item_all_feature",
        runs_on_engine=True,
        step=features_raw("item_all_feature"),
        deps=("item_table", "item_activity", "pair_activity"),
        kinds=_KINDS,
        description="Source columns, counts, funnel ratios, distinct users, value sums, and days since first and last event of "
        "every item, as of the end of the day.",
        reading="One row per item. `item:` expressions in fg.json can name exactly its columns: see the column schema.",
    ),
)
