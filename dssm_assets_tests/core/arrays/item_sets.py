"""Sets of items per user from plain sets."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from dssm_assets.core.arrays.ragged import ItemSets


def item_sets(users: Sequence[Collection[int]]) -> ItemSets:
    return ItemSets(np.cumsum([0, *map(len, users)]), np.array([item for one in users for item in sorted(one)], np.int64))
