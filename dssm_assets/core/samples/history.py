"""Every user's positives in one array by time, and the place in it up to which a sample may look.

Belongs here: the compressed sparse rows (CSR) of histories and the search in them. Does not belong here: making them of
the days (`history_build.py`) and the cut to the last items of a history (the batcher).

Letters: U users, H history rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dssm_assets.core.samples.id_index import IdIndex
from dssm_assets.core.samples.specs import history_schema, users_schema


@dataclass(frozen=True, eq=False)
class HistoryCsr:
    """All users' positives, sorted by (user, event_time_ms, item_id); user u owns rows starts[u] .. ends[u]-1.

    Attributes:
        users: the users by user_index, in ascending order of their id.
        starts: [U] int64, first row of each user.
        ends: [U] int64, row after each user's last.
        item_index: [H] int32, row in the corpus, -1 for an item outside it.
        event_time_ms: [H] int64.
        features: sequence sub-feature -> [H] int32 embedding indices.
    """

    users: IdIndex
    starts: npt.NDArray[np.int64]
    ends: npt.NDArray[np.int64]
    item_index: npt.NDArray[np.int32]
    event_time_ms: npt.NDArray[np.int64]
    features: Mapping[str, npt.NDArray[np.int32]]

    def to_tables(self) -> tuple[pa.Table, pa.Table]:
        """Returns (history.arrow, users.arrow)."""
        history = [
            pa.array(self.item_index),
            pa.array(self.event_time_ms),
            *(pa.array(column) for column in self.features.values()),
        ]
        users = [self.users.ids, pa.array(self.starts), pa.array(self.ends)]
        return (
            pa.Table.from_arrays(history, schema=history_schema(list(self.features))),
            pa.Table.from_arrays(users, schema=users_schema(self.users.ids.type)),
        )


def history_end(
    history: HistoryCsr, user_index: npt.NDArray[np.int32], cutoff_ms: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """Returns, per pair, the first row in the user's part of the history whose time is not before the cutoff.

    So rows starts[u] .. result-1 are exactly the user's positives strictly before the cutoff; others with the same
    timestamp (the rest of a basket) are not among them. A user_index of -1 (no history) gives 0.

    A binary search of all pairs at once: as many rounds as the longest history has bits, comparing times only, so
    it is exact for every int64.
    """
    is_known = user_index >= 0
    # A pair without a user searches the empty stretch 0..0, also when there is no user at all.
    low = np.zeros(len(user_index), dtype=np.int64)
    high = np.zeros(len(user_index), dtype=np.int64)
    low[is_known] = history.starts[user_index[is_known]]
    high[is_known] = history.ends[user_index[is_known]]
    while (open_pairs := np.flatnonzero(low < high)).size:
        middle = low[open_pairs] + (high[open_pairs] - low[open_pairs]) // 2
        is_before = history.event_time_ms[middle] < cutoff_ms[open_pairs]
        low[open_pairs[is_before]] = middle[is_before] + 1
        high[open_pairs[~is_before]] = middle[~is_before]
    return low
