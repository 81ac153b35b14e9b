"""Group features_raw: statistics, preferences and histories as of the end of each day, computed incrementally."""

from dssm_assets.defs.asset_factory import AssetRow
from dssm_assets.defs.lazy_steps import steps_of

features_raw = steps_of("features_raw")

GROUP = "features_raw"
_KINDS = frozenset({"ibis", "duckdb", "parquet"})

ROWS = (
    AssetRow(
        name="behavior",
        group=GROUP,
        runs_on_engine=True,
        step=features_raw.behavior,
        deps=("behavior_table", "user_table", "item_table"),
        kinds=_KINDS,
        description="The day's log with hour, weekday and the item columns that histories and preferences use.",
        reading="One row per event of the day. unknown_users and unknown_items in the metadata say how many act without a "
        "row of their own.",
    ),
    AssetRow(
        name="user_activity",
        group=GROUP,
        runs_on_engine=True,
        step=features_raw.user_activity,
        deps=("behavior",),
        kinds=_KINDS,
        description="Rolling state per user and event: counts and value sums over 1, 3, 7, 15, 30 days and in total, first and "
        "last time. Yesterday's state plus today minus the day that leaves each window; rebuilt from all days where there is none.",
        reading="One row per user, ever seen. Cheap to make in order of days, dear to make alone: without the day before "
        "it reads every day there is.",
    ),
    AssetRow(
        name="item_activity",
        group=GROUP,
        runs_on_engine=True,
        step=features_raw.item_activity,
        deps=("behavior",),
        kinds=_KINDS,
        description="Rolling state per item and event, as user_activity.",
        reading="One row per item, ever seen. Read its counts before blaming a model for popular lists.",
    ),
    AssetRow(
        name="pair_activity",
        group=GROUP,
        runs_on_engine=True,
        step=features_raw.pair_activity,
        deps=("behavior",),
        kinds=_KINDS,
        description="The last day of each user, item and event within the longest window: what distinct counts are read from.",
        reading="One row per user, item and event. It is the largest of the rolling tables: its row count bounds what a "
        "day costs.",
    ),
    AssetRow(
        name="user_preferences",
        group=GROUP,
        runs_on_engine=True,
        step=features_raw.user_preferences,
        deps=("behavior",),
        kinds=_KINDS,
        description="Per user, item column and value: positive events in the last days (category -> count), for lookup_feature.",
        reading="One row per user, item column and value. Empty unless raw_features.preference_columns names columns.",
    ),
    AssetRow(
        name="user_history",
        group=GROUP,
        runs_on_engine=True,
        step=features_raw.user_history,
        deps=("behavior",),
        kinds=_KINDS,
        description="The day's positive items of each user by time, with item attributes. Histories are read across days, "
        "so a day is stored once and never again.",
        reading="One row per user with a positive event on the day. What towers with a history read; window.history_days "
        "says how far back.",
    ),
    AssetRow(
        name="user_all_feature",
        group=GROUP,
        runs_on_engine=True,
        step=features_raw.user_all_feature,
        deps=("user_table", "user_activity", "pair_activity", "user_preferences"),
        kinds=_KINDS,
        description="Every user with profile, counts, funnel ratios, distinct items, value sums, days since first and last "
        "event and preferences, as of the end of the day.",
        reading="One row per user. The columns that `user:` expressions of fg.json can name are exactly these: see the "
        "column schema.",
    ),
    AssetRow(
        name="item_all_feature",
        group=GROUP,
        runs_on_engine=True,
        step=features_raw.item_all_feature,
        deps=("item_table", "item_activity", "pair_activity"),
        kinds=_KINDS,
        description="Every item with its columns, counts, funnel ratios, distinct users, value sums and days since first and "
        "last event, as of the end of the day.",
        reading="One row per item. The columns that `item:` expressions of fg.json can name are exactly these: see the "
        "column schema.",
    ),
)
