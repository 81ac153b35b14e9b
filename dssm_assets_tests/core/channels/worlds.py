"""Channels over a corpus of six items, written by hand.

User 0 took item 0 three times, 10 days ago, and item 1 once, yesterday; user 1 took nothing.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from dssm_assets.core.arrays.ragged import IntArray
from dssm_assets.core.channels.channel import DAY_MS, Channel, Float64Array, OwnItems, SharedData, make_channels
from dssm_assets.core.config.channels import ChannelName

NOW_MS = 1000 * DAY_MS
DEPTHS = {
    ChannelName.VECTORS: 3,
    ChannelName.OWN_HISTORY: 6,
    ChannelName.ITEM_TO_ITEM: 3,
    ChannelName.RECENT_POPULARITY: 2,
}
NEAREST = np.array([[5, 0, 2], [4, 5, -1]])
SCORES = np.array([[3.0, -2, 1, -1, 0, 8], [0, 0, 0, 0, 4, 2]])


def shared() -> SharedData:
    """Item 4 is the most popular, item 3 the most popular lately; item 2 goes with item 0, and items 0 and 1 with each other."""
    similarities = np.zeros((6, 6))
    similarities[0, 2], similarities[0, 1], similarities[1, 0] = 0.5, 0.9, 0.9
    return SharedData(
        window_events=np.array([3, 1, 0, 5, 9, 0]),
        recent_events=np.array([0.0, 1, 0, 4, 2, 0]),
        history_events=np.array([4, 1, 3, 5, 9, 1]),
        window_users=np.array([1, 1, 0, 5, 4, 0]),
        neighbors=sp.csr_matrix(similarities),
    )


def own() -> OwnItems:
    return OwnItems(np.array([0, 2, 2]), np.array([0, 1]), np.array([3, 1]), np.array([NOW_MS - 10 * DAY_MS, NOW_MS - DAY_MS]))


class Nearest:
    def top_items(self, user_rows: IntArray, k: int) -> IntArray:
        return NEAREST[user_rows][:, :k]

    def score_items(self, user_rows: IntArray, items: IntArray) -> Float64Array:
        return SCORES[user_rows[:, None], items]


def channels(*, has_vectors: bool = True) -> tuple[Channel, ...]:
    return make_channels(DEPTHS, shared(), own(), Nearest() if has_vectors else None, NOW_MS)
