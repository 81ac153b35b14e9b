"""NDCG@k with binary relevance: how far up in a list a user's items are.

Source: Järvelin and Kekäläinen, "Cumulated gain-based evaluation of IR techniques" (2002), section 2, with the logarithmic
discount from the first place on that recommender systems use.

Shapes: U evaluated users, P truth pairs.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dssm_assets.core.arrays.ragged import IntArray


def user_ndcg(pair_user: IntArray, ranks: IntArray, truth_count: IntArray, k: int) -> NDArray[np.float64]:
    """Returns NDCG@k of each user, float64 [U]; NaN for a user without truth.

    DCG = sum over the user's items among the first k of 1 / log2(rank + 2), ranks from 0. NDCG = DCG / ideal DCG, which is
    that of a list that begins with min(k, truth count) of the user's items.

    By hand: k = 3, two items to find, one of them second in the list: DCG = 1 / log2(3) = .631, ideal 1 + .631 = 1.631, NDCG
    = .387. Were it first: 1 / 1.631 = .613.

    Args:
        pair_user: int64 [P], the user of each truth pair.
        ranks: int64 [P], place of the pair's item in the user's list, from 0; k or more if it is not there.
        truth_count: int64 [U], items of each user to find.
    """
    discounts = 1 / np.log2(np.arange(k) + 2.0)
    ideal = np.concatenate([[0.0], np.cumsum(discounts)])[np.minimum(truth_count, k)]
    is_hit = ranks < k
    gained = np.bincount(pair_user[is_hit], weights=discounts[ranks[is_hit]], minlength=len(truth_count))
    with np.errstate(invalid="ignore"):
        result: NDArray[np.float64] = gained / ideal
    return result
