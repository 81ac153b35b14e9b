"""Fills ranked lists up from one common order, so that every baseline gives full lists.

Shapes: B users of a block, I items, M ranked items per user, K top-k.
"""

from __future__ import annotations

import numpy as np

from dssm_assets.core.arrays.ragged import IntArray
from dssm_assets.core.evaluation.scorer import keep_first


def order_by_events(item_events: IntArray) -> IntArray:
    """Returns all item indices int64 [I], most positive events first, then item_index ascending."""
    return np.argsort(-item_events, kind="stable").astype(np.int64)


def fill_up(ranked: IntArray, order: IntArray, k: int) -> IntArray:
    """Returns int64 [B, K]: the ranked items, then the first of `order` that are not among them.

    Where fewer than k items exist the row ends in -1. Example: ranked [7, -1], order [3, 7, 5], k 3 -> [7, 3, 5].

    Args:
        ranked: int64 [B, M], distinct within a row, -1 after the last.
        order: int64 [I], every item once.
    """
    most = ranked.shape[1]
    is_short = ~(ranked[:, :k] >= 0).all(axis=1) if most >= k else np.ones(len(ranked), np.bool_)
    if is_short.all():
        return _fill_up(ranked, order, k)
    lists = ranked[:, :k].astype(np.int64)
    if is_short.any():
        lists[is_short] = _fill_up(ranked[is_short], order, k)
    return lists


def _fill_up(ranked: IntArray, order: IntArray, k: int) -> IntArray:
    num_users, most = ranked.shape
    fill = order[: k + most]  # at most M of these are ranked already, so K are left wherever the corpus has them
    is_unused = np.ones((num_users, len(fill)), dtype=bool)
    if most and len(fill):
        by_item = np.argsort(fill)
        found = by_item[np.minimum(np.searchsorted(fill, ranked, sorter=by_item), len(fill) - 1)]
        row, column = np.nonzero(fill[found] == ranked)
        is_unused[row, found[row, column]] = False
    candidates = np.concatenate([ranked, np.broadcast_to(fill, is_unused.shape)], axis=1)
    return keep_first(candidates, np.concatenate([ranked >= 0, is_unused], axis=1), k)
