"""The table of hard negatives as edges by user.

Belongs here: reading hard_negatives.arrow, and its check. Does not belong here: drawing from it (`core/models/samplers`)
and making it (`core/samples/hard_negatives`).

Letters: U users, E edges.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from dssm_assets.core.errors import Fault, SchemaError
from dssm_assets.core.models.bags import offsets_of
from dssm_assets.core.models.samplers.hard import HardEdges
from dssm_assets.core.models.table_view import TableView
from dssm_assets.core.samples.specs import DAY, ITEM_INDEX, USER_INDEX
from dssm_assets.core.training.sample_checks import range_faults, whole


def hard_edges(table: pa.Table, *, num_users: int, num_items: int) -> HardEdges:
    """Returns the edges of hard_negatives.arrow; a table in one chunk is not copied.

    Args:
        table: user_index, item_index and day int32, sorted by user and item, each pair once.
        num_users: U, rows of users.arrow.
        num_items: items of the corpus.

    Raises:
        SchemaError: a column is missing, of another type, has nulls or points outside; rows are not sorted or not distinct.
    """
    view = TableView(table, "hard_negatives", dict.fromkeys((USER_INDEX, ITEM_INDEX, DAY), pa.int32()))
    if not table.num_rows:
        return HardEdges.none()
    faults = range_faults(view, "hard_negatives", USER_INDEX, num_users)
    faults += range_faults(view, "hard_negatives", ITEM_INDEX, num_items)
    if faults:
        raise SchemaError(faults)
    users, items, days = (whole(view, column) for column in (USER_INDEX, ITEM_INDEX, DAY))
    step, same = np.diff(users), np.diff(items) <= 0
    wrong = np.flatnonzero((step < 0) | ((step == 0) & same))
    if len(wrong):
        got = f"row {int(wrong[0]) + 1} that does not come after the row before it"
        where, expected = "table hard_negatives", "rows sorted by user_index and item_index, each pair once"
        raise SchemaError(Fault(where, expected, got, "make train_samples again"))
    return HardEdges(offsets_of(np.bincount(users, minlength=num_users)), items, days)
