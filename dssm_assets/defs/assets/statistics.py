"""Group statistics: what the window says about each feature, from partials that are counted once per day."""

from dssm_assets.defs.asset_factory import AssetRow
from dssm_assets.defs.lazy_steps import steps_of

statistics = steps_of("statistics")

GROUP = "statistics"
_KINDS = frozenset({"arrow", "parquet"})

ROWS = (
    AssetRow(
        name="numeric_value_counts",
        group=GROUP,
        runs_on_engine=True,
        step=statistics.numeric_value_counts,
        deps=("positive_sample",),
        component="4",
        kinds=_KINDS,
        description="Exact histogram of every numeric feature over the day's positives: the mergeable part of binning.",
        reading="One row per feature and value. Merged over the window without reading a sample again.",
    ),
    AssetRow(
        name="category_value_counts",
        group=GROUP,
        runs_on_engine=True,
        step=statistics.category_value_counts,
        deps=("positive_sample",),
        component="5",
        kinds=_KINDS,
        description="Frequency of every value of every categorical feature over the day's positives: the mergeable part of counts.",
        reading="One row per feature and value. A feature whose distinct values grow every day is an id in disguise: hash "
        "it, or drop it.",
    ),
    AssetRow(
        name="feature_binning",
        group=GROUP,
        step=statistics.feature_binning,
        deps=("training_window",),
        component="4",
        is_windowed=True,
        kinds=_KINDS,
        description="Equal-frequency boundaries of every numeric feature over the window, exact, bins [a, b).",
        reading="One row per numeric feature. A feature with one bin says nothing to the towers.",
    ),
    AssetRow(
        name="feature_counts",
        group=GROUP,
        step=statistics.feature_counts,
        deps=("training_window",),
        component="5",
        is_windowed=True,
        kinds=_KINDS,
        description="Distinct values and their frequencies of every categorical feature over the window: the vocabularies.",
        reading="One row per categorical feature and value. Look here when a vocabulary is larger than the catalogue.",
    ),
)
