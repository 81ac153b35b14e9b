"""Completes ranked lists from one common order, so that every baseline hands out full lists.

Belongs here: the completion and the common order. Does not belong here: how a baseline ranks.

Shapes: B users of a block, I items, M ranked items per user, K top-k.
"""

from __future__ import annotations

import numpy as np

from dssm_assets.core.retrieval.exclusions import Exclusions, Index


def order_by_events(item_events: Index) -> Index:
    """Returns all item indices int64 [I], most positive events first, then item_index ascending."""
    return np.argsort(-item_events, kind="stable").astype(np.int64)


def fill_up(ranked: Index, order: Index, k: int, excluded: Exclusions | None) -> Index:
    """Returns int64 [B, K]: the ranked items in their order, then the best of `order` that are not among them.

    Excluded items are left out of both. Where fewer than k items remain the row ends in -1.
    Example: ranked [7, -1], order [3, 7, 5], 3 excluded, k 2 -> [7, 5].

    Args:
        ranked: int64 [B, M], distinct within a row, -1 where there is none.
        order: int64 [I], every item once.
        k: length of the lists.
        excluded: one row per row of ranked.
    """
    num_users, num_items = len(ranked), len(order)
    is_item = ranked >= 0
    user, _ = np.nonzero(is_item)
    items, keep_ranked = ranked[is_item], is_item.copy()
    if excluded is not None:
        banned_user = np.repeat(np.arange(num_users), excluded.lengths)
        keep_ranked[is_item] = ~np.isin(user * num_items + items, banned_user * num_items + excluded.indices)
        user, items = np.concatenate([user, banned_user]), np.concatenate([items, excluded.indices])
    # Of the common order a user can lose at most the items it has used, so a longer stretch is never looked at.
    stretch = order[: k + int(np.bincount(user).max(initial=0))]
    place = np.full(num_items, len(stretch))
    place[stretch] = np.arange(len(stretch))
    used = np.zeros((num_users, len(stretch) + 1), dtype=bool)  # the last column: beyond the stretch
    used[user, place[items]] = True
    candidates = np.concatenate([ranked, np.broadcast_to(stretch, (num_users, len(stretch)))], axis=1)
    valid = np.concatenate([keep_ranked, ~used[:, :-1]], axis=1)
    rank = np.cumsum(valid, axis=1) - 1
    chosen = valid & (rank < k)
    result = np.full((num_users, k), -1, dtype=np.int64)
    row, _ = np.nonzero(chosen)
    result[row, rank[chosen]] = candidates[chosen]
    return result
