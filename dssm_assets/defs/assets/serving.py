"""Group serving: what recall answers from."""

from dssm_assets.defs.asset_factory import AssetRow, CheckRow
from dssm_assets.defs.lazy_steps import steps_of

serving = steps_of("serving")

GROUP = "serving"

ROWS = (
    AssetRow(
        name="serving_bundle",
        group=GROUP,
        step=serving.serving_bundle,
        deps=(
            "total_hit_rate",
            "item_vectors",
            "user_vectors",
            "user_features_fg",
            "item_features_fg",
            "user_history_fg",
        ),
        is_windowed=True,
        kinds=frozenset({"onnx", "faiss", "arrow"}),
        pool="publisher",
        checks=(
            CheckRow(
                "exported_towers",
                "The exported towers, run by onnxruntime from their files, give the trained towers' vectors.",
                is_blocking=True,
            ),
            CheckRow(
                "index_recall",
                "The index finds the asked-for share of the exact lists at every evaluation.k.",
                is_blocking=True,
            ),
        ),
        description="What recall answers from: both towers as ONNX, feature definitions and configuration, the item index with "
        "its measured recall, and vectors of all users and items as of the end of the day. Published by one pointer, the bundles "
        "before it kept; a bundle whose check fails is not published.",
        reading="One bundle. `dssm-assets rollback` serves the one before it again; index_recall in the metadata is what "
        "the index costs against exact search.",
    ),
)
