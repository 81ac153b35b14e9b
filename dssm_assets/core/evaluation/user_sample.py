"""A sample of the day's users, where scoring all of them against every item would take too long.

Who is in it follows from who came, the ids and the seed: every scorer and every setting of a day is compared on the same
users. Users come in the same order every day, so who is chosen on a busy day is chosen on a quieter one too, if there.

Belongs here: who is chosen. Does not belong here: what is done with them (`truth.py` on).
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dssm_assets.core.columns import USER_ID
from dssm_assets.core.evaluation.ids import flat
from dssm_assets.core.features.hashing import hash_values


def sampled_users(ground_truth: pa.Table, max_users: int | None, seed: int) -> pa.Table:
    """Returns the rows of as many users as are wanted, those of the least hash of seed and id, in their order.

    Args:
        ground_truth: one row per user.
        max_users: rows at most; None: all of them.
        seed: another one chooses others.
    """
    if max_users is None or ground_truth.num_rows <= max_users:
        return ground_truth
    texts = flat(ground_truth.column(USER_ID)).cast(pa.string())
    hashes = hash_values(pc.binary_join_element_wise(pa.scalar(str(seed)), texts, ":"))
    chosen = np.sort(np.argsort(hashes, kind="stable")[:max_users])
    return ground_truth.take(pa.array(chosen))
