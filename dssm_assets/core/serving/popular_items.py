"""The items that a user of whom nothing is known gets: the most taken ones of the last days.

Belongs here: their order. Does not belong here: counting (`core/samples/negative_items.py`).
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dssm_assets.core.columns import COUNT, ITEM_ID
from dssm_assets.core.samples.id_index import IdIndex


def popular_items(positive_counts: pa.Table, item_index: IdIndex) -> pa.Table:
    """Returns item_id, count of the corpus items that were taken: most taken first, then ascending by id.

    Args:
        positive_counts: item_id, count, one row per item.
        item_index: the corpus; items outside it are left out, since they cannot be recalled.
    """
    rows = item_index.lookup(positive_counts.column(ITEM_ID), where=f"positive counts, column {ITEM_ID}")
    counts = positive_counts.column(COUNT).to_numpy()
    kept = np.flatnonzero((rows >= 0) & (counts > 0))
    table = pa.table({ITEM_ID: item_index.ids.take(pa.array(rows[kept])), COUNT: pa.array(counts[kept].astype(np.int64))})
    order = pc.sort_indices(table, [(COUNT, "descending"), (ITEM_ID, "ascending")])
    return table.take(order).combine_chunks()
