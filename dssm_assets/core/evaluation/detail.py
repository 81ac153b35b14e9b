"""What the model recalled for each user, what of it was right and what was not: the table people look into.

Belongs here: the rows per user. Does not belong here: sums over users (`totals.py`, `segments.py`).

Shapes: U evaluated users, B users of a block, K top-k.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from dssm_assets.core.arrays.ragged import IntArray
from dssm_assets.core.columns import IS_WARM_USER, USER_ID
from dssm_assets.core.errors import Fault, InputError
from dssm_assets.core.evaluation.hit_counts import TRUTH_COUNT, sums_per_user
from dssm_assets.core.evaluation.places import hit_ranks
from dssm_assets.core.evaluation.scorer import ModelScorer
from dssm_assets.core.evaluation.segments import TIERS, Cuts, Tier, segment_column, tier_columns
from dssm_assets.core.evaluation.truth import Mask, Truth
from dssm_assets.core.retrieval.exact import Scores


def hit_rate_detail(scorer: ModelScorer, truth: Truth, cuts: Cuts, *, k: int) -> pa.Table:
    """Returns one row per user with truth, sorted by user_id, from the model's lists over all candidates.

    Args:
        scorer: the model.
        truth: the evaluated users and what they took.
        cuts: segments of these users and tiers of the items.
        k: length of the lists.
    """
    blocks = []
    for start in range(0, max(truth.num_users, 1), scorer.block_size):
        users = np.arange(start, min(start + scorer.block_size, truth.num_users))
        top_items, top_scores = scorer.top_k(users, k, None)
        blocks.append(
            detail_of_lists(
                top_items,
                top_scores,
                truth.users_from(start, start + len(users)),
                item_ids=scorer.item_ids,
                cuts=cuts.users_from(start, start + len(users)),
            )
        )
    return pa.concat_tables(blocks)


def detail_of_lists(top_items: IntArray, top_scores: Scores, truth: Truth, *, item_ids: pa.Array, cuts: Cuts) -> pa.Table:
    """Returns one row per user with truth from given lists.

    topk_ids are the list's items in order, -1 and repetitions dropped; hit_ids are those among them that the user took,
    bad_ids the others. hits, truth_count and hitrate = hits / truth_count cover everything the user took, warm_hits and
    warm_truth_count only known items of known users: sum(warm_hits) / sum(warm_truth_count) is the headline hit rate.
    Every segment of users has a column segment_{name}; with tiers of items there are also hits_{tier} and
    truth_count_{tier}, which add up to hits and truth_count. An item outside the corpus is of the tier unseen.

    Args:
        top_items: int64 [U, K], -1 where there is none.
        top_scores: float32 [U, K].
        truth: the evaluated users, one per row of the lists.
        item_ids: the corpus.
        cuts: segments of these users and tiers of the items.

    Raises:
        InputError: if the lists or the segments are not about the truth's users.
    """
    if any(len(given) != truth.num_users for given in (top_items, *cuts.users.values())):
        got = ", ".join([f"{len(top_items)} lists", *(f"{len(cut)} of segment {name}" for name, cut in cuts.users.items())])
        raise InputError(Fault("hit_rate_detail", f"one per user: {truth.num_users}", got, "score the users of this truth"))
    listed = _first_places(top_items)
    found = hit_ranks(top_items, truth.pair_user, truth.pair_item) < top_items.shape[1]
    width = len(item_ids) + 1
    keys = np.arange(truth.num_users)[:, None] * width + top_items
    is_hit = listed & np.isin(keys, truth.pair_user[found] * width + truth.pair_item[found])
    everything = np.ones_like(found)
    truth_count, hits = sums_per_user(truth, everything), sums_per_user(truth, found)
    users = np.flatnonzero(truth_count)

    def ids(mask: Mask) -> pa.Array:
        return pa.ListArray.from_arrays(_offsets(mask[users]), item_ids.take(pa.array(top_items[users][mask[users]])))

    def sums(pairs: Mask) -> pa.Array:
        return pa.array(sums_per_user(truth, pairs)[users])

    scores = pa.array(top_scores[users][listed[users]], pa.float32())
    columns = {
        USER_ID: truth.user_ids.take(pa.array(users)),
        "topk_ids": ids(listed),
        "topk_scores": pa.ListArray.from_arrays(_offsets(listed[users]), scores),
        "hit_ids": ids(is_hit),
        "bad_ids": ids(listed & ~is_hit),
        "hits": pa.array(hits[users]),
        TRUTH_COUNT: pa.array(truth_count[users]),
        "hitrate": pa.array(hits[users] / truth_count[users]),
        "warm_hits": sums(truth.is_warm & found),
        "warm_" + TRUTH_COUNT: sums(truth.is_warm),
        IS_WARM_USER: pa.array(truth.is_warm_user[users]),
    }
    columns |= {segment_column(name): labels.take(pa.array(users)) for name, labels in cuts.users.items()}
    if cuts.item_tier is not None:
        tiers = np.append(cuts.item_tier, TIERS.index(Tier.UNSEEN))[truth.pair_item]
        for place, tier in enumerate(TIERS):
            hits_in, truth_in = tier_columns(tier)
            columns |= {hits_in: sums(found & (tiers == place)), truth_in: sums(tiers == place)}
    return pa.table(columns)


def _first_places(top_items: IntArray) -> Mask:
    """Returns bool [U, K]: an item stands here and for the first time in its row."""
    row, place = np.nonzero(top_items >= 0)
    items = top_items[row, place]
    _, first = np.unique(row * (int(items.max(initial=0)) + 1) + items, return_index=True)
    mask = np.zeros(top_items.shape, dtype=bool)
    mask[row[first], place[first]] = True
    return mask


def _offsets(mask: Mask) -> pa.Array:
    return pa.array(np.concatenate([[0], np.cumsum(mask.sum(axis=1))]).astype(np.int32))
