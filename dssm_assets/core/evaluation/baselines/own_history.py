"""Baselines `own_history`: the user's own items, most frequent first, then popular items; from the window or from all days."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dssm_assets.core.arrays.ordering import pad_rows
from dssm_assets.core.arrays.ragged import IntArray, ranges
from dssm_assets.core.evaluation.baselines.fit_data import Arrays, FitData
from dssm_assets.core.evaluation.baselines.popularity import fill_up
from dssm_assets.core.evaluation.interactions import Interactions


@dataclass(frozen=True)
class OwnHistoryScorer:
    """Ranks the user's own items by count, last time (both descending) and item_index; then popular items."""

    name: str
    indptr: IntArray
    """int64 [V + 1]"""
    items: IntArray
    """int64 [E], each user's items, best first."""
    order: IntArray

    def top_items(self, user_rows: IntArray, k: int) -> IntArray:
        starts = self.indptr[user_rows]
        lengths = np.minimum(self.indptr[user_rows + 1] - starts, k)
        return fill_up(pad_rows(lengths, self.items[ranges(starts, lengths)], -1), self.order, k)


@dataclass(frozen=True)
class OwnHistory:
    """The baseline of the window, or of all days."""

    name: str
    reads_all_days: bool

    def fit(self, data: FitData) -> Arrays:
        return {"order": data.popularity_order}

    def scorer(self, arrays: Arrays, window: Interactions, history: Interactions) -> OwnHistoryScorer:
        own = history if self.reads_all_days else window
        best_first = np.lexsort((-own.last_time_ms, -own.count, own.user_index))  # stable, and items ascend
        return OwnHistoryScorer(self.name, own.indptr, own.item_index[best_first], arrays["order"])


WINDOW = OwnHistory("own_history_window", reads_all_days=False)
ALL_DAYS = OwnHistory("own_history_all", reads_all_days=True)
