"""Baseline `neighbors_recent`: neighbours times recent popularity, a simple list for logs whose favourites change by the day.

Score of an item: ln(1 + 20 c / the user's largest c) + 3 ln(1 + r) / the largest such value. Here c is the sum of its cosine
similarities to the user's last ten items, from users of the window's last 30 days, and r its recent events.

Shapes: V users, B users of a block, I items, K top-k.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from dssm_assets.core.arrays.ordering import pad_rows, take_top, top_k
from dssm_assets.core.arrays.ragged import IntArray, row_of_value
from dssm_assets.core.evaluation.baselines.fit_data import Arrays, FitData, order_by_events
from dssm_assets.core.evaluation.interactions import Interactions
from dssm_assets.core.evaluation.item_neighbors import NeighborLists, csr_of, last_item_weights

DAYS: Final = 30
GAIN: Final = 20.0
RECENT_WEIGHT: Final = 3.0


def score_neighbors(summed: NDArray[np.float64], largest: NDArray[np.float64] | float) -> NDArray[np.float64]:
    """Returns ln(1 + 20 c / the user's largest c) of sums c; 0 where the largest is 0."""
    return np.asarray(np.log1p(GAIN * summed / np.maximum(largest, 1e-12)))


@dataclass(frozen=True)
class NeighborsRecentScorer:
    """Ranks items by the product of neighbours and recent popularity."""

    lists: NeighborLists
    values: NDArray[np.float64]
    """float64 [I], the score of an item without neighbours."""
    order: IntArray
    """int64 [I], all items by these values, best first."""
    name: str = "neighbors_recent"

    def top_items(self, user_rows: IntArray, k: int) -> IntArray:
        summed, left_out = self.lists.score_items(user_rows), self.lists.left_out(user_rows)
        row, near = row_of_value(summed.indptr), summed.indices
        gains = score_neighbors(summed.data, largest_of_rows(summed)[row])
        # Items without neighbours: only the first can be in a list.
        first = self.order[: k + int(left_out.lengths.max(initial=0))]
        place = np.full(len(self.order), -1)
        place[first] = np.arange(len(first))
        totals, is_first = np.tile(1.0 + self.values[first], (len(user_rows), 1)), place[near] >= 0
        totals[row[is_first], place[near[is_first]]] += gains[is_first]
        own, own_place = left_out.users, place[left_out.items]
        totals[own[own_place >= 0], own_place[own_place >= 0]] = -np.inf
        # Other neighbours that are better than the k-th of the first.
        values, width = 1.0 + self.values[near] + gains, min(k, len(first))
        least = -np.partition(-totals, width - 1, axis=1)[:, width - 1]
        is_other = ~is_first & (values >= least[row])
        is_other[is_other] = ~left_out.contains(row[is_other], near[is_other])
        others = np.bincount(row[is_other], minlength=len(user_rows))
        items = np.hstack((np.broadcast_to(first, totals.shape), pad_rows(others, near[is_other], -1)))
        return take_top(items, top_k(np.hstack((totals, pad_rows(others, values[is_other], -np.inf))), k, items))


def largest_of_rows(matrix: Any) -> NDArray[np.float64]:
    """Returns the largest value of each row of a csr matrix [B, I], at least 0."""
    largest, has_any = np.zeros(matrix.shape[0]), np.diff(matrix.indptr) > 0
    if has_any.any():
        largest[has_any] = np.maximum.reduceat(matrix.data, matrix.indptr[:-1][has_any])
    return largest


def score_recent(data: FitData) -> NDArray[np.float64]:
    """Returns the part of each item's score from recent popularity, float64 [I]."""
    recent = np.log1p(data.recent_events)
    return np.asarray(RECENT_WEIGHT * recent / max(recent.max(initial=0.0), 1e-12))


def fit(data: FitData) -> Arrays:
    """Returns neighbours of the last days as csr arrays, scores by recent popularity alone, and the item order by these."""
    found, values = data.find_neighbors(min(DAYS, data.window_days)), score_recent(data)
    csr = {"starts": found.indptr, "items": found.indices, "similarities": found.data}
    return {**csr, "values": values, "order": order_by_events(values)}


def scorer(arrays: Arrays, window: Interactions, history: Interactions) -> NeighborsRecentScorer:
    neighbors = csr_of(arrays["starts"], arrays["items"], arrays["similarities"])
    weights = last_item_weights(history.indptr, history.last_time_ms)
    lists = NeighborLists(history.indptr, history.item_index, neighbors, weights=weights)
    return NeighborsRecentScorer(lists, arrays["values"], arrays["order"])
