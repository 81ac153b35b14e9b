"""The row of the asset `vector_store`."""

from dssm_assets.defs.asset_row import AssetRow, CheckRow, LazyStep
from dssm_assets.defs.asset_table import PUBLISHING_GROUP

ROWS = (
    AssetRow(
        group=PUBLISHING_GROUP,
        step=LazyStep("extras.vector_stores.publish", "vector_store"),
        deps=("serving_bundle",),
        is_windowed=True,
        is_on_request=True,
        section="vector_store",
        kinds=frozenset({"arrow"}),
        pool="publisher",
        checks=(
            CheckRow(
                "stored_vectors",
                "The store has every row, 100 of its vectors equal the bundle's, and its index finds at least .95 of the exact "
                "lists.",
                is_blocking=True,
            ),
        ),
        description="The vectors of the served bundle in a vector store: LanceDB, PostgreSQL with pgvector, Qdrant or Milvus. They are "
        "written as a draft, compared, and then served in one step. The store follows deltas and rollbacks of the bundle. Jobs run it if "
        "the configuration has the section `vector_store`.",
        reading="One version of the store. If the check fails, the version before it stays served.",
    ),
)
