"""Means over users as publications give them: Recall@k (with one held-out item per user: HR@k) and NDCG@k.

    Recall@k = mean over users of |top k and truth| / |truth|
    NDCG@k = mean over users of sum of 1 / log2(rank + 2) over hits / the same sum if the first ranks were all hits

Recall@20 and NDCG@20 of LightGCN (He et al. 2020) are these. hit_rate@k of this project weights users by their number of
held-out items instead (`quality_scores.py`); with one item per user both are the same.

Held-out items that nobody had in the training part count as missed; so do users of whom only such items are held out.

Belongs here: the two formulas and published figures. Does not belong here: lists and ranks (`quality_scores.py`).

Letters: P truth pairs, V users with truth.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from dssm_assets_tests.benchmarks.quality_splits import Ints

PUBLISHED: Final[dict[tuple[str, str], dict[str, dict[str, float]]]] = {
    ("ml-1m", "loo"): {
        "SASRec, sampled softmax (HSTU paper)": {"HR@10": 0.2853, "HR@50": 0.5474, "HR@200": 0.7528, "NDCG@10": 0.1603},
        "HSTU (HSTU paper)": {"HR@10": 0.3097, "HR@50": 0.5754, "HR@200": 0.7716, "NDCG@10": 0.1720},
        "HSTU-large (HSTU paper)": {"HR@10": 0.3294, "HR@50": 0.5935, "HR@200": 0.7839, "NDCG@10": 0.1893},
        "HSTU-large (RecTools)": {"HR@10": 0.3642, "HR@50": 0.6194, "HR@200": 0.8031, "NDCG@10": 0.2164},
    }
}
"""Published figures by data set and split: Zhai et al. 2024 (HSTU), and the benchmark of the library RecTools."""


def recall_at(ranks: Ints, truth_row: Ints, totals: Ints, k: int, lost_users: int = 0) -> float:
    """Returns Recall@k.

    By hand: one user with items at ranks 0 and 7 of two, one with its only item at rank 3, k = 5: (1/2 + 1) / 2 = .75.

    Args:
        ranks: place of each truth pair in its user's list, from 0 [P].
        truth_row: user of each pair [P].
        totals: held-out items of each user [V].
        k: length of the lists.
        lost_users: users without a pair, who count with 0.
    """
    hits = np.bincount(truth_row[ranks < k], minlength=len(totals))
    return float((hits / totals).sum() / (len(totals) + lost_users))


def ndcg_at(ranks: Ints, truth_row: Ints, totals: Ints, k: int, lost_users: int = 0) -> float:
    """Returns NDCG@k; arguments as of `recall_at`.

    By hand: items at ranks 0 and 7 of two, k = 5: 1 / (1 + 1 / log2 3) = .613.
    """
    is_hit = ranks < k
    gains = np.bincount(truth_row[is_hit], 1.0 / np.log2(ranks[is_hit] + 2.0), minlength=len(totals))
    ideal = np.concatenate([[0.0], np.cumsum(1.0 / np.log2(np.arange(k) + 2.0))])
    return float((gains / ideal[np.minimum(totals, k)]).sum() / (len(totals) + lost_users))


def metric_names(split: str, ks: Sequence[int]) -> list[str]:
    """Returns the names of both metrics at every k; with one held-out item per user Recall is HR."""
    recall = "HR" if split == "loo" else "Recall"
    return [f"{name}@{k}" for name in (recall, "NDCG") for k in ks]
