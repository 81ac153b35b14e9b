"""Hit rates of any recommender on a split: one evaluator for ours and for every peer.

    hit_rate@200 = sum over users of |top 200 and truth| / sum over users of |truth|

Candidates are all items of the training part, found exactly. Filtered: without items that the user interacted with in the training
part. Unfiltered: with them.

Shapes: V users with truth, U users, I items, D vector width, K length of the lists, S seeds, P truth pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from dssm_assets.core.arrays.ordering import top_k
from dssm_assets.core.arrays.ragged import ItemSets
from dssm_assets.core.evaluation.hits import hit_ranks
from dssm_assets.core.evaluation.rates import resampled_sums
from dssm_assets.core.retrieval.exact import Corpus, search
from dssm_assets.core.retrieval.vectors import Metric
from dssm_assets_tests.benchmarks.quality_data import Ints, Split

K = 200
BLOCK = 256
RESAMPLES = 1000
FILTERED, UNFILTERED = "filtered", "unfiltered"


class Recommender(Protocol):
    """Whatever can list items for users."""

    def lists(self, users: Ints, k: int, excluded: ItemSets | None) -> Ints:
        """Returns the k best items of each user [V, K], -1 where there is none."""


@dataclass(frozen=True)
class ByVectors:
    """Lists by the inner product of vectors [U, D] and [I, D]."""

    users: npt.NDArray[np.float32]
    items: npt.NDArray[np.float32]

    def scale(self, factor: float) -> ByVectors:
        """Returns vectors whose products are these times a factor above 0."""
        root = np.float32(factor**0.5)
        return ByVectors(self.users * root, self.items * root)

    def lists(self, users: Ints, k: int, excluded: ItemSets | None) -> Ints:
        return search(Corpus(self.items, Metric.IP), self.users[users], k, excluded=excluded)[0]


@dataclass(frozen=True)
class ByScores:
    """Lists by a dense block of scores: a function of users to the scores of all items."""

    score: Callable[[Ints], npt.NDArray[Any]]

    def lists(self, users: Ints, k: int, excluded: ItemSets | None) -> Ints:
        found = np.full((len(users), k), -1, np.int64)
        for begin in range(0, len(users), BLOCK):
            rows = np.arange(begin, min(begin + BLOCK, len(users)))
            scores = np.array(self.score(users[rows]))
            if excluded is not None:
                left_out = excluded.select_users(rows)
                scores[left_out.users, left_out.items] = -np.inf
            found[rows] = top_k(scores, k)
        return found


def rank_truth(recommender: Recommender, split: Split) -> dict[str, Ints]:
    """Returns variant -> position of each truth pair in its user's list, K if the list lacks it [P]."""
    ranks = {}
    for variant, excluded in ((FILTERED, split.seen()), (UNFILTERED, None)):
        lists = recommender.lists(split.eval_users, K, excluded)
        found = hit_ranks(lists, split.truth_row, split.truth_item)
        ranks[variant] = np.where(found < lists.shape[1], found, K)  # a corpus below K has shorter lists
    return ranks


def hit_rate(ranks: Ints, split: Split) -> tuple[float, float]:
    """Returns hit_rate@200, and the standard error that other users would make: its deviation over resampled users."""
    hits = np.bincount(split.truth_row[ranks < K], minlength=len(split.eval_users))
    sums = resampled_sums(np.stack([hits, split.truth_counts()], axis=1), RESAMPLES, seed=0)
    return float(hits.sum() / split.truth_counts().sum()), float((sums[:, 0] / sums[:, 1]).std())


def mean_metrics(ranks: Ints, split: Split, names: Sequence[str]) -> dict[str, float]:
    """Returns HR@k, Recall@k and NDCG@k by their names, means over users; users with unknown items alone count as missed.

    Recall@k is the share of a user's items among the first k, and HR@k the same of a single held-out item. NDCG@k is the sum of
    1 / log2(rank + 2) over ranks below k, divided by that of the best list. By hand: ranks 0 and 30 of two items: Recall@20 .5,
    NDCG@20 1 / (1 + .631) = .613.
    """
    users, counts = len(split.eval_users) + split.lost_users, split.truth_counts()
    gains, found = 1.0 / np.log2(np.arange(K) + 2.0), {}
    for name in names:
        kind, _, k = name.partition("@")
        is_hit = ranks < int(k)
        best = np.cumsum(gains)[np.minimum(counts, int(k)) - 1] if kind == "NDCG" else counts
        parts = gains[ranks[is_hit]] if kind == "NDCG" else 1.0
        found[name] = float((parts / best[split.truth_row[is_hit]]).sum() / users)
    return found
