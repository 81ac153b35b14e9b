"""Completes ranked lists from one common order, so that every baseline hands out full lists.

Belongs here: the completion and the common order. Does not belong here: how a baseline ranks.

Shapes: B users of a block, I items, M ranked items per user, K top-k.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dssm_assets.core.arrays.ragged import Exclusions, IntArray
from dssm_assets.core.evaluation.places import Asked, count_below


def order_by_events(item_events: IntArray) -> IntArray:
    """Returns all item indices int64 [I], most positive events first, then item_index ascending."""
    return np.argsort(-item_events, kind="stable").astype(np.int64)


def place_of(order: IntArray) -> IntArray:
    """Returns int64 [I], the place of each item in an order of all of them."""
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order))
    return place


def places_behind(ranked_row: IntArray, ranked_place: IntArray, asked: Asked, pair_place: IntArray, k: int) -> IntArray:
    """Returns int64 [P], items before a pair's in lists of ranked items filled up from an order, for pairs that are not ranked.

    These are the row's ranked items and what stands before it in the order, ranked items not counted twice. Exact below k and
    as many more as the user took; from there on some number that is no lower than that.

    Args:
        ranked_row: int64 [E], row of each ranked item of the block.
        ranked_place: int64 [E], its place in the order.
        asked: the pairs.
        pair_place: int64 [P], place of each pair's item in the order.
        k: length of the lists.
    """
    enough = k + int(asked.taken.lengths.max(initial=0))
    ranked = np.bincount(ranked_row, minlength=len(asked.user_rows))
    near = ranked_place < enough
    place = np.minimum(pair_place, enough)  # an item so far back is missed however many ranked ones are before it in the order
    return ranked[asked.pair_row] + place - count_below(ranked_row[near], ranked_place[near], asked.pair_row, place)


def fill_up(ranked: IntArray, order: IntArray, k: int, excluded: Exclusions | None) -> IntArray:
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
    unused = _unused(user, items, order, num_users, k)
    stretch = order[: unused.shape[1]]
    candidates = np.concatenate([ranked, np.broadcast_to(stretch, (num_users, len(stretch)))], axis=1)
    valid = np.concatenate([keep_ranked, unused], axis=1)
    rank = np.cumsum(valid, axis=1) - 1
    chosen = valid & (rank < k)
    result = np.full((num_users, k), -1, dtype=np.int64)
    row, _ = np.nonzero(chosen)
    result[row, rank[chosen]] = candidates[chosen]
    return result


def _unused(user: IntArray, items: IntArray, order: IntArray, num_users: int, k: int) -> NDArray[np.bool_]:
    """Returns bool [B, S], which of the first S of the order each user has not used; S is as short as leaves each k of them.

    Args:
        user: of each used item [E].
        items: used items [E].
        order: every item once [I].
        num_users: B.
        k: items that each user needs; fewer only where the order has no more.
    """
    places, length = place_of(order)[items], min(2 * k, len(order))
    while True:
        unused = np.ones((num_users, length), dtype=bool)
        near = places < length
        unused[user[near], places[near]] = False
        if length == len(order) or unused.sum(axis=1).min(initial=k) >= k:
            return unused
        length = min(2 * length, len(order))
