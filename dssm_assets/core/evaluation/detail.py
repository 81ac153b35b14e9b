"""What the model recalled for each user, what of it was right and what was not: the table people look into.

Belongs here: the rows per user. Does not belong here: sums over users (`totals.py`, `segments.py`).

Shapes: U evaluated users, B users of a block, K top-k.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from dssm_assets.core.columns import IS_WARM_USER, SEGMENT, USER_ID
from dssm_assets.core.errors import Fault, InputError
from dssm_assets.core.evaluation.hit_counts import TRUTH_COUNT, hit_ranks, sums_per_user
from dssm_assets.core.evaluation.scorer import ModelScorer
from dssm_assets.core.evaluation.segments import segment_of
from dssm_assets.core.evaluation.truth import Mask, Truth
from dssm_assets.core.retrieval.exact import Scores
from dssm_assets.core.retrieval.exclusions import Index


def hit_rate_detail(
    scorer: ModelScorer, truth: Truth, window_events: Index, *, k: int, segment_edges: Sequence[int]
) -> pa.Table:
    """Returns one row per user with truth, sorted by user_id, from the model's lists over all candidates.

    Args:
        scorer: the model.
        truth: the evaluated users and what they took.
        window_events: int64 [U or more], positive events of each evaluated user in the window
            (`Interactions.user_events`).
        k: length of the lists.
        segment_edges: bounds of the activity segments.
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
                window_events=window_events[users],
                segment_edges=segment_edges,
            )
        )
    return pa.concat_tables(blocks).combine_chunks()


def detail_of_lists(
    top_items: Index,
    top_scores: Scores,
    truth: Truth,
    *,
    item_ids: pa.Array,
    window_events: Index,
    segment_edges: Sequence[int],
) -> pa.Table:
    """Returns one row per user with truth from given lists.

    topk_ids are the list's items in order, -1 and repetitions dropped; hit_ids are those among them that the user took,
    bad_ids the others. hits, truth_count and hitrate = hits / truth_count cover everything the user took, warm_hits and
    warm_truth_count only known items of known users: sum(warm_hits) / sum(warm_truth_count) is the headline hit rate.

    Args:
        top_items: int64 [U, K], -1 where there is none.
        top_scores: float32 [U, K].
        truth: the evaluated users, one per row of the lists.
        item_ids: the corpus.
        window_events: int64 [U or more].
        segment_edges: bounds of the activity segments.

    Raises:
        InputError: if the lists are not about the truth's users.
    """
    if len(top_items) != truth.num_users or len(window_events) < truth.num_users:
        got = f"{len(top_items)} lists, {len(window_events)} activities"
        raise InputError(Fault("hit_rate_detail", f"one per user: {truth.num_users}", got, "score the users of this truth"))
    listed = _first_places(top_items)
    found = hit_ranks(top_items, truth.pair_user, truth.pair_item) < top_items.shape[1]
    width = len(item_ids) + 1
    keys = np.arange(truth.num_users)[:, None] * width + top_items
    is_hit = listed & np.isin(keys, truth.pair_user[found] * width + truth.pair_item[found])
    everything = np.ones_like(found)
    truth_count, hits = sums_per_user(truth, everything), sums_per_user(truth, found)
    warm_truth, warm_hits = sums_per_user(truth, truth.is_warm), sums_per_user(truth, truth.is_warm & found)
    users = np.flatnonzero(truth_count)

    def ids(mask: Mask) -> pa.Array:
        return pa.ListArray.from_arrays(_offsets(mask[users]), item_ids.take(pa.array(top_items[users][mask[users]])))

    scores = pa.array(top_scores[users][listed[users]], pa.float32())
    return pa.table(
        {
            USER_ID: truth.user_ids.take(pa.array(users)),
            "topk_ids": ids(listed),
            "topk_scores": pa.ListArray.from_arrays(_offsets(listed[users]), scores),
            "hit_ids": ids(is_hit),
            "bad_ids": ids(listed & ~is_hit),
            "hits": pa.array(hits[users]),
            TRUTH_COUNT: pa.array(truth_count[users]),
            "hitrate": pa.array(hits[users] / truth_count[users]),
            "warm_hits": pa.array(warm_hits[users]),
            "warm_" + TRUTH_COUNT: pa.array(warm_truth[users]),
            IS_WARM_USER: pa.array(truth.is_warm_user[users]),
            SEGMENT: segment_of(window_events[users], segment_edges),
        }
    )


def _first_places(top_items: Index) -> Mask:
    """Returns bool [U, K]: an item stands here and for the first time in its row."""
    row, place = np.nonzero(top_items >= 0)
    items = top_items[row, place]
    _, first = np.unique(row * (int(items.max(initial=0)) + 1) + items, return_index=True)
    mask = np.zeros(top_items.shape, dtype=bool)
    mask[row[first], place[first]] = True
    return mask


def _offsets(mask: Mask) -> pa.Array:
    return pa.array(np.concatenate([[0], np.cumsum(mask.sum(axis=1))]).astype(np.int32))
