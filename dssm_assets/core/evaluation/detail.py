"""What was recalled for each user: the list, its hits and its misses. This table answers questions about single users.

Shapes: U users, B users of a block, K top-k.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from dssm_assets.core.arrays.ragged import IntArray, Mask, build_lists, offsets_of
from dssm_assets.core.columns import IS_WARM_USER, TRUTH_COUNT, USER_ID
from dssm_assets.core.evaluation.hits import hit_ranks, sums_per_user
from dssm_assets.core.evaluation.segments import TIERS, Cuts, segment_column, tier_columns, tiers_of_items
from dssm_assets.core.evaluation.truth import Truth
from dssm_assets.core.retrieval.exact import Scores


def hit_rate_detail(top_items: IntArray, top_scores: Scores, truth: Truth, cuts: Cuts, *, item_ids: pa.Array) -> pa.Table:
    """Returns one row per user with truth from given lists.

    Columns of `list_columns`, then warm_hits and warm_truth_count, which cover only warm items of warm users:
    sum(warm_hits) / sum(warm_truth_count) is the headline hit rate. Every segment of users has a column segment_{name}; with
    tiers of items there are also hits_{tier} and truth_count_{tier}, which add up to hits and truth_count. An item outside
    the corpus is of the tier unseen.

    Args:
        top_items: int64 [U, K], -1 where there is none.
        top_scores: float32 [U, K].
        truth: the evaluated users, one per row of the lists.
        cuts: segments of these users and tiers of the items.
    """
    ranks = hit_ranks(top_items, truth.pair_user, truth.pair_item)
    found = ranks < top_items.shape[1]
    columns = {
        **list_columns(top_items, top_scores, truth, ranks, item_ids),
        "warm_hits": pa.array(sums_per_user(truth, truth.is_warm & found)),
        "warm_" + TRUTH_COUNT: pa.array(sums_per_user(truth, truth.is_warm)),
        IS_WARM_USER: pa.array(truth.is_warm_user),
    }
    columns |= {segment_column(name): labels for name, labels in cuts.users.items()}
    if cuts.item_tier is not None:
        tiers = tiers_of_items(cuts.item_tier, truth.pair_item)
        for index, tier in enumerate(TIERS):
            hits_in, truth_in = tier_columns(tier)
            columns[hits_in] = pa.array(sums_per_user(truth, found & (tiers == index)))
            columns[truth_in] = pa.array(sums_per_user(truth, tiers == index))
    return pa.table(columns)


def list_columns(
    top_items: IntArray, top_scores: Scores, truth: Truth, ranks: IntArray, item_ids: pa.Array
) -> dict[str, pa.Array]:
    """Returns user_id, topk_ids, topk_scores, hit_ids, bad_ids, hits, truth_count and hit_rate, one row per user.

    topk_ids are the list's items in order; hit_ids are those among them that the user interacted
    with, bad_ids the others. hit_rate = hits / truth_count.

    By hand: list [d, a, b], truth b, d, z: hit_ids [d, b], bad_ids [a], hits 2, truth_count 3, hit_rate 2/3.

    Args:
        top_items: int64 [U, K], distinct within a row, -1 where there is none.
        top_scores: float32 [U, K].
        truth: the users, one per row of the lists.
        ranks: int64 [P], as of `hit_ranks`.
    """
    is_item, is_hit = top_items >= 0, np.zeros(top_items.shape, dtype=bool)
    found = ranks < top_items.shape[1]
    is_hit[truth.pair_user[found], ranks[found]] = True
    hits, truth_count = sums_per_user(truth, found), sums_per_user(truth, np.ones_like(found))

    def ids(mask: Mask) -> pa.Array:
        return build_lists(item_ids.take(pa.array(top_items[mask])), offsets_of(mask.sum(axis=1)))

    return {
        USER_ID: truth.user_ids,
        "topk_ids": ids(is_item),
        "topk_scores": build_lists(pa.array(top_scores[is_item], pa.float32()), offsets_of(is_item.sum(axis=1))),
        "hit_ids": ids(is_hit),
        "bad_ids": ids(is_item & ~is_hit),
        "hits": pa.array(hits),
        TRUTH_COUNT: pa.array(truth_count),
        "hit_rate": pa.array(hits / truth_count),
    }
