"""Baseline `own_history_window`: what the user interacted with in the window, most often first, then popular items."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dssm_assets.core.arrays.ragged import IntArray, ranges
from dssm_assets.core.evaluation.baselines.fill import fill_up
from dssm_assets.core.evaluation.baselines.fit_data import Arrays, FitData
from dssm_assets.core.evaluation.interactions import Interactions


@dataclass(frozen=True)
class OwnHistoryScorer:
    """The user's own items by (count descending, last time descending, item_index ascending), then popular ones."""

    name: str
    indptr: IntArray
    """int64 [V + 1]"""
    items: IntArray
    """int64 [E], each user's items, best first."""
    order: IntArray
    """int64 [I], what lists are filled up from."""

    def top_items(self, user_rows: IntArray, k: int) -> IntArray:
        starts = self.indptr[user_rows]
        lengths = np.minimum(self.indptr[user_rows + 1] - starts, k)
        own = np.full((len(user_rows), int(lengths.max(initial=0))), -1, dtype=np.int64)
        own[np.arange(own.shape[1]) < lengths[:, None]] = self.items[ranges(starts, lengths)]
        return fill_up(own, self.order, k)


def own_history_scorer(name: str, own: Interactions, order: IntArray) -> OwnHistoryScorer:
    """Returns the scorer of the users of these interactions.

    Args:
        order: what lists are filled up from.
    """
    best_first = np.lexsort((-own.last_time_ms, -own.count, own.user_index))  # stable, and items ascend
    return OwnHistoryScorer(name, own.indptr, own.item_index[best_first], order)


def fit(data: FitData) -> Arrays:
    """Returns the popularity order, from which lists are filled up."""
    return {"order": data.popularity_order}


def scorer(arrays: Arrays, window: Interactions, history: Interactions) -> OwnHistoryScorer:
    """Returns the scorer of the window's users."""
    return own_history_scorer("own_history_window", window, arrays["order"])
