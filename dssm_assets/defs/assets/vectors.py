"""Group vectors: both towers run over the encoded features as of the day before."""

from dssm_assets.defs.asset_factory import AssetRow, CheckRow
from dssm_assets.defs.experiments import ExperimentSettings
from dssm_assets.defs.lazy_steps import steps_of

vectors = steps_of("vectors")

GROUP = "vectors"
_KINDS = frozenset({"pytorch", "parquet"})
_DRIFT = CheckRow(
    "vector_drift",
    "After alignment by a rotation, the vectors of the ids that the partition before has too point where they pointed: mean "
    "cosine at least gate.min_vector_cosine.",
)

ROWS = (
    AssetRow(
        name="item_vectors",
        group=GROUP,
        step=vectors.item_vectors,
        deps=("dssm_model",),
        component="13",
        is_windowed=True,
        settings=ExperimentSettings,
        kinds=_KINDS,
        checks=(
            CheckRow(
                "structure",
                "One vector of output_dim floats per corpus item: ids unique, none null, all finite, none all zeros.",
                is_blocking=True,
            ),
            _DRIFT,
        ),
        description="item_id and item_tower_emb (float32), one row per corpus item.",
        reading="One row per item. vector_drift compares with the day before after a rotation: a jump means a new model, "
        "not new items.",
    ),
    AssetRow(
        name="user_vectors",
        group=GROUP,
        step=vectors.user_vectors,
        deps=("dssm_model",),
        component="14",
        is_windowed=True,
        settings=ExperimentSettings,
        kinds=_KINDS,
        checks=(
            CheckRow(
                "structure",
                "One vector of output_dim floats per user of the day before: ids unique, none null, all finite, none all zeros.",
                is_blocking=True,
            ),
            _DRIFT,
        ),
        description="user_id and user_tower_emb (float32), one row per user, with the history up to the end of the day before.",
        reading="One row per user of the day before. Users who came on the evaluation day have none, and count as cold.",
    ),
)
