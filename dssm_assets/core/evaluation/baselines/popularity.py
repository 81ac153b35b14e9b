"""Popular items: two baselines, and the order for filling up other lists.

Shapes: B users of a block, I items, M ranked items per user, K top-k.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dssm_assets.core.arrays.ragged import IntArray
from dssm_assets.core.evaluation.baselines.fit_data import Arrays, FitData, order_by_events
from dssm_assets.core.evaluation.interactions import Interactions
from dssm_assets.core.evaluation.scorer import keep_first


def order_by_category(items: IntArray, categories: IntArray, window_events: IntArray) -> IntArray:
    """Orders cold items by the events of their category in the window, most first, then by item_index; int64 [C].

    By hand: item 0 of category 1 has 5 events. Items 1, 2 and 3 are cold; item 1 has category 0, items 2 and 3 have category 1.
    The order is 2, 3, 1.

    Args:
        items: item_index of the cold items, ascending [C].
        categories: int64 [I], category of each item of the corpus; -1 for none, ordered last.
        window_events: int64 [I].
    """
    known = categories >= 0
    totals = np.bincount(categories[known], weights=window_events[known], minlength=1)
    value = np.where(categories[items] >= 0, totals[categories[items]], -1.0)
    return items[np.argsort(-value, kind="stable")]


def fill_up(ranked: IntArray, order: IntArray, k: int) -> IntArray:
    """Appends items from `order` to each ranking until it has K distinct items, int64 [B, K]; -1 if items run out.

    Example: ranked [7, -1], order [3, 7, 5], k 3 -> [7, 3, 5].

    Args:
        ranked: int64 [B, M], distinct within a row, -1 after the last.
        order: int64 [I], every item once.
    """
    lists = np.full((len(ranked), k), -1, np.int64)
    lists[:, : ranked.shape[1]] = ranked[:, :k]
    short = np.flatnonzero((lists < 0).any(axis=1) & (len(order) > 0))
    own, fill = ranked[short], order[: k + ranked.shape[1]]  # at most M of these are ranked already
    by_item = np.argsort(fill)
    found = by_item[np.minimum(np.searchsorted(fill, own, sorter=by_item), len(fill) - 1)]
    row, column = np.nonzero(fill[found] == own)
    is_unused = np.ones((len(short), len(fill)), np.bool_)
    is_unused[row, found[row, column]] = False
    candidates = np.concatenate([own, np.broadcast_to(fill, is_unused.shape)], axis=1)
    lists[short] = keep_first(candidates, np.concatenate([own >= 0, is_unused], axis=1), k)
    return lists


@dataclass(frozen=True)
class PopularityScorer:
    """Gives all users the same order of all items."""

    name: str
    order: IntArray
    """int64 [I], best first."""

    def top_items(self, user_rows: IntArray, k: int) -> IntArray:
        first = np.full(k, -1, dtype=np.int64)
        first[: len(self.order)] = self.order[:k]
        return np.tile(first, (len(user_rows), 1))


def fit(data: FitData) -> Arrays:
    """Returns all items by positive events in the window, most first."""
    return {"order": data.popularity_order}


def scorer(arrays: Arrays, window: Interactions, history: Interactions) -> PopularityScorer:
    return PopularityScorer("popularity", arrays["order"])


class Recent:
    """Popularity with decay: an event's weight halves with each half-life (`evaluation.recent`)."""

    @staticmethod
    def fit(data: FitData) -> Arrays:
        return {"order": order_by_events(data.recent_events)}

    @staticmethod
    def scorer(arrays: Arrays, window: Interactions, history: Interactions) -> PopularityScorer:
        return PopularityScorer("recent_popularity", arrays["order"])
