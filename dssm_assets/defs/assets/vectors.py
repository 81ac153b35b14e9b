"""Group vectors: both towers run over the encoded features as of the day before."""

from dssm_assets.defs.asset_factory import AssetRow
from dssm_assets.steps import vectors

GROUP = "vectors"
_KINDS = frozenset({"pytorch", "parquet"})

ROWS = (
    AssetRow(
        name="item_vectors",
        group=GROUP,
        step=vectors.item_vectors,
        deps=("dssm_model",),
        component="13",
        is_windowed=True,
        kinds=_KINDS,
        description="item_id and item_tower_emb (float32), one row per corpus item.",
    ),
    AssetRow(
        name="user_vectors",
        group=GROUP,
        step=vectors.user_vectors,
        deps=("dssm_model",),
        component="14",
        is_windowed=True,
        kinds=_KINDS,
        description="user_id and user_tower_emb (float32), one row per user, with the history up to the end of the day before.",
    ),
)
