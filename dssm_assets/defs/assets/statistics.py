"""Group statistics: each feature's values over the window, merged from partial counts of each day."""

from dssm_assets.defs.asset_row import AssetRow
from dssm_assets.defs.lazy_steps import steps_of

statistics = steps_of("statistics")

_KINDS = frozenset({"arrow", "parquet"})

ROWS = (
    AssetRow(
        name="numeric_value_counts",
        runs_on_engine=True,
        step=statistics("numeric_value_counts"),
        deps=("positive_sample",),
        component="4",
        kinds=_KINDS,
        description="Exact value counts of every numeric feature over the day's positives, from which feature_binning is merged.",
        reading="One row per feature and value. The window merges them without reading samples again.",
    ),
    AssetRow(
        name="category_value_counts",
        runs_on_engine=True,
        step=statistics("category_value_counts"),
        deps=("positive_sample",),
        component="5",
        kinds=_KINDS,
        description="Value counts of every categorical feature over the day's positives, from which feature_counts is merged.",
        reading="One row per feature and value. A feature that gains distinct values every day is really an id: hash it, or drop "
        "it.",
    ),
    AssetRow(
        name="feature_binning",
        step=statistics("feature_binning"),
        deps=("training_window",),
        component="4",
        is_windowed=True,
        kinds=_KINDS,
        description="Exact equal-frequency boundaries of every numeric feature over the window; bins are [a, b).",
        reading="One row per numeric feature. A feature with one bin carries no information.",
    ),
    AssetRow(
        name="feature_counts",
        step=statistics("feature_counts"),
        deps=("training_window",),
        component="5",
        is_windowed=True,
        kinds=_KINDS,
        description="Distinct values of every categorical feature over the window and their counts: the vocabularies.",
        reading="One row per categorical feature and value. Look here if a vocabulary is larger than the catalogue.",
    ),
)
