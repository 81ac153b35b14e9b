"""Group fg: features, generated once per entity and day, so that training and inference read the same encoded rows."""

from dssm_assets.defs.asset_row import AssetRow, CheckRow
from dssm_assets.defs.lazy_steps import steps_of

sample = steps_of("sample")

_KINDS = frozenset({"arrow", "parquet"})
_PARITY = CheckRow("fg_parity", "Golden rows of the day get the same features in bulk and as single requests.")

ROWS = (
    AssetRow(
        name="item_features_fg",
        runs_on_engine=True,
        step=sample("item_features_fg"),
        deps=("item_all_feature",),
        component="6",
        kinds=_KINDS,
        feature_source="item_all_feature",
        description="Encoded item features: numbers as float32, categories as 64-bit hashes. They are not bucketised yet, so they "
        "depend on no window.",
        checks=(_PARITY,),
        reading="One row per item. If fg_parity names a column, a live request would see another value than training did: do "
        "not ship.",
    ),
    AssetRow(
        name="user_features_fg",
        runs_on_engine=True,
        step=sample("user_features_fg"),
        deps=("user_all_feature",),
        component="7",
        kinds=_KINDS,
        feature_source="user_all_feature",
        description="Encoded user features: numbers as float32, categories as 64-bit hashes, not bucketised yet.",
        checks=(_PARITY,),
        reading="One row per user. For a new user, the same generator computes the same features from a request.",
    ),
    AssetRow(
        name="user_history_fg",
        runs_on_engine=True,
        step=sample("user_history_fg"),
        deps=("user_history",),
        component="7",
        kinds=_KINDS,
        is_log=True,
        feature_source="user_history",
        description="The encoded sequence features of each user's history, the part of the day.",
        checks=(_PARITY,),
        reading="One row per user with a positive event on the day, aligned with user_history: an event is encoded once, on "
        "its day.",
    ),
)
