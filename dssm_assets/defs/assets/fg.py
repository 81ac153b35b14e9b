"""Group fg: feature generation, once per entity and day, so that training and inference read the same encoded rows."""

from dssm_assets.defs.asset_factory import AssetRow, CheckRow
from dssm_assets.defs.lazy_steps import steps_of

sample = steps_of("sample")

GROUP = "fg"
_KINDS = frozenset({"arrow", "parquet"})
_PARITY = CheckRow("fg_parity", "Golden rows of the day give the same features in bulk and as single requests.")

ROWS = (
    AssetRow(
        name="item_features_fg",
        group=GROUP,
        runs_on_engine=True,
        step=sample.item_features_fg,
        deps=("item_all_feature",),
        component="6",
        kinds=_KINDS,
        description="Encoded item features: numbers as float32, categories as 64-bit hashes. Not bucketised, so it never "
        "depends on a window.",
        checks=(_PARITY,),
        reading="One row per item. Differing columns under fg_parity mean that a live request would not see what training "
        "saw: do not ship.",
    ),
    AssetRow(
        name="user_features_fg",
        group=GROUP,
        runs_on_engine=True,
        step=sample.user_features_fg,
        deps=("user_all_feature",),
        component="7",
        kinds=_KINDS,
        description="Encoded user features: numbers as float32, categories as 64-bit hashes. Not bucketised.",
        checks=(_PARITY,),
        reading="One row per user. A new user gets the same features from a request, through the same generator.",
    ),
    AssetRow(
        name="user_history_fg",
        group=GROUP,
        runs_on_engine=True,
        step=sample.user_history_fg,
        deps=("user_history",),
        component="7",
        kinds=_KINDS,
        description="The encoded sequence features of the day's part of each user's history.",
        checks=(_PARITY,),
        reading="One row per user with a positive event on the day, aligned with user_history: histories are encoded "
        "once, on the day they happen.",
    ),
)
