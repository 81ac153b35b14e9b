"""Group vectors: the outputs of both towers for the encoded features as of the previous day."""

from dssm_assets.defs.asset_row import AssetRow, CheckRow
from dssm_assets.defs.lazy_steps import steps_of

vectors = steps_of("vectors")

_KINDS = frozenset({"pytorch", "parquet"})
_DRIFT = CheckRow(
    "vector_drift",
    "Compared with the previous partition after aligning it by a rotation, the vectors of common ids have a mean cosine of at "
    "least gate.min_vector_cosine.",
)

ROWS = (
    AssetRow(
        name="item_vectors",
        step=vectors("item_vectors"),
        deps=("dssm_model",),
        component="13",
        is_windowed=True,
        kinds=_KINDS,
        checks=(
            CheckRow(
                "structure",
                "One vector of output_dim floats per corpus item; ids are unique, no vector is null, non-finite or all zeros.",
                is_blocking=True,
            ),
            _DRIFT,
        ),
        description="item_id and item_tower_emb (float32), one row per corpus item.",
        reading="One row per item. vector_drift compares with the previous day after a rotation: a jump is caused by a new model, "
        "not by new items.",
    ),
    AssetRow(
        name="user_vectors",
        step=vectors("user_vectors"),
        deps=("dssm_model",),
        component="14",
        is_windowed=True,
        kinds=_KINDS,
        checks=(
            CheckRow(
                "structure",
                "One vector of output_dim floats per user of the previous day; ids are unique, no vector is null, non-finite or all "
                "zeros.",
                is_blocking=True,
            ),
            _DRIFT,
        ),
        description="user_id and user_tower_emb (float32), one row per user, with the history up to the end of the previous day.",
        reading="One row per user of the previous day. Users who are new on the evaluation day have no vector and count as cold.",
    ),
)
