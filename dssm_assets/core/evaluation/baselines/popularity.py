"""Baseline `popularity`: the items with the most positive events in the window, the same list for all users."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dssm_assets.core.arrays.ragged import IntArray
from dssm_assets.core.evaluation.baselines.fit_data import Arrays, FitData
from dssm_assets.core.evaluation.interactions import Interactions


@dataclass(frozen=True)
class PopularityScorer:
    """One order of all items for all users."""

    name: str
    order: IntArray
    """int64 [I], best first."""

    def top_items(self, user_rows: IntArray, k: int) -> IntArray:
        first = np.full(k, -1, dtype=np.int64)
        first[: len(self.order)] = self.order[:k]
        return np.tile(first, (len(user_rows), 1))


def fit(data: FitData) -> Arrays:
    """Returns the items by their positive events in the window."""
    return {"order": data.popularity_order}


def scorer(arrays: Arrays, window: Interactions, history: Interactions) -> PopularityScorer:
    """Returns the scorer of any users."""
    return PopularityScorer("popularity", arrays["order"])
