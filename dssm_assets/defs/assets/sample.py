"""Group sample: labelled rows with the features of the day before, and the window they are learned from."""

from dssm_assets.defs.asset_factory import AssetRow, CheckRow
from dssm_assets.defs.lazy_steps import steps_of

sample = steps_of("sample")


GROUP = "sample"
_KINDS = frozenset({"ibis", "duckdb", "parquet"})

ROWS = (
    AssetRow(
        name="sample",
        group=GROUP,
        runs_on_engine=True,
        step=sample.sample,
        deps=("behavior",),
        component="1",
        kinds=_KINDS,
        description="The day's events as labelled samples: keys, event, time, hour, weekday, context. Label 1: a positive event.",
        reading="One row per positive or exposure event (every event where no exposure is configured). Its label share is "
        "the day's conversion.",
    ),
    AssetRow(
        name="sample_fg",
        group=GROUP,
        runs_on_engine=True,
        step=sample.sample_fg,
        deps=("sample", "user_features_fg", "item_features_fg"),
        component="2",
        kinds=_KINDS,
        checks=(
            CheckRow("no_leak", "No feature row is newer than its sample's day minus one.", is_blocking=True),
            CheckRow("fg_parity", "Golden rows of the day give the same context features in bulk and as single requests."),
        ),
        description="Samples joined with the encoded features of their user and item as of the day before, plus context features.",
        reading="One row per sample: it points to the feature rows of its user and item and copies nothing. "
        "rows_of_unknown_users and _items are samples that train on ids and context alone.",
    ),
    AssetRow(
        name="positive_sample",
        group=GROUP,
        runs_on_engine=True,
        step=sample.positive_sample,
        deps=("sample_fg",),
        component="3",
        kinds=frozenset({"arrow", "parquet"}),
        description="The rows whose event is positive: what the towers are trained on. Negatives are drawn, not logged.",
        reading="One row per positive event. Its rows times window.days is what an epoch costs.",
    ),
    AssetRow(
        name="training_window",
        group=GROUP,
        step=sample.training_window,
        deps=("positive_sample", "numeric_value_counts", "category_value_counts", "user_history_fg"),
        is_windowed=True,
        kinds=frozenset({"parquet"}),
        checks=(CheckRow("window_complete", "Every day of the window is materialized.", is_blocking=True),),
        description="The days that this evaluation day learns from, with rows and digests. Its check names missing days and "
        "the command that fills them, and stops everything behind it.",
        reading="One row per table and day of the window. When a backfill stops here, the message of window_complete is "
        "the command to run.",
    ),
)
