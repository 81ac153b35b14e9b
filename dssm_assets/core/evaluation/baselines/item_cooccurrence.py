"""Baseline `item_cooccurrence`: items whose users in the window also interacted with the user's own items."""

from __future__ import annotations

from dataclasses import dataclass

from dssm_assets.core.arrays.ragged import IntArray
from dssm_assets.core.evaluation.baselines.fit_data import Arrays, FitData
from dssm_assets.core.evaluation.baselines.popularity import fill_up
from dssm_assets.core.evaluation.interactions import Interactions
from dssm_assets.core.evaluation.item_neighbors import NeighborLists, csr_of


@dataclass(frozen=True)
class ItemCooccurrenceScorer:
    """Ranks items by the sum of their similarities to the user's items, then popular items."""

    lists: NeighborLists
    order: IntArray
    name: str = "item_cooccurrence"

    def top_items(self, user_rows: IntArray, k: int) -> IntArray:
        return fill_up(self.lists.top_items(user_rows, k), self.order, k)


def fit(data: FitData) -> Arrays:
    """Returns each item's most similar other items as csr arrays, and an order of all items to fill up lists."""
    found = data.find_neighbors(data.window_days)[1]
    return {"starts": found.indptr, "items": found.indices, "similarities": found.data, "order": data.popularity_order}


def scorer(arrays: Arrays, window: Interactions, history: Interactions) -> ItemCooccurrenceScorer:
    neighbors = csr_of(arrays["starts"], arrays["items"], arrays["similarities"])
    return ItemCooccurrenceScorer(NeighborLists(window.indptr, window.item_index, neighbors), arrays["order"])
