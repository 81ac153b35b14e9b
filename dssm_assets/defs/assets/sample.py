"""Group sample: labelled rows with the features of the previous day, and the window to learn from."""

from dssm_assets.defs.asset_row import AssetRow, CheckRow
from dssm_assets.defs.lazy_steps import steps_of

sample = steps_of("sample")

_KINDS = frozenset({"ibis", "duckdb", "parquet"})

ROWS = (
    AssetRow(
        name="sample",
        runs_on_engine=True,
        step=sample("sample"),
        deps=("behavior",),
        component="1",
        kinds=_KINDS,
        description="The day's events as labelled samples: keys, event, time, hour, weekday, context. Label 1 is a positive event.",
        reading="One row per positive or exposure event (per event if no exposure event is configured). The share of label 1 is "
        "the day's conversion rate.",
    ),
    AssetRow(
        name="sample_fg",
        runs_on_engine=True,
        step=sample("sample_fg"),
        deps=("sample", "user_features_fg", "item_features_fg"),
        component="2",
        kinds=_KINDS,
        checks=(
            CheckRow("no_leak", "No feature row is newer than the day before its sample.", is_blocking=True),
            CheckRow("fg_parity", "Golden rows of the day get the same context features in bulk and as single requests."),
        ),
        feature_source="sample",
        description="Samples joined with the encoded features of their user and item as of the previous day, plus context features.",
        reading="One row per sample. It refers to the feature rows of its user and item instead of copying them. "
        "rows_of_unknown_users and rows_of_unknown_items count samples that train on ids and context alone.",
    ),
    AssetRow(
        name="positive_sample",
        runs_on_engine=True,
        step=sample("positive_sample"),
        deps=("sample_fg",),
        component="3",
        kinds=frozenset({"arrow", "parquet"}),
        description="The samples with a positive event, which the towers are trained on. Negatives are sampled from the corpus.",
        reading="One row per positive event. An epoch reads the positives of window.days days.",
    ),
    AssetRow(
        name="training_window",
        step=sample("training_window"),
        may_skip=True,
        deps=("positive_sample", "numeric_value_counts", "category_value_counts", "user_history_fg"),
        is_windowed=True,
        kinds=frozenset({"parquet"}),
        checks=(CheckRow("window_complete", "Every day of the window is materialized.", is_blocking=True),),
        description="The days that the model of this evaluation day learns from, with row counts and digests. A launched run first "
        "makes the days that are missing. The check names what is missing all the same, and blocks everything downstream.",
        reading="One row per table and day of the window.",
    ),
)
