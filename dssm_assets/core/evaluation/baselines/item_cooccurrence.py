"""Baseline `item_cooccurrence`: items that many users interacted with next to the user's own (`neighbors.py`), then popular items."""

from __future__ import annotations

from dataclasses import dataclass

from dssm_assets.core.arrays.ragged import IntArray
from dssm_assets.core.evaluation.baselines.fill import fill_up
from dssm_assets.core.evaluation.baselines.fit_data import Arrays, FitData
from dssm_assets.core.evaluation.baselines.neighbors import NeighborLists, csr_of
from dssm_assets.core.evaluation.interactions import Interactions


@dataclass(frozen=True)
class ItemCooccurrenceScorer:
    """Items by the sum of their similarities to the user's items; popular ones follow."""

    lists: NeighborLists
    order: IntArray
    """int64 [I], what lists are filled up from."""
    name: str = "item_cooccurrence"

    def top_items(self, user_rows: IntArray, k: int) -> IntArray:
        return fill_up(self.lists.top_items(user_rows, k), self.order, k)


def fit(data: FitData) -> Arrays:
    """Returns each item's most similar others as csr arrays, and the order from which lists are filled up."""
    found = data.neighbors
    return {"starts": found.indptr, "items": found.indices, "similarities": found.data, "order": data.popularity_order}


def scorer(arrays: Arrays, window: Interactions, history: Interactions) -> ItemCooccurrenceScorer:
    """Returns the scorer of the window's users."""
    neighbors = csr_of(arrays["starts"], arrays["items"], arrays["similarities"])
    return ItemCooccurrenceScorer(NeighborLists(window.indptr, window.item_index, neighbors), arrays["order"])
