"""The popular items of a bundle: the list for a user without vector and features."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dssm_assets.core.arrays.ids import IdIndex
from dssm_assets.core.columns import COUNT, ITEM_ID


def rank_popular_items(positive_counts: pa.Table, item_index: IdIndex) -> pa.Table:
    """Returns item_id, count of the corpus items with a positive event: by count, descending, then by id.

    Args:
        positive_counts: item_id, count, one row per item.
        item_index: the corpus; other items cannot be recalled and are left out.
    """
    rows = item_index.lookup(positive_counts.column(ITEM_ID), where=f"positive counts, column {ITEM_ID}")
    counts = positive_counts.column(COUNT).to_numpy()
    kept = np.flatnonzero((rows >= 0) & (counts > 0))
    table = pa.table({ITEM_ID: item_index.ids.take(pa.array(rows[kept])), COUNT: pa.array(counts[kept].astype(np.int64))})
    order = pc.sort_indices(table, [(COUNT, "descending"), (ITEM_ID, "ascending")])
    return table.take(order).combine_chunks()
