"""Group serving: the bundle that recall answers from."""

from dssm_assets.defs.asset_row import AssetRow, CheckRow
from dssm_assets.defs.lazy_steps import steps_of

serving = steps_of("serving")

ROWS = (
    AssetRow(
        name="serving_bundle",
        step=serving("serving_bundle"),
        deps=(
            "total_hit_rate",
            "item_vectors",
            "user_vectors",
            "user_features_fg",
            "item_features_fg",
            "user_history_fg",
            "user_table",
            "item_table",
        ),
        day_deps=("user_features_fg", "item_features_fg", "user_history_fg", "user_table", "item_table"),
        is_windowed=True,
        kinds=frozenset({"onnx", "faiss", "arrow"}),
        pool="publisher",
        checks=(
            CheckRow(
                "exported_towers",
                "The exported towers, run from their files with onnxruntime, compute the same vectors as the trained towers.",
                is_blocking=True,
            ),
            CheckRow(
                "index_recall",
                "The index finds at least the required share of the exact lists at every evaluation.k.",
                is_blocking=True,
            ),
        ),
        description="What recall answers from: both towers as ONNX, feature definitions and configuration, the item index with "
        "its measured recall, and vectors of all users and items as of the end of the day. Publishing moves one pointer and keeps "
        "the previous bundles. A bundle is not published if a check fails.",
        reading="One bundle. `dssm-assets rollback` serves the previous one again. index_recall in the metadata is the share of "
        "the exact lists that the index finds.",
    ),
)
