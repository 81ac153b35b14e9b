"""Own history: what the user took before, most often first. Hard to beat where people buy the same things again.

Belongs here: the scorer; over the window it is `own_history_window`, over everything `own_history_all`.
Does not belong here: which days count, which the caller decides by the interactions it hands in.

Shapes: B users of a block, I items, E distinct (user, item) pairs, K top-k.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dssm_assets.core.evaluation.baselines.fill import fill_up
from dssm_assets.core.evaluation.interactions import Interactions
from dssm_assets.core.retrieval.exclusions import Exclusions, Index


@dataclass(frozen=True)
class OwnHistory:
    """The user's own items by (count descending, last time descending, item_index ascending), then popular ones."""

    name: str
    indptr: Index
    """int64 [V + 1]"""
    ranked: Index
    """int64 [E], each user's items, best first."""
    order: Index
    """int64 [I], what lists are filled up with."""
    block_size: int = 256

    def top_items(self, user_rows: Index, k: int, excluded: Exclusions | None) -> Index:
        """Returns item_index int64 [B, K]."""
        ranked = Exclusions(self.indptr, self.ranked).take(user_rows)
        user, items = np.repeat(np.arange(len(user_rows)), ranked.lengths), ranked.indices
        if excluded is not None:
            width = len(self.order)
            banned = np.repeat(np.arange(len(user_rows)), excluded.lengths) * width + excluded.indices
            is_free = ~np.isin(user * width + items, banned)
            user, items = user[is_free], items[is_free]
        # A long history fills the list by itself: no more of it than the list holds is looked at.
        column = np.arange(len(user)) - np.searchsorted(user, user)
        own = np.full((len(user_rows), k), -1, dtype=np.int64)
        own[user[column < k], column[column < k]] = items[column < k]
        return fill_up(own, self.order, k, excluded)


def fit_own_history(name: str, interactions: Interactions, order: Index) -> OwnHistory:
    """Returns the scorer for the given interactions."""
    keys = (interactions.item_index, -interactions.last_time_ms, -interactions.count, interactions.user_index)
    return OwnHistory(name, interactions.indptr, interactions.item_index[np.lexsort(keys)], order)
